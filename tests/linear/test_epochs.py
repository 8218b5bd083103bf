"""The update of linear regression: every fast path is the step-by-step loop."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from linear_oracles import D, M, N, problem, random_orders, relative

from janus_pl.linear import (
    Watch,
    full_batch_equivalent,
    reference_epoch,
    run_epochs,
    run_epochs_torch,
)


def watch_of(w: Any, steps: int, steps_per_epoch: int = 1, most: int = 512) -> Watch:
    """A watch without probes."""
    tensor = torch.from_numpy(w)
    return Watch(tensor, tensor.new_zeros(len(w), 0, w.shape[2]), steps, steps_per_epoch, most)


@pytest.mark.parametrize(
    ("batch_size", "decay_convention"), [(1, "paper"), (3, "appendix_a"), (10, "paper")]
)
def test_ten_thousand_steps_equal_the_loop(batch_size: int, decay_convention: Any) -> None:
    w, x, y = problem()
    steps = -(-N // batch_size)
    epochs = 10_000 // steps
    etas = 0.05 / np.sqrt(np.arange(epochs) + 1)
    orders = random_orders(epochs)
    decay = {"paper": 2.0, "appendix_a": 1.0}[decay_convention]
    expected = oracle.train(w[0], x[0], y[0], orders, batch_size, etas, 0.01, decay)[0][-1]
    run_epochs(w, x, y, orders, batch_size, etas, 0.01, decay_convention=decay_convention)
    assert relative(w[0], expected) < 1e-10


def test_the_conventions_of_decay_differ() -> None:
    w, x, y = problem()
    results = []
    conventions: list[tuple[Any, float]] = [("paper", 2.0), ("appendix_a", 1.0)]
    for decay_convention, decay in conventions:
        after = oracle.train(w[0], x[0], y[0], [range(N)] * 9, 3, [0.05] * 9, 0.1, decay)[0]
        fast = w.copy()
        run_epochs(fast, x, y, None, 3, [0.05] * 9, 0.1, decay_convention=decay_convention)
        assert relative(fast[0], after[-1]) < 1e-14
        results.append(fast)
    assert relative(*results) > 1e-3


def test_reference_epoch_and_torch_equal_the_loop() -> None:
    w, x, y = problem()
    etas = [0.05, 0.02, 0.01]
    orders = random_orders(3)
    for batch_size in (1, 4, N):
        after, speeds = oracle.train(w[0], x[0], y[0], orders, batch_size, etas, 0.03)
        stepped = w[0]
        for order, eta in zip(orders, etas, strict=True):
            stepped = reference_epoch(stepped, x[0], y[0], batch_size, eta, 0.03, order)
        assert relative(stepped, after[-1]) < 1e-14
        batched, xs, ys, order = (torch.from_numpy(a.copy()) for a in (w, x, y, orders))
        run_epochs_torch(batched, xs, ys, order[:2], batch_size, etas[:2], 0.03)
        watch = watch_of(w, steps=-(-N // batch_size))
        run_epochs_torch(batched, xs, ys, order[2:], batch_size, etas[2:], 0.03, watch=watch)
        assert relative(batched[0].numpy(), after[-1]) < 1e-13
        assert float(watch.speed[0]) == pytest.approx(speeds[-1], rel=1e-10)


def test_data_order_is_the_default_and_full_is_gradient_descent() -> None:
    w, x, y = problem()
    etas = [0.05] * 4
    for batch_size, size in ((2, 2), ("full", N)):
        expected = oracle.train(w[0], x[0], y[0], [range(N)] * 4, size, etas, 0.01)[0][-1]
        fast, batched = w.copy(), torch.from_numpy(w.copy())
        run_epochs(fast, x, y, None, batch_size, etas, 0.01)
        run_epochs_torch(
            batched, torch.from_numpy(x), torch.from_numpy(y), None, batch_size, etas, 0.01
        )
        assert relative(fast[0], expected) < 1e-13
        assert relative(batched[0].numpy(), expected) < 1e-13


@pytest.mark.parametrize("batch_size", [1, 4])
def test_replicas_are_their_own_single_runs_bitwise(batch_size: int) -> None:
    w, x, y = problem(replicas=5)
    lam, scale = np.linspace(0, 0.1, 5), np.linspace(0.5, 1.5, 5)
    orders = np.stack([random_orders(6, seed) for seed in range(5)])
    etas = 0.03 / np.arange(1, 7)
    start, steps = w.copy(), 6 * -(-N // batch_size)
    together = watch_of(w, steps)
    run_epochs(w, x, y, orders, batch_size, etas, lam, scale, watch=together, threads=2)
    batched = torch.from_numpy(start.copy())
    xs, ys, order = (torch.from_numpy(a) for a in (x, y, orders))
    rates = torch.from_numpy(lam), torch.from_numpy(scale)
    on_device = watch_of(w, steps)
    run_epochs_torch(batched, xs, ys, order, batch_size, etas, *rates, watch=on_device)
    assert relative(batched.numpy(), w) < 1e-13
    assert relative(on_device.speed, together.speed) < 1e-10
    for r in range(5):
        one, x_r, y_r, order_r = (a[r : r + 1].copy() for a in (start, x, y, orders))
        alone = watch_of(one, steps)
        run_epochs(one, x_r, y_r, order_r, batch_size, etas, lam[r], scale[r], watch=alone)
        assert np.array_equal(one[0], w[r])
        assert alone.speed[0] == together.speed[r]
        rates = scale[r] * etas
        expected = oracle.train(start[r], x[r], y[r], orders[r], batch_size, rates, lam[r])[0][-1]
        assert relative(w[r], expected) < 1e-13


@pytest.mark.parametrize("batch_size", [1, 3])
def test_cutting_a_run_into_calls_changes_no_bit(batch_size: int) -> None:
    w, x, y = problem(replicas=2)
    orders, etas = random_orders(9), np.geomspace(0.05, 0.01, 9)
    cut = w.copy()
    run_epochs(w, x, y, orders, batch_size, etas, 0.01)
    for first, last in ((0, 1), (1, 6), (6, 9)):
        watch = watch_of(w, steps=(last - first) * -(-N // batch_size))
        part = orders[first:last], batch_size, etas[first:last]
        run_epochs(cut, x, y, *part, 0.01, watch=watch)
    assert np.array_equal(w, cut)


def test_rates_may_change_from_step_to_step() -> None:
    w, x, y = problem()
    etas = np.linspace(0.05, 0.01, 8).reshape(2, 4)
    expected = oracle.train(w[0], x[0], y[0], [range(N)] * 2, 3, etas, 0.02)[0][-1]
    batched = torch.from_numpy(w.copy())
    run_epochs(w, x, y, None, 3, etas, 0.02)
    run_epochs_torch(batched, torch.from_numpy(x), torch.from_numpy(y), None, 3, etas, 0.02)
    assert relative(w[0], expected) < 1e-14
    assert relative(batched[0].numpy(), expected) < 1e-14


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_speed_is_the_step_over_the_rate_in_the_epoch_watched(batch_size: int) -> None:
    w, x, y = problem()
    speeds = oracle.train(w[0], x[0], y[0], [range(N)] * 3, batch_size, [0.02] * 3, 0.1)[1]
    watch = watch_of(w, steps=-(-N // batch_size))
    run_epochs(w, x, y, None, batch_size, [0.02] * 2, 0.1)
    assert torch.isnan(watch.speed[0])
    run_epochs(w, x, y, None, batch_size, [0.02], 0.1, watch=watch)
    assert watch.speed[0] == pytest.approx(speeds[2], rel=1e-10)
    assert abs(speeds[1] - speeds[2]) > 1e-3 * speeds[2]


@pytest.mark.parametrize("batch_size", [1, 10])
def test_divergence_names_the_first_epoch_that_is_not_finite(batch_size: int) -> None:
    w, x, y = problem(replicas=2)
    etas = [3.0 * batch_size] * 200
    with np.errstate(all="ignore"):
        after = oracle.train(w[1], x[1], y[1], [range(N)] * 200, batch_size, etas, 0.0)[0]
    first = next(e for e, each in enumerate(after) if not np.isfinite(each).all())
    batched, xs, ys = (torch.from_numpy(a.copy()) for a in (w, x, y))
    scale = np.array([1e-4, 1.0])
    watches = [watch_of(w, steps=200 * N // batch_size, most=10**9) for _ in range(2)]
    diverged = run_epochs(w, x, y, None, batch_size, etas, 0.0, scale, watch=watches[0])
    assert diverged.tolist() == [-1, first]
    assert np.isfinite(w[0]).all()
    scales = torch.from_numpy(scale)
    on_device = run_epochs_torch(
        batched, xs, ys, None, batch_size, etas, 0.0, scales, watch=watches[1]
    )
    assert on_device.tolist() == [-1, first]
    for watch in watches:
        assert torch.isfinite(watch.speed).tolist() == [True, False]


def test_few_columns_stand_for_all_samples_in_gradient_descent() -> None:
    w, x, y = problem(replicas=2, n=60)
    x[1, 2] = x[1, 1]  # rank d - 1
    x[1, D - 1] = 0
    etas = [0.1] * 300
    few_x, few_y = full_batch_equivalent(x, y)
    assert few_x.shape == (2, D, D) and few_y.shape == (2, M, D)
    expected, unscaled = w.copy(), w.copy()
    run_epochs(expected, x, y, None, "full", etas, 0.01)
    run_epochs(unscaled, few_x * np.sqrt(60 / D), few_y * np.sqrt(60 / D), None, "full", [1e-3], 0)
    last_step = watch_of(w, steps=300, most=1)
    run_epochs(w, few_x, few_y, None, "full", etas, 0.01, watch=last_step)
    assert relative(w, expected) < 1e-12
    assert relative(unscaled, expected) > 1e-2
    assert last_step.speed[0] < 1e-10
    alone = full_batch_equivalent(x[1:], y[1:])
    assert np.array_equal(alone[0][0], few_x[1]) and np.array_equal(alone[1][0], few_y[1])
    wide = problem(n=3)[1:]
    assert all(a is b for a, b in zip(full_batch_equivalent(*wide), wide, strict=True))


SCHEDULES = {
    "constant": lambda e: 0.04 + 0 * e,
    "inverse_sqrt": lambda e: 0.08 / np.sqrt(e + 1),
    "cosine": lambda e: 0.02 * (1 + np.cos(np.pi * e / 400)),
}


@pytest.mark.parametrize("lam", [0.0, 0.01])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_null_space_follows_the_closed_form_at_every_epoch(
    batch_size: int, schedule: str, lam: float
) -> None:
    w, x, y = problem(d=13)
    basis = oracle.null_basis(x[0])
    assert basis.shape == (13, 3)
    start = np.linalg.norm(w[0] @ basis)
    etas = SCHEDULES[schedule](np.arange(400))
    steps = -(-N // batch_size)
    measured = []
    for eta in etas:
        run_epochs(w, x, y, None, batch_size, [eta], lam)
        measured.append(np.linalg.norm(w[0] @ basis))

    def error(predicted: Any) -> float:
        return float(np.abs(np.array(measured) - predicted).max() / start)

    assert error(oracle.null_norms(start, etas, lam, steps)) < 1e-12
    if lam > 0:
        assert error(oracle.null_norms(start, etas, lam, steps, decay=1.0)) > 1e-3
    if lam > 0 and batch_size > 1:
        assert error(oracle.null_norms(start, etas, lam / batch_size, steps)) > 1e-3
    if lam > 0 and batch_size < N:
        assert error(oracle.null_norms(start, etas, lam, 1)) > 1e-3


def test_toy_of_appendix_a_decays_by_its_factors_bitwise() -> None:
    eta, lam = 0.1, 0.3
    x, y = np.eye(3, 2)[None], np.eye(2)[None] / 2
    start = np.array([[[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]]])
    keep = 1 - eta * lam
    for batch_size, factor in ((1, keep**2), ("full", keep)):
        numpy_w, torch_w = start.copy(), torch.from_numpy(start.copy())
        run_epochs(numpy_w, x, y, None, batch_size, [eta], lam, decay_convention="appendix_a")
        data = torch.from_numpy(x), torch.from_numpy(y), None
        run_epochs_torch(torch_w, *data, batch_size, [eta], lam, decay_convention="appendix_a")
        paper = start.copy()
        run_epochs(paper, x, y, None, batch_size, [eta], lam)
        for w in (numpy_w[0], torch_w[0].numpy()):
            assert w[:, 2].tolist() == [factor, -factor]
            assert w[:, 2].tolist() != paper[0, :, 2].tolist()


def test_wrong_shapes_are_refused_before_compiled_code_sees_them() -> None:
    w, x, y = problem(replicas=2)
    cases: list[tuple[str, Any]] = [
        ("float64", (w.astype(np.float32), x, y, None, 1, [0.1], 0.0)),
        ("C-contiguous", (w.transpose(0, 2, 1), x, y, None, 1, [0.1], 0.0)),
        ("shapes do not fit", (w, x[:1], y, None, 1, [0.1], 0.0)),
        ("shapes do not fit", (w, x, y[:, :, :4], None, 1, [0.1], 0.0)),
        ("does not broadcast", (w, x, y, random_orders(3), 1, [0.1, 0.1], 0.0)),
        ("indices outside 0 to 9", (w, x, y, np.array([0, 10]), 1, [0.1], 0.0)),
        ("indices outside 0 to 9", (w, x, y, np.array([-1, 2]), 1, [0.1], 0.0)),
        ("batch_size is 0", (w, x, y, None, 0, [0.1], 0.0)),
        ("batch_size is 11", (w, x, y, None, 11, [0.1], 0.0)),
        ("eta", (w, x, y, None, 1, [[0.1, 0.2]], 0.0)),
    ]
    before = w.copy()
    for message, arguments in cases:
        with pytest.raises(ValueError, match=message):
            run_epochs(*arguments)
    assert np.array_equal(w, before)
