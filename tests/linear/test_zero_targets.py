"""Targets that are zero have no margin: the margins of the others, their number, and a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback

from janus_pl import LinearRegressor
from janus_pl.callbacks import MarginHistogram
from janus_pl.data import LinearProblem


def problem(folder: Path, y: Any) -> LinearProblem:
    x = np.random.default_rng(0).standard_normal((4, y.shape[1]))
    np.savez(folder / "given.npz", X=x, Y=y)
    return LinearProblem(source=str(folder / "given.npz"), batch_size=2)


@pytest.mark.parametrize("zeros", [0, 1, 5])
def test_margins_are_of_the_samples_that_have_one(
    zeros: int, tmp_path: Path, fit: Any, rows: Any, recwarn: Any
) -> None:
    y = np.ones((1, 8))
    y[0, 1 : 1 + zeros] = 0
    module, data = LinearRegressor(learning_rate=0.05), problem(tmp_path, y)
    fit(module, data, 3, [MarginHistogram(1)])
    w = module.weight.detach().numpy()[0]
    x, y = (a[0] for a in data.problem[:2])
    kept = y[0] != 0
    margins = (y * (w @ x))[0, kept] / np.linalg.norm(w)
    assert rows[-1]["margin/mean"] == pytest.approx(margins.mean(), rel=1e-12)
    assert rows[-1]["margin/hist"].counts.sum() == 8 - zeros
    counts = [row.get("margin/count") for row in rows]
    assert counts == [8 - zeros if zeros else None] * len(rows)
    said = [str(w.message) for w in recwarn if "no margin" in str(w.message)]
    assert len(said) == (zeros > 0)
    assert all(line.startswith(f"{zeros} of 8 samples have y = 0") for line in said)


def test_no_target_that_is_not_zero_is_said_once(
    tmp_path: Path, fit: Any, rows: Any, caplog: Any
) -> None:
    with pytest.warns(UserWarning, match="8 of 8 samples"), caplog.at_level("INFO"):
        fit(
            LinearRegressor(learning_rate=0.05),
            problem(tmp_path, np.zeros((1, 8))),
            3,
            [MarginHistogram(1)],
        )
    assert not [key for row in rows for key in row if key.startswith("margin/")]
    assert caplog.text.count("every y is 0") == 1


def test_a_row_is_of_the_weights_that_a_callback_left(tmp_path: Path, fit: Any, rows: Any) -> None:
    class Doubles(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.weight.data *= 2

    module, data = LinearRegressor(learning_rate=0.05), problem(tmp_path, np.ones((1, 8)))
    fit(module, data, 3, [MarginHistogram(1), Doubles()])
    w, x = module.weight.detach().numpy()[0], data.problem.x[0]
    assert rows[-1]["rho"] == pytest.approx(np.linalg.norm(w), rel=1e-12)
    assert rows[-1]["train/loss"] == pytest.approx(((w @ x - 1) ** 2).mean(), rel=1e-12)
    assert rows[-1]["margin/mean"] == pytest.approx((w @ x).mean() / np.linalg.norm(w), rel=1e-12)
