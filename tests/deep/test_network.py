"""The deep ReLU network against a plain forward pass, and its shapes, counts and errors."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from torch import Tensor

from janus_pl.deep import network as network_module
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import WeightNorm
from janus_pl.errors import UsageError

NAMES = ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]
SMALL = {"channels": (3, 4, 5, 4), "hidden": 7, "image_size": 16}


def network(strides: tuple[int, ...] = (1, 2, 1, 1), seed: int = 0, **options) -> DeepReLU:
    torch.manual_seed(seed)
    return normalized(DeepReLU(strides=strides, **(SMALL | options)).double())


def normalized(net: DeepReLU) -> DeepReLU:
    """With gains and directions, as the paper counts its parameters."""
    WeightNorm(net)
    return net


def images(count: int = 5, size: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, size, size, dtype=torch.float64, generator=generator)
    return x / x.flatten(1).norm(dim=1)[:, None, None, None]


def parts(net: DeepReLU, name: str) -> tuple[Any, Any]:
    """Gain `g` and unnormalized direction `v` of one layer."""
    layer: Any = net.weight_layers()[name]
    normalization = layer.parametrizations.weight
    return normalization.original0, normalization.original1


def weights(net: DeepReLU) -> list[Tensor]:
    layers: dict[str, Any] = net.weight_layers()
    return [layer.weight.detach() for layer in layers.values()]


@pytest.fixture(scope="module")
def default() -> DeepReLU:
    torch.manual_seed(0)
    return normalized(DeepReLU())


def test_has_the_papers_parameter_count(default):
    gains = [parts(default, name)[0] for name in NAMES]
    learned = [parts(default, name)[1] for name in NAMES]
    assert sum(p.numel() for p in default.parameters()) == 3_519_335
    assert sum(v.numel() for v in learned) == 3_519_328
    assert [g.numel() for g in gains] == [1] * 6
    assert default.rho.numel() == 1


def test_learns_everything_but_the_gains(default):
    learned = sum(p.numel() for p in default.parameters() if p.requires_grad)
    assert learned == 3_519_328 + 1
    assert default.rho.requires_grad
    assert default.rho.shape == ()
    assert default.rho.item() == 1.0
    assert isinstance(default.rho, torch.nn.Parameter)


def test_layers_come_in_depth_order_without_bias(default):
    layers = default.weight_layers()
    assert list(layers) == NAMES
    assert all(layer.bias is None for layer in layers.values())
    assert [tuple(layer.weight.shape) for layer in layers.values()] == [
        (32, 3, 3, 3),
        (64, 32, 3, 3),
        (128, 64, 3, 3),
        (128, 128, 3, 3),
        (1024, 3200),
        (2, 1024),
    ]


@pytest.mark.parametrize(
    ("strides", "features"),
    [((1, 2, 1, 2), 3200), ((2, 1, 1, 2), 3200), ((2, 2, 2, 2), 128), ((1, 1, 2, 2), 4608)],
)
def test_strides_set_the_size_of_the_first_dense_layer(strides, features):
    net = DeepReLU(strides=strides, hidden=2)
    assert net.weight_layers()["fc1"].weight.shape == (2, features)
    assert features == oracles.fully_connected_size(strides, 128, 32)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_initial_entries_are_normal_with_the_given_scale(default):
    v = parts(default, "fc1")[1].detach().double()
    assert v.mean().abs() < 5 * 0.1 / v.numel() ** 0.5
    assert v.std().item() == pytest.approx(0.1, rel=5e-3)
    # A uniform distribution of the same width would have kurtosis 1.8.
    assert (v / v.std()).pow(4).mean().item() == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize("init_scale", [0.1, 0.02])
def test_every_layer_starts_at_the_given_scale(init_scale):
    torch.manual_seed(0)
    net = normalized(DeepReLU(strides=(2, 2, 2, 2), init_scale=init_scale))
    for name in NAMES:
        v = parts(net, name)[1].detach()
        # Five standard errors of a standard deviation, 1/sqrt(2 n).
        assert v.std().item() == pytest.approx(init_scale, rel=5 / (2 * v.numel()) ** 0.5)


def test_gains_are_frozen_at_the_initial_norms(default):
    for name in NAMES:
        g, v = parts(default, name)
        assert not g.requires_grad
        # Margins are divided by the product of the gains. A float32 norm that is summed in one go
        # is off by 6e-5 in the largest layer, and every margin with it.
        assert g.item() == pytest.approx(v.detach().double().norm().item(), rel=1e-5)


@pytest.mark.parametrize("strides", [(1, 2, 1, 1), (2, 1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("rho", [1.0, -2.5])
def test_forward_is_the_plain_network(strides, rho):
    net, x = network(strides), images()
    with torch.no_grad():
        net.rho.fill_(rho)
    expected = rho * oracles.forward(weights(net), strides, x)
    largest = expected.abs().max().item()
    assert largest > 1e-6
    torch.testing.assert_close(net(x).detach(), expected, rtol=0, atol=1e-12 * largest)


def test_default_forward_is_the_plain_network(default):
    x = images(2, 32)
    strides = (1, 2, 1, 2)
    expected = oracles.forward([w.double() for w in weights(default)], strides, x)
    torch.testing.assert_close(
        default(x.float()).detach().double(), expected, rtol=0, atol=1e-5 * expected.abs().max()
    )


def test_forward_is_rho_times_all_norms_times_the_unit_network():
    net, x = network(), images()
    with torch.no_grad():
        net.rho.fill_(1.3)
    scale = 1.3 * torch.stack([parts(net, name)[0].detach() for name in NAMES]).prod()
    unit = oracles.forward([oracles.unit(w) for w in weights(net)], (1, 2, 1, 1), x)
    largest = (scale * unit).abs().max().item()
    torch.testing.assert_close(net(x).detach(), scale * unit, rtol=0, atol=1e-12 * largest)


def test_outputs_do_not_see_the_norm_of_v_and_the_gradient_divides_by_it():
    net, scaled, x = network(), network(), images()
    factors = dict(zip(NAMES, (0.01, 3.0, 0.5, 20.0, 7.0, 0.2), strict=True))
    with torch.no_grad():
        for name, factor in factors.items():
            parts(scaled, name)[1].mul_(factor)
    for instance in (net, scaled):
        instance(x).square().sum().backward()
    assert (scaled(x) - net(x)).norm() < 1e-12 * net(x).norm()
    for name, factor in factors.items():
        expected = parts(net, name)[1].grad / factor
        assert expected.norm() > 0
        error = (parts(scaled, name)[1].grad - expected).norm()
        assert error < 1e-11 * expected.norm()


def test_is_positively_homogeneous_in_the_image():
    net, x = network(), images()
    assert (net(3.0 * x) - 3.0 * net(x)).norm() < 1e-12 * net(x).norm()
    # A bias or a squashing anywhere would break this; a negative factor does, through the ReLU.
    assert (net(-x) + net(x)).norm() > 0.1 * net(x).norm()


def test_same_seed_same_network():
    x = images()
    assert torch.equal(network(seed=3)(x), network(seed=3)(x))
    assert not torch.equal(network(seed=3)(x), network(seed=4)(x))


@pytest.mark.parametrize(
    "strides",
    [
        (1, 2, 1),
        (1, 2, 1, 2, 1),
        (),
        (1, 0, 1, 1),
        (1, -1, 1, 1),
        (1, 1.5, 1, 1),
        (1, "2", 1, 1),
        (4, 4, 4, 4),
        (1, 1, 16, 8),
    ],
)
def test_impossible_strides_are_the_users_error(strides):
    with pytest.raises(UsageError, match=r"model\.strides") as caught:
        DeepReLU(strides=strides)
    assert "\n" not in str(caught.value)
    assert repr(strides) in str(caught.value) or repr(list(strides)) in str(caught.value)


def test_last_strides_that_leave_a_pixel_are_accepted():
    # 32 -> 15 -> 7 -> 3 -> 1: one pixel is enough, and one image row less is not.
    assert DeepReLU(strides=(2, 2, 2, 2), image_size=31, channels=(1, 1, 1, 1), hidden=1)
    with pytest.raises(UsageError, match=r"model\.strides"):
        DeepReLU(strides=(2, 2, 2, 2), image_size=30, channels=(1, 1, 1, 1), hidden=1)


def test_the_memory_of_a_network_is_asked_for_by_its_number_of_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, gradients, momentum and a copy, four bytes each."""
    asked: list[tuple[str, object, float]] = []
    monkeypatch.setattr(network_module, "check_memory", lambda *given: asked.append(given))
    built = DeepReLU((2, 1, 1, 1), (3, 4, 5, 6), hidden=7, image_size=18)
    count = sum(weight.numel() for weight in built.layers.parameters())
    assert asked == [("model", f"{count:.3g} parameters", 16.0 * count)]
