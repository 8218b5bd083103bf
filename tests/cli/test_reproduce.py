"""`make reproduce`: which commands it runs, and when it stops."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from conftest import ROOT

from janus_pl import errors
from janus_pl.cli import reproduce
from janus_pl.cli import subcommands as tools
from janus_pl.cli.config_files import CONFIGS

RECORDED = ROOT / "docs" / "results"


def commands(monkeypatch: pytest.MonkeyPatch, args: list[str], codes: dict[str, int]) -> list:
    """What would be run; each sweep ends with its code, or 0."""
    run: list[list[str]] = []

    def main(command: list[str]) -> int:
        run.append(command)
        return codes.get(command[1], 0)

    monkeypatch.setattr(tools, "main", main)
    run.append([str(reproduce.main(args))])
    return run


def test_every_sweep_is_there_and_the_report_comes_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        Path("images", part).mkdir(parents=True)
    *sweeps, report, verify, code = commands(monkeypatch, ["--data", "images"], {})
    assert code == ["0"]
    for command in sweeps:
        assert command[0] == "sweep"
        assert (CONFIGS / "sweeps" / command[1]).is_file()
        assert ("images" in command) == (not command[1].startswith(("linear", "low_rank")))
    assert len({command[1] for command in sweeps}) == len(sweeps)
    recorded = {path.name.split(".")[0].replace("-", "_") for path in RECORDED.glob("*.jsonl.xz")}
    assert len(recorded) > 30
    assert recorded <= {command[1].removesuffix(".yaml") for command in sweeps}
    assert report[:2] == ["report", str(Path("runs") / "janus_pl")]
    assert verify[-1] == str(Path("report") / "verdicts.json")
    assert "hours" in capsys.readouterr().out.splitlines()[0]


def test_fast_is_said_to_take_minutes_and_needs_no_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    run = commands(monkeypatch, ["--fast"], {})
    assert not [command for command in run if "two_cores" in command[1:2]]
    assert "about 6 minutes" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "goes_on"), [(3, True), (1, True), (130, False), (2, False)])
def test_it_goes_on_past_a_diverged_run_and_stops_when_it_is_stopped(
    code: int, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = commands(monkeypatch, ["--fast"], {"linear_a2.yaml": code})
    assert run[-1] == [str(code)]
    assert (run[-2][0] == "verify") == goes_on
    if not goes_on:
        assert run[-2][1] == "linear_a2.yaml"


@pytest.mark.parametrize("package", ["numba", "plotly"])
def test_a_missing_package_is_one_line_before_the_first_sweep(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == package else ModuleSpec)
    assert commands(monkeypatch, ["--fast"], {}) == [["2"]]
    said = capsys.readouterr()
    assert said.err.startswith(f"error: package {package}: got 'not installed', allowed: the extra")
    assert len(said.err.splitlines()) == 1 and not said.out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--data", "nowhere"], "--data: got 'nowhere', allowed: a folder that holds train/ and"),
        (["--fats"], "reproduce: got '--fats', allowed: a valid option, the nearest is --fast"),
        (["all"], "reproduce: got 'all', allowed: [--fast] [--data DIR]"),
        (["--data"], "--data: got None, allowed: a value"),
    ],
)
def test_a_mistake_is_one_line_before_the_first_sweep(
    args: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands(monkeypatch, args, {}) == [["2"]]
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {line}")
    assert len(said.err.splitlines()) == 1 and not said.out
