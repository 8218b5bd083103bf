"""W&B's service starts once the command line is read, beside the rest, if the fit has a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.cli import LightningCLI

from janus_pl.cli import lightning_cli
from janus_pl.cli import sweep as tool
from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.sweep.launchers import FIRST

A2 = ["--config", "linear/a2.yaml"]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What the command does, in its order; it ends where it would make its parts."""
    done: list[str] = []

    def make(self: Any) -> None:
        done.append("makes")
        raise UsageError("stop", None, "nothing")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning_cli, "begin", lambda: done.append("begins"))
    monkeypatch.setattr(LightningCLI, "instantiate_classes", make)
    return done


@pytest.mark.parametrize(
    ("args", "begins"),
    [
        (["fit", *A2], True),
        (["fit", *A2, "--trainer.logger=false"], False),
        (["fit", *A2, "--trainer.fast_dev_run=true"], False),
        (["fit", *A2, "--trainer.devices=2"], False),
        (["validate", *A2], False),
    ],
)
def test_it_begins_before_the_parts_are_made(
    args: list[str], begins: bool, order: list[str]
) -> None:
    assert main(args) == 2
    assert order == (["begins", "makes"] if begins else ["makes"])


def test_a_mistake_in_the_command_line_starts_nothing(order: list[str]) -> None:
    assert main(["fit", *A2, "--trainer.max_epochs=many"]) == 2
    assert order == []


def test_options_of_the_trainer_that_are_none_are_left_to_their_check(order: list[str]) -> None:
    Path("trainer.yaml").write_text("trainer: 3\n")
    assert main(["fit", *A2, "--config=trainer.yaml"]) == 2
    assert order == ["makes"]


def test_forked_runs_begin_with_it_if_none_has_several_devices() -> None:
    trainer = {"devices": 1, "strategy": "auto", "logger": None, "fast_dev_run": False}
    one = {"trainer": {**trainer, "callbacks": []}}
    two = {"trainer": {**trainer, "callbacks": [], "devices": 2}}
    assert tool._in_common([one, one])[2] == FIRST
    assert tool._in_common([one, two])[2] is None
    assert tool._in_common([one, {"trainer": 3}])[2] is None, (
        "the run refuses it, and not the sweep"
    )
