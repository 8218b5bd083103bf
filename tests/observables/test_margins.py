"""Margins against the network of unit-norm layers, and their statistics against exact sums."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from janus_pl.deep import losses
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import WeightNorm
from janus_pl.observables.margins import (
    equilibrium_residual,
    margin_histogram,
    margin_statistics,
    output_margins,
)

STRIDES = (1, 2, 1, 1)
properties = settings(max_examples=40)
# Multiples of a small number: squares of anything much smaller leave the range of float64.
values = st.lists(st.integers(-(10**9), 10**9).map(lambda n: n / 1e6), min_size=1, max_size=30)


def network(seed: int = 0) -> DeepReLU:
    """A small network off its initial values: gains are not the norms of v, rho is not 1."""
    torch.manual_seed(seed)
    net = DeepReLU(strides=STRIDES, channels=(3, 4, 5, 4), hidden=7, image_size=16).double()
    WeightNorm(net)
    with torch.no_grad():
        net.rho.fill_(1.9)
        for name in net.weight_layers():
            v_of(net, name).mul_(1.5)
    return net


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 3, 16, 16, dtype=torch.float64, generator=generator)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(count)[:count]
    return x / x.flatten(1).norm(dim=1)[:, None, None, None], y


def v_of(net: DeepReLU, name: str) -> Tensor:
    layer: Any = net.weight_layers()[name]
    return layer.parametrizations.weight.original1


def gain_of(net: DeepReLU, name: str) -> Tensor:
    layer: Any = net.weight_layers()[name]
    return layer.parametrizations.weight.original0


def scale(net: DeepReLU) -> Tensor:
    """The paper's rho, `|rho_learned| prod g_k`."""
    gains = torch.stack([gain_of(net, name).detach() for name in net.weight_layers()])
    return net.rho.detach().abs() * gains.prod()


def measured(net: DeepReLU) -> Tensor:
    x, y = batch()
    return output_margins(net(x).detach(), y) / scale(net)


def expected_margins(net: DeepReLU) -> Tensor:
    """Through `f_V`, with the sign of rho folded into the last direction."""
    layers: dict[str, Any] = net.weight_layers()
    weights = [layer.weight.detach() for layer in layers.values()]
    weights[-1] = weights[-1] * net.rho.detach().sign()
    return oracles.margins(weights, STRIDES, *batch())


def assert_close(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
    assert other.abs().max() > 0
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * other.abs().max().item())


# Margins of a network


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rho", [1.9, -0.7])
def test_margin_over_scale_is_the_margin_of_the_unit_network(seed, rho):
    net = network(seed)
    with torch.no_grad():
        net.rho.fill_(rho)
    assert_close(measured(net), expected_margins(net))


def test_margin_needs_the_gains():
    net = network()
    x, y = batch()
    without_gains = output_margins(net(x).detach(), y) / net.rho.detach()
    assert not torch.allclose(without_gains, expected_margins(net), rtol=0.1)


@given(st.lists(st.floats(-3, 3), min_size=12, max_size=12))
@properties
def test_margin_does_not_see_the_scale_of_any_layer(exponents):
    net = network()
    before = measured(net)
    with torch.no_grad():
        for name, v, g in zip(net.weight_layers(), exponents[:6], exponents[6:], strict=True):
            v_of(net, name).mul_(10.0**v)
            gain_of(net, name).mul_(10.0**g)
    assert_close(measured(net), before, 1e-11)


# Margins of outputs


