"""The losses against their closed forms, their slopes, and the ends of the number line."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from janus_pl.deep import losses

NAMES = ("square", "logistic", "exponential", "cross_entropy")
every_loss = pytest.mark.parametrize("name", NAMES)
# The exponential loss is infinite where its formula is.
bounded = pytest.mark.parametrize("name", [n for n in NAMES if n != "exponential"])
exponential_type = pytest.mark.parametrize("name", [n for n in NAMES if n != "square"])


def closed_form(name: str, outputs: Tensor, y: Tensor) -> np.ndarray:
    if name == "exponential":
        f = outputs.double().numpy()
        return np.exp(-y.double().numpy() * (f[:, 1] - f[:, 0]) / 2)
    return oracles.loss_value(name, outputs, y)


def closed_pull(name: str, signal: float) -> float:
    return math.exp(-signal) if name == "exponential" else oracles.pull(name, signal)


def batch(count: int = 64, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = scale * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1.0
    return outputs, y.double()


def from_signal(signal: Tensor, common: float = 0.0) -> Tensor:
    """Outputs `(m - s, m + s)` for the label +1: the signal is `s`."""
    return torch.stack([common - signal, common + signal], dim=1)


def apply(name: str, outputs: Tensor, y: Tensor) -> Tensor:
    return getattr(losses, name)(outputs, y)


def slopes(name: str, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives in the signal `s = y (f_1 - f_0)/2` and in the common mode, per sample."""
    outputs = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(apply(name, outputs, y).sum(), outputs)
    return y * (gradient[:, 1] - gradient[:, 0]), gradient[:, 0] + gradient[:, 1]


