"""The text of a config is made once, and is that of jsonargparse and LightningCLI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from janus_pl.cli import spelled
from janus_pl.cli.base_values import plain
from janus_pl.cli.config_files import complete
from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.cli.main import main

CONFIGS = sorted((ROOT / "configs").glob("*.yaml")) + sorted((ROOT / "configs/linear").glob("*"))


def read(*args: str) -> ConfigReader:
    line = ["fit", *args]
    reader = ConfigReader(line)
    reader.config = reader.parser.parse_args(complete(line))
    return reader


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_parts_get_the_config_that_lightning_cli_would_give_them(config: Path) -> None:
    reader = read("--config", str(config), "--data.seed=3")
    LightningCLI._dump_config(reader)
    theirs: Any = reader.config_dump
    del reader.config_dump
    reader._dump_config()
    assert reader.config_dump == theirs
    assert theirs["model"]["class_path"].startswith("janus_pl")


def test_the_text_is_made_once_and_anew_for_any_other_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = read("--config", "linear/a2.yaml")
    parser, config = reader._parser("fit"), reader.config["fit"]
    made: list[object] = []
    dump = LightningArgumentParser.dump

    def counted(self: Any, namespace: Any, *more: Any, **options: Any) -> str:
        if self is parser:  # those of single classes dump their parts
            made.append(namespace)
        return str(dump(self, namespace, *more, **options))

    monkeypatch.setattr(LightningArgumentParser, "dump", counted)
    text = parser.dump(config, skip_none=False)
    assert parser.dump(config.clone(), skip_none=False) == text and len(made) == 1
    assert text == dump(parser, config, skip_none=False)
    for number, value in enumerate((3, 3.0, True, 1, 1.0), 2):
        config["data"].init_args["informative"] = value
        own = parser.dump(config, skip_none=False, skip_validation=True)
        assert own == dump(parser, config, skip_none=False, skip_validation=True)
        assert len(made) == number, "equal numbers of another type are written otherwise"
    assert parser.dump(config, skip_validation=True) != own, "without what is null"


def test_a_fit_makes_it_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run of a sweep looks for a run to go on with, makes its parts, and writes its config."""
    monkeypatch.chdir(tmp_path)
    made: list[str] = []
    dump = LightningArgumentParser.dump

    def counted(self: Any, *args: Any, **options: Any) -> str:
        if self.default_config_files:
            made.append("config")
        return str(dump(self, *args, **options))

    monkeypatch.setattr(LightningArgumentParser, "dump", counted)
    line = ["fit", "--config", "linear/a2.yaml", "--trainer.max_epochs=3", "--ckpt_path", "last"]
    quiet = ["--trainer.logger=false", "--model.learning_rate=0.01"]
    assert main([*line, *quiet]) == 0
    assert made == ["config"]
    (file,) = tmp_path.rglob("config.yaml")
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert written["trainer"]["max_epochs"] == 3 and written["ckpt_path"] is None


def test_values_of_a_text_are_the_readers_own() -> None:
    """Whoever changes them changes nobody else's."""
    text = "a: [1, {b: 1.5}]\nwhen: ever\n"
    for read_text in (plain, spelled._load):
        first = read_text(text)
        assert first == yaml.safe_load(text)
        first["a"][1]["b"] = "changed"
        first["more"] = 1
        assert read_text(text) == yaml.safe_load(text)


def test_a_text_that_contains_itself_or_is_deep_is_read_as_before() -> None:
    itself = spelled._load("&a [*a]")
    assert itself[0] is itself
    deep = spelled._load("[" * 150 + "]" * 150)
    for _ in range(149):
        (deep,) = deep
    assert deep == []
