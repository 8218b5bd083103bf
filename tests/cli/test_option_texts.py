"""The help of the trainer's subcommands, read as a person does: our words, and lines that fit."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
import yaml

import janus_pl
import janus_pl.callbacks as callbacks
import janus_pl.data as data
from janus_pl.cli.help import TRAINING
from janus_pl.cli.main import main
from janus_pl.cli.option_texts import CALLBACKS, DATA, MODELS, TEXTS, TITLES
from janus_pl.data import ImagePair, Images, LinearProblem
from janus_pl.run.shipped import base

OF_LIGHTNING = ("``", ":class:", ":paramref:", "Namespace(", "known subclasses", "<class '", "_`")


@pytest.fixture
def helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> dict[str, str]:
    """The help of each subcommand, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    found = {}
    for name in TRAINING:
        with suppress(SystemExit):
            main([name, "--help"])
        found[name] = capsys.readouterr().out
    return found


def options_of(text: str) -> dict[str, str]:
    """Return what a help says of each of its options."""
    found: dict[str, str] = {}
    text = text.partition("\noptions:\n")[2].partition("\nExit codes")[0]
    for part in re.split(r"\n(?=  -)|\n\n", f"\n{text}"):
        if names := re.findall(r"(?:^|, )--([\w.]+)", part.strip().split("\n")[0].split("  ")[0]):
            found[names[-1]] = " ".join(re.split(r"\n {4,}|(?<=\S)  +", part.strip())[1:])
    return found


def test_no_help_has_lightnings_markup_or_a_line_that_is_too_long(helps: dict[str, str]) -> None:
    for name, text in helps.items():
        assert len(text.splitlines()) > 150, name
        assert [line for line in text.splitlines() if len(line) > 80] == []
        assert [mark for mark in OF_LIGHTNING if mark in text] == []
        assert "(type:" not in text.replace("\n", " ")


def test_titles_are_ours(helps: dict[str, str]) -> None:
    titles = {*TITLES.values(), "options", "the options that people use", "usage"}
    for text in helps.values():
        found = re.findall(r"^(\S.*?):(?: |$)", text, re.MULTILINE)
        assert {*found} - {"Exit codes"} <= titles
        assert {"options", "the model", "the data", "options of Lightning's Trainer"} <= {*found}


def test_each_option_has_a_sentence_and_no_sentence_is_of_none(helps: dict[str, str]) -> None:
    known: set[str] = set()
    for name, text in helps.items():
        options = options_of(text)
        known |= {*options}
        assert len(options) > 60, name
        for option, said in options.items():
            assert len(said) > 15 and said.rstrip().endswith("."), option
    assert known >= {*TEXTS} - {"config", "print_config"}
    assert "lerning_rate" not in known  # control


def test_classes_of_this_package_are_named_and_there(helps: dict[str, str]) -> None:
    said = {name: " ".join(text.split()) for name, text in helps.items()}
    assert CALLBACKS.split(", ") == [name for name in callbacks.__all__ if name != "Observer"]
    for name in re.findall(r"janus_pl\.(\w+)", MODELS):
        assert hasattr(janus_pl, name)
    made = {name for name in data.__all__ if is_whole(getattr(data, name))}
    assert set(re.findall(r"[A-Z]\w+", DATA)) == made
    assert CALLBACKS in said["fit"] and MODELS in said["fit"] and DATA in said["fit"]


def is_whole(named: Any) -> bool:
    """Tell whether a class of data is one that a config names, and none to be subclassed."""
    is_class = isinstance(named, type) and issubclass(named, (Images, LinearProblem))
    return is_class and named not in (Images, ImagePair)


def test_defaults_are_those_of_the_base(helps: dict[str, str]) -> None:
    values = yaml.safe_load(base().read_text())
    options = options_of(helps["fit"])
    for name, value in values["trainer"].items():
        said = re.search(r"\(default: (.*?)\)", options[f"trainer.{name}"])
        if not isinstance(value, list | dict):
            assert said and yaml.safe_load(said[1]) == value, name
    for part in ("model", "data"):
        assert f"(default: {values[part]['class_path']})" in options[part]
    assert f"of {base()}" in " ".join(helps["fit"].split())


def test_an_option_of_somebody_elses_class_keeps_its_own_text(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The control: `name` of a module is not the name of a run."""
    (tmp_path / "of_its_own.py").write_text(
        "from lightning.pytorch import LightningModule\n\n\n"
        "class Named(LightningModule):\n"
        '    """A module.\n\n    Args:\n        name: The name of its head.\n    """\n\n'
        '    def __init__(self, name: str = "a"):\n        super().__init__()\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with suppress(SystemExit):
        main(["fit", "--model.help", "of_its_own.Named"])
    assert "The name of its head." in capsys.readouterr().out
