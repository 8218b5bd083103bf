"""Restoring without the command line: our tasks in a Trainer, and somebody else's module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.errors import UsageError
from janus_pl.training.subjects import Describes


class Save(Checkpoint):
    """Saves at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.path)


class Live(Callback):
    """The options of the optimizer's first group before the first step, and at the end."""

    first: dict[str, Any]
    last: dict[str, Any]

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if not hasattr(self, "first"):
            self.first = {**trainer.optimizers[0].param_groups[0]}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.last = {**trainer.optimizers[0].param_groups[0]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ckpt"


def momentum(value: float) -> Any:
    return lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=value)


def test_a_task_in_a_trainer_has_the_options_of_its_own(
    fit: Any, small_task: Any, small_loader: Any, path: Path, rows: Any
) -> None:
    fit(small_task(), small_loader(), 2, [Save(path)], enable_checkpointing=True)
    live = Live()
    task = small_task(weight_decay=0.25, learning_rate=0.002, optimizer=momentum(0.5))
    fit(task, small_loader(), 3, [live], ckpt_path=path)
    assert live.first["weight_decay"] == 0.25
    assert live.first["lr"] == 0.002
    assert live.first["momentum"] == 0.5
    assert rows[-1]["learning_rate"] == 0.002


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"normalization": "per_layer"}, "model.normalization: got 'per_layer', allowed: 'weight"),
        ({"loss": "logistic"}, "model.loss: got 'logistic', allowed: 'square', as in the"),
        ({"optimizer": torch.optim.Adam}, "model.optimizer: got 'Adam', allowed: SGD, as in the"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_there_too(
    options: dict[str, Any], says: str, fit: Any, small_task: Any, small_loader: Any, path: Path
) -> None:
    fit(small_task(), small_loader(), 1, [Save(path)], enable_checkpointing=True)
    with pytest.raises(UsageError, match=says):
        fit(small_task(**options), small_loader(), 2, ckpt_path=path)


@pytest.mark.parametrize("normalization", ["weight_norm", "per_layer", "lagrange", "none"])
def test_every_normalization_takes_another_lambda(
    normalization: str, fit: Any, small_task: Any, small_loader: Any, path: Path
) -> None:
    options = {"normalization": normalization, "learning_rate": 1e-3}
    fit(small_task(**options), small_loader(), 1, [Save(path)], enable_checkpointing=True)
    task = small_task(**options, weight_decay=0.25)
    trainer = fit(task, small_loader(), 2, ckpt_path=path)
    expected = [g["weight_decay"] for g in task._build_optimizer().param_groups]
    assert [g["weight_decay"] for g in trainer.optimizers[0].param_groups] == expected
    assert 0.25 in expected


def test_a_change_changes_the_weights(
    fit: Any, small_task: Any, small_loader: Any, path: Path
) -> None:
    """As two runs from one checkpoint, and the unchanged one is the whole run."""
    whole = small_task(init_seed=1)
    fit(whole, small_loader(), 2)
    first = small_task(init_seed=1)
    fit(first, small_loader(), 1, [Save(path)], enable_checkpointing=True)
    same, other = small_task(), small_task(weight_decay=0.25)
    for task in (same, other):
        fit(task, small_loader(), 2, ckpt_path=path)
    pairs = list(zip(whole.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not any(torch.equal(a, c) for a, _, c in pairs if a.requires_grad)


def test_early_stopping_has_the_patience_of_its_own(
    fit: Any, small_task: Any, small_loader: Any, path: Path
) -> None:
    def stop(patience: int) -> EarlyStopping:
        return EarlyStopping("train/loss_running", 1e9, patience, verbose=False)

    fit(small_task(), small_loader(), 2, [stop(9), Save(path)], enable_checkpointing=True)
    early = stop(3)
    trainer = fit(small_task(), small_loader(), 20, [early], ckpt_path=path)
    assert early.patience == 3
    assert trainer.current_epoch == 4, "one epoch of two did not improve; two more make three"


# Somebody else's module


class Mine(LightningModule):
    """A module that halves its own rate, which no config knows of."""

    def __init__(self, lr: float = 0.1, weight_decay: float = 0.0, plateau: bool = False) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.plateau = lr, weight_decay, plateau
        self.net = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[0]).square().mean()

    def on_train_epoch_end(self) -> None:
        for group in self.optimizers().param_groups:
            group["lr"] /= 2

    def configure_optimizers(self) -> Any:
        made = torch.optim.SGD(self.parameters(), self.lr, weight_decay=self.weight_decay)
        if not self.plateau:
            return made
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(made, patience=int(self.lr * 100))
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}


def loader() -> Any:
    return DataLoader(TensorDataset(torch.ones(4, 3)), batch_size=2)


def go(fit: Any, module: Any, epochs: int, **options: Any) -> Live:
    live = Live()
    fit(module, loader(), epochs, [Describes(), live, *options.pop("callbacks", [])], **options)
    return live


def test_what_a_module_has_set_stays_unless_the_config_changed(fit: Any, path: Path) -> None:
    keep = {"callbacks": [Save(path)], "enable_checkpointing": True}
    assert go(fit, Mine(), 2, **keep).last["lr"] == 0.025
    assert go(fit, Mine(), 3, ckpt_path=path).first["lr"] == 0.025
    changed = go(fit, Mine(weight_decay=0.5), 3, ckpt_path=path).first
    assert changed["weight_decay"] == 0.5
    assert go(fit, Mine(lr=0.4), 3, ckpt_path=path).first["lr"] == 0.4


class Logs(Mine):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


def test_a_rate_that_follows_from_a_metric_is_kept_or_refused(fit: Any, path: Path) -> None:
    keep = {"callbacks": [Save(path)], "enable_checkpointing": True}
    go(fit, Logs(plateau=True), 1, **keep)
    go(fit, Logs(plateau=True), 2, ckpt_path=path)
    with pytest.raises(UsageError, match="ReduceLROnPlateau', allowed: unchanged options"):
        go(fit, Logs(lr=0.2, plateau=True), 2, ckpt_path=path)
