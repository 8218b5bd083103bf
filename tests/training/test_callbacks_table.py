"""Every callback of Lightning: its effect is seen in a fit, or it is refused in one line."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.callbacks import ProgressBar as Bar
from lightning.pytorch.loggers import CSVLogger
from training import callbacks_table as table
from training.callbacks_table import Run
from training.foreign import Samples

import janus_pl.training.row
from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerRank
from janus_pl.cli.main import main
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError


def test_no_callback_of_lightning_is_missing() -> None:
    names = set(callbacks.__all__)
    for found in pkgutil.walk_packages(callbacks.__path__, f"{callbacks.__name__}."):
        if not found.name.rpartition(".")[2].startswith("_"):
            for name, value in vars(importlib.import_module(found.name)).items():
                if inspect.isclass(value) and issubclass(value, Callback) and name[0] != "_":
                    names.add(name)
    assert names == set(table.ROWS)


def parts_of(kind: str, small_task: Any, small_loader: Any) -> tuple[Any, dict[str, Any]]:
    """A module of a kind, and what its fit takes."""
    torch.manual_seed(0)
    if kind == "deep":
        loader = small_loader(order="sequential")
        return small_task(), {"train_dataloaders": loader, "val_dataloaders": loader}
    if kind == "linear":
        data = LinearProblem(num_train=8, dim=9, outputs=3, batch_size=2)
        return LinearRegressor(learning_rate=0.03), {"datamodule": data}
    return table.Backed(), {"datamodule": Samples()}


def trainer_of(folder: Path, given: list[Any]) -> Trainer:
    return Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=given,
        enable_progress_bar=any(isinstance(each, Bar) for each in given),
        enable_model_summary=any(isinstance(each, ModelSummary) for each in given),
        enable_checkpointing=any(isinstance(each, callbacks.Checkpoint) for each in given),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows as they are written; they are written, too."""
    kept: list[dict[str, Any]] = []
    write = janus_pl.training.row.write_row

    def keep(trainer: Trainer, row: Any) -> None:
        kept.append(dict(row))
        write(trainer, row)

    monkeypatch.setattr(janus_pl.training.row, "write_row", keep)
    return kept


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on callbacks
@pytest.mark.parametrize(("name", "kind"), table.SUPPORTED)
def test_the_effect_of_a_supported_callback_is_seen(
    name: str,
    kind: str,
    written: Any,
    small_task: Any,
    small_loader: Any,
    tmp_path: Path,
    capfd: Any,
    caplog: Any,
) -> None:
    row = table.ROWS[name]
    module, data = parts_of(kind, small_task, small_loader)
    callback = row.make(kind, tmp_path)
    beside = [row.beside()] if row.beside else []
    trainer = trainer_of(tmp_path, [LayerRank(1), callback, *beside])
    error = None
    try:
        trainer.fit(module, **data)
    except Exception as caught:
        if not beside:
            raise
        error = caught
    captured = capfd.readouterr()
    printed = captured.out + captured.err + caplog.text
    if kind == "foreign":
        data["val_dataloaders"] = data["datamodule"].val_dataloader()
    run = Run(kind, trainer, module, data, callback, written, printed, tmp_path, error)
    assert row.seen is not None
    assert row.seen(run)


@pytest.mark.parametrize(("name", "kind"), table.REFUSED)
def test_a_refused_callback_is_refused_in_one_line_in_a_script(
    name: str, kind: str, written: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    row = table.ROWS[name]
    module, data = parts_of(kind, small_task, small_loader)
    callback = row.make(kind, tmp_path)
    trainer = trainer_of(tmp_path, [LayerRank(1), callback])
    with pytest.raises(UsageError, match=r"^trainer\.callbacks: got ") as caught:
        trainer.fit(module, **data)
    line = str(caught.value)
    assert "\n" not in line
    assert type(callback).__name__ in line
    assert row.refused[kind] in line
    assert written == []
    assert trainer.global_step == 0


def test_a_finetuning_without_a_backbone_is_refused(fit: Any) -> None:
    from training.foreign import Classifier

    tune = callbacks.BackboneFinetuning(1)
    with pytest.raises(UsageError, match=r"BackboneFinetuning.*part `backbone`.*Classifier"):
        fit(Classifier(), Samples().train_dataloader(), callbacks=[LayerRank(1), tune])


LINES = {
    "deep": ["--config=quickstart.yaml"],
    "linear": ["--config=linear/a2.yaml"],
    "foreign": ["--model=training.callbacks_table.Backed", "--data=training.foreign.Samples"],
}


@pytest.mark.parametrize(("name", "kind"), table.REFUSED)
def test_a_refused_callback_is_exit_code_2_and_makes_nothing(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    row = table.ROWS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    path = row.class_path or f"lightning.pytorch.callbacks.{name}"
    given = {"class_path": path, "init_args": row.options}
    assert main(["fit", *LINES[kind], f"--trainer.callbacks+={json.dumps(given)}"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "got" in line]
    assert len(lines) == 1
    assert row.refused[kind] in lines[0]
    assert path.rpartition(".")[2] in lines[0]
    assert list(tmp_path.iterdir()) == []


class Closed(table.Backed):
    """Somebody else's module that trains by LBFGS, whose steps evaluate the loss again."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), 0.1)


def test_somebody_elses_module_may_use_a_closure(fit: Any, rows: Any) -> None:
    fit(Closed(), Samples(batch_size=20).train_dataloader(), 2, [LayerRank(1)])
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[2]["own/loss"] < rows[1]["own/loss"]
