"""The four parametrizations against each other, autograd and updates made by hand, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import oracles
import pytest
import torch
from torch import Tensor, nn

from janus_pl.deep.losses import LOSSES, square
from janus_pl.deep.normalizations import PARAMETRIZATIONS, Lagrange, PerLayer
from janus_pl.deep.parametrization import Parametrization
from janus_pl.errors import UsageError

NAMES = ["conv1", "conv2", "fc1", "fc2"]
STRIDES = (2, 1)
ETA, LAM = 0.05, 0.3
Loss = Callable[[Tensor, Tensor], Tensor]

KINDS: dict[str, Callable[..., Parametrization]] = {
    **PARAMETRIZATIONS,
    "lagrange_unit_gains": partial(Lagrange, unit_gains=True),
}
every = pytest.mark.parametrize("kind", list(KINDS))
lagrange = pytest.mark.parametrize("kind", ["lagrange", "lagrange_unit_gains"])
every_loss = pytest.mark.parametrize("loss", oracles.LOSSES)


class Network(nn.Module):
    """A small `DeepReLU` with plain weights, whose outputs are of order one."""

    def __init__(self, rho: float = 1.3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(3, 4, 3, stride=STRIDES[0], bias=False)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=STRIDES[1], bias=False)
        self.fc1 = nn.Linear(5 * 2 * 2, 6, bias=False)
        self.fc2 = nn.Linear(6, 2, bias=False)
        for layer in self.weight_layers().values():
            nn.init.normal_(layer.weight, std=0.5)
        self.rho = nn.Parameter(torch.tensor(rho, dtype=torch.float64))
        self.double()

    def weight_layers(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in NAMES}

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()).relu().flatten(1)
        return self.rho * self.fc2(self.fc1(x).relu())


def make(kind: str, moved: bool = True, **options) -> tuple[Network, Parametrization]:
    """The same function in one of the parametrizations.

    At the start `||v_k|| = g_k`, where a wrong power of `||v_k||` would not show; `moved` gives the
    v_k other norms, which the function does not see.
    """
    network = Network(**options)
    parametrization = KINDS[kind](network)
    if moved and kind in ("weight_norm", "per_layer"):
        factors = (0.3, 4.0, 1.7, 0.6)
        with torch.no_grad():
            for v, factor in zip(parametrization.weights.values(), factors, strict=True):
                v.mul_(factor)
    return network, parametrization


def data(count: int = 7, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 9, 9, dtype=torch.float64, generator=generator)
    y = 2 * torch.randint(2, (count,), generator=generator).double() - 1
    return x / x.flatten(1).norm(dim=1)[:, None, None, None], y


def scalar_square(outputs: Tensor, y: Tensor) -> Tensor:
    """The paper's own square loss, `(1 - y (f_1 - f_0)/2)^2`: no common mode."""
    return (1 - y * (outputs[:, 1] - outputs[:, 0]) / 2).square()


# The paper's losses, of one output: only the square loss of two sees their common mode.
SCALAR_LOSSES = {**LOSSES, "square": scalar_square}


def backward(network: Network, loss: Loss = square) -> None:
    x, y = data()
    network.zero_grad()
    loss(network(x), y).mean().backward()


def sgd(parametrization: Parametrization, decay: str = "all", lam: float = 0.0, **options):
    return torch.optim.SGD(parametrization.groups(lam, decay), **({"lr": ETA} | options))


def step(
    network: Network,
    parametrization: Parametrization,
    optimizer: torch.optim.Optimizer,
    loss: Loss = square,
) -> None:
    backward(network, loss)
    optimizer.step()
    parametrization.after_step()


def weights(network: Network) -> list[Tensor]:
    layers: dict[str, Any] = network.weight_layers()
    return [layer.weight.detach().clone() for layer in layers.values()]


def gradients(network: Network, loss: Loss) -> tuple[list[Tensor], Tensor]:
    """`G_k = dLoss/dW_k` and `dLoss/drho` of a plain network with the same effective weights."""
    plain = Network(rho=network.rho.item())
    layers: dict[str, Any] = plain.weight_layers()
    with torch.no_grad():
        for layer, W in zip(layers.values(), weights(network), strict=True):
            layer.weight.copy_(W)
    backward(plain, loss)
    assert plain.rho.grad is not None
    return [layer.weight.grad for layer in layers.values()], plain.rho.grad


