"""The limits of the learning rate against loops that converge below them and diverge above."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, get_args

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from theory_problems import data, tensors

from janus_pl import theory
from janus_pl.theory.stability import Order


def growth(x: Any, y: Any, batch_size: int, eta: float, lam: float) -> float:
    """||W(800) - W(799)|| over ||W(400) - W(399)||, in epochs."""
    start = np.ones((len(y), len(x)))
    orders = [range(x.shape[1])] * 800
    after, _ = oracle.train(start, x, y, orders, batch_size, [eta] * 800, lam)
    return float(np.linalg.norm(after[799] - after[798]) / np.linalg.norm(after[399] - after[398]))


@pytest.mark.parametrize("lam", [0.0, 0.05])
def test_limits_part_convergence_from_divergence(lam: float) -> None:
    x, y = data(5, 4)
    (tensor,) = tensors(x)
    limits = [(4, float(theory.gradient_descent_limit(tensor, lam)))]
    limits += [(size, theory.cyclic_limit(tensor, size, lam)) for size in (1, 3, 4)]
    for size, limit in limits:
        assert growth(x, y, size, 0.99 * limit, lam) < 0.5
        assert growth(x, y, size, 1.01 * limit, lam) > 2
    assert limits[0][1] == pytest.approx(limits[3][1], rel=1e-6)
    reverse = torch.arange(3, -1, -1)
    assert theory.cyclic_limit(tensor.flip(1), 3, lam, reverse) == pytest.approx(limits[2][1])
    assert theory.cyclic_limit(torch.zeros(2, 3, dtype=torch.float64), 1, 0.0) == np.inf


def test_condition_number_is_the_rate_of_gradient_descent() -> None:
    x, y = data(5, 4)
    (tensor,) = tensors(x)
    kappa = float(theory.condition_number(tensor, 0.05))
    curvatures = np.linalg.svd(x, compute_uv=False) ** 2 / 4 + 0.05
    assert kappa == pytest.approx(curvatures.max() / curvatures.min())
    eta = 1 / (curvatures.max() + curvatures.min())
    star = oracle.ridge(x, y, 0.05)
    slowest = np.linalg.svd(x)[0][:, 3]
    after, _ = oracle.train(star + np.outer([1, 1], slowest), x, y, [range(4)], 4, [eta], 0.05)
    shrunk = np.linalg.norm(after[0] - star) / np.sqrt(2)
    assert shrunk == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-10)
    assert float(theory.paper_learning_rate(tensor)) == pytest.approx(0.5 / np.linalg.norm(x, 2))


def test_mean_square_limit_is_where_the_second_moment_stops_shrinking() -> None:
    x, _ = data(3, 5)
    lam = 0.1

    def radius(eta: float) -> float:
        step = [(1 - 2 * eta * lam) * np.eye(3) - 2 * eta * np.outer(c, c) for c in x.T]
        return float(np.abs(np.linalg.eigvals(np.mean([np.kron(a, a) for a in step], 0))).max())

    moments = theory.sample_moments(*tensors(x))
    limit = theory.mean_square_limit(moments, lam)
    assert radius(limit * (1 - 1e-6)) < 1 < radius(limit * (1 + 1e-6))
    many = theory.mean_square_limit(moments, lam, batch_size=10**9)
    assert many == pytest.approx(float(theory.gradient_descent_limit(*tensors(x), lam)), rel=1e-6)
    with pytest.raises(ValueError, match="eta is"):
        theory.stationary_covariance(moments, torch.zeros(1, 1, 3, 3).double(), limit, lam)


def spectral_radius(matrix: Any) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def step_map(x: Any, batch: Sequence[int], eta: float, lam: float) -> Any:
    """What one step multiplies W by."""
    xs = x[:, list(batch)]
    return (1 - 2 * eta * lam) * np.eye(len(x)) - 2 * eta / len(batch) * xs @ xs.T


def mean_square_factor(x: Any, passes: Sequence[Any], eta: float, lam: float) -> float:
    """Spectral radius of E[A C A^T], A the product over a pass, each of the passes as likely."""
    total = np.zeros((len(x) ** 2, len(x) ** 2))
    for batches in passes:
        a = np.eye(len(x))
        for batch in batches:
            a = a @ step_map(x, batch, eta, lam)
        total += np.kron(a, a)
    return spectral_radius(total / len(passes))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_cyclic_limit_is_where_the_product_of_the_steps_stops_shrinking(batch_size: int) -> None:
    x, _ = data(3, 7, seed=1)  # 7, 4, 3 and 2 steps
    limit = theory.cyclic_limit(*tensors(x), batch_size, 0.05)

    def radius(eta: float) -> float:
        batches = oracle.minibatches(range(7), batch_size)
        return spectral_radius(
            np.linalg.multi_dot([np.eye(3), *(step_map(x, batch, eta, 0.05) for batch in batches)])
        )

    assert radius(limit * (1 - 1e-6)) < 1 < radius(limit * (1 + 1e-6))


def test_an_epoch_that_outgrows_a_float_is_unstable() -> None:
    same = torch.ones(1, 20_000, dtype=torch.float64)
    # A step at 5% above the limit multiplies W by -1.1: the epoch by 10^828.
    assert theory.epoch_map(same, same, 1, 1.05, 0.0)[0].isinf().all()
    assert theory.cyclic_limit(same, 1, 0.0) == pytest.approx(1, rel=1e-9)


def left_over(x: Any, batch_size: Any, eta: float, lam: float) -> float:
    """||W|| after 800 epochs over that after 400, in data order, where Y = 0 and so W* = 0."""
    y, size = np.zeros((2, x.shape[1])), x.shape[1] if batch_size == "full" else batch_size
    after, _ = oracle.train(np.ones((2, len(x))), x, y, [range(5)] * 800, size, [eta] * 800, lam)
    return float(np.linalg.norm(after[799]) / np.linalg.norm(after[399]))


@pytest.mark.parametrize("lam", [0.0, 0.05])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, "full"])
def test_training_in_data_order_converges_below_its_limit_alone(
    batch_size: Any, lam: float
) -> None:
    x, _ = data(4, 5)
    limit = theory.stability_limit(*tensors(x), batch_size, lam, "sequential")
    assert left_over(x, batch_size, 0.95 * limit, lam) < 0.1
    assert left_over(x, batch_size, 1.05 * limit, lam) > 10


@pytest.mark.parametrize("lam", [0.0, 0.05])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_independent_draws_keep_a_finite_variance_below_their_limit_alone(
    batch_size: int, lam: float
) -> None:
    x, _ = data(3, 5)
    draws = [[batch] for batch in itertools.product(range(5), repeat=batch_size)]
    for order in ("with_replacement", "online"):
        limit = theory.stability_limit(*tensors(x), batch_size, lam, order)
        assert mean_square_factor(x, draws, 0.95 * limit, lam) < 1
        assert mean_square_factor(x, draws, 1.05 * limit, lam) > 1


@pytest.mark.parametrize(("d", "n", "batch_size"), [(3, 5, 1), (3, 5, 2), (5, 4, 1)])
def test_a_new_order_every_epoch_bears_the_limit_but_not_twice_as_much(
    d: int, n: int, batch_size: int
) -> None:
    epochs = [list(oracle.minibatches(p, batch_size)) for p in itertools.permutations(range(n))]
    for seed in range(4):
        x, _ = data(d, n, seed=seed)
        limit = theory.stability_limit(*tensors(x), batch_size, 0.1, "shuffle")
        assert mean_square_factor(x, epochs, 0.95 * limit, 0.1) < 1
        assert mean_square_factor(x, epochs, 2.1 * limit, 0.1) > 1


def test_limits_differ_by_more_than_the_tests_allow() -> None:
    (x,) = tensors(data(3, 5)[0])
    limits = [theory.stability_limit(x, size, 0.05, "sequential") for size in (1, 2, 3, "full")]
    limits += [theory.stability_limit(x, size, 0.05, "shuffle") for size in (1, 2)]
    ordered = sorted(limits)
    assert all(0.95 * high > low for low, high in itertools.pairwise(ordered)), ordered


@pytest.mark.parametrize("order", get_args(Order))
def test_a_batch_of_all_samples_has_the_limit_of_gradient_descent(order: Order) -> None:
    x, _ = data(3, 5)
    limit = theory.stability_limit(*tensors(x), "full", 0.05, order)
    assert left_over(x, "full", 0.95 * limit, 0.05) < 0.1
    assert left_over(x, "full", 1.05 * limit, 0.05) > 10
    five = theory.stability_limit(*tensors(x), 5, 0.05, order)
    # Five draws with replacement are hardly ever all five samples.
    assert five < 0.8 * limit if order == "with_replacement" else five == limit


def test_fresh_gaussian_samples_have_the_limit_of_isserlis() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 10_000)))
    limit = theory.stability_limit(x, 1, 0.0, "online")
    assert limit == pytest.approx(1 / (4 + 2), rel=0.05)
    exact = theory.mean_square_limit(theory.gaussian_moments(torch.eye(4).double()), 0.0)
    assert exact == pytest.approx(1 / (4 + 2), rel=1e-12)


def test_what_is_too_dear_has_the_limit_of_gradient_descent() -> None:
    (wide,) = tensors(data(21, 30)[0])
    descent = float(theory.gradient_descent_limit(wide, 0.1))
    for order in ("shuffle", "with_replacement", "online"):
        assert theory.stability_limit(wide, 1, 0.1, order) == descent
        assert theory.stability_limit(wide[:20], 1, 0.1, order) < 0.5 * descent
    assert theory.stability_limit(wide, 1, 0.1, "sequential") < 0.5 * descent
    (long,) = tensors(data(10, 20_000)[0])
    descent = float(theory.gradient_descent_limit(long, 0.1))
    assert theory.stability_limit(long, 1, 0.1, "sequential") == descent
    kept = theory.stability_limit(long[:, :1000], 1, 0.1, "sequential")
    assert kept == theory.cyclic_limit(long[:, :1000], 1, 0.1) < 0.5 * descent


def test_the_first_ten_thousand_samples_stand_for_all() -> None:
    x, _ = data(2, 300_000)  # the second moments of 300,000 x 300,000 would not fit anywhere
    x[:, 10_000:] *= 0.5
    few, all_of_them = tensors(x[:, :10_000], x)
    for order in ("shuffle", "with_replacement", "online"):
        limit = theory.stability_limit(all_of_them, 1, 0.1, order)
        assert limit == theory.stability_limit(few, 1, 0.1, order)
        assert theory.stability_limit(all_of_them.flip(1), 1, 0.1, order) > 2 * limit


def test_without_data_the_decay_alone_sets_the_limit() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    for order in get_args(Order):
        assert theory.stability_limit(nothing, 1, 0.0, order) == np.inf
        assert theory.stability_limit(nothing, 1, 0.25, order) == pytest.approx(4)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 5, 3)])
def test_limit_of_gradient_descent_goes_by_the_largest_singular_value(shape: Any) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    expected = [1 / (np.linalg.svd(each)[1][0] ** 2 / shape[2] + 0.1) for each in x]
    assert theory.gradient_descent_limit(*tensors(x), 0.1).numpy() == pytest.approx(expected)
