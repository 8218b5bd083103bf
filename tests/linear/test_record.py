"""The record of linear regression without a trainer: medians, quantiles, tenths and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch

from janus_pl.data.regression import LinearProblem
from janus_pl.linear.record import LinearRecord, save_problem, save_result
from janus_pl.linear.replicas import LinearTraining

SHAPE = {"num_train": 10, "dim": 4, "outputs": 3, "seed": 3, "batch_size": 4, "order": "shuffle"}
LAMBDAS, RATES = [0.01, 0.2], [0.02, 0.05, 0.08]


def made_of(
    replicas: int = 2, lambdas: Any = LAMBDAS, rates: Any = RATES, epochs: int = 12, **options: Any
) -> tuple[LinearProblem, LinearTraining]:
    data = LinearProblem(**{**SHAPE, "replicas": replicas, **options})
    data.setup()
    w0 = torch.from_numpy(data.w0()).repeat_interleave(len(lambdas) * len(rates), dim=0)
    schedule = "inverse_sqrt"
    return data, LinearTraining(data, lambdas, rates, schedule, "paper", epochs, 50, 5, w0)


def rows_of(training: LinearTraining) -> tuple[LinearRecord, list[Any], list[Any]]:
    """The record, its rows, and W at each of them."""
    record = LinearRecord(training)
    record.take()
    weights = [training.weight.numpy().copy()]
    for _ in training.plan.looks:
        for piece in training.plan:
            if training.run(piece):
                record.take()
                weights.append(training.weight.numpy().copy())
    return record, record.rows_before(), weights


def test_a_row_holds_the_median_and_two_quantiles_of_every_number() -> None:
    data, training = made_of()
    _, rows, weights = rows_of(training)
    assert [row["epoch"] for row in rows] == list(range(13))
    seeds = [r // 6 for r in range(12)]
    etas = np.array([RATES[r % 3] for r in range(12)])
    for e, (row, w) in enumerate(zip(rows, weights, strict=True)):
        residuals = [w[r] @ data.problem.x[s] - data.problem.y[s] for r, s in enumerate(seeds)]
        sums = sum(1 / np.sqrt(i + 1) for i in range(e))
        numbers = {
            "train/loss": [(residual**2).sum(0).mean() for residual in residuals],
            "train/mse_per_entry": [(residual**2).mean() for residual in residuals],
            "rho": [np.linalg.norm(each) for each in w],
            "sigma_min": [np.linalg.svd(each, compute_uv=False)[-1] for each in w],
            "learning_rate": etas / np.sqrt(max(e, 1)),
        }
        for key, values in numbers.items():
            assert row[key] == pytest.approx(np.median(values), rel=1e-10), key
            for name, level in (("q05", 0.05), ("q95", 0.95)):
                expected = np.quantile(values, level)
                assert row[f"{key}/{name}"] == pytest.approx(expected, rel=1e-10), key
        assert row["eta_t"] == pytest.approx(3 * sums * np.median(etas), rel=1e-12)
        assert row["trainer/global_step"] == 3 * e
        assert row["diverged"] == 0
        assert ("gradient_norm" in row) == ("noise/weights/q95" in row) == (e > 0)
        assert not {"epoch/q05", "eta_t/q05", "diverged/q05", "replicas"} & set(row)


def test_noise_is_that_of_each_replicas_own_steps() -> None:
    data, training = made_of(lambdas=[0.05], epochs=5)
    _, rows, _ = rows_of(training)
    seen: dict[str, list[list[float]]] = {"gradient_norm": [], "noise/weights": []}
    for r in range(6):
        seed = r // 3
        x, y = data.problem.x[seed], data.problem.y[seed]
        orders = [data.indices(e)[seed] for e in range(5)]
        etas = RATES[r % 3] / np.sqrt(np.arange(5) + 1)
        steps = oracle.steps_of(data.w0()[seed], x, y, orders, 4, etas, 0.05)
        each = [oracle.statistics(steps[3 * e : 3 * e + 3], x.T) for e in range(5)]
        seen["gradient_norm"].append([one["speed"] for one in each])
        seen["noise/weights"].append([np.sqrt(one["variance"]) for one in each])
    for key, values in seen.items():
        for row, column in zip(rows[1:], np.transpose(values), strict=True):
            assert row[key] == pytest.approx(np.median(column), rel=1e-10)
            assert row[f"{key}/q95"] == pytest.approx(np.quantile(column, 0.95), rel=1e-10)


def test_a_replica_that_diverges_is_in_no_median() -> None:
    _, training = made_of(lambdas=[0.01], rates=[0.02, 60.0, 0.05], epochs=100)
    record, rows, weights = rows_of(training)
    finite = [np.isfinite(w).all((1, 2)) for w in weights]
    assert finite[0].all() and sum(each.sum() == 4 for each in finite) >= 10
    assert rows[0]["diverged"] == rows[1]["diverged"] == 0
    for row, w, sound in zip(rows, weights, finite, strict=True):
        if sound.sum() != 4:  # the square of a W about to diverge may be infinite before it is
            assert row["diverged"] <= 2
            continue
        assert row["diverged"] == 2
        norms = [np.linalg.norm(each) for each in w[sound]]
        etas = np.array([0.02, 60.0, 0.05] * 2)[sound]
        assert row["rho"] == pytest.approx(np.median(norms), rel=1e-10)
        assert row["rho/q95"] == pytest.approx(np.quantile(norms, 0.95), rel=1e-10)
        # Numbers that W does not decide are of the same replicas.
        last = max(int(row["epoch"]), 1)
        assert row["learning_rate"] == pytest.approx(np.median(etas) / np.sqrt(last))
        sums = sum(1 / np.sqrt(i + 1) for i in range(int(row["epoch"])))
        assert row["eta_t"] == pytest.approx(3 * sums * np.median(etas), rel=1e-12)
    with pytest.warns(UserWarning, match=r"2 of 6 replicas diverged: \[1, 4\]"):
        end: dict[str, Any] = dict(record.last_row())
    column = list(end["replicas"].columns).index("rho")
    norms = [line[column] for line in end["replicas"].rows]
    assert np.isfinite(norms).tolist() == finite[-1].tolist()


def test_the_table_of_replicas_says_what_each_is_and_its_newest_numbers() -> None:
    _, training = made_of()
    record, _, weights = rows_of(training)
    row: dict[str, Any] = dict(record.last_row())
    columns, lines = row["replicas"]
    assert list(columns[:4]) == ["replica", "seed", "weight_decay", "first_learning_rate"]
    assert len(lines) == 12 and all(len(line) == len(columns) for line in lines)
    for r, line in enumerate(lines):
        held = dict(zip(columns, line, strict=True))
        assert held["replica"] == r
        assert held["seed"] == 3 + r // 6
        assert held["weight_decay"] == LAMBDAS[r // 3 % 2]
        assert held["first_learning_rate"] == RATES[r % 3]
        assert held["rho"] == pytest.approx(np.linalg.norm(weights[-1][r]), rel=1e-12)
        assert held["learning_rate"] == pytest.approx(RATES[r % 3] / np.sqrt(12), rel=1e-12)
    assert {"train/loss", "noise/weights", "noise/weights_last_tenth"} <= set(columns)


def test_one_replica_is_recorded_as_it_is_without_table_or_quantiles() -> None:
    _, training = made_of(1, [0.1], [0.03])
    record, rows, weights = rows_of(training)
    assert [row["rho"] for row in rows] == pytest.approx([np.linalg.norm(w) for w in weights])
    assert not [key for row in rows for key in row if key.endswith(("q05", "q95", "diverged"))]
    assert set(record.last_row()) == {
        f"noise/{what}_{name}"
        for what in ("weights", "predictions")
        for name in ("tenth_before", "last_tenth")
    }


@pytest.mark.parametrize("epochs", [5, 10, 34, 44])
def test_the_tenths_are_the_last_and_the_one_before_in_whole_epochs(epochs: int) -> None:
    data, training = made_of(1, [0.02], [0.03], epochs)
    record, _, _ = rows_of(training)
    row: dict[str, Any] = dict(record.last_row())
    borders = [epochs * 8 // 10, epochs * 9 // 10, epochs]
    x, y, w0 = (a[0] for a in data.problem)
    orders = [data.indices(e)[0] for e in range(epochs)]
    etas = 0.03 / np.sqrt(np.arange(epochs) + 1)
    steps = oracle.steps_of(w0, x, y, orders, 4, etas, 0.02)
    if borders[0] == borders[1]:
        assert row == {}
        return
    for name, first, last in zip(
        ("tenth_before", "last_tenth"), borders, borders[1:], strict=False
    ):
        expected = oracle.statistics(steps[3 * first : 3 * last], x.T)
        assert row[f"noise/weights_{name}"] ** 2 == pytest.approx(expected["variance"], rel=1e-9)
        predictions = row[f"noise/predictions_{name}"] ** 2
        assert predictions == pytest.approx(expected["probe_variance"], rel=1e-9)


def test_rows_are_handed_out_once_and_the_newest_is_of_this_moment() -> None:
    _, training = made_of(1, [0.1], [0.03])
    record = LinearRecord(training)
    assert record.rows_before() == []
    assert [row["epoch"] for row in record.rows()] == [0]
    for piece in training.plan:
        training.run(piece)
    assert [row["epoch"] for row in record.rows()] == [1]
    assert record.rows_before() == []
    for _ in range(3):  # looks at 2, 3 and 4
        for piece in training.plan:
            if training.run(piece):
                record.take()
    assert [row["epoch"] for row in record.rows()] == [2, 3, 4]


def test_the_noise_of_a_tenth_outlives_a_checkpoint_within_it() -> None:
    _, training = made_of(1, [0.1], [0.03], epochs=40)
    record, _, _ = rows_of(training)
    again = LinearRecord(training)
    assert again.last_row() == {}
    again.load(record.state())
    assert again.last_row() == record.last_row() != {}
    # In a longer run nothing before its own last fifth counts.
    longer = made_of(1, [0.1], [0.03], epochs=45)[1]
    resumed = LinearRecord(longer)
    resumed.load(record.state())
    assert [end for end, _ in resumed.state()["windows"]] == [
        end for end, _ in record.state()["windows"] if end > 36
    ]
    assert min(end for end, _ in record.state()["windows"]) == 33


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_files_of_a_run_hold_problem_and_result(replicas: int, tmp_path: Path) -> None:
    lambdas, rates = ([0.1], [0.03]) if replicas == 1 else (LAMBDAS, RATES)
    data, training = made_of(replicas, lambdas, rates)
    rows_of(training)
    save_problem(tmp_path, data)
    save_result(tmp_path, training)
    with np.load(tmp_path / "problem.npz") as problem, np.load(tmp_path / "final.npz") as final:
        assert set(problem) == {"X", "Y", "W0", "layout"}
        for name, array in zip(("X", "Y", "W0"), data.problem, strict=True):
            assert np.array_equal(problem[name], array[0] if replicas == 1 else array)
        weight = training.weight.numpy()
        assert np.array_equal(final["W"], weight[0] if replicas == 1 else weight)
        assert final["epochs"] == 12
        assert final["seed"].tolist() == [3 + r // 6 for r in range(len(weight))]
        assert final["weight_decay"].tolist() == training.lam.tolist()
        assert final["learning_rate"].tolist() == training.eta.tolist()


def test_a_stream_too_large_to_hold_is_saved_by_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janus_pl.data.regression.HELD", 8 * 10 * 7 - 1)
    data, _ = made_of(1, [0.1], [0.03], 1, order="online")
    save_problem(tmp_path, data)
    with np.load(tmp_path / "problem.npz") as problem:
        assert set(problem) == {"W0", "layout"}
    monkeypatch.setattr("janus_pl.data.regression.HELD", 8 * 10 * 7)
    save_problem(tmp_path, data)
    with np.load(tmp_path / "problem.npz") as problem:
        assert problem["X"].shape == (4, 10)