def norm_product(network: Network) -> float:
    return math.prod(W.norm().item() for W in weights(network))


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    """Relative to the largest entry, since entries of a gradient may cancel."""
    largest = expected.abs().max().item()
    assert largest > 0
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=0, atol=tolerance * largest)


# One function, one set of answers


@every
def test_the_function_is_the_plain_network(kind):
    network, _ = make(kind)
    x, _ = data()
    expected = Network()(x)
    assert expected.abs().max() > 0.1
    assert_near(network(x), expected, 1e-13)


@pytest.mark.parametrize("kind", list(PARAMETRIZATIONS))
def test_starts_from_the_drawn_weights(kind):
    network, _ = make(kind, moved=False)
    for W, drawn in zip(weights(network), weights(Network()), strict=True):
        assert_near(W, drawn, 1e-14)


@every
def test_directions_are_the_unit_weights_in_depth_order(kind):
    _, parametrization = make(kind)
    directions = parametrization.directions()
    assert list(directions) == NAMES
    assert list(parametrization.weights) == NAMES
    for V, W in zip(directions.values(), weights(Network()), strict=True):
        assert not V.requires_grad
        assert_near(V, oracles.unit(W).flatten(1), 1e-14)


@every
@pytest.mark.parametrize("rho", [1.3, -0.7])
def test_scale_is_the_product_of_all_norms(kind, rho):
    network, parametrization = make(kind, rho=rho)
    x, y = data()
    scale = parametrization.scale()
    assert scale.shape == ()
    assert not scale.requires_grad
    assert scale.item() == pytest.approx(abs(rho) * norm_product(Network()), rel=1e-13)
    outputs = network(x)
    margins = y * (outputs[:, 1] - outputs[:, 0]) / 2 / scale
    sign = math.copysign(1.0, rho)
    assert_near(margins, sign * oracles.margins(weights(Network()), STRIDES, x, y))


@every
@every_loss
@pytest.mark.parametrize("rho", [1.3, -0.7])
def test_velocities_are_those_of_the_equations(kind, loss, rho):
    network, parametrization = make(kind, rho=rho)
    backward(network, LOSSES[loss])
    x, y = data()
    full = rho * norm_product(Network())
    expected = oracles.velocities(loss, weights(Network()), STRIDES, x, y, full)
    velocities = parametrization.velocities()
    assert list(velocities) == NAMES
    for actual, exact in zip(velocities.values(), expected, strict=True):
        assert_near(actual, exact)
    norms = torch.stack([exact.norm() for exact in expected])
    torch.testing.assert_close(parametrization.velocity_norms(), norms, rtol=1e-10, atol=0)


@every
def test_velocities_are_minus_the_projected_gradient_of_autograd(kind):
    network, parametrization = make(kind)
    backward(network)
    x, y = data()
    V = [oracles.unit(W).requires_grad_() for W in weights(Network())]
    outputs = parametrization.scale() * oracles.forward(V, STRIDES, x)
    slopes = torch.autograd.grad(square(outputs, y).mean(), V)
    for actual, v, slope in zip(parametrization.velocities().values(), V, slopes, strict=True):
        v = v.detach()
        projected = slope - (slope * v).sum() * v
        assert_near(actual, -projected.flatten(1))
        # The projection takes a visible part away: without it this test fails.
        assert (slope - projected).norm() > 1e-3 * projected.norm()


@every
def test_gradients_can_be_handed_over(kind):
    network, parametrization = make(kind)
    x, y = data()
    with pytest.raises(RuntimeError, match="backward"):
        parametrization.velocities()
    with pytest.raises(RuntimeError, match="backward"):
        parametrization.velocity_norms()
    ps = list(parametrization.weights.values())
    given = torch.autograd.grad(square(network(x), y).mean(), ps)
    from_given = parametrization.velocities(given)
    norms = parametrization.velocity_norms(given)
    backward(network)
    for name, V_dot in parametrization.velocities().items():
        assert_near(from_given[name], V_dot, 1e-14)
    torch.testing.assert_close(norms, parametrization.velocity_norms(), rtol=1e-14, atol=0)
    doubled = parametrization.velocity_norms([2 * gradient for gradient in given])
    torch.testing.assert_close(doubled, 2 * norms, rtol=1e-14, atol=0)