def test_output_margin_by_hand():
    outputs = torch.tensor([[1.0, 4.0], [1.0, 4.0], [-1.0, 1.0]], dtype=torch.float64)
    margins = output_margins(outputs, torch.tensor([1.0, -1.0, 1.0]))
    assert margins.tolist() == [1.5, -1.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_output_margin_takes_labels_of_any_number_type(dtype):
    outputs = torch.tensor([[1.0, 4.0], [1.0, 4.0]], dtype=torch.float64)
    assert output_margins(outputs, torch.tensor([1, -1], dtype=dtype)).tolist() == [1.5, -1.5]


def test_output_margin_does_not_see_the_common_mode():
    outputs = torch.tensor([[0.25, 0.75], [2.0, -1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0])
    assert torch.equal(output_margins(outputs, y), output_margins(outputs + 8.0, y))


def test_output_margin_is_one_at_interpolation():
    y = torch.tensor([1.0, -1.0, -1.0])
    targets = torch.stack([-y, y], dim=1)
    assert output_margins(targets, y).tolist() == [1.0, 1.0, 1.0]
    assert losses.square(targets, y).tolist() == [0.0, 0.0, 0.0]


# Statistics


@given(values, st.sampled_from([1.0, 1e-8, 1e-30, 1e8]))
@properties
def test_statistics_agree_with_exact_sums(numbers, unit):
    margins = torch.tensor(numbers, dtype=torch.float64) * unit
    mu, sigma, M = oracles.margin_moments(margins.tolist())
    statistics = margin_statistics(margins)
    largest = margins.abs().max().item()
    assert statistics.mean.item() == pytest.approx(mu, rel=0, abs=1e-14 * largest)
    assert statistics.std.item() == pytest.approx(sigma, rel=1e-12, abs=1e-14 * largest)
    assert statistics.second_moment.item() == pytest.approx(M, rel=1e-13, abs=0)
    assert statistics.min.item() == margins.min().item()


def test_statistics_are_named_float64_scalars():
    statistics = margin_statistics(torch.tensor([1.0, 2.0, 6.0]))
    assert set(statistics._fields) == {"mean", "std", "min", "second_moment"}
    for value in statistics:
        assert value.dtype == torch.float64
        assert value.shape == ()
    assert statistics.mean.item() == pytest.approx(3.0)
    assert statistics.second_moment.item() == pytest.approx(41 / 3)
    # Population, not sample: divided by N.
    assert statistics.std.item() == pytest.approx(math.sqrt(14 / 3))
    assert statistics.min.item() == 1.0


@pytest.mark.parametrize("center", [1e-8, 1e-12, 1e-25])
@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-6])
def test_tiny_margins_keep_their_spread(center, spread):
    noise = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    margins = center * (1 + spread * noise)
    _, sigma, _ = oracles.margin_moments(margins.tolist())
    assert sigma == pytest.approx(center * spread, rel=0.2, abs=0)
    assert margin_statistics(margins).std.item() == pytest.approx(sigma, rel=1e-8, abs=0)


def test_the_textbook_variance_loses_a_narrow_spread():
    noise = torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    margins = 1e-8 * (1 + 1e-6 * noise)
    _, sigma, _ = oracles.margin_moments(margins.tolist())
    textbook = (margins.square().mean() - margins.mean() ** 2).clamp(min=0).sqrt().item()
    assert textbook != pytest.approx(sigma, rel=1e-5, abs=0)


@pytest.mark.parametrize("unit", [1.0, 1e-8, 1e-25])
def test_single_precision_margins_are_summed_in_double(unit):
    noise = torch.rand(10_000, generator=torch.Generator().manual_seed(1))
    margins = (unit * (1 + 1e-3 * noise.double())).float()
    mu, sigma, M = oracles.margin_moments(margins.tolist())
    statistics = margin_statistics(margins)
    assert statistics.mean.item() == pytest.approx(mu, rel=1e-13, abs=0)
    assert statistics.std.item() == pytest.approx(sigma, rel=1e-9, abs=0)
    assert statistics.second_moment.item() == pytest.approx(M, rel=1e-13, abs=0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e-8])
def test_equal_margins_have_no_spread(value):
    statistics = margin_statistics(torch.full((7,), value, dtype=torch.float64))
    assert 0 <= statistics.std.item() <= 1e-15 * abs(value)
    assert statistics.min.item() == value


# Histogram


def assert_is_histogram(margins: Tensor, counts: np.ndarray, edges: np.ndarray, bins: int) -> None:
    assert counts.dtype == np.int64
    assert counts.shape == (bins,)
    assert edges.dtype == np.float64
    assert edges.shape == (bins + 1,)
    assert counts.sum() == len(margins)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= margins.min().item()
    assert edges[-1] >= margins.max().item()


@given(values, st.sampled_from([1.0, 1e-8, 1e-30]), st.sampled_from([1, 2, 64]))
@properties
def test_histogram_counts_every_sample_once(numbers, unit, bins):
    margins = torch.tensor(numbers, dtype=torch.float64) * unit
    assert_is_histogram(margins, *margin_histogram(margins, bins=bins), bins)


