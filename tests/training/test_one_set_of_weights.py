"""Every number of a row is of one set of weights, whatever changed them before.

The oracle evaluates the weights that the run had when the row was closed: numpy for the ranks, a
network of its own for the outputs, both in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from training.one_set import HOOKS, Changes, Tries, loaders, looks, truth, weights_of, wrong

import janus_pl.training.row
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, MarginHistogram, RunCheckpoint
from janus_pl.errors import UsageError


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Any]]:
    """Every row as it is written, with the weights of that moment."""
    written: list[tuple[dict[str, Any], Any]] = []

    def keep(trainer: Trainer, row: Any) -> None:
        written.append((dict(row), weights_of(trainer.lightning_module)))

    monkeypatch.setattr(janus_pl.training.row, "write_row", keep)
    return written


def trainer_of(folder: Path, callbacks: Any, epochs: int = 3, **options: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, RunCheckpoint) for c in callbacks),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **options,
    )


@pytest.mark.filterwarnings("ignore:.*left out. a callback changed the weights")
@pytest.mark.parametrize("size", [8, "full"], ids=["SGD", "GD"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("way", ["data", "assigned", "in place", "state"])
def test_each_number_of_a_row_is_of_the_weights_of_the_row(
    way: str, hook: str, size: Any, held: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    """Fit, validate, fit, with trials and a callback that changes the weights between the looks."""
    task: DeepReLUClassifier = small_task(weight_decay=0.01, init_scale=0.3).double()
    train, val = loaders(small_loader, size)
    callbacks = looks()
    callbacks.insert(1, Changes(hook, way))
    if way == "data":
        callbacks.append(Tries())
    trainer = trainer_of(tmp_path, callbacks)
    trainer.fit(task, train, val)
    assert [row["epoch"] for row, _ in held] == [0, 1, 2, 3]
    trainer.validate(task, val, verbose=False)
    trainer_of(tmp_path, [*looks(), Changes(hook, way)], epochs=2).fit(task, train, val)
    assert [row["epoch"] for row, _ in held] == [0, 1, 2, 3, 0, 1, 2]
    assert wrong(held, train, val) == []
    steps = [(row["measured_step"], row["trainer/global_step"]) for row, _ in held]
    assert all(a == b for a, b in steps)
    changed = hook in ("on_train_epoch_end", "on_validation_end")
    assert all(("val/loss" in row) == (row["epoch"] > 0 and not changed) for row, _ in held)
    # The oracle finds numbers of the weights of another row.
    mixed = [(held[k][0], held[k - 1][1]) for k in range(1, len(held))]
    assert len(wrong(mixed, train, val)) > 10 * len(mixed)


@pytest.mark.parametrize("size", [8, "full"], ids=["SGD", "GD"])
def test_the_last_row_and_the_last_checkpoint_are_of_the_same_weights(
    size: Any, held: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    """Early stopping ends the run, and then a callback changes the weights in `on_train_end`."""
    task = small_task(weight_decay=0.01, init_scale=0.3).double()
    train, val = loaders(small_loader, size)
    stop = EarlyStopping("train/loss_running", patience=1, min_delta=1e9)
    rare = [MarginHistogram(100), LayerRank(2)]
    callbacks = [*rare, Changes("on_train_end", "data"), stop, RunCheckpoint(100)]
    trainer = trainer_of(tmp_path, callbacks, epochs=9)
    trainer.fit(task, train, val)
    (file,) = tmp_path.glob("**/last.ckpt")
    saved = small_task(weight_decay=0.01, init_scale=0.3).double()
    saved.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    assert [row["epoch"] for row, _ in held] == [0, 1, 2]
    last = held[-1][0]
    assert {"stable_rank/fc1", "val/loss", "rho"} <= set(last)
    assert wrong([(last, weights_of(saved))], train, val) == []
    assert len(wrong([(last, weights_of(task))], train, val)) >= 3, "the task's are others by now"


@pytest.mark.parametrize(
    "average", [StochasticWeightAveraging(0.1), EMAWeightAveraging()], ids=["SWA", "EMA"]
)
@pytest.mark.parametrize("watched", [True, False])
def test_averages_of_weights_are_refused_in_one_line(
    average: Any, watched: bool, fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    callbacks = [average, *(looks() if watched else ())]
    with pytest.raises(UsageError, match=f"trainer.callbacks.*{type(average).__name__}") as error:
        fit(small_task(), small_loader(), callbacks=callbacks)
    assert "\n" not in str(error.value)
    assert rows == []


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_weights_of_half_precision_are_refused_in_one_line(
    precision: Any, fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    with pytest.raises(UsageError, match=f"trainer.precision.*{precision}.*bf16-mixed"):
        fit(small_task(), small_loader(), callbacks=looks(), precision=precision)
    assert rows == []


@pytest.mark.parametrize("size", [8, "full"], ids=["SGD", "GD"])
def test_looks_under_bf16_are_in_float32(
    size: Any, held: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    train, val = (small_loader(batch_size=b) for b in (size, 5))
    task = small_task(weight_decay=0.01, init_scale=0.3)
    fit(task, train, 2, looks(), val_loader=val, precision="bf16-mixed")
    for row, weights in held:
        expected = truth(weights, train.x, train.y)
        if row["epoch"]:
            expected |= {"val/loss": expected["train/loss"]}
        for key, value in expected.items():
            assert row[key] == pytest.approx(value, rel=2e-5, abs=1e-9), key
            # bfloat16 has 8 bits.
    running = [row["train/loss_running"] for row, _ in held[1:]]
    assert all(abs(a / held[0][0]["train/loss"] - 1) < 0.1 for a in running)


@pytest.mark.parametrize(("steps", "epoch"), [(14, 14 / 9), (18, 2), (9, 1), (4, 4 / 9)])
def test_a_run_that_ends_within_an_epoch_says_the_share(
    steps: int, epoch: float, fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    loader = small_loader(n=18, batch_size=2)
    fit(small_task(), loader, -1, [MarginHistogram(5)], max_steps=steps)
    assert rows[-1]["epoch"] == pytest.approx(epoch, rel=1e-12)
    assert rows[-1]["trainer/global_step"] == rows[-1]["measured_step"] == steps
    assert rows[-1]["eta_t"] == pytest.approx(0.03 * steps)


@pytest.mark.parametrize("normalization", ["per_layer", "none"])
def test_the_flows_of_the_norms_under_gd_are_of_one_moment(
    normalization: str, held: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    """d rho_k/dt = 2 nu/rho_k - lambda rho_k, nu and rho_k of the same weights."""
    train, _ = loaders(small_loader, "full")
    task = small_task(
        weight_decay=0.01, init_scale=0.5, learning_rate=0.3, normalization=normalization
    ).double()
    fit(task, train, 3, looks())

    def flows(weights: Any) -> list[float]:
        # Of a network whose front scalar is 1, 2 nu - lambda is rho_dot of `truth`.
        assert abs(weights[1]) == 1
        nu = (truth(weights, train.x, train.y)["equilibrium/rho_dot"] + 0.01) / 2
        norms = [float(w.norm()) for w in weights[0]]
        return [2 * nu / norm - 0.01 * norm for norm in norms]

    keys = [key for key in held[0][0] if key.startswith("equilibrium/rho_dot/")]
    assert len(keys) == 6
    for row, weights in held:
        assert [row[key] for key in keys] == pytest.approx(flows(weights), rel=1e-9)
    late, early = held[-1][0], held[-2][1]
    assert [late[key] for key in keys] != pytest.approx(flows(early), rel=1e-6)
