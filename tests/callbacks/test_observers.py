"""What the callbacks log, against float64 oracles, on a tiny real fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from record_reader import read_rows

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.errors import UsageError
from janus_pl.run.logger import RunLogger

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")


def wandb_rows(tmp_path: Path, fit: Any, task: Any, loader: Any, callbacks: Any, **o: Any) -> Any:
    fit(task, loader, callbacks=callbacks, logger=RunLogger(run_dir=tmp_path), **o)
    import wandb

    wandb.finish()
    return read_rows(tmp_path)


def state(task: Any) -> dict[str, Any]:
    """The weights of a task as the oracles take them."""
    layers = task.network.weight_layers().values()
    gains = float(np.prod([float(m.parametrizations.weight.original0) for m in layers]))
    return {
        "v": [m.parametrizations.weight.original1.detach().double() for m in layers],
        "paper_rho": gains * float(task.network.rho.detach()),
    }


def test_one_row_an_epoch_with_exactly_these_keys(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    callbacks = [MarginHistogram(2), LayerVelocity(full_every_n_epochs=3), LayerRank(0)]
    rows = wandb_rows(tmp_path, fit, small_task(), small_loader(), callbacks, epochs=5)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["trainer/global_step"] for row in rows] == [0, 3, 6, 9, 12, 15]
    assert rows[-1]["eta_t"] == pytest.approx(15 * 0.03)

    axes = {"_step", "_runtime", "_timestamp", "epoch", "trainer/global_step", "eta_t"}
    always = axes | {"rho", "rho_learned"}
    running = {"train/loss_running", "train/error_running", "learning_rate"}
    velocity = {f"velocity/{layer}" for layer in LAYERS}
    full = {f"velocity_full/{layer}" for layer in LAYERS}
    margins = {"margin/mean", "margin/std", "margin/min", "margin/hist._type"}
    margins |= {"margin/hist.bins", "margin/hist.values"}
    seen = margins | {"train/loss", "train/error", "measured_step"}
    seen |= {"equilibrium/residual", "equilibrium/common_mode"}
    expected = [
        always | seen | full,
        always | running | velocity | seen | full,
        always | running | velocity | seen | full,
        always | running | velocity | full,
        always | running | velocity | seen,
        always | running | velocity | seen | full,
    ]
    assert [set(row) for row in rows] == expected


def test_margins_ranks_and_full_velocities_are_the_oracles(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(loss="logistic", weight_decay=0.1).double()
    loader = small_loader(dtype=torch.float64)
    callbacks = [MarginHistogram(1), LayerVelocity(1, 1), LayerRank(1)]
    row = wandb_rows(tmp_path, fit, task, loader, callbacks, epochs=3)[-1]
    end = state(task)
    strides = (2, 1, 1, 1)

    margins = oracles.margins(end["v"], strides, loader.x, loader.y) * np.sign(end["paper_rho"])
    assert row["margin/mean"] == pytest.approx(float(margins.mean()), rel=1e-12)
    assert row["margin/std"] == pytest.approx(float(np.std(np.asarray(margins))), rel=1e-10)
    assert row["margin/min"] == pytest.approx(float(margins.min()), rel=1e-12)
    assert sum(row["margin/hist.values"]) == loader.num_samples
    assert row["rho"] == pytest.approx(abs(end["paper_rho"]), rel=1e-12)

    for layer, v in zip(LAYERS, end["v"], strict=True):
        matrix = v.flatten(1).numpy()
        sigma = np.linalg.svd(matrix / np.linalg.norm(matrix), compute_uv=False)
        p = sigma / sigma.sum()
        assert row[f"rank/{layer}"] == (sigma > 1e-3).sum()
        assert row[f"rank_relative_1e-01/{layer}"] == (sigma > 0.1 * sigma[0]).sum()
        assert row[f"rank_absolute_1e-01/{layer}"] == (sigma > 0.1).sum()
        assert row[f"stable_rank/{layer}"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-10)
        assert row[f"effective_rank/{layer}"] == pytest.approx(np.exp(-p @ np.log(p)), rel=1e-10)
        assert sum(row[f"spectrum/{layer}.values"]) == len(sigma)

    velocities = oracles.velocities(
        "logistic", end["v"], strides, loader.x, loader.y, end["paper_rho"]
    )
    for layer, velocity in zip(LAYERS, velocities, strict=True):
        norm = float(np.linalg.norm(np.asarray(velocity)))
        assert row[f"velocity_full/{layer}"] == pytest.approx(norm, rel=1e-10)
        assert row[f"velocity/{layer}"] != pytest.approx(norm, rel=1e-3)


def test_velocity_is_the_mean_over_the_minibatches(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    """A rate of 1e-12 keeps the weights where they are, so that every minibatch can be redone."""
    task = small_task(learning_rate=1e-12).double()
    loader = small_loader(dtype=torch.float64)
    row = wandb_rows(tmp_path, fit, task, loader, [LayerVelocity()], epochs=1)[-1]
    end = state(task)
    norms = []
    for index in torch.split(loader.indices(0), loader.batch_size):
        x, y = loader.x[index], loader.y[index]
        velocities = oracles.velocities("square", end["v"], (2, 1, 1, 1), x, y, end["paper_rho"])
        norms.append([float(np.linalg.norm(np.asarray(v))) for v in velocities])
    for layer, expected in zip(LAYERS, np.mean(norms, axis=0), strict=True):
        assert row[f"velocity/{layer}"] == pytest.approx(expected, rel=1e-10)


def test_gd_measures_after_the_step_by_one_more_forward(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    task = small_task()
    task.network.register_forward_hook(count)
    loader = small_loader(batch_size="full")
    rows = wandb_rows(tmp_path, fit, task, loader, [MarginHistogram(1)], epochs=4)
    assert forwards == 1 + 2 * 4, "a look at the start and one after each step"
    assert [row["measured_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["margin/mean"] != pytest.approx(rows[1]["margin/mean"], rel=1e-6)
    assert rows[1]["train/loss_running"] == pytest.approx(rows[0]["train/loss"], rel=1e-6)


def test_gd_looks_where_sgd_does(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    measured = {}
    for size in ("full", 8):
        loader = small_loader(batch_size=size)
        folder, looks = tmp_path / str(size), [MarginHistogram(4)]
        rows = wandb_rows(folder, fit, small_task(), loader, looks, epochs=7)
        measured[size] = [row["epoch"] for row in rows if "margin/mean" in row]
        assert measured[size] == [row["epoch"] for row in rows if "train/loss" in row]
    assert measured["full"] == measured[8] == [0, 1, 2, 4, 7]


def test_schedules_and_the_last_epoch() -> None:
    rank = LayerRank(every_n_epochs=10)
    assert [e for e in range(45) if rank.is_due(e)] == [0, 1, 2, 4, 8, 10, 20, 30, 40]
    assert not any(LayerRank(every_n_epochs=0).is_due(e) for e in range(45))
    assert all(LayerRank(every_n_epochs=1).is_due(e) for e in range(45))


@pytest.mark.parametrize("end", [{"max_epochs": 7}, {"max_steps": 20, "max_epochs": -1}])
def test_the_last_epoch_is_always_recorded(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any, end: dict[str, int]
) -> None:
    task, loader = small_task(), small_loader()
    callbacks = [MarginHistogram(100), LayerVelocity(100), LayerRank(100)]
    row = wandb_rows(tmp_path, fit, task, loader, callbacks, **end)[-1]
    assert row["epoch"] == (7 if "max_steps" not in end else pytest.approx(20 / 3, rel=1e-12))
    assert {"margin/mean", "velocity/fc1", "rank/fc1", "train/loss"} <= set(row)


def test_a_weight_that_is_not_finite_is_missing_and_never_low_rank(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    class Break(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            layer = pl_module.network.weight_layers()["conv2"]
            layer.parametrizations.weight.original1.data[0, 0, 0, 0] = torch.inf

    callbacks = [Break(), LayerRank(1)]
    row = wandb_rows(tmp_path, fit, small_task(), small_loader(), callbacks, epochs=1)[-1]
    assert not [key for key in row if key.endswith("/conv2") or "spectrum/conv2" in key]
    assert row["rank/conv3"] > 0


def test_other_loggers_get_the_numbers(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    logger = CSVLogger(tmp_path)
    fit(small_task(), small_loader(), 2, [MarginHistogram(1), LayerRank(1)], logger=logger)
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    header, *rows = (line.split(",") for line in lines)
    assert len(rows) == 3
    assert {"epoch", "margin/mean", "rank/conv1", "train/loss"} <= set(header)
    assert not [key for key in header if "." in key]


def test_early_stopping_sees_the_row_and_its_epoch_is_recorded_whole(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    # No loss falls by 1e9, so it stops when its patience is over: at epoch 3, which is not due.
    stop = EarlyStopping("train/loss_running", patience=2, min_delta=1e9)
    callbacks = [MarginHistogram(100), LayerRank(100), stop]
    rows = wandb_rows(tmp_path, fit, small_task(), small_loader(), callbacks, epochs=50)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert {"margin/mean", "rank/fc1", "train/loss", "learning_rate"} <= set(rows[-1])
    assert rows[-1]["trainer/global_step"] == rows[-1]["measured_step"] == 9


def test_a_second_fit_starts_afresh(fit: Any, small_task: Any, small_loader: Any) -> None:
    """The same object on other data: nothing of the first fit is left in the record."""

    def first_margins(task: Any) -> Any:
        kept: list[Any] = []

        class Keep(Callback):
            def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                kept.append(pl_module.training_pass())

        fit(task, small_loader(n=12), 1, [Keep()])
        return kept[0]

    used, fresh = small_task(), small_task()
    fit(used, small_loader(n=20), 2, [MarginHistogram(1)])
    fresh.load_state_dict(used.state_dict())
    again, expected = first_margins(used), first_margins(fresh)
    assert torch.equal(again.margins, expected.margins)
    assert used._epoch.eta_t == fresh._epoch.eta_t


def test_a_sanity_check_is_no_validation(
    tmp_path: Path, fit: Any, small_task: Any, small_loader: Any
) -> None:
    held_out = small_loader(n=16, batch_size=4, order="sequential")
    options = {"val_loader": held_out, "num_sanity_val_steps": 1}
    rows = wandb_rows(tmp_path, fit, small_task(), small_loader(), [], epochs=2, **options)
    assert ["val/error" in row for row in rows] == [False, True, True]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MarginHistogram(-1), "callbacks.MarginHistogram.every_n_epochs"),
        (lambda: MarginHistogram(1.5), "callbacks.MarginHistogram.every_n_epochs"),
        (lambda: MarginHistogram(bins=0), "callbacks.MarginHistogram.bins"),
        (lambda: LayerRank(bins=600), "callbacks.LayerRank.bins"),
        (lambda: LayerVelocity(1, -1), "callbacks.LayerVelocity.full_every_n_epochs"),
        (lambda: LayerRank(tolerance=1.0), "callbacks.LayerRank.tolerance"),
        (lambda: LayerRank(tolerances=(-1e-3,)), "callbacks.LayerRank.tolerance"),
    ],
)
def test_bad_options(make: Any, field: str) -> None:
    with pytest.raises(UsageError, match=field):
        make()
