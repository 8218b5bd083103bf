"""Linear regression whose steps are followed: the same run, every step, and its covariance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callbacks_of_time import expected, of_noise

from janus_pl import LinearRegressor
from janus_pl.callbacks import NoiseTime
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.linear.epochs import reference_epoch
from janus_pl.theory.linear import regularized_solution
from janus_pl.theory.noise import sample_moments, sample_noise, stationary_covariance

Array = np.ndarray[Any, Any]
Rows = list[dict[str, Any]]
SIZES = {"num_train": 7, "dim": 9, "outputs": 3}
DATA: dict[str, dict[str, Any]] = {
    "single": {"batch_size": 1, "order": "shuffle"},
    "ragged": {"batch_size": 2, "order": "shuffle"},
    "data order": {"batch_size": 3, "order": "sequential"},
    "with replacement": {"batch_size": 2, "order": "with_replacement"},
    "gradient descent": {"batch_size": "full"},
    "stream": {"batch_size": 3, "order": "online", "num_train": 299},
    "replicas": {"batch_size": 2, "order": "shuffle", "replicas": 3},
}


def run(
    fit: Any, rows: Rows, data: dict[str, Any], looks: list[Any], epochs: int, **options: Any
) -> tuple[Rows, LinearRegressor]:
    rows.clear()
    task = LinearRegressor(**{"learning_rate": 0.02, "schedule": "cosine", **options})
    epochs = 1 if data.get("order") == "online" else epochs
    fit(task, LinearProblem(**{**SIZES, **data}), epochs, looks)
    return [dict(row) for row in rows], task


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_a_run_that_is_followed_is_the_same_to_the_bit(
    data: dict[str, Any], fit: Any, rows: Rows
) -> None:
    """Also the sums over all steps of the last fifth, and the watch of some of them."""
    look = NoiseTime(20, window=19)
    (plain, one), (seen, two) = (run(fit, rows, data, each, 90) for each in ([], [look]))
    assert torch.equal(one.weight, two.weight)
    found = [row for row in seen if of_noise(row)]
    assert len(found) > 1
    for row, other in zip(seen, plain, strict=True):
        assert {k: v for k, v in row.items() if k not in of_noise(row)} == other


@pytest.mark.parametrize("name", ["single", "ragged", "data order", "gradient descent"])
def test_every_number_is_that_of_steps_taken_by_hand(name: str, fit: Any, rows: Rows) -> None:
    window, data = 19, DATA[name]
    look = NoiseTime(20, window=window, samples=5)
    seen, task = run(fit, rows, data, [look], 90, schedule="constant", weight_decay=0.02)
    problem, size = task.data, task.data.steps_per_epoch
    x, y, w = (np.array(a[0]) for a in problem.problem)
    states = []
    for epoch in range(90):
        order = problem.indices(epoch)[0]
        batch = problem.batch_size if problem.batch_size != "full" else len(order)
        for start in range(0, len(order), batch):
            taken = order[start : start + batch]
            w = reference_epoch(w, x, y, len(taken), 0.02, 0.02, taken)
            states.append(w)
    taken = np.sort(np.random.default_rng(0).choice(7, 5, replace=False))
    x, y = x[:, taken], y[:, taken]
    looks = [row for row in seen if of_noise(row)]
    assert [row["epoch"] for row in looks] == [40, 90]
    for row in looks:
        end = round(row["epoch"]) * size
        series = [w / np.linalg.norm(w) for w in states[end - window : end]]
        margins = [(y * (V @ x)).sum(0) / (y**2).sum(0) for V in series]
        direction, moved = expected([V.ravel() for V in series], mean=False)
        margin, drift = expected(margins, mean=True)
        right = {"direction/fc1": direction, "drift_direction/fc1": moved}
        right |= {"margin": margin, "drift_margin": drift}
        # The noise of GD is what a line leaves of a smooth path: small beside it.
        assert of_noise(row) == pytest.approx(
            {f"noise_time/{k}": v for k, v in right.items()}, rel=1e-7
        )


@pytest.mark.parametrize(
    ("data", "allowed"), [("gradient descent", "from 8 to 10"), ("ragged", "from 8 to 40")]
)
def test_a_window_longer_than_from_look_to_look(
    data: str, allowed: str, fit: Any, rows: Rows
) -> None:
    with pytest.raises(UsageError, match=rf"NoiseTime\.window: got 41, allowed: {allowed}, "):
        run(fit, rows, DATA[data], [NoiseTime(10, window=41)], 90)
    assert rows == []


def test_samples_without_a_margin_are_left_out(
    fit: Any, rows: Rows, tmp_path: Path, caplog: Any
) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(2, 6))
    y[:, [1, 4]] = 0
    np.savez(tmp_path / "some.npz", X=x, Y=y)
    np.savez(tmp_path / "none.npz", X=x, Y=0 * y)
    for name, said in (
        ("some", "all 4 training samples"),
        ("none", "no margin of LinearRegressor"),
    ):
        data = LinearProblem(str(tmp_path / f"{name}.npz"), init="gaussian")
        fit(LinearRegressor(0.02), data, 6, [NoiseTime(3, window=8)])
        assert ("noise_time/margin" in rows[-1]) == (name == "some")
        assert rows[-1]["noise_time/direction/fc1"] > 0
        assert sum(said in r.getMessage() for r in caplog.records) == 1


# At rest

ETA, LAM, BURN_IN, WINDOW = 0.02, 0.05, 4_000, 26_000


@pytest.fixture
def at_rest(tmp_path: Path) -> tuple[LinearProblem, Array, Array]:
    """Twelve samples with X X^T = 12 I: W forgets in 1/(2 eta) = 25 steps in each direction."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(12, 3)))[0].T * 12**0.5
    y = rng.normal(size=(2, 3)) @ x + 0.3 * rng.normal(size=(2, 12))
    np.savez(tmp_path / "rest.npz", X=x, Y=y)
    file = str(tmp_path / "rest.npz")
    data = LinearProblem(file, batch_size=1, order="with_replacement", init="gaussian")
    return data, x, y