@every_loss
def test_agrees_with_the_closed_form_sample_by_sample(name):
    outputs, y = batch()
    expected = torch.from_numpy(closed_form(name, outputs, y))
    assert apply(name, outputs, y).shape == (64,)
    torch.testing.assert_close(apply(name, outputs, y), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("square", 1.0),
        ("logistic", math.log(2)),
        ("exponential", 1.0),
        ("cross_entropy", math.log(2)),
    ],
)
def test_value_at_zero(name, expected):
    value = apply(name, torch.zeros(2, 2, dtype=torch.float64), torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(value, torch.full((2,), expected, dtype=torch.float64))


@every_loss
def test_class_plus_one_is_output_one(name):
    right = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    y = torch.tensor([1.0, -1.0])
    assert (apply(name, right, y) < apply(name, -right, y) - 0.9).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_labels_may_be_of_any_number_type(name, dtype):
    outputs, y = batch(8)
    expected = torch.from_numpy(closed_form(name, outputs, y))
    torch.testing.assert_close(apply(name, outputs, y.to(dtype)), expected)


@every_loss
def test_slope_in_the_signal_is_the_residual(name):
    outputs, y = batch()
    signal = y * (outputs[:, 1] - outputs[:, 0]) / 2
    pulls = [-closed_pull(name, s) for s in signal.tolist()]
    expected = torch.tensor(pulls, dtype=torch.float64)
    torch.testing.assert_close(slopes(name, outputs, y)[0], expected, rtol=1e-12, atol=1e-15)


def test_square_loss_is_the_scalar_loss_plus_the_common_mode():
    outputs, y = batch()
    signal, common = (outputs[:, 1] - outputs[:, 0]) / 2, outputs.mean(dim=1)
    scalar = (signal - y) ** 2
    value = losses.square(outputs, y)
    torch.testing.assert_close(value, scalar + common**2, rtol=1e-13, atol=1e-15)
    assert (value - scalar).abs().max() > 0.1
    torch.testing.assert_close(
        losses.square(torch.stack([-signal, signal], dim=1), y), scalar, rtol=1e-13, atol=1e-15
    )


def test_square_loss_pulls_the_common_mode_to_zero():
    outputs, y = batch()
    # d/dm of m^2 per unit of m, where m moves both outputs: the sum of the two slopes.
    expected = 2 * outputs.mean(dim=1)
    torch.testing.assert_close(slopes("square", outputs, y)[1], expected, rtol=1e-12, atol=1e-14)


@exponential_type
def test_exponential_type_losses_do_not_see_the_common_mode(name):
    outputs, y = batch()
    torch.testing.assert_close(
        apply(name, outputs + 3.0, y), apply(name, outputs, y), rtol=1e-12, atol=1e-15
    )
    assert slopes(name, outputs, y)[1].abs().max() < 1e-15


def test_cross_entropy_is_the_logistic_loss_of_twice_the_margin():
    outputs, y = batch()
    doubled = losses.logistic(2 * outputs, y)
    torch.testing.assert_close(losses.cross_entropy(outputs, y), doubled, rtol=1e-12, atol=1e-15)
    assert not torch.allclose(losses.cross_entropy(outputs, y), losses.logistic(outputs, y))


def test_cross_entropy_is_minus_the_log_probability_in_nats():
    outputs, y = batch()
    probabilities = np.exp(outputs.numpy())
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    chosen = probabilities[np.arange(64), (y.numpy() > 0).astype(int)]
    torch.testing.assert_close(losses.cross_entropy(outputs, y), torch.from_numpy(-np.log(chosen)))


@bounded
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_outputs_stay_finite(name, dtype):
    signal = torch.tensor([1e4, -1e4], dtype=dtype)
    outputs, y = from_signal(signal), torch.ones(2, dtype=dtype)
    value, slope = apply(name, outputs, y), slopes(name, outputs, y)[0]
    assert value.isfinite().all()
    assert slope.isfinite().all()
    expected = closed_form(name, outputs, y)
    np.testing.assert_allclose(value.double().numpy(), expected, rtol=1e-6)
    assert slope[1].item() == pytest.approx(-closed_pull(name, -1e4), rel=1e-6)


def test_naive_logistic_loss_would_overflow():
    assert torch.log1p(torch.exp(torch.tensor(1e4, dtype=torch.float64))).isinf()


def test_logistic_loss_is_accurate_in_both_tails():
    # A softplus that switches to a straight line at 20 is off by 1e-10 there.
    signal = torch.linspace(-30, 30, 241, dtype=torch.float64)
    outputs, y = from_signal(signal), torch.ones(241, dtype=torch.float64)
    expected = torch.from_numpy(oracles.loss_value("logistic", outputs, y))
    torch.testing.assert_close(losses.logistic(outputs, y), expected, rtol=1e-12, atol=0)


@exponential_type
@pytest.mark.parametrize("signal", [6.0, 9.0, 15.0])
def test_well_fitted_samples_still_pull_in_single_precision(name, signal):
    # Eq. 16 rests on a pull that is positive for every margin. The probability of the right class
    # rounds to 1 here: 1 - p would be 0 in float32, and so would the loss.
    outputs, y = from_signal(torch.tensor([signal]), common=0.5), torch.ones(1)
    slope, value = slopes(name, outputs, y)[0].item(), apply(name, outputs, y).item()
    assert slope == pytest.approx(-closed_pull(name, signal), rel=1e-4, abs=0)
    assert value == pytest.approx(closed_form(name, outputs, y)[0], rel=1e-4, abs=0)


def test_exponential_loss_ends_where_its_number_line_does():
    # exp(88.7) is the last of float32: a wrong sample beyond it is a divergence, not a large loss.
    outputs, y = from_signal(torch.tensor([-88.0, -89.0, 200.0])), torch.ones(3)
    value = losses.exponential(outputs, y)
    assert value.isfinite().tolist() == [True, False, True]
    assert value[2] == 0.0


def test_exponential_loss_is_the_logistic_loss_of_large_margins_alone():
    large, none = torch.tensor([15.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    y = torch.ones(1, dtype=torch.float64)
    near = losses.exponential(from_signal(large), y) / losses.logistic(from_signal(large), y)
    far = losses.exponential(from_signal(none), y) / losses.logistic(from_signal(none), y)
    assert near.item() == pytest.approx(1, abs=1e-6)
    assert far.item() == pytest.approx(1 / math.log(2))


# Pulls


def test_every_loss_has_a_pull_and_every_name_is_its_function():
    assert set(losses.LOSSES) == set(losses.PULLS) == set(NAMES)
    assert all(losses.LOSSES[name] is getattr(losses, name) for name in NAMES)


@every_loss
def test_pull_is_minus_the_slope_of_the_loss(name):
    outputs, y = batch()
    signal = y * (outputs[:, 1] - outputs[:, 0]) / 2
    pull = losses.PULLS[name](signal)
    torch.testing.assert_close(pull, -slopes(name, outputs, y)[0], rtol=1e-12, atol=1e-15)
    # Another loss's pull, or this one's with the other sign of the margin, is off.
    for other in set(NAMES) - {name}:
        assert (losses.PULLS[other](signal) - pull).abs().max() > 0.1
    assert (losses.PULLS[name](-signal) - pull).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("square", [-2.0, 2.0, 6.0]),
        ("logistic", [math.exp(-2) / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(-2))]),
        ("exponential", [math.exp(-2), 1.0, math.exp(2)]),
        ("cross_entropy", [2 * math.exp(-4) / (1 + math.exp(-4)), 1.0, 2 / (1 + math.exp(-4))]),
    ],
)
def test_pull_by_hand(name, expected):
    pull = losses.PULLS[name](torch.tensor([[2.0, 0.0, -2.0]], dtype=torch.float64))
    assert pull.tolist() == [pytest.approx(expected, rel=1e-14)]


@exponential_type
def test_pull_of_a_well_fitted_sample_is_accurate_in_single_precision(name):
    pull = losses.PULLS[name](torch.tensor([6.0, 15.0, 30.0]))
    assert (pull > 0).all()
    expected = [closed_pull(name, s) for s in (6.0, 15.0, 30.0)]
    np.testing.assert_allclose(pull.double().numpy(), expected, rtol=1e-5)
