"""Ranks of known spectra against the SVD, and what must leave them unchanged."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from janus_pl.observables.rank import (
    effective_rank,
    numerical_rank,
    singular_values,
    stable_rank,
)

TOLERANCES = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7]
SPECTRUM = [1.0, 0.3, 3e-2, 3e-3, 3e-4, 3e-5, 3e-6, 3e-7]
SHAPES = [(12, 30), (30, 12), (9, 9), (64, 576), (576, 64)]
properties = settings(max_examples=40)


def ranks(matrix: Tensor, tolerance: float, relative: bool = True) -> int:
    return int(numerical_rank(singular_values(matrix), tolerance, relative=relative))


def float32_gram_rank(matrix: Tensor, tolerance: float) -> int:
    """The tempting shortcut: the Gram matrix formed in single precision."""
    gram = matrix.float() @ matrix.float().T
    s = torch.linalg.eigvalsh(gram.double()).clamp(min=0).sqrt()
    return int((s > tolerance * s.max()).sum())


@pytest.mark.parametrize("shape", [*SHAPES, (1, 7), (7, 1), (1, 1), (2, 1024)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_agree_with_the_svd(shape, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    values = singular_values(matrix)
    assert values.dtype == torch.float64
    assert values.shape == (min(shape),)
    assert (values.diff() <= 0).all()
    expected = oracles.singular_values(matrix)
    # The square of a value is accurate to the machine epsilon of the largest square.
    np.testing.assert_allclose(values.numpy() ** 2, expected**2, atol=1e-14 * expected[0] ** 2)


def test_singular_values_leave_the_matrix_alone():
    matrix = torch.randn(4, 6)
    before = matrix.clone()
    singular_values(matrix)
    assert torch.equal(matrix, before)


def test_singular_values_of_a_parameter_carry_no_gradient_into_training():
    weight = torch.nn.Parameter(torch.randn(4, 6))
    assert int(numerical_rank(singular_values(weight), 1e-6)) == 4
    assert weight.grad is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e6])
def test_relative_rank_of_a_known_spectrum(shape, tolerance, scale):
    matrix = scale * oracles.with_spectrum(*shape, SPECTRUM, 0)
    known = sum(value > tolerance for value in SPECTRUM)
    assert oracles.numerical_rank(matrix, tolerance) == known
    assert ranks(matrix, tolerance) == known


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_absolute_rank_of_a_known_spectrum(shape, tolerance):
    matrix = 0.2 * oracles.with_spectrum(*shape, SPECTRUM, 1)
    known = sum(0.2 * value > tolerance for value in SPECTRUM)
    assert oracles.numerical_rank(matrix, tolerance, relative=False) == known
    assert ranks(matrix, tolerance, relative=False) == known


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_rank_of_a_single_precision_matrix_is_that_of_its_entries(tolerance):
    matrix = oracles.with_spectrum(30, 12, SPECTRUM, seed=2).float()
    assert ranks(matrix, tolerance) == oracles.numerical_rank(matrix, tolerance)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-5, 1e-6, 1e-7])
def test_a_single_precision_gram_matrix_gives_the_wrong_rank(tolerance):
    matrix = oracles.with_spectrum(64, 576, SPECTRUM, seed=0)
    assert ranks(matrix, tolerance) == oracles.numerical_rank(matrix, tolerance)
    assert float32_gram_rank(matrix, tolerance) != oracles.numerical_rank(matrix, tolerance)


def test_rank_counts_strictly_above_the_tolerance():
    s = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    assert int(numerical_rank(s, 0.5)) == 1
    assert int(numerical_rank(s, 0.49)) == 2
    assert int(numerical_rank(s, 2.0, relative=False)) == 1
    assert int(numerical_rank(s, 0.5, relative=False)) == 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_stable_and_effective_rank_agree_with_the_svd(shape, seed):
    matrix = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))
    s = singular_values(matrix)
    assert float(stable_rank(s)) == pytest.approx(oracles.stable_rank(matrix), rel=1e-12)
    # The entropy takes the small values at face value, each good to 1e-8 of the largest.
    assert float(effective_rank(s)) == pytest.approx(oracles.effective_rank(matrix), rel=1e-7)


def test_ranks_of_equal_values_are_their_number():
    s = singular_values(3.0 * oracles.with_spectrum(20, 50, [1.0] * 20, seed=0))
    assert float(stable_rank(s)) == pytest.approx(20, rel=1e-12)
    assert float(effective_rank(s)) == pytest.approx(20, rel=1e-12)


def test_ranks_by_hand():
    s = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    assert float(stable_rank(s)) == pytest.approx(10 / 9, rel=1e-14)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(effective_rank(s)) == pytest.approx(math.exp(entropy), rel=1e-14)


def test_rank_one_has_rank_one_in_every_sense():
    matrix = torch.outer(torch.arange(1.0, 6.0), torch.arange(1.0, 9.0)).double()
    s = singular_values(matrix)
    assert int(numerical_rank(s, 1e-7)) == 1
    assert float(stable_rank(s)) == pytest.approx(1.0, rel=1e-12)
    assert float(effective_rank(s)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (1, 1)])
def test_a_matrix_that_is_not_finite_has_no_rank(bad, shape):
    matrix = torch.randn(shape)
    matrix[-1, -1] = bad
    s = singular_values(matrix)
    assert s.shape == (min(shape),)
    assert s.isnan().all()
    for value in (
        numerical_rank(s, 1e-3),
        numerical_rank(s, 1e-3, relative=False),
        stable_rank(s),
        effective_rank(s),
    ):
        assert value.dtype == torch.float64
        assert value.shape == ()
        assert value.isnan()


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (1, 1)])
def test_a_zero_matrix_has_rank_zero(shape):
    s = singular_values(torch.zeros(shape))
    for value in (
        numerical_rank(s, 1e-3),
        numerical_rank(s, 1e-3, relative=False),
        stable_rank(s),
        effective_rank(s),
    ):
        assert value.item() == 0.0


@st.composite
def known_matrices(draw) -> tuple[Tensor, float]:
    """A matrix and a tolerance in a gap of its spectrum, at least a factor of 1.5 to both sides."""
    m, n = draw(st.integers(2, 14)), draw(st.integers(2, 14))
    exponents = draw(st.lists(st.integers(0, 6), min_size=1, max_size=min(m, n)))
    spectrum = sorted((10.0**-e for e in exponents), reverse=True)
    tolerance = 10.0 ** -(draw(st.integers(0, 6)) + 0.5)
    return oracles.with_spectrum(m, n, spectrum, draw(st.integers(0, 2**31))), tolerance


def all_ranks(matrix: Tensor, tolerance: float) -> tuple[int, float, float]:
    s = singular_values(matrix)
    return int(numerical_rank(s, tolerance)), float(stable_rank(s)), float(effective_rank(s))


def assert_same_ranks(one: tuple[int, float, float], other: tuple[int, float, float]) -> None:
    assert one[0] == other[0]
    assert one[1] == pytest.approx(other[1], rel=1e-10)
    # Values that are zero come out as 1e-8 of the largest, with as much entropy.
    assert one[2] == pytest.approx(other[2], rel=1e-5)


@given(known_matrices())
@properties
def test_ranks_agree_with_the_svd(case):
    matrix, tolerance = case
    expected = (
        oracles.numerical_rank(matrix, tolerance),
        oracles.stable_rank(matrix),
        oracles.effective_rank(matrix),
    )
    assert_same_ranks(all_ranks(matrix, tolerance), expected)


@given(known_matrices(), st.floats(-30, 30), st.sampled_from([-1.0, 1.0]))
@properties
def test_ranks_do_not_see_the_scale(case, exponent, sign):
    matrix, tolerance = case
    scaled = sign * 10.0**exponent * matrix
    assert_same_ranks(all_ranks(scaled, tolerance), all_ranks(matrix, tolerance))


@given(known_matrices(), st.integers(0, 2**31))
@properties
def test_ranks_do_not_see_orthogonal_maps(case, seed):
    matrix, tolerance = case
    m, n = matrix.shape
    turned = oracles.orthogonal(m, seed) @ matrix @ oracles.orthogonal(n, seed + 1)
    assert_same_ranks(all_ranks(turned, tolerance), all_ranks(matrix, tolerance))


@given(known_matrices())
@properties
def test_ranks_do_not_see_the_transpose(case):
    matrix, tolerance = case
    assert_same_ranks(all_ranks(matrix.T, tolerance), all_ranks(matrix, tolerance))


@given(known_matrices())
@properties
def test_ranks_are_ordered(case):
    matrix, tolerance = case
    _, stable, effective = all_ranks(matrix, tolerance)
    # The rank at a tolerance below every value bounds both.
    full = int(numerical_rank(singular_values(matrix), 1e-7))
    assert 1 - 1e-12 <= stable <= full + 1e-6
    assert 1 - 1e-12 <= effective <= full + 1e-4


def test_a_change_that_is_not_orthogonal_is_seen():
    matrix = oracles.with_spectrum(6, 8, [1.0, 1e-2, 1e-4], seed=0)
    stretched = torch.diag(torch.logspace(0, 3, 6, dtype=torch.float64)) @ matrix
    before, after = all_ranks(matrix, 1e-3), all_ranks(stretched, 1e-3)
    assert after[2] != pytest.approx(before[2], rel=1e-3)