def test_histogram_puts_each_sample_between_its_edges():
    margins = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    margins = 1e-8 * margins
    counts, edges = margin_histogram(margins, bins=16)
    inside = [
        sum(low <= m < high for m in margins.tolist()) for low, high in itertools.pairwise(edges)
    ]
    inside[-1] += sum(m == edges[-1] for m in margins.tolist())
    assert counts.tolist() == inside
    # All bins at 1e-8, none wasted: the range is that of the data.
    assert edges[-1] - edges[0] < 1.1 * (margins.max() - margins.min()).item()


def test_histogram_has_64_bins_unless_told():
    margins = torch.linspace(0, 1, 10)
    assert_is_histogram(margins, *margin_histogram(margins), 64)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5e-8, 1e-300, 1e6])
@pytest.mark.parametrize("count", [1, 9])
def test_histogram_of_equal_margins(value, count):
    margins = torch.full((count,), value, dtype=torch.float64)
    assert_is_histogram(margins, *margin_histogram(margins), 64)


@pytest.mark.parametrize("value", [1.0, -2.5e-8, 1e6])
def test_histogram_of_margins_one_rounding_apart(value):
    margins = torch.tensor([value, np.nextafter(value, np.inf)], dtype=torch.float64)
    assert_is_histogram(margins, *margin_histogram(margins), 64)


# Equilibrium of rho


def test_equilibrium_residual_by_hand():
    assert float(equilibrium_residual(0.5, 0.25, 2.0, 0.0)) == 0.0
    assert float(equilibrium_residual(0.5, 0.25, 1.0, 0.125)) == 0.125
    assert float(equilibrium_residual(0.5, 0.25, 3.0, 0.125)) == -0.625


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8), st.floats(0.1, 4), st.floats(0, 1))
@properties
def test_equilibrium_residual_is_half_the_flow_of_rho(numbers, rho, lam):
    margins = torch.tensor(numbers, dtype=torch.float64)
    statistics = margin_statistics(margins)
    residual = equilibrium_residual(statistics.mean, statistics.second_moment, rho, lam)
    flow = oracles.rho_flow("square", margins, torch.zeros_like(margins), rho, lam)
    assert float(residual) == pytest.approx(flow / 2, rel=1e-12, abs=1e-12)


def test_equilibrium_residual_is_zero_at_the_best_rho():
    margins = torch.tensor([0.2, 0.5, 0.9, -0.1], dtype=torch.float64)
    lam, statistics = 0.05, margin_statistics(margins)

    # The minimum of mean (1 - rho fbar)^2 + lam rho^2 by ternary search, not by its formula.
    def loss(rho: float) -> float:
        return ((1 - rho * margins) ** 2).mean().item() + lam * rho**2

    low, high = 0.0, 10.0
    for _ in range(60):
        third = (high - low) / 3
        if loss(low + third) < loss(high - third):
            high -= third
        else:
            low += third
    residual = equilibrium_residual(statistics.mean, statistics.second_moment, low, lam)
    assert abs(float(residual)) < 1e-6
    off = equilibrium_residual(statistics.mean, statistics.second_moment, 1.1 * low, lam)
    assert abs(float(off)) > 1e-3


@pytest.mark.parametrize("rho_scale", [1.0, -2.0])
def test_two_outputs_add_their_common_mode_to_the_equilibrium_of_rho(rho_scale):
    """Half of minus dLoss/drho is `mu - (M + lam) rho - rho mean mbar^2`, in learned units."""
    net = network()
    x, y = batch()
    with torch.no_grad():
        net.rho.mul_(rho_scale / net(x).abs().mean())
    outputs, rho = net(x), net.rho.detach()
    lam = 0.02 / rho.item() ** 2  # A decay of 0.02 at this rho: neither term drowns the other.
    (losses.square(outputs, y).mean() + lam * net.rho**2).backward()
    statistics = margin_statistics(output_margins(outputs.detach(), y) / rho)
    residual = equilibrium_residual(statistics.mean, statistics.second_moment, rho, lam)
    common = (outputs.detach().mean(dim=1) / rho).square().mean()
    flow = -net.rho.grad.item() / 2
    assert flow == pytest.approx((residual - rho * common).item(), rel=1e-10, abs=0)
    assert flow != pytest.approx(residual.item(), rel=1e-3, abs=0)
