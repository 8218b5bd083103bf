"""Which states of a run are kept, and which of them is the best."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from janus_pl import LinearRegressor
from janus_pl.callbacks import RunCheckpoint
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError

KEEP = {"enable_checkpointing": True}


class Say(Callback):
    """A number of every epoch."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics["x"] = torch.tensor(self.values[trainer.current_epoch])


def step_of(tmp_path: Path, name: str) -> int:
    (path,) = tmp_path.rglob(f"{name}.ckpt")
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("options", "values", "best"),
    [
        ({}, (3.0, 1.0, 2.0, math.nan, 1.5), 2),
        ({"mode": "max"}, (3.0, 1.0, 4.0, math.nan, 1.5), 3),
        ({}, (math.nan, 2.0, 3.0, 4.0, 5.0), 2),
        ({"every_n_epochs": 2}, (0.0, 3.0, 0.0, 2.0, 2.5), 4),  # of those saved
        ({"every_n_epochs": 2}, (0.0, 3.0, 0.0, 2.0, 1.0), 5),
    ],
)
def test_the_best_of_the_saved_epochs_and_the_last_are_kept(
    options: Any,
    values: Any,
    best: int,
    small_task: Any,
    small_loader: Any,
    fit: Any,
    tmp_path: Any,
) -> None:
    keep = RunCheckpoint(**{"every_n_epochs": 1, "monitor": "x", **options})
    fit(small_task(), small_loader(batch_size="full"), 5, [Say(*values), keep], **KEEP)
    assert step_of(tmp_path, "best") == best
    assert step_of(tmp_path, "last") == 5
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2
    assert Path(keep.best_model_path).name == "best.ckpt"


@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_nth_epoch_and_the_end(
    n: int, small_task: Any, small_loader: Any, fit: Any, monkeypatch: Any
) -> None:
    saved: list[tuple[str, int]] = []
    save = Trainer.save_checkpoint

    def spy(trainer: Trainer, path: Any, *args: Any) -> None:
        saved.append((Path(path).stem, trainer.global_step))
        save(trainer, path, *args)

    monkeypatch.setattr(Trainer, "save_checkpoint", spy)
    fit(small_task(), small_loader(batch_size="full"), 5, [RunCheckpoint(n)], **KEEP)
    due = sorted({*range(n, 6, n), 5})
    assert [step for name, step in saved if name == "last"] == due


def test_the_default_monitor_is_the_running_loss(
    small_task: Any, small_loader: Any, fit: Any, rows: Any, tmp_path: Path
) -> None:
    task = small_task(learning_rate=0.5)
    fit(task, small_loader(batch_size=3), 8, [RunCheckpoint(1)], **KEEP)
    least = min(rows[1:], key=lambda row: row["train/loss_running"])
    assert step_of(tmp_path, "best") == least["trainer/global_step"]


def test_the_default_monitor_of_linear_regression_is_the_loss(
    fit: Any, rows: Any, tmp_path: Path
) -> None:
    """A rate near the limit of stability: the loss goes up and down."""
    module = LinearRegressor(learning_rate=0.05, schedule="constant", looks_per_decade=50)
    data = LinearProblem(num_train=6, dim=9, outputs=3, batch_size=1, order="shuffle")
    fit(module, data, 40, [RunCheckpoint(1)], **KEEP)
    losses = {row["epoch"]: row["train/loss"] for row in rows[1:]}
    (path,) = tmp_path.rglob("best.ckpt")
    done = torch.load(path, weights_only=True)["linear"]["training"]["done"]
    assert losses[done] == min(losses.values())
    (path,) = tmp_path.rglob("last.ckpt")
    assert torch.load(path, weights_only=True)["linear"]["training"]["done"] == 40


class Foreign(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_that_logs_nothing_has_no_best(
    fit: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loader: Any = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    fit(Foreign(), loader, 3, [RunCheckpoint(1)], **KEEP)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    assert step_of(tmp_path, "last") == 6
    said = [r.getMessage() for r in caplog.records if "no best.ckpt" in r.getMessage()]
    assert said == [
        "RunCheckpoint: no train/loss_running or train/loss is recorded, so no best.ckpt is kept"
    ]


@pytest.mark.parametrize(("monitor", "best"), [("x", 2), ("eta_t", 4)])
def test_a_run_that_goes_on_in_its_folder_knows_its_best(
    monitor: str, best: int, small_task: Any, small_loader: Any, fit: Any, tmp_path: Path
) -> None:
    """Of the same number; the best of another number is another best."""
    say = Say(3.0, 1.0, 2.0, 2.0, 2.0)
    loader = small_loader(batch_size="full")
    fit(small_task(learning_rate=1e-3), loader, 3, [say, RunCheckpoint(1, monitor="x")], **KEEP)
    assert step_of(tmp_path, "best") == 2
    (last,) = tmp_path.rglob("last.ckpt")
    callbacks = [say, RunCheckpoint(2, monitor=monitor)]
    fit(small_task(learning_rate=1e-3), loader, 5, callbacks, ckpt_path=last, **KEEP)
    assert step_of(tmp_path, "last") == 5
    assert step_of(tmp_path, "best") == best


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every_n_epochs": 0}, "RunCheckpoint.every_n_epochs: got 0, allowed: an integer from 1"),
        ({"mode": "least"}, "RunCheckpoint.mode: got 'least', allowed: min, max"),
    ],
)
def test_options_out_of_range(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RunCheckpoint(**options)
