"""Solutions, the null space and whole epochs against loops and linear solves."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_problems import data, relative, tensors

from janus_pl import theory

sizes = st.integers(1, 7)


@settings(max_examples=30)
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


@settings(max_examples=30)
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


@settings(max_examples=30)
@given(sizes, sizes, st.integers(0, 3))
def test_null_projector_is_the_projection_on_the_complement_of_the_samples(
    d: int, n: int, empty: int
) -> None:
    x, _ = data(d, n)
    x[d - min(empty, d) :] = 0
    basis = oracle.null_basis(x)
    assert np.abs(theory.null_projector(*tensors(x)).numpy() - basis @ basis.T).max() < 1e-11


@pytest.mark.parametrize("n", [2, 4, 5, 40])
def test_components_without_data_are_projected_on_exactly(n: int) -> None:
    x, _ = data(7, n)
    x *= np.logspace(0, -6, 7)[:, None]  # badly conditioned, so that U of the rest is not exact
    x[4:] = 0
    null = theory.null_projector(*tensors(x)).numpy()
    assert np.abs(null[4:, 4:] - np.eye(3)).max() < 1e-15
    assert np.abs(null[:4, 4:]).max() < 1e-15
    if n >= 4:
        assert np.abs(null[:4, :4]).max() < 1e-15
    else:
        assert np.trace(null) == pytest.approx(5)


def test_null_projector_is_exactly_zero_where_the_samples_span_everything() -> None:
    for n in (5, 6, 50):
        (x,) = tensors(data(5, n)[0])
        assert torch.equal(theory.null_projector(x), torch.zeros(5, 5, dtype=torch.float64))
        # The difference that it might have been is not.
        assert (torch.eye(5) - theory.data_projector(x)).abs().max() > 0
    nothing = torch.zeros(3, 2, dtype=torch.float64)
    assert torch.allclose(theory.null_projector(nothing), torch.eye(3).double(), atol=1e-15)


def test_null_projectors_of_different_rank_go_together() -> None:
    x = np.stack([data(4, 3, seed=seed)[0] for seed in range(3)])
    x[1, :, 1] = x[1, :, 0]
    x[2] = 0
    together = theory.null_projector(*tensors(x.reshape(3, 1, 4, 3))).numpy()
    assert together.shape == (3, 1, 4, 4)
    assert np.trace(together[:, 0], axis1=1, axis2=2) == pytest.approx([1, 2, 4])
    for replica in range(3):
        basis = oracle.null_basis(x[replica])
        assert np.abs(together[replica, 0] - basis @ basis.T).max() < 1e-14


def test_null_projector_has_the_tolerance_of_the_data_projector() -> None:
    x = torch.diag(torch.tensor([1.0, 1e-6, 1e-18], dtype=torch.float64))
    assert float(theory.null_projector(x).trace()) == pytest.approx(1)
    assert float(theory.null_projector(x, tolerance=1e-3).trace()) == pytest.approx(2)


def test_null_projector_of_many_samples_needs_no_matrix_of_their_number() -> None:
    (x,) = tensors(data(3, 200_000)[0])
    x[1] = 0  # V in full would take 320 GB
    assert torch.allclose(theory.null_projector(x), torch.diag(x.new_tensor([0, 1, 0])), atol=1e-15)


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