@every
def test_velocity_is_tangent(kind):
    network, parametrization = make(kind)
    backward(network)
    for V, V_dot in zip(
        parametrization.directions().values(), parametrization.velocities().values(), strict=True
    ):
        assert V_dot.shape == V.shape
        assert V_dot.norm() > 1e-3
        assert (V * V_dot).sum().abs() < 1e-13 * V_dot.norm()


def test_a_negative_norm_of_a_layer_turns_its_direction():
    network, parametrization = make("per_layer")
    assert isinstance(parametrization, PerLayer)
    with torch.no_grad():
        parametrization.rhos[1].mul_(-1)  # through a ReLU this is another function
    x, y = data()
    effective = weights(network)
    assert_near(effective[1], -Network().conv2.weight, 1e-14)
    full = 1.3 * norm_product(network)
    assert parametrization.scale().item() == pytest.approx(full, rel=1e-13)
    directions = parametrization.directions()
    assert_near(full * oracles.forward(list_of(directions, effective), STRIDES, x), network(x))
    backward(network)
    expected = oracles.velocities("square", effective, STRIDES, x, y, full)
    for actual, exact in zip(parametrization.velocities().values(), expected, strict=True):
        assert_near(actual, exact)


def list_of(directions: dict[str, Tensor], like: list[Tensor]) -> list[Tensor]:
    return [V.reshape(W.shape) for V, W in zip(directions.values(), like, strict=True)]


def test_learned_scale_is_what_is_learned_of_rho():
    product = norm_product(Network())
    learned = {kind: make(kind)[1].learned_scale().item() for kind in KINDS}
    assert learned == pytest.approx(
        {
            "weight_norm": 1.3,
            "lagrange": 1.3,
            "lagrange_unit_gains": 1.3 * product,
            "per_layer": product,
            "none": product,
        },
        rel=1e-13,
    )


def test_learned_scale_keeps_its_sign():
    for kind in ("weight_norm", "lagrange"):
        _, parametrization = make(kind, rho=-0.7)
        assert parametrization.learned_scale().item() == -0.7


# What trains


LEARNED = {
    "weight_norm": {"rho", *(f"{k}.parametrizations.weight.original1" for k in NAMES)},
    "per_layer": {f"{k}.parametrizations.weight.original{i}" for k in NAMES for i in (0, 1)},
    "none": {f"{k}.weight" for k in NAMES},
}
LEARNED["lagrange"] = LEARNED["lagrange_unit_gains"] = LEARNED["weight_norm"]


@every
def test_learns_what_it_says_and_nothing_else_moves(kind):
    network, parametrization = make(kind)
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learned == LEARNED[kind]
    optimizer = sgd(parametrization, lam=LAM, momentum=0.9)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for _ in range(3):
        step(network, parametrization, optimizer)
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == learned


@every
def test_a_copy_is_independent(kind):
    original = make(kind)
    network, parametrization = copy.deepcopy(original)
    before = original[1].directions()["fc1"].clone()
    step(network, parametrization, sgd(parametrization))
    assert parametrization.weights["fc1"].grad is not None
    assert not torch.equal(parametrization.directions()["fc1"], before)
    assert torch.equal(original[1].directions()["fc1"], before)


def test_a_network_is_parametrized_once():
    network, _ = make("weight_norm")
    with pytest.raises(AssertionError, match="conv1"):
        Lagrange(network)


# Weight decay


def decays(kind: str, decay: str) -> dict[str, float]:
    """PyTorch's weight decay of every learned parameter."""
    network, parametrization = make(kind)
    names = {id(p): name for name, p in network.named_parameters()}
    groups = parametrization.groups(LAM, decay)
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("kind", ["weight_norm", "per_layer", "none"])
def test_decay_on_all_is_lambda_on_every_learned_parameter(kind):
    assert decays(kind, "all") == dict.fromkeys(LEARNED[kind], LAM)


@pytest.mark.parametrize("kind", ["weight_norm", "per_layer", "lagrange", "lagrange_unit_gains"])
def test_decay_on_rho_is_twice_lambda_on_the_learned_scale(kind):
    gains = [f"{k}.parametrizations.weight.original0" for k in NAMES]
    scale = gains if kind == "per_layer" else ["rho"]
    expected = dict.fromkeys(LEARNED[kind], 0.0) | dict.fromkeys(scale, 2 * LAM)
    assert decays(kind, "rho") == expected


