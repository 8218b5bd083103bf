"""The closed forms of linear regression against loops, linear solves and simulations."""

from __future__ import annotations

from functools import partial
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from janus_pl import theory

sizes = st.integers(1, 7)


def data(d: int = 6, n: int = 4, m: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, n)), rng.standard_normal((m, n))


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


def tensors(*arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(a)) for a in arrays]


@settings(deadline=None, max_examples=30)
@given(sizes, sizes, sizes, st.sampled_from([1e-3, 0.1, 2.0]))
def test_regularized_solution_is_the_ridge_solution(d: int, n: int, m: int, lam: float) -> None:
    x, y = data(d, n, m)
    w = theory.regularized_solution(*tensors(x, y), lam)
    expected = oracle.ridge(x, y, lam)
    assert relative(w, expected) < 1e-10
    assert relative(oracle.ridge(x, y, lam / (n + 1)), expected) > 1e-8
    gradient = oracle.data_gradient(w.numpy(), x, y, range(n)) + 2 * lam * w.numpy()
    assert np.linalg.norm(gradient) < 1e-12 * (1 + np.linalg.norm(y @ x.T))


def test_solution_without_decay_has_least_norm_and_replicas_go_together() -> None:
    x, y = data()
    x[-1] = 0
    w = theory.regularized_solution(*tensors(x, y), 0.0)
    assert relative(w, np.linalg.lstsq(x.T, y.T, rcond=None)[0].T) < 1e-12
    both = theory.regularized_solution(
        *tensors([x, 2 * x], [y, y]), torch.tensor([0.0, 0.5], dtype=torch.float64)
    )
    assert relative(both[0], w) < 1e-14
    assert relative(both[1], oracle.ridge(2 * x, y, 0.5)) < 1e-12


@settings(deadline=None, max_examples=30)
@given(sizes, sizes, st.integers(0, 3))
def test_projector_splits_span_and_null_space(d: int, n: int, empty: int) -> None:
    x, _ = data(d, n)
    x[d - min(empty, d) :] = 0
    basis = oracle.null_basis(x)
    w = np.random.default_rng(1).standard_normal((3, d))
    projector = theory.data_projector(*tensors(x))
    null = theory.null_component(*tensors(w), projector).numpy()
    assert np.abs(null - w @ basis @ basis.T).max() < 1e-11
    assert np.abs(null @ x).max() < 1e-11 * (1 + np.abs(x).max())


def test_projector_counts_directions_above_its_tolerance() -> None:
    x = torch.diag(torch.tensor([1.0, 1e-6, 1e-18], dtype=torch.float64))
    assert float(theory.data_projector(x).trace()) == pytest.approx(2)
    assert float(theory.data_projector(x, tolerance=1e-3).trace()) == pytest.approx(1)


@pytest.mark.parametrize(("convention", "decay"), [("paper", 2.0), ("appendix_a", 1.0)])
def test_decay_per_epoch_is_one_factor_a_step(convention: Any, decay: float) -> None:
    etas = 0.3 / np.sqrt(np.arange(50) + 1)
    for lam, steps in ((0.0, 10), (0.02, 1), (0.02, 4), (5.0, 3)):  # the last changes sign
        expected = oracle.null_norms(1.0, etas, lam, steps, decay)
        found = theory.decay_per_epoch(torch.from_numpy(etas), lam, steps, convention)
        assert np.abs(found.numpy() - expected).max() < 1e-14
        if lam > 0:
            other = oracle.null_norms(1.0, etas, lam, steps, 3 - decay)
            assert np.abs(found.numpy() - other).max() > 1e-3
    lams = torch.tensor([0.0, 0.02], dtype=torch.float64)
    both = theory.decay_per_epoch(torch.from_numpy(etas), lams, 4, convention)
    assert both.shape == (50, 2)
    assert np.allclose(both[:, 1], oracle.null_norms(1.0, etas, 0.02, 4, decay), rtol=1e-13)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_log_slopes_differ_by_the_steps_of_an_epoch(batch_size: int) -> None:
    x, y = data(13, 10, 3)
    w = np.random.default_rng(2).standard_normal((3, 13))
    basis = oracle.null_basis(x)

    def slope(size: int) -> float:
        after = oracle.train(w, x, y, [range(10)], size, [0.01], 0.1)[0][-1]
        return float(np.log(np.linalg.norm(after @ basis) / np.linalg.norm(w @ basis)))

    ratio = slope(batch_size) / slope(10)
    assert ratio == pytest.approx(theory.log_slope_ratio(10, batch_size, "epoch"), rel=1e-9)
    assert theory.log_slope_ratio(10, batch_size, "step") == 1


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_epoch_map_and_its_fixed_point_are_those_of_the_loop(batch_size: int) -> None:
    x, y = data()
    w = np.random.default_rng(2).standard_normal((2, 6))
    order = [3, 0, 2, 1]
    a, b = theory.epoch_map(*tensors(x, y), batch_size, 0.05, 0.1, torch.tensor(order))
    for start in (w, 0 * w):
        expected = oracle.train(start, x, y, [order], batch_size, [0.05], 0.1)[0][-1]
        assert relative(start @ a.numpy() + b.numpy(), expected) < 1e-13
    after, _ = oracle.train(w, x, y, [order] * 3000, batch_size, [0.05] * 3000, 0.1)
    point = theory.fixed_point(a, b)
    assert relative(point, after[-1]) < 1e-11
    distance = relative(point, oracle.ridge(x, y, 0.1))
    assert distance < 1e-10 if batch_size == 4 else distance > 1e-3
    etas = torch.tensor([0.01, 0.05], dtype=torch.float64)
    stacked = theory.epoch_map(*tensors([x, x], [y, y]), batch_size, etas, 0.1, torch.tensor(order))
    assert relative(stacked[0][1], a) < 1e-14 and relative(stacked[1][1], b) < 1e-14


