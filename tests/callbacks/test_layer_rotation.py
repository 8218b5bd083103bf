"""Angles, norms and effective rates on the row, against weights that the test itself keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from record_reader import read_rows
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerRotation
from janus_pl.data import LinearProblem
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.errors import UsageError
from janus_pl.run.logger import RunLogger
from janus_pl.training.subject import Subject

Array = np.ndarray[Any, Any]
EPOCHS, STEPS = 5, 3
KINDS = ("weight_norm", "effective_rate", "rotation", "rotation_since")


class Keep(Callback):
    """All weights after every step, in float64, and before the first."""

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.kept: list[dict[str, Array]] = []

    def keep(self, module: LightningModule) -> None:
        found = self.parameters(module)
        self.kept.append({k: p.detach().double().numpy().copy().ravel() for k, p in found.items()})

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        self.keep(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        self.keep(pl_module)


def angle(a: Array, b: Array) -> float:
    """By the chord: 2 arcsin(|a - b|/2) of unit vectors."""
    return 2 * math.asin(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)) / 2)


def recorded(tmp_path: Path) -> list[dict[str, Any]]:
    import wandb

    wandb.finish()
    return read_rows(tmp_path)


def check(rows: list[dict[str, Any]], kept: list[dict[str, Array]], rate: float, last: int) -> None:
    """Every number of every row that has any: epochs 0, 1, 2, 4 and the last one."""
    seen_at = 0
    for row in rows:
        if not any(key.startswith("weight_norm/") for key in row):
            continue
        step = row["trainer/global_step"]
        for layer, p in kept[step].items():
            assert row[f"weight_norm/{layer}"] == pytest.approx(np.linalg.norm(p), rel=1e-6)
            assert row[f"effective_rate/{layer}"] == pytest.approx(rate / (p @ p), rel=1e-6)
            if step:
                ends = range(step - last + 1, step + 1)
                turned = [angle(kept[t - 1][layer], kept[t][layer]) for t in ends]
                assert row[f"rotation/{layer}"] == pytest.approx(np.mean(turned), rel=1e-6)
                since = angle(kept[seen_at][layer], p)
                assert row[f"rotation_since/{layer}"] == pytest.approx(since, rel=1e-6)
            else:
                assert f"rotation/{layer}" not in row and f"rotation_since/{layer}" not in row
        seen_at = step
    looked = [row["epoch"] for row in rows if "weight_norm/" + next(iter(kept[0])) in row]
    assert looked == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
def test_every_number_of_a_network(
    normalization: str, tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    rate = 1e-4 if normalization == "lagrange" else 0.03
    task = small_task(normalization=normalization, learning_rate=rate, schedule="constant")
    keep = Keep(lambda module: module.parametrization.weights)
    look = LayerRotation(4, steps=2)
    logger = RunLogger(run_dir=tmp_path)
    fit(task, small_loader(), callbacks=[keep, look], epochs=EPOCHS, logger=logger)
    assert len(keep.kept) == EPOCHS * STEPS + 1
    check(recorded(tmp_path), keep.kept, rate, last=2)


class Foreign(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, weight_decay=0.01)


def test_somebody_elses_module(tmp_path: Path, fit: Any) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(12, 6), torch.randint(2, (12,)))
    keep = Keep(lambda module: {"first": module.first.weight, "last": module.last.weight})
    look = LayerRotation(4, steps=8)  # more than an epoch has
    logger = RunLogger(run_dir=tmp_path)
    fit(Foreign(), DataLoader(data, 4), callbacks=[keep, look], epochs=EPOCHS, logger=logger)
    check(recorded(tmp_path), keep.kept, 0.05, last=STEPS)


def test_linear_regression_has_no_angle_of_a_single_step(tmp_path: Path, fit: Any) -> None:
    data = LinearProblem(num_train=7, dim=9, outputs=3, batch_size=2)
    task = LinearRegressor(learning_rate=0.05, schedule="inverse_sqrt", looks_per_decade=9)
    keep = Keep(lambda module: {"fc1": module.weight[0]})
    logger = RunLogger(run_dir=tmp_path)
    fit(task, data, callbacks=[LayerRotation(1), keep], epochs=9, logger=logger)
    rows = [row for row in recorded(tmp_path) if "weight_norm/fc1" in row]
    assert len(rows) > 3
    assert not any("rotation/fc1" in row for row in rows)
    final = keep.kept[-1]["fc1"]
    assert rows[-1]["weight_norm/fc1"] == pytest.approx(np.linalg.norm(final), rel=1e-12)
    rate = 0.05 / math.sqrt(rows[-1]["epoch"])
    assert rows[-1]["effective_rate/fc1"] == pytest.approx(rate / (final @ final), rel=1e-12)
    assert all(0 < row["rotation_since/fc1"] < math.pi for row in rows[1:])


def test_chosen_layers_alone(tmp_path: Path, fit: Any, small_task: Any, small_loader: Any) -> None:
    look = LayerRotation(1, layers=["fc*"])
    fit(
        small_task(), small_loader(), callbacks=[look], epochs=2, logger=RunLogger(run_dir=tmp_path)
    )
    last = recorded(tmp_path)[-1]
    keys = {key for key in last if key.startswith(KINDS)}
    assert keys == {f"{kind}/{layer}" for kind in KINDS for layer in ("fc1", "fc2")}


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 1.5}, {"every_n_epochs": -1}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"callbacks\.LayerRotation\."):
        LayerRotation(**options)


def test_a_subject_that_does_not_know_its_parameters_is_named_once(
    fit: Any, small_task: Any, small_loader: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task = small_task()
    task.matrices = lambda: Subject.matrices(task)
    fit(task, small_loader(), callbacks=[LayerRotation(1)], epochs=3)
    said = [r.getMessage() for r in caplog.records if "LayerRotation" in r.getMessage()]
    assert len(said) == 1 and "not known" in said[0]
