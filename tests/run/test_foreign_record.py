"""Somebody else's module has the same record with each logger, and callbacks find it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
import yaml
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from training.test_epoch_rows import Other, loader, looks, rows_of

from janus_pl.run import record
from janus_pl.run.logger import RunLogger
from janus_pl.run.record import RunRecord, _unused, folder_of

LOGGERS: dict[str, Callable[[Path], Any]] = {
    "wandb": lambda folder: WandbLogger(project="p", save_dir=folder),
    "csv": lambda folder: CSVLogger(folder, name="p"),
    "both": lambda folder: [CSVLogger(folder), WandbLogger(project="p", save_dir=folder)],
}


def train(logger: Any, fit: Any, **options: Any) -> Any:
    torch.manual_seed(7)
    more = {"val_loader": loader(True, shuffle=False), "enable_checkpointing": True}
    return fit(Other(), loader(True), 3, looks(), logger=logger, **more, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", LOGGERS.values(), ids=LOGGERS)
def test_the_rows_are_those_of_our_own_logger(
    made: Callable[[Path], Any], fit: Any, tmp_path: Path
) -> None:
    train(RunLogger(run_dir=tmp_path / "own"), fit)
    wandb.finish()
    trainer = train(made(tmp_path / "other"), fit)
    expected = rows_of(tmp_path / "own")
    assert "own/val" in expected[1] and "own/loss" in expected[1]
    assert rows_of(tmp_path / "other") == expected
    (rows,) = (tmp_path / "other").rglob("rows.jsonl")
    folder = rows.parent
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "description.json", "outcome.json", "checkpoints"} <= names
    assert json.loads((folder / "outcome.json").read_text())["exit_code"] == 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["class_path"].endswith("test_epoch_rows.Other")
    assert len(trainer.loggers) == (2 if made is LOGGERS["both"] else 1), "as they were given"
    if made is not LOGGERS["csv"]:
        assert folder == tmp_path / "other" / "p" / wandb.run.id
        assert wandb.run.config["model"]["class_path"] == config["model"]["class_path"]


@pytest.mark.filterwarnings("ignore")
def test_a_script_goes_on_with_its_record_from_its_own_checkpoint(fit: Any, tmp_path: Path) -> None:
    """And from a copy of the checkpoint elsewhere it begins another record."""
    logger = CSVLogger(tmp_path, name="p", version="one")
    fit(Other(), loader(True), 2, looks(), logger=logger, enable_checkpointing=True)
    (checkpoint,) = (tmp_path / "p" / "one" / "checkpoints").iterdir()
    assert [row["epoch"] for row in rows_of(tmp_path / "p")] == [0, 1, 2]
    again = CSVLogger(tmp_path, name="p", version="one")
    fit(Other(), loader(True), 3, looks(), logger=again, enable_checkpointing=True,
        ckpt_path=checkpoint)  # fmt: skip
    assert [row["epoch"] for row in rows_of(tmp_path / "p" / "one")] == [0, 1, 2, 3]
    assert not (tmp_path / "p" / "one-2").exists()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(checkpoint.read_bytes())
    before = (tmp_path / "p" / "one" / "rows.jsonl").read_bytes()
    fit(Other(), loader(True), 3, looks(), logger=again, ckpt_path=copy)
    waited = [2, 3]  # the row of epoch 2 was complete, and waited in the checkpoint
    assert [row["epoch"] for row in rows_of(tmp_path / "p" / "one-2")] == waited
    assert (tmp_path / "p" / "one" / "rows.jsonl").read_bytes() == before


@pytest.mark.filterwarnings("ignore")
def test_how_a_fit_broke_off_is_its_outcome(fit: Any, tmp_path: Path) -> None:
    class Broken(Other):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        fit(Broken(), loader(True), 3, looks(), logger=CSVLogger(tmp_path, version="x"))
    (outcome,) = tmp_path.rglob("outcome.json")
    assert json.loads(outcome.read_text())["exit_code"] == 1
    assert [row["epoch"] for row in rows_of(tmp_path)] == [0, 1]


def test_the_folder_of_a_script_is_found_from_its_loggers(tmp_path: Path) -> None:
    def found(*loggers: Any, first: bool = True) -> Path | None:
        given: Any = SimpleNamespace(
            loggers=[*loggers], is_global_zero=first, default_root_dir=str(tmp_path)
        )
        return folder_of(given)

    w = WandbLogger(project="p", save_dir=tmp_path / "w", id="x")
    c = CSVLogger(tmp_path / "c", name="n", version=3)
    assert found() is None
    assert found(c) == tmp_path / "c" / "n" / "version_3"
    assert found(c, w) == found(w) == tmp_path / "w" / "p" / "x"
    assert found(w, first=False) is None


def test_folders_that_this_process_has_ended_are_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_ended", {tmp_path / "a", tmp_path / "a-2"})
    assert _unused(tmp_path / "a") == tmp_path / "a-3"
    assert _unused(tmp_path / "b") == tmp_path / "b"
    assert RunRecord(tmp_path / "a").folder == tmp_path / "a", "one that is given is as given"