def measured(fit: Any, rows: Rows, data: LinearProblem) -> dict[str, float]:
    task = LinearRegressor(ETA, schedule="constant", weight_decay=LAM)
    epochs = (BURN_IN + WINDOW) // 12
    fit(task, data, epochs, [NoiseTime(epochs, window=WINDOW)])
    return of_noise(rows[-1])


def test_noise_in_time_is_that_over_replicas_and_the_stationary_covariance(
    at_rest: Any, fit: Any, rows: Rows
) -> None:
    """Replicas of one problem, each with draws of its own, long after the start."""
    data, x, y = at_rest
    found = measured(fit, rows, data)

    rng, replicas = np.random.default_rng(5), 8_000
    w = np.zeros((replicas, 2, 3))
    for _ in range(300):
        i = rng.integers(12, size=replicas)
        rest = np.einsum("rab,br->ra", w, x[:, i]) - y[:, i].T
        w = (1 - 2 * ETA * LAM) * w - 2 * ETA * rest[:, :, None] * x[:, i].T[:, None]
    V = w / np.linalg.norm(w, axis=(1, 2), keepdims=True)
    margins = np.einsum("an,rab,bn->rn", y, V, x) / (y**2).sum(0)
    direction = V.var(0, ddof=1).sum() ** 0.5
    margin = margins.var(0, ddof=1).mean() ** 0.5
    assert found["noise_time/direction/fc1"] == pytest.approx(direction, rel=0.03)
    assert found["noise_time/margin"] == pytest.approx(margin, rel=0.03)
    assert found["noise_time/drift_direction/fc1"] < 0.5 * direction

    # V and its margins to first order about W*, of which the noise is a few percent.
    X, Y = torch.from_numpy(x), torch.from_numpy(y)
    mean = regularized_solution(X, Y, LAM)
    covariance = stationary_covariance(sample_moments(X), sample_noise(X, Y, LAM), ETA, LAM)
    C = covariance.permute(0, 2, 1, 3).reshape(6, 6)
    v = (mean / mean.norm()).reshape(6)
    J = (torch.eye(6, dtype=torch.float64) - torch.outer(v, v)) / mean.norm()
    of_V = J @ C @ J.T
    assert found["noise_time/direction/fc1"] == pytest.approx(float(of_V.trace().sqrt()), rel=0.03)
    rows_of_margins = torch.einsum("an,bn->nab", Y / Y.square().sum(0), X).reshape(12, 6)
    of_margins = torch.einsum("ni,ij,nj->n", rows_of_margins, of_V, rows_of_margins)
    assert found["noise_time/margin"] == pytest.approx(float(of_margins.mean().sqrt()), rel=0.03)

    # The control: at half the rate the noise is another one.
    half = stationary_covariance(sample_moments(X), sample_noise(X, Y, LAM), ETA / 2, LAM)
    smaller = J @ half.permute(0, 2, 1, 3).reshape(6, 6) @ J.T
    assert float(smaller.trace().sqrt()) < 0.8 * found["noise_time/direction/fc1"]