@lagrange
def test_decay_on_a_direction_is_projected_away(kind):
    expected = dict.fromkeys(LEARNED[kind], 0.0) | {"rho": LAM}
    assert decays(kind, "all") == expected


def test_plain_weights_have_no_rho_to_decay():
    _, parametrization = make("none")
    with pytest.raises(UsageError, match=r"model\.decay") as caught:
        parametrization.groups(LAM, "rho")
    assert str(caught.value) == (
        "model.decay: got 'rho', allowed: all, for model.normalization: none"
    )


@every
def test_an_unknown_decay_is_the_users_error(kind):
    _, parametrization = make(kind)
    with pytest.raises(UsageError, match=r"model\.decay: got 'v', allowed: all, rho"):
        parametrization.groups(LAM, "v")


# One step by hand


@every_loss
@pytest.mark.parametrize("decay", ["all", "rho"])
def test_step_of_weight_normalization(decay, loss):
    network, parametrization = make("weight_norm")
    G, rho_slope = gradients(network, LOSSES[loss])
    vs = [v.detach().clone() for v in parametrization.weights.values()]
    gains = [W.norm().item() for W in weights(network)]
    step(network, parametrization, sgd(parametrization, decay, LAM), LOSSES[loss])
    on_v, on_rho = (LAM, LAM) if decay == "all" else (0.0, 2 * LAM)
    for v_new, v, g, G_k in zip(parametrization.weights.values(), vs, gains, G, strict=True):
        slope = oracles.weight_norm_gradient(g, v, G_k)
        assert_near(v_new, v - ETA * (slope + on_v * v), 1e-12)
    assert_near(network.rho, 1.3 - ETA * (rho_slope + on_rho * 1.3), 1e-12)


@every_loss
@pytest.mark.parametrize("decay", ["all", "rho"])
def test_step_of_the_norms_of_the_layers(decay, loss):
    network, parametrization = make("per_layer")
    assert isinstance(parametrization, PerLayer)
    G, _ = gradients(network, LOSSES[loss])
    V = [oracles.unit(W) for W in weights(network)]
    vs = [v.detach().clone() for v in parametrization.weights.values()]
    rhos = [W.norm() for W in weights(network)]
    step(network, parametrization, sgd(parametrization, decay, LAM), LOSSES[loss])
    on_v, on_rho = (LAM, LAM) if decay == "all" else (0.0, 2 * LAM)
    for k, (v_new, rho_new) in enumerate(
        zip(parametrization.weights.values(), parametrization.rhos, strict=True)
    ):
        rho_slope = (G[k] * V[k]).sum()
        v_slope = rhos[k] / vs[k].norm() * (G[k] - rho_slope * V[k])
        assert_near(rho_new, rhos[k] - ETA * (rho_slope + on_rho * rhos[k]), 1e-12)
        assert_near(v_new, vs[k] - ETA * (v_slope + on_v * vs[k]), 1e-12)


@every_loss
def test_step_of_the_norms_is_the_flow_of_the_product(loss):
    """`d rho_k/dt = (rho/rho_k) (2/N) sum l_n fbar_n`: the same product for every layer."""
    network, parametrization = make("per_layer")
    assert isinstance(parametrization, PerLayer)
    backward(network, SCALAR_LOSSES[loss])
    x, y = data()
    fbar, rho = oracles.margins(weights(network), STRIDES, x, y), parametrization.scale().item()
    flow = oracles.rho_flow(loss, fbar, torch.zeros_like(fbar), rho)
    rhos: Any = parametrization.rhos
    products = torch.stack([rho_k * -rho_k.grad for rho_k in rhos])
    assert_near(products, torch.full_like(products, rho * flow), 1e-12)


def drift(eta: float, loss: str, lam: float = 0.0) -> float:
    """How far one step moves the differences `rho_k^2 - rho_j^2`, relative to what they are."""
    network, parametrization = make("per_layer")
    assert isinstance(parametrization, PerLayer)
    squares = []
    optimizer = sgd(parametrization, "rho", lam, lr=eta)
    for _ in range(2):
        squares.append(torch.stack([rho_k.detach().square() for rho_k in parametrization.rhos]))
        step(network, parametrization, optimizer, LOSSES[loss])
    before, after = (s[:, None] - s for s in squares)
    # The squares themselves move, and at first order.
    assert (squares[1] - squares[0]).abs().min() > 0.1 * eta
    return ((after - before).norm() / before.norm()).item()


