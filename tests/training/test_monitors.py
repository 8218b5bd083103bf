"""Monitors read the number of this epoch or of this validation, or are refused in one line."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from training.callbacks_table import Backed
from training.foreign import Samples

from janus_pl import LinearRegressor
from janus_pl.callbacks import (
    EquilibriumResidual,
    GradientNoise,
    LayerRank,
    LayerVelocity,
    MarginHistogram,
    NeuralCollapse,
    NoiseTime,
    RankBound,
    RunCheckpoint,
    Sharpness,
    UpdateSplit,
)
from janus_pl.cli.main import main
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.training.monitors import known_keys


class Reads(EarlyStopping):
    """Early stopping that notes what it reads, and stops nothing."""

    def __init__(self, monitor: str, **options: Any) -> None:
        super().__init__(monitor, patience=1000, verbose=False, **options)
        self.read: list[float] = []

    def _evaluate_stopping_criteria(self, current: Any) -> Any:
        self.read.append(float(current))
        return super()._evaluate_stopping_criteria(current)


def line_problem() -> tuple[Any, Any]:
    torch.manual_seed(0)
    data = LinearProblem(num_train=8, dim=9, outputs=3, batch_size=2)
    return LinearRegressor(learning_rate=0.03), data


@pytest.mark.parametrize("every", [1, 10])
def test_early_stopping_of_a_linear_run_acts(every: int, fit: Any, rows: Any) -> None:
    stop = EarlyStopping("train/loss", patience=2, min_delta=1e9, verbose=False)
    options = {"check_val_every_n_epoch": every}
    trainer = fit(*line_problem(), 200, [stop, LayerRank(1)], **options)
    assert trainer.global_step == 3  # looks, of 12
    assert rows[-1]["epoch"] == 3


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("monitor", ["train/loss_running", "val/loss", "margin/mean"])
def test_a_monitor_reads_the_number_of_this_row(
    monitor: str, every: int, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    reads = Reads(monitor)
    task = small_task(init_scale=0.5, learning_rate=0.3)
    fit(
        *(task, small_loader(), 4, [reads, MarginHistogram(1)]),
        val_loader=small_loader(n=12),
        check_val_every_n_epoch=every,
    )
    values = [row[monitor] for row in rows[1:] if monitor in row]
    assert len(values) == (4 // every if monitor == "val/loss" else 4)
    assert reads.read == pytest.approx(values, rel=1e-6)
    assert len(set(values)) == len(values), "the numbers of two rows differ"


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("monitor", ["train/loss_running", "val/loss"])
def test_a_checkpoint_keeps_the_number_of_its_weights(
    monitor: str,
    every: int,
    fit: Any,
    rows: Any,
    small_task: Any,
    small_loader: Any,
    tmp_path: Path,
) -> None:
    keep = ModelCheckpoint(tmp_path / "kept", monitor=monitor, save_top_k=-1)
    task = small_task(init_scale=0.5, learning_rate=0.3)
    fit(
        *(task, small_loader(), 4, [keep, LayerRank(1)]),
        val_loader=small_loader(n=12),
        check_val_every_n_epoch=every,
        enable_checkpointing=True,
    )
    values = [row[monitor] for row in rows[1:] if monitor in row]
    kept = [float(score) for score in keep.best_k_models.values()]
    assert kept == pytest.approx(values, rel=1e-6)
    rhos = [row["rho"] for row in rows[1:] if monitor in row]
    for path, rho in zip(keep.best_k_models, rhos, strict=True):
        saved = small_task()
        saved.load_state_dict(torch.load(path, weights_only=False)["state_dict"])
        assert float(saved.scale()) == pytest.approx(rho, rel=1e-6)


def test_a_checkpoint_of_a_linear_run_with_rare_validations_is_kept(
    fit: Any, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path / "kept")
    given = [keep, LayerRank(1)]
    options = {"check_val_every_n_epoch": 10, "enable_checkpointing": True}
    fit(*line_problem(), 9, given, **options)
    assert Path(keep.best_model_path).is_file()


def test_early_stopping_of_somebody_elses_module_without_validation_acts(fit: Any) -> None:
    stop = EarlyStopping("own/loss", patience=1, min_delta=1e9, verbose=False)
    samples = Samples().train_dataloader()
    trainer = fit(Backed(), samples, 9, [stop, LayerRank(1)], check_val_every_n_epoch=3)
    assert trainer.current_epoch == 2


UNKNOWN = [
    (lambda name: EarlyStopping(name), "train/los", "EarlyStopping.monitor", "is train/loss"),
    (lambda name: ModelCheckpoint(monitor=name), "rh", "ModelCheckpoint.monitor", "is rho"),
    (lambda name: RunCheckpoint(1, monitor=name), "margin", "RunCheckpoint.monitor", "is margin/"),
    (lambda name: EarlyStopping(name), "rank/conv9", "EarlyStopping.monitor", "is rank/conv"),
    (lambda name: EarlyStopping(name), "val/loss", "EarlyStopping.monitor", "is train/loss"),
]


@pytest.mark.parametrize(("make", "name", "field", "nearest"), UNKNOWN)
def test_a_monitor_that_does_not_exist_is_refused_at_the_start(
    make: Any,
    name: str,
    field: str,
    nearest: str,
    fit: Any,
    rows: Any,
    small_task: Any,
    small_loader: Any,
) -> None:
    given = [make(name), LayerRank(1), MarginHistogram(1)]
    with pytest.raises(UsageError, match=f"^{field}: got '{name}', allowed: .*{nearest}") as error:
        fit(small_task(), small_loader(), callbacks=given, enable_checkpointing=True)
    assert "\n" not in str(error.value)
    assert rows == []


class Logs(Callback):
    """Logs a number of its own."""

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log("mine", float(trainer.current_epoch))


def test_a_number_of_a_users_callback_can_be_monitored(
    fit: Any, small_task: Any, small_loader: Any
) -> None:
    reads = Reads("mine")
    fit(small_task(), small_loader(), 3, [reads, Logs(), LayerRank(1)])
    assert reads.read == [0, 1, 2]


@pytest.mark.parametrize("name", ["own/los", "rank/hea"])
@pytest.mark.parametrize("validates", [True, False])
@pytest.mark.parametrize("kind", ["stop", "keep"])
def test_a_monitor_that_does_not_come_is_one_line_at_the_first_epoch(
    kind: str, validates: bool, name: str, fit: Any, rows: Any, tmp_path: Path
) -> None:
    monitor = EarlyStopping(name) if kind == "stop" else ModelCheckpoint(tmp_path, monitor=name)
    data = Samples()
    val = data.val_dataloader() if validates else None
    given = [monitor, LayerRank(1)]
    line = rf"^{type(monitor).__name__}.monitor: got '{name}', allowed: a valid key, the nearest is"
    with pytest.raises(UsageError, match=line):
        fit(Backed(), data.train_dataloader(), 3, given, val, enable_checkpointing=True)


@pytest.mark.parametrize(
    ("given", "every", "field"),
    [
        (EarlyStopping("rho", check_on_train_epoch_end=False), 1, "check_on_train_epoch_end"),
        (EarlyStopping("val/loss", check_on_train_epoch_end=True), 2, "check_on_train_epoch_end"),
        (
            ModelCheckpoint(monitor="rho", save_on_train_epoch_end=False),
            1,
            "save_on_train_epoch_end",
        ),
    ],
)
def test_a_time_at_which_the_number_is_not_there_is_refused(
    given: Any, every: int, field: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    with pytest.raises(UsageError, match=rf"^\w+\.{field}: got (True|False), allowed: "):
        fit(
            *(small_task(), small_loader(), 2, [given, LayerRank(1)]),
            val_loader=small_loader(),
            check_val_every_n_epoch=every,
            enable_checkpointing=True,
        )
    assert rows == []


def all_looks() -> list[Any]:
    looks = [LayerRank(1), MarginHistogram(1), LayerVelocity(1, 1), EquilibriumResidual(1)]
    looks += [UpdateSplit(1), GradientNoise(1, batch_size=2, batches=2), NeuralCollapse(1)]
    return [*looks, NoiseTime(3, window=8), Sharpness(1, products=9)]


@pytest.mark.parametrize("normalization", ["weight_norm", "per_layer", "lagrange", "none"])
def test_every_key_of_a_deep_row_is_known_before(
    normalization: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(normalization=normalization, learning_rate=1e-3)
    bound = RankBound(1) if normalization == "weight_norm" else LayerRank(0)
    if normalization == "weight_norm":
        task = small_task(optimizer=torch.optim.SGD, weight_decay=0.3)
    loader = small_loader()
    trainer = fit(task, loader, 3, [*all_looks(), bound], val_loader=loader)
    assert unknown(trainer, task, rows) == []
    assert len(rows[-1]) > 60


@pytest.mark.parametrize("decays", [0.01, [0.01, 0.1]])
def test_every_key_of_a_linear_row_is_known_before(decays: Any, fit: Any, rows: Any) -> None:
    task = LinearRegressor(learning_rate=0.03, weight_decay=decays)
    data = LinearProblem(num_train=8, dim=9, outputs=9, batch_size=2)
    looks = [LayerRank(1), MarginHistogram(1), LayerVelocity(1, 1), NoiseTime(10, window=9)]
    trainer = fit(task, data, 50, looks)
    assert unknown(trainer, task, rows) == []
    assert len(rows[-1]) > 30


def unknown(trainer: Any, task: Any, rows: list[dict[str, Any]]) -> list[str]:
    """The numbers of rows under keys that no module and no callback has named."""
    known = known_keys(trainer, task)
    assert known is not None
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, float)}
    return sorted(k for k in numbers if not any(fnmatchcase(k, pattern) for pattern in known))


@pytest.mark.parametrize("config", ["quickstart", "linear/a2"])
@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_on_the_command_line_it_is_exit_code_2_and_nothing_is_made(
    kind: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    path = f"lightning.pytorch.callbacks.{kind}"
    given = json.dumps({"class_path": path, "init_args": {"monitor": "train/los"}})
    assert main(["fit", f"--config={config}.yaml", f"--trainer.callbacks+={given}"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "got" in line]
    assert lines == [
        f"error: {kind}.monitor: got 'train/los', allowed: a valid key, the nearest is train/loss"
    ]
    assert list(tmp_path.iterdir()) == []
