"""Both engines at generic inputs: orders of every shape, rates of every step, ragged epochs."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from linear_oracles import D, M, N, problem, relative

from janus_pl.linear import Watch, run_epochs, run_epochs_torch

R, E, DRAWS = 3, 4, 7  # an epoch of 7 draws of the 10 samples
LAM, SCALE = np.array([0.05, 0.0, 0.4]), np.array([0.6, 1.0, 1.7])
DECAY = {"paper": 2.0, "appendix_a": 1.0}
NAMES = ("speed", "velocity", "mean", "variance", "probe_variance", "before", "slope")
engines = pytest.mark.parametrize("engine", ["compiled", "torch"])
# The leading axes of an order, as they may be handed over.
ORDERS = {"(n,)": (), "(E, n)": (E,), "(1, E, n)": (1, E), "(R, 1, n)": (R, 1), "(R, E, n)": (R, E)}


def drawn(*axes: int) -> Any:
    return np.random.default_rng(8).integers(N, size=(*axes, DRAWS))


def train(engine: str, w: Any, x: Any, y: Any, order: Any, size: Any, etas: Any, **o: Any) -> Any:
    """Run either engine, in place on w; returns the epochs of divergence."""
    lam, scale = o.pop("lam", LAM), o.pop("scale", SCALE)
    if engine == "compiled":
        return run_epochs(w, x, y, order, size, etas, lam, scale, **o)
    tensors = [None if a is None else torch.from_numpy(a) for a in (w, x, y, order)]
    rates = [torch.as_tensor(value, dtype=torch.float64) for value in (lam, scale)]
    return run_epochs_torch(*tensors, size, etas, *rates, **o).numpy()


def expected_of(
    x: Any, y: Any, w: Any, orders: Any, size: int, etas: Any, convention: str = "paper"
) -> Any:
    """W of every replica after every epoch, (R, E, m, d)."""
    return np.array(
        [
            oracle.train(
                w[r], x[r], y[r], orders[r], size, SCALE[r] * etas, LAM[r], DECAY[convention]
            )[0]
            for r in range(R)
        ]
    )


@engines
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, "full"])
@pytest.mark.parametrize("shape", ORDERS)
def test_every_replica_follows_its_own_order_at_its_own_rate(
    shape: str, batch_size: Any, per_step: bool, engine: str
) -> None:
    w, x, y = problem(R)
    order = drawn(*ORDERS[shape])
    orders = np.broadcast_to(order.reshape((1,) * (3 - order.ndim) + order.shape), (R, E, DRAWS))
    size = DRAWS if batch_size == "full" else batch_size
    steps = -(-DRAWS // size)
    etas = np.random.default_rng(9).uniform(0.005, 0.03, (E, steps if per_step else 1))
    plain = etas if per_step else etas[:, 0]
    expected = expected_of(x, y, w, orders, size, plain)
    assert train(engine, w, x, y, order, batch_size, plain).tolist() == [-1] * R
    for r in range(R):
        assert relative(w[r], expected[r, -1]) < 1e-13
    # The last epoch, the last step and each replica's own numbers are all in it.
    assert relative(expected[0, -1], expected[0, -2]) > 1e-5
    assert relative(expected[0, -1], expected[2, -1]) > 1e-2


@engines
@pytest.mark.parametrize("convention", DECAY)
@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_watch_of_ragged_epochs_says_what_their_steps_say(
    batch_size: int, convention: Any, engine: str
) -> None:
    w, x, y = problem(R)
    start, order = w.copy(), drawn(R, E)
    etas = np.array([0.03, 0.02, 0.015, 0.01])
    each = -(-DRAWS // batch_size)
    probes = np.random.default_rng(5).standard_normal((R, 2, D))
    watch = Watch(torch.from_numpy(w), torch.from_numpy(probes), E * each, each, 6)
    assert watch.stride == {2: 3, 3: 2}[batch_size]
    train(engine, w, x, y, order, batch_size, etas, decay_convention=convention, watch=watch)
    looks = oracle.looked_at(E * each, each, 6)
    assert watch.taken == E * each and len(looks) < E * each
    for r in range(R):
        data = start[r], x[r], y[r], order[r], batch_size, SCALE[r] * etas, float(LAM[r])
        steps = [oracle.steps_of(*data, DECAY[convention])[t] for t in looks]
        expected = oracle.statistics(steps, probes[r])
        for name in NAMES:
            measured = getattr(watch, name)[r].numpy()
            np.testing.assert_allclose(measured, expected[name], rtol=1e-10, atol=1e-14)


@engines
@pytest.mark.parametrize("most", [100, 6])
def test_noise_far_below_the_size_of_w_is_kept(most: int, engine: str) -> None:
    """Deviations are from W at the first look: from 0 they would drown in its squares."""
    w, x, y = problem(R, n=3)
    for r in range(R):
        w[r] += 1e7 * oracle.null_basis(x[r])[:, 0]  # where the data do not reach
    start, etas = w.copy(), np.full(E, 0.02)
    probes = np.random.default_rng(5).standard_normal((R, 2, D))
    watch = Watch(torch.from_numpy(w), torch.from_numpy(probes), E * 3, 3, most)
    train(engine, w, x, y, None, 1, etas, lam=0.0, watch=watch)
    for r in range(R):
        steps = oracle.steps_of(start[r], x[r], y[r], [range(3)] * E, 1, SCALE[r] * etas, 0.0)
        looks = oracle.looked_at(E * 3, 3, most)
        expected = oracle.statistics([steps[t] for t in looks], probes[r])
        assert expected["variance"] < 10
        for name in ("variance", "probe_variance"):
            measured = float(getattr(watch, name)[r])
            assert measured == pytest.approx(expected[name], rel=1e-4)


@engines
def test_a_number_stands_for_all_replicas(engine: str) -> None:
    w, x, y = problem(R)
    start = w.copy()
    train(engine, w, x, y, None, 3, [0.02, 0.01], lam=0.2, scale=1.5)
    for r in range(R):
        after = oracle.train(start[r], x[r], y[r], [range(N)] * 2, 3, [0.03, 0.015], 0.2)[0]
        assert relative(w[r], after[-1]) < 1e-13


@engines
def test_every_replica_has_its_own_epoch_of_divergence(engine: str) -> None:
    w, x, y = problem(R)
    start, etas = w.copy(), np.full(400, 2.0)
    scale = np.array([1.0, 1e-3, 3.0])
    with np.errstate(all="ignore"):
        expected = []
        for r in range(R):
            after = oracle.train(start[r], x[r], y[r], [range(N)] * 400, 5, scale[r] * etas, 0.0)[0]
            lost = [e for e, each in enumerate(after) if not np.isfinite(each).all()]
            expected.append(lost[0] if lost else -1)
    assert expected[1] == -1 and expected[0] > expected[2] + 5 > 5
    diverged = train(engine, w, x, y, None, 5, etas, lam=0.0, scale=scale)
    assert diverged.tolist() == expected
    assert np.isfinite(w[1]).all() and not np.isfinite(w[[0, 2]]).all((1, 2)).any()


@engines
def test_a_replica_lost_in_the_first_epoch_is_told_from_one_that_is_not(engine: str) -> None:
    w, x, y = problem(R)
    w[1, 0, 0] = np.inf
    watch = Watch(torch.from_numpy(w), torch.zeros(R, 1, D, dtype=torch.float64), 30)
    with np.errstate(all="ignore"):
        diverged = train(engine, w, x, y, None, 1, [0.01] * 3, watch=watch)
    assert diverged.tolist() == [-1, 0, -1]
    assert torch.isfinite(watch.speed).tolist() == [True, False, True]


def test_looks_before_the_step_that_loses_a_replica_count_for_nothing() -> None:
    w, x, y = problem(R)
    scale = np.array([1.0, 1e-300, 1.0])
    watch = Watch(torch.from_numpy(w), torch.zeros(R, 1, D, dtype=torch.float64), 1)
    diverged = run_epochs(w, x, y, None, "full", [1e298], 0.0, scale * 1e10, watch=watch)
    assert diverged.tolist() == [0, -1, 0]
    assert torch.isfinite(watch.slope).all()  # all that was looked at is W at the start
    for name in ("speed", "velocity", "variance", "probe_variance"):
        assert torch.isfinite(getattr(watch, name)).tolist() == [False, True, False], name


@engines
def test_data_are_left_as_they_are(engine: str) -> None:
    w, x, y = problem(R)
    order, etas = drawn(R, E), np.full(E, 0.02)
    kept = [a.copy() for a in (x, y, order, etas)]
    train(engine, w, x, y, order, 2, etas)
    for array, before in zip((x, y, order, etas), kept, strict=True):
        assert np.array_equal(array, before)


def test_more_threads_than_replicas_and_fewer_run_all_of_them() -> None:
    w, x, y = problem(5)
    lam = np.linspace(0, 0.3, 5)
    results = []
    for threads in (1, 2, 3, 4, 5, 9):
        trained = w.copy()
        run_epochs(trained, x, y, None, 3, [0.02] * 3, lam, threads=threads)
        results.append(trained)
    for r in range(5):
        after = oracle.train(w[r], x[r], y[r], [range(N)] * 3, 3, [0.02] * 3, lam[r])[0]
        assert relative(results[0][r], after[-1]) < 1e-13
    assert all(np.array_equal(results[0], result) for result in results[1:])
    assert w.shape == (5, M, D)
