"""The help that is kept: equal to the parser's, quick, and never an old one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from janus_pl.cli import kept_help

ASKED = ["fit", "--help"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "janus_pl" / "help"


def test_the_second_time_it_is_the_same_without_the_import(cache: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "janus_pl", *ASKED]
    done = [subprocess.run(command, capture_output=True, text=True, cwd=ROOT) for _ in range(2)]
    assert [each.returncode for each in done] == [0, 0]
    assert done[0].stdout == done[1].stdout
    assert "--trainer.max_epochs" in done[0].stdout and "Exit codes" in done[0].stdout
    heavy = [" lightning.pytorch" in each.stderr for each in done]
    assert heavy == [True, False]
    assert len([*cache.iterdir()]) == 1


def keep(text: str, code: int = 0, asked: list[str] = ASKED) -> None:
    with pytest.raises(SystemExit), kept_help.keeping(asked):
        print(text)
        raise SystemExit(code)


def test_what_is_printed_is_kept_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert kept_help.read(ASKED) is None
    keep("some text")
    assert capsys.readouterr().out == "some text\n"
    assert kept_help.read(ASKED) == "some text\n"
    assert kept_help.read(["fit", "-h"]) is not None
    assert kept_help.read(["test", "--help"]) is None


@pytest.mark.parametrize("asked", [["fit", "--help", "more"], ["fit"], ["sweep", "--help"], []])
def test_other_command_lines_are_left_alone(
    asked: list[str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("some text", asked=asked)
    assert capsys.readouterr().out == "some text\n"
    assert kept_help.read(asked) is None and not cache.exists()


def test_a_help_that_fails_is_not_kept(cache: Path) -> None:
    keep("half of it", code=1)
    assert kept_help.read(ASKED) is None and not cache.exists()


def test_without_a_cache_folder_it_is_made_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").touch()
    for _ in range(2):
        keep("some text")
        assert capsys.readouterr().out == "some text\n"
        assert kept_help.read(ASKED) is None


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package and a base.yaml in place of ours, a folder of packages, a working directory."""
    for name in ("package", "callbacks", "packages", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "package" / "a.py").write_text("A = 1\n")
    (tmp_path / "base.yaml").write_text("seed_everything: 0\n")
    (tmp_path / "packages" / "lightning-2.6.0.dist-info").mkdir()
    monkeypatch.setattr(kept_help, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(kept_help, "CALLBACKS", tmp_path / "callbacks")
    monkeypatch.setattr(kept_help, "BASE", tmp_path / "base.yaml")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here"), str(tmp_path / "packages")])
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


CHANGES = {
    "a source": lambda root: (root / "package" / "a.py").write_text("A = 2\n"),
    "another source": lambda root: (root / "package" / "b.py").write_text("A = 1\n"),
    "base.yaml": lambda root: (root / "base.yaml").write_text("seed_everything: 1\n"),
    "a version": lambda root: (root / "packages" / "lightning-2.6.0.dist-info").rename(
        root / "packages" / "lightning-2.6.1.dist-info"
    ),
    "a callback": lambda root: (root / "callbacks" / "a.py").write_text("A = 2\n"),
    "the terminal": lambda root: os.environ.update(COLUMNS="100"),
    "colours": lambda root: os.environ.update(NO_COLOR="1"),
    "the parser's variables": lambda root: os.environ.update(JSONARGPARSE_DEBUG="1"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_it_depends_on_makes_it_anew(
    name: str, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    keep("an old text")
    CHANGES[name](sources)
    assert kept_help.read(ASKED) is None


def test_what_it_does_not_depend_on_leaves_it(sources: Path) -> None:
    """The control."""
    keep("some text")
    (sources / "package" / "notes.txt").write_text("nothing\n")
    (sources / "here" / "callbacks.py").write_text("A = 1\n")  # of the user
    assert kept_help.read(ASKED) == "some text\n"


def test_old_texts_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in range(kept_help.KEPT + 3):
        monkeypatch.setenv("COLUMNS", str(80 + width))
        keep("some text")
    assert len([*cache.iterdir()]) == kept_help.KEPT
    assert kept_help.read(ASKED) == "some text\n"
