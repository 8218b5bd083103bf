"""A watch's statistics of the steps of SGD: what the steps, one by one, say they are."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from linear_oracles import D, N, problem, random_orders, relative

from janus_pl.linear import Watch, run_epochs, run_epochs_torch

EPOCHS, REPLICAS, PROBES = 6, 3, 4
ETAS = 0.03 / np.sqrt(np.arange(1, EPOCHS + 1))
LAM, SCALE = np.array([0.0, 0.02, 0.1]), np.array([0.7, 1.0, 1.4])
NAMES = ("speed", "velocity", "mean", "variance", "probe_variance", "before", "slope")
ENGINES = ("compiled", "torch")
ALL = 10**6


def steps_per_epoch(batch_size: int) -> int:
    return -(-N // batch_size)


def probes_of(replicas: int = REPLICAS) -> Any:
    return np.random.default_rng(5).standard_normal((replicas, PROBES, D))


def own_orders(epochs: int = EPOCHS) -> Any:
    """Random orders, those of each replica its own."""
    return np.stack([random_orders(epochs, seed) for seed in range(REPLICAS)])


def watch_of(w: Any, batch_size: int, epochs: int = EPOCHS, most: int = 512) -> Watch:
    probes = torch.from_numpy(probes_of(len(w)))
    each = steps_per_epoch(batch_size)
    return Watch(torch.from_numpy(w), probes, epochs * each, each, most)


def train(
    engine: str,
    w: Any,
    x: Any,
    y: Any,
    orders: Any,
    batch_size: int,
    etas: Any,
    lam: Any,
    scale: Any = 1.0,
    **options: Any,
) -> None:
    """Run either engine, in place on w."""
    if engine == "compiled":
        run_epochs(w, x, y, orders, batch_size, etas, lam, scale, **options)
        return
    tensors = [None if a is None else torch.from_numpy(a) for a in (w, x, y, orders)]
    rates = [torch.tensor(rate, dtype=torch.float64) for rate in (lam, scale)]
    run_epochs_torch(*tensors, batch_size, etas, *rates, **options)


def oracle_steps(
    w: Any, x: Any, y: Any, orders: Any, batch_size: int, decay: float = 2.0
) -> list[list[oracle.Step]]:
    """The steps of every replica."""
    return [
        oracle.steps_of(
            w[r], x[r], y[r], orders[r], batch_size, ETAS * SCALE[r], float(LAM[r]), decay
        )
        for r in range(REPLICAS)
    ]


def expected_of(trajectories: list[list[oracle.Step]], looks: list[int]) -> dict[str, Any]:
    """The oracle's statistics of the steps `looks`, replicas stacked."""
    each = [
        oracle.statistics([steps[t] for t in looks], probes)
        for steps, probes in zip(trajectories, probes_of(), strict=True)
    ]
    return {name: np.stack([one[name] for one in each]) for name in NAMES}


def assert_same_bits(watch: Watch, other: Watch) -> None:
    for name in NAMES:
        assert torch.equal(getattr(watch, name), getattr(other, name)), name


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize(("convention", "decay"), [("paper", 2.0), ("appendix_a", 1.0)])
@pytest.mark.parametrize("batch_size", [1, 3, N])
def test_watch_says_what_the_steps_looked_at_say(
    batch_size: int, convention: Any, decay: float, every_step: bool
) -> None:
    w, x, y = problem(REPLICAS)
    orders = own_orders()
    trajectories = oracle_steps(w, x, y, orders, batch_size, decay)
    each = steps_per_epoch(batch_size)
    most = EPOCHS * each // (1 if every_step else 3)
    looks = oracle.looked_at(EPOCHS * each, each, most)
    assert (len(looks) == EPOCHS * each) == every_step
    expected = expected_of(trajectories, looks)
    for engine in ENGINES:
        watch, trained = watch_of(w, batch_size, most=most), w.copy()
        rates = ETAS, LAM, SCALE
        settings: Any = {"decay_convention": convention, "watch": watch}
        train(engine, trained, x, y, orders, batch_size, *rates, **settings)
        for name in NAMES:
            measured = getattr(watch, name).numpy()
            assert measured.shape == expected[name].shape
            for r in range(REPLICAS):
                assert relative(measured[r], expected[name][r]) < 1e-13, (engine, name)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_other_steps_say_something_else(batch_size: int) -> None:
    w, x, y = problem(REPLICAS)
    orders, each = own_orders(), steps_per_epoch(batch_size)
    trajectories = oracle_steps(w, x, y, orders, batch_size)
    looks = oracle.looked_at(EPOCHS * each, each, most=8)
    watch = watch_of(w, batch_size, most=8)
    train("compiled", w, x, y, orders, batch_size, ETAS, LAM, SCALE, watch=watch)
    wrong = [[t - 1 for t in looks], looks[:-1], looks[1:]]
    for others in (expected_of(trajectories, steps) for steps in wrong):
        for name in ("speed", "velocity", "mean", "variance", "probe_variance"):
            assert relative(getattr(watch, name).numpy(), others[name]) > 1e-4, name
    decayed_otherwise = expected_of(oracle_steps(w, x, y, orders, batch_size, 1.0), looks)
    assert relative(watch.speed.numpy(), decayed_otherwise["speed"]) > 1e-4
    assert relative(watch.speed, watch.velocity) > 1e-1