def test_fixed_point_without_decay_has_nothing_in_the_null_space() -> None:
    x, y = data()
    point = theory.fixed_point(*theory.epoch_map(*tensors(x, y), 1, 0.05, 0.0))
    assert relative(point, np.linalg.lstsq(x.T, y.T, rcond=None)[0].T) < 1e-10


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


@pytest.mark.parametrize("batch_size", [1, 2])
def test_covariance_of_draws_from_a_data_set_is_that_of_the_recursion(batch_size: int) -> None:
    x, y = data(3, 5, 2)
    lam = 0.1
    moments = theory.sample_moments(*tensors(x))
    eta = 0.4 * theory.mean_square_limit(moments, lam, batch_size)
    expected = oracle.stationary_covariance(x, y, eta, lam, batch_size, steps=2000)
    covariance = partial(theory.stationary_covariance, moments)
    noise = theory.sample_noise(*tensors(x, y), lam)
    assert relative(covariance(noise, eta, lam, batch_size), expected) < 1e-9
    assert relative(covariance(noise, eta, lam, batch_size + 1), expected) > 0.1
    assert relative(covariance(noise, eta, lam / 2, batch_size), expected) > 0.1
    # First order in eta, without the fourth moment.
    frozen = theory.Moments(moments.second, torch.kron(moments.second, moments.second))
    rough = theory.stationary_covariance(frozen, noise, eta, lam, batch_size)
    assert relative(rough, expected) > 0.05


def test_covariance_of_draws_from_a_data_set_is_the_simulated_one() -> None:
    x, y = data(3, 5, 2)
    lam, rng = 0.1, np.random.default_rng(0)
    moments = theory.sample_moments(*tensors(x))
    eta = 0.25 * theory.mean_square_limit(moments, lam)

    def draw() -> Any:
        chosen = rng.integers(5, size=(20_000, 1))
        return x.T[chosen].swapaxes(1, 2), y.T[chosen].swapaxes(1, 2)

    start = np.tile(oracle.ridge(x, y, lam), (20_000, 1, 1))
    expected = oracle.simulated_covariance(draw, start, eta, lam, 250)
    noise = theory.sample_noise(*tensors(x, y), lam)
    assert relative(theory.stationary_covariance(moments, noise, eta, lam), expected) < 0.05


def test_online_covariance_is_the_simulated_one() -> None:
    rng = np.random.default_rng(0)
    second = np.diag([1.0, 1.0, 0.0])
    teacher, lam, batch_size = np.array([[1.0, -2.0, 0.0], [0.5, 1.0, 0.0]]), 0.2, 2
    moments = theory.gaussian_moments(*tensors(second))
    eta = 0.25 * theory.mean_square_limit(moments, lam, batch_size)
    noise = theory.gaussian_noise(*tensors(second, teacher), 0.5, lam)

    def draw() -> Any:
        x = second @ rng.standard_normal((20_000, 3, batch_size))
        return x, teacher @ x + 0.5 * rng.standard_normal((20_000, 2, batch_size))

    start = np.zeros((20_000, 2, 3))
    expected = oracle.simulated_covariance(draw, start, eta, lam, 80)
    covariance = partial(theory.stationary_covariance, moments, noise)
    assert relative(covariance(eta, lam, batch_size), expected) < 0.05
    assert relative(covariance(eta, lam, batch_size + 1), expected) > 0.05


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


def test_no_noise_and_no_decay_leave_no_covariance() -> None:
    x, y = data(5, 3)
    moments = theory.sample_moments(*tensors(x))
    eta = 0.5 * theory.mean_square_limit(moments, 0.0)
    noise = theory.sample_noise(*tensors(x, y), 0.0)
    assert theory.stationary_covariance(moments, noise, eta, 0.0).abs().max() < 1e-20


def test_quantities_of_w() -> None:
    x, y = data(4, 5, 3)
    w = np.random.default_rng(3).standard_normal((3, 4))
    mse = theory.train_mse(*tensors(w, x, y))
    total = sum(np.linalg.norm(w @ x[:, i] - y[:, i]) ** 2 for i in range(5))
    assert float(mse.per_sample) == pytest.approx(total / 5)
    assert float(mse.per_entry) == pytest.approx(total / 15)
    turn = np.linalg.qr(np.random.default_rng(4).standard_normal((3, 3)))[0]
    small = turn @ np.diag([1.0, 1e-3, 1e-12]) @ turn.T
    assert np.allclose(theory.singular_values(*tensors(small)), [1, 1e-3, 1e-12], rtol=1e-3)
    assert np.allclose(theory.eigenvalue_moduli(*tensors(small)), [1, 1e-3, 1e-12], rtol=1e-3)