@every_loss
def test_differences_of_squared_norms_are_conserved_without_decay(loss):
    """By the flow; a step is off at second order. With decay they shrink, at first order."""
    coarse, fine = drift(1e-2, loss), drift(5e-3, loss)
    assert fine > 1e-9
    assert order(coarse, fine) == pytest.approx(2, abs=1e-3)
    decayed = drift(1e-2, loss, LAM), drift(5e-3, loss, LAM)
    assert order(*decayed) == pytest.approx(1, abs=0.05)


def at_rest(loss: str, off: float = 1.0, uneven: float = 1.0) -> float:
    """The most that a step moves a `rho_k`, relative to the decay's part: at the equilibrium zero.

    lambda is `off` times that of the relation, and two norms are `uneven` at the same product.
    """
    network, parametrization = make("per_layer")
    assert isinstance(parametrization, PerLayer)
    x, _ = data()
    with torch.no_grad():
        y = (network(x)[:, 1] - network(x)[:, 0]).sign()  # mu > 0, or there is no equilibrium
        for rho_k, factor in zip(parametrization.rhos, (uneven, 1 / uneven, 1, 1), strict=True):
            rho_k.fill_(1.2 * factor)
    fbar, rho = oracles.margins(weights(network), STRIDES, x, y), 1.3 * 1.2**4
    if loss == "square":
        side = rho * (fbar.mean() - fbar.square().mean() * rho).item()
    else:  # (1/N) sum pull_n/2 fbar_n in the place of (1/N) sum l_n fbar_n
        side = rho * oracles.rho_flow(loss, fbar, torch.zeros_like(fbar), rho) / 2
    lam = off * side / 1.2**2
    assert lam > 0
    optimizer = sgd(parametrization, "rho", lam, lr=1.0)
    SCALAR_LOSSES[loss](network(x), y).mean().backward()
    before = torch.stack(parametrization.rhos).detach()
    optimizer.step()
    moved = torch.stack(parametrization.rhos).detach() - before
    return (moved / (2 * lam * before)).abs().max().item()


@every_loss
def test_equilibrium_of_the_norms(loss):
    """`rho (mu - M rho) = lambda rho_k^2` for every k, so that all norms are equal."""
    assert at_rest(loss) < 1e-10
    assert at_rest(loss, off=1.01) > 5e-3
    assert at_rest(loss, uneven=1.01) > 5e-3


@every_loss
def test_step_of_plain_weights(loss):
    network, parametrization = make("none")
    G, _ = gradients(network, LOSSES[loss])
    before = weights(network)
    step(network, parametrization, sgd(parametrization, "all", LAM), LOSSES[loss])
    for W_new, W, G_k in zip(weights(network), before, G, strict=True):
        assert_near(W_new, W - ETA * (G_k + LAM * W), 1e-12)


def equation_17(
    loss: str, directions: list[Tensor], rho: float, gain: float, project: bool = True
) -> tuple[list[Tensor], float]:
    """Eq. 17 as mended, sample by sample, before `V_k <- V_k/||V_k||`.

    `gain` is the frozen factor that `fbar_n` has in the units of the learned rho, and the pull of
    the loss is `2 l_n` for the square loss.
    """
    x, y = data()
    V_new, total = [v.clone() for v in directions], 0.0
    for x_n, y_n in zip(x, y.tolist(), strict=True):
        fbar, slopes, _, _ = oracles.sample_derivatives(directions, STRIDES, x_n, y_n)
        pull = oracles.pull(loss, rho * gain * fbar)
        total += pull * gain * fbar
        for v_new, v, slope in zip(V_new, directions, slopes, strict=True):
            radial = fbar * v if project else 0.0
            v_new += ETA * (rho * gain / len(x)) * pull * (slope - radial)
    return V_new, rho + ETA * (total / len(x) - 2 * LAM * rho)