@pytest.mark.parametrize(
    ("steps", "steps_per_epoch", "most", "stride"),
    [
        (60, 10, 60, 1),
        (60, 10, 59, 3),  # 2 divides 10
        (60, 10, 20, 3),
        (60, 10, 15, 7),  # 4, 5 and 6 have a factor in common with 10
        (60, 10, 1, 61),
        (60, 1, 15, 4),
        (60, 30, 59, 7),
        (7, 7, 2, 4),
        (1, 1, 1, 1),
    ],
)
def test_stride_is_the_smallest_that_shares_no_factor(
    steps: int, steps_per_epoch: int, most: int, stride: int
) -> None:
    w = torch.zeros(1, 1, 1, dtype=torch.float64)
    watch = Watch(w, w, steps, steps_per_epoch, most)
    looks = []
    for t in range(steps):
        if watch.until == 0:
            looks.append(t)
        watch.taken += 1
    assert watch.stride == stride
    assert looks == oracle.looked_at(steps, steps_per_epoch, most)
    assert looks == [t for t in range(steps) if (steps - 1 - t) % stride == 0]
    assert looks[-1] == steps - 1 and len(looks) <= most


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("most", [ALL, 8, 1])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_watching_changes_no_bit_of_w(batch_size: int, most: int, engine: str) -> None:
    w, x, y = problem(REPLICAS)
    watched, start = w.copy(), w.copy()
    orders, rates = own_orders(), (ETAS, LAM, SCALE)
    watch = watch_of(w, batch_size, most=most)
    train(engine, w, x, y, orders, batch_size, *rates)
    train(engine, watched, x, y, orders, batch_size, *rates, watch=watch)
    assert np.array_equal(watched, w)
    assert not np.array_equal(watched, start)
    assert torch.all(watch.speed > 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("most", [ALL, 8, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_several_calls_fill_a_watch_like_one_call_bitwise(
    batch_size: int, most: int, engine: str
) -> None:
    w, x, y = problem(REPLICAS)
    start, orders = w.copy(), own_orders()
    whole = watch_of(w, batch_size, most=most)
    train(engine, w, x, y, orders, batch_size, ETAS, LAM, SCALE, watch=whole)

    def cut_at(*borders: int) -> Watch:
        parts, trained = watch_of(w, batch_size, most=most), start.copy()
        for first, last in zip((0, *borders), (*borders, EPOCHS), strict=True):
            part = np.ascontiguousarray(orders[:, first:last]), batch_size, ETAS[first:last]
            train(engine, trained, x, y, *part, LAM, SCALE, watch=parts)
        return parts

    assert_same_bits(cut_at(1, 4), whole)
    assert_same_bits(cut_at(1, 2, 3, 4, 5), whole)
    # A watch that forgets the first call is another one.
    forgetful, trained = watch_of(w, batch_size, most=most), start.copy()
    for first, last in ((0, 5), (5, 6)):
        part = np.ascontiguousarray(orders[:, first:last]), batch_size, ETAS[first:last]
        watch = forgetful if first else None
        train(engine, trained, x, y, *part, LAM, SCALE, watch=watch)
    assert not torch.equal(forgetful.mean, whole.mean)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_threads_and_company_change_no_bit(batch_size: int) -> None:
    w, x, y = problem(REPLICAS)
    orders, probes = own_orders(), torch.from_numpy(probes_of())
    watches = []
    for threads in (1, 2):
        watch = watch_of(w, batch_size, most=8)
        data = w.copy(), x, y, orders, batch_size, ETAS, LAM, SCALE
        run_epochs(*data, watch=watch, threads=threads)
        watches.append(watch)
    assert_same_bits(*watches)
    for r in range(REPLICAS):
        one, x_r, y_r, order = (a[r : r + 1].copy() for a in (w, x, y, orders))
        each = steps_per_epoch(batch_size)
        alone = Watch(torch.from_numpy(one), probes[r : r + 1], EPOCHS * each, each, 8)
        run_epochs(one, x_r, y_r, order, batch_size, ETAS, LAM[r], SCALE[r], watch=alone)
        for name in NAMES:
            assert torch.equal(getattr(alone, name)[0], getattr(watches[0], name)[r]), name
        assert not torch.equal(alone.speed[0], watches[0].speed[r - 1])


@pytest.mark.parametrize("engine", ENGINES)
def test_velocity_is_nan_where_a_step_looked_at_starts_at_zero(engine: str) -> None:
    w, x, y = problem(REPLICAS)
    w[0] = 0
    orders = own_orders()
    trajectories = oracle_steps(w, x, y, orders, 1)
    for most, finite in ((ALL, [False, True, True]), (8, [True, True, True])):
        looks = oracle.looked_at(EPOCHS * N, N, most)
        assert (0 in looks) == (not finite[0])
        expected, watch = expected_of(trajectories, looks), watch_of(w, 1, most=most)
        train(engine, w.copy(), x, y, orders, 1, ETAS, LAM, SCALE, watch=watch)
        assert torch.isfinite(watch.velocity).tolist() == finite
        for name in NAMES:
            measured = getattr(watch, name).numpy()
            np.testing.assert_allclose(measured, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("most", [ALL, 20])
def test_gradient_descent_at_rest_has_no_noise_and_sgd_has(most: int, engine: str) -> None:
    w, x, y = problem(REPLICAS)
    etas, lam = [0.05] * 8000, np.array([0.01, 0.05, 0.1])
    descent, cyclic, random = w.copy(), w.copy(), w.copy()
    noises = {}
    for name, trained, batch_size, order in (
        ("GD", descent, N, None),
        ("cycle", cyclic, 1, None),
        ("random", random, 1, random_orders(50)),
    ):
        run_epochs(trained, x, y, None, batch_size, etas, lam)
        watch = watch_of(w, batch_size, epochs=50, most=most)
        train(engine, trained, x, y, order, batch_size, etas[:50], lam, watch=watch)
        noises[name] = watch
    assert torch.all(noises["GD"].variance < 1e-28)
    assert torch.all(noises["GD"].probe_variance < 1e-28)
    assert torch.all(noises["GD"].speed < 1e-13)
    for name in ("cycle", "random"):
        assert torch.all(noises[name].variance > 1e-2)
        assert torch.all(noises[name].probe_variance > 1e-2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stride_visits_every_phase_of_a_fixed_order(engine: str) -> None:
    w, x, y = problem()
    eta, lam, epochs = 0.04, 0.05, 300
    run_epochs(w, x, y, None, 1, [eta] * 600, lam)
    expected = oracle.cycle_variance(x[0], y[0], 1, eta, lam)

    def measured(most: int, each: int = N) -> float:
        probes = torch.from_numpy(probes_of(1))
        watch = Watch(torch.from_numpy(w), probes, epochs * N, each, most)
        train(engine, w.copy(), x, y, None, 1, [eta] * epochs, lam, watch=watch)
        return float(watch.variance[0])

    assert measured(most=epochs * N) == pytest.approx(expected, rel=1e-10)
    # Stride 3, though every 2nd step would do by their number: 100 looks at each of 10 phases.
    assert measured(most=1500) == pytest.approx(expected, rel=1e-6)
    # Told nothing of the epoch, it looks at every 2nd step and sees half the phases.
    assert abs(measured(most=1500, each=1) - expected) > 1e-2 * expected


def test_a_watch_that_does_not_fit_is_refused_before_compiled_code_sees_it() -> None:
    w, x, y = oracle.problem(replicas=3)
    watched = torch.from_numpy(w)
    samples = torch.from_numpy(x).mT
    cases = {
        "the watch is for W": Watch(watched[:2], samples[:2], 5),
        "probes are": Watch(watched, samples[:1], 5),
        "not \\(3, K, 7\\)": Watch(watched, samples[:, :, :4], 5),
        "the watch is for": Watch(watched.float(), samples, 5),
    }
    for message, watch in cases.items():
        with pytest.raises(ValueError, match=message):
            run_epochs(w, x, y, None, 1, [0.01], 0.0, watch=watch)
    with pytest.raises(ValueError, match="at least one step"):
        Watch(watched, samples, 0)