@lagrange
@every_loss
def test_a_step_with_multipliers_is_equation_17(kind, loss):
    network, parametrization = make(kind)
    V, rho = [oracles.unit(W) for W in weights(network)], network.rho.item()
    unit_gains = kind == "lagrange_unit_gains"
    assert rho == pytest.approx(1.3 * norm_product(Network()) if unit_gains else 1.3, rel=1e-13)
    gain = 1.0 if unit_gains else norm_product(network)
    step(network, parametrization, sgd(parametrization, "rho", LAM), SCALAR_LOSSES[loss])
    exact, rho_new = equation_17(loss, V, rho, gain)
    unprojected, _ = equation_17(loss, V, rho, gain, project=False)
    for v_new, v, wrong in zip(parametrization.weights.values(), exact, unprojected, strict=True):
        assert_near(v_new, oracles.unit(v), 1e-12)
        # The retraction does not repair a step that was not projected.
        assert (v_new - oracles.unit(wrong)).abs().max() > 1e-4
        # Nor is the step so small that the retraction would not show.
        assert (v_new - v).abs().max() > 1e-6
    assert network.rho.item() == pytest.approx(rho_new, rel=1e-12)


@lagrange
@every_loss
def test_directions_stay_on_the_sphere(kind, loss):
    network, parametrization = make(kind)
    optimizer = sgd(parametrization, lam=LAM, momentum=0.9)
    left = []
    for _ in range(20):
        backward(network, LOSSES[loss])
        optimizer.step()
        left += [abs(V.detach().norm().item() - 1) for V in parametrization.weights.values()]
        parametrization.after_step()
        for V in parametrization.weights.values():
            assert V.detach().norm().item() == pytest.approx(1, abs=1e-15)
    assert max(left) > 1e-3  # what the retraction undoes


@every
def test_only_multipliers_need_a_retraction(kind):
    network, parametrization = make(kind)
    step(network, parametrization, sgd(parametrization))
    with torch.no_grad():
        for p in parametrization.weights.values():
            p.mul_(1.1)
    before = [p.detach().clone() for p in parametrization.weights.values()]
    parametrization.after_step()
    for p, old in zip(parametrization.weights.values(), before, strict=True):
        assert torch.equal(p, old) != kind.startswith("lagrange")


# Weight normalization against multipliers


def gaps(
    eta: float, steps: int, loss: str, lam: float = 0.0, norm: float = 1.0
) -> tuple[float, float]:
    """How far `V` and rho are apart after some steps from the same function, `||v_k|| = norm`."""
    ends = []
    for kind in ("weight_norm", "lagrange"):
        network, parametrization = make(kind, moved=False)
        if kind == "weight_norm":
            with torch.no_grad():
                for v in parametrization.weights.values():
                    v.mul_(norm / v.norm())
        optimizer = sgd(parametrization, "all", lam, lr=eta)
        for _ in range(steps):
            step(network, parametrization, optimizer, LOSSES[loss])
        V = torch.cat([V.flatten() for V in parametrization.directions().values()])
        ends.append((V, network.rho.item()))
    (V, rho), (V_other, rho_other) = ends
    return (V - V_other).norm().item(), abs(rho - rho_other)


def order(coarse: float, fine: float) -> float:
    """The power of eta in a difference, from two values at eta and eta/2."""
    return math.log2(coarse / fine)


ETAS = (2e-3, 1e-3)


@every_loss
def test_one_step_of_weight_normalization_at_unit_norm_is_that_of_multipliers(loss):
    V_gap, rho_gap = gaps(0.05, steps=1, loss=loss)
    assert V_gap < 1e-14
    assert rho_gap < 1e-14


@every_loss
def test_decay_on_v_sets_them_apart_at_second_order(loss):
    V_gaps, rho_gaps = zip(*(gaps(eta, steps=1, loss=loss, lam=LAM) for eta in ETAS), strict=True)
    assert V_gaps[1] > 1e-9
    assert order(*V_gaps) == pytest.approx(2, abs=0.01)
    assert max(rho_gaps) < 1e-14  # both decay rho alike


@every_loss
def test_two_steps_without_decay_agree_to_third_order(loss):
    V_gaps, _ = zip(*(gaps(eta, steps=2, loss=loss) for eta in (2.5e-4, 1.25e-4)), strict=True)
    assert V_gaps[1] > 1e-12
    assert order(*V_gaps) == pytest.approx(3, abs=0.05)


@every_loss
def test_another_norm_of_v_is_a_first_order_difference(loss):
    V_gaps, _ = zip(*(gaps(eta, steps=1, loss=loss, norm=2.0) for eta in ETAS), strict=True)
    assert order(*V_gaps) == pytest.approx(1, abs=0.01)
