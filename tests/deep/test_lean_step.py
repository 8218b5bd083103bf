"""The lean step: its mathematics against a loop by hand, and how many operations it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from conftest import SMALL
from lightning.pytorch import Callback
from torch import Tensor

from benchmarks.operations import Operations, counted
from janus_pl.callbacks import LayerVelocity, UpdateSplit
from janus_pl.deep.losses import LOSSES
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS
from janus_pl.theory.growing import first_buffer, growth, shrinkage
from janus_pl.training.flat import flats_of

LAM, EPOCHS = 0.01, 3
RATES = {"weight_norm": 0.05, "per_layer": 0.02, "lagrange": 0.01, "none": 0.02}
each_normalization = pytest.mark.parametrize("normalization", RATES)


class Seen(Callback):
    """Keeps minibatches, the velocities of each step, and the margins of the end."""

    def __init__(self) -> None:
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.velocities: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.batches.append((batch.x.clone(), batch.y.clone()))

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.velocities.append(module.velocity_norms().clone())

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.margins = module.margins().clone()
        self.momenta = {
            id(p): state["momentum_buffer"].clone()
            for p, state in trainer.optimizers[0].state.items()
            if state.get("momentum_buffer") is not None
        }


class ByHand:
    """SGD in float64 with coupled decay, for W_k = g_k v_k/||v_k|| or W_k = v_k; autograd alone.

    Args:
        task: The task before its fit.
        momentum: The momentum.
    """

    def __init__(self, task: Any, momentum: float) -> None:
        learned = task.parametrization
        self.name, self.hold = task.normalization, task.hold_norms
        self.vs = [p.detach().double().clone() for p in learned.weights.values()]
        self.rho = task.network.rho.detach().double().clone()
        self.gains = [self._norm(v) for v in self.vs]
        if self.name != "none":
            self.gains = [g.detach().double().clone() for g in learned.gains]
        self.targets = [g * (self.hold or 1.0) for g in self.gains]
        self.eta, self.momentum = task.learning_rate, momentum
        self.grows = task.grows
        self.buffers: list[Tensor | None] = [None] * (2 * len(self.vs) + 1)
        self.velocities: list[Tensor] = []
        if self.grows:
            self.alpha = shrinkage(self.eta, LAM, momentum)
            if momentum:
                c = first_buffer(self.alpha, self.eta)
                self.buffers[: len(self.vs)] = [c * v for v in self.vs]

    @staticmethod
    def _norm(v: Tensor) -> Tensor:
        return v.square().sum().sqrt()

    def weights(self, vs: Sequence[Tensor], gains: Sequence[Tensor]) -> list[Tensor]:
        """W_k."""
        if self.name == "none":
            return [*vs]
        return [g * v / self._norm(v) for g, v in zip(gains, vs, strict=True)]

    def step(self, t: int, x: Tensor, y: Tensor) -> None:
        """One step, the t-th from 0."""
        count = len(self.vs)
        leaves = [p.clone().requires_grad_() for p in [*self.vs, *self.gains, self.rho]]
        Ws = self.weights(leaves[:count], leaves[count:-1])
        outputs = leaves[-1] * oracles.forward(Ws, SMALL["strides"], x.double())
        loss = LOSSES["square"](outputs, y.double()).mean()
        wanted = leaves[:count]
        wanted += {"per_layer": leaves[count:-1], "none": []}.get(self.name, leaves[-1:])
        gradients = torch.autograd.grad(loss, wanted)
        self.velocities.append(
            torch.stack(
                [
                    self._norm(v) * self._norm(G - (G * v).sum() / v.square().sum() * v)
                    for v, G in zip(self.vs, gradients, strict=False)
                ]
            )
        )
        moved = []
        for k, (p, gradient) in enumerate(zip(wanted, gradients, strict=True)):
            rate, decay = self.eta, LAM
            if k < count and self.grows:
                rate, decay = self.eta * growth(self.alpha, t), 0.0
            if k < count and self.name == "lagrange":
                decay = 0.0
            own = gradient + decay * p.detach()
            held = self.buffers[k]
            self.buffers[k] = own if held is None else self.momentum * held + own
            moved.append(p.detach() - rate * self.buffers[k])
        self.vs = moved[:count]
        if self.name == "per_layer":
            self.gains = moved[count:]
        elif self.name != "none":
            self.rho = moved[-1]
        if self.name == "lagrange":
            self.vs = [v / self._norm(v) for v in self.vs]
        elif self.hold is not None:
            self.vs = [c * v / self._norm(v) for c, v in zip(self.targets, self.vs, strict=True)]


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Entries may cancel, so the largest is the measure."""
    size = expected.abs().max().item()
    assert size > 0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * size)


def compare(
    task: Any, loader: Any, fit: Any, momentum: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Fit a task, and compare all that it learned and measured with the loop by hand."""
    task.to(dtype)
    loop, seen = ByHand(task, momentum), Seen()
    precision = {torch.float64: "64-true", torch.float32: "32-true"}[dtype]
    fit(task, loader, EPOCHS, [seen], precision=precision)
    for t, (x, y) in enumerate(seen.batches):
        loop.step(t, x, y)
    assert len(seen.batches) >= EPOCHS
    for name, v in zip(task.layers(), loop.vs, strict=True):
        p = task.parametrization.weights[name]
        near(p.detach(), v, tolerance)
        near(task.directions()[name], oracles.unit(v).flatten(1), tolerance)
    near(torch.stack(seen.velocities), torch.stack(loop.velocities), tolerance)
    Ws = loop.weights(loop.vs, loop.gains)
    rho = loop.rho.abs() * math.prod(loop._norm(W) for W in Ws)
    near(task.scale(), rho, tolerance)
    x, y = loader.x.to(torch.float64), loader.y.to(torch.float64)
    near(seen.margins, oracles.margins(Ws, SMALL["strides"], x, y), tolerance)
    moments = [seen.momenta[id(p)] for p in task.parametrization.weights.values() if momentum]
    for found, buffer in zip(moments, loop.buffers, strict=False):
        assert buffer is not None
        near(found, buffer, tolerance)


def optimizer(momentum: float, fused: bool = True) -> Callable[..., torch.optim.Optimizer]:
    return lambda params, lr: torch.optim.SGD(params, lr, momentum, fused=fused)


BATCHES: dict[str, dict[str, Any]] = {
    "SGD": {"batch_size": 8},
    "SGD in parts": {"batch_size": 8, "micro_batch_size": 3},
    "GD in parts": {"batch_size": "full", "micro_batch_size": 7},
}


@each_normalization
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batches", BATCHES)
def test_float64_is_the_loop_by_hand(
    batches: str,
    momentum: float,
    normalization: str,
    small_task: Any,
    small_loader: Any,
    fit: Any,
) -> None:
    task = small_task(
        normalization=normalization,
        learning_rate=RATES[normalization],
        weight_decay=LAM,
        init_scale=0.5,
        optimizer=optimizer(momentum),
    )
    loader = small_loader(dtype=torch.float64, **BATCHES[batches])
    compare(task, loader, fit, momentum, torch.float64, 1e-10)


@each_normalization
@pytest.mark.parametrize("batches", ["SGD", "GD in parts"])
def test_float32_is_it_to_its_digits(
    batches: str, normalization: str, small_task: Any, small_loader: Any, fit: Any
) -> None:
    task = small_task(
        normalization=normalization,
        learning_rate=RATES[normalization],
        weight_decay=LAM,
        init_scale=0.5,
        optimizer=optimizer(0.9),
    )
    compare(task, small_loader(**BATCHES[batches]), fit, 0.9, torch.float32, 1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("option", [{"hold_norms": 0.5}, {"schedule": "growing"}], ids=str)
def test_the_controls_are_the_loop_by_hand(
    option: dict[str, Any], momentum: float, small_task: Any, small_loader: Any, fit: Any
) -> None:
    task = small_task(
        learning_rate=0.05,
        weight_decay=LAM,
        init_scale=0.5,
        optimizer=optimizer(momentum, fused=False),
        **option,
    )
    compare(task, small_loader(dtype=torch.float64), fit, momentum, torch.float64, 1e-10)


def test_the_comparison_finds_a_step_without_projection(
    small_task: Any, small_loader: Any, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A negative control: dLoss/dv_k that keeps a millionth of its part along v_k."""
    from janus_pl.deep.once import Once

    right = Once._backward

    def wrong(once: Any) -> None:
        right(once)
        for v in once._vs:
            v.grad.add_(v.detach(), alpha=1e-6)

    monkeypatch.setattr(Once, "_backward", wrong)
    task = small_task(learning_rate=0.05, init_scale=0.5, weight_decay=LAM)
    with pytest.raises(AssertionError):
        compare(task, small_loader(dtype=torch.float64), fit, 0.9, torch.float64, 1e-10)


# What may happen to parameters and gradients


def weights_of(task: Any) -> list[Tensor]:
    return [p.detach().clone() for p in task.network.parameters()]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_checkpoint_of_parameters_with_memory_of_their_own_goes_on_bit_for_bit(
    small_task: Any, small_loader: Any, fit: Any, tmp_path: Path
) -> None:
    whole = small_task()
    fit(whole, small_loader(), 3)
    half = small_task()
    trainer = fit(half, small_loader(), 1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=False)
    assert list(content["state_dict"]) == list(small_task().state_dict())
    content["state_dict"] = {k: v.clone() for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "own.ckpt")
    again = small_task(init_seed=1)
    fit(again, small_loader(), 3, ckpt_path=tmp_path / "own.ckpt")
    assert same(weights_of(again), weights_of(whole))
    assert not same(weights_of(half), weights_of(whole))


class OwnMemory(Callback):
    """Gives each parameter memory of its own, as a change of device does."""

    def on_train_batch_start(self, trainer: Any, module: Any, *args: Any) -> None:
        for p in module.parameters():
            p.data = p.data.clone()


def test_parameters_that_were_given_other_memory_train_on(
    small_task: Any, small_loader: Any, fit: Any
) -> None:
    usual, moved = small_task(), small_task()
    fit(usual, small_loader(), 2)
    fit(moved, small_loader(), 2, [OwnMemory()])
    assert same(weights_of(moved), weights_of(usual))


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_gradient_is_called(
    kind: str, small_task: Any, small_loader: Any, fit: Any
) -> None:
    """W&B's `watch` and others wait for autograd to reach the parameter."""
    usual, hooked = small_task().double(), small_task().double()
    fit(usual, small_loader(dtype=torch.float64), 2, precision="64-true")
    calls: list[Any] = []
    for p in hooked.parametrization.weights.values():
        getattr(p, kind)(lambda given: calls.append(given.shape))
    fit(hooked, small_loader(dtype=torch.float64), 2, precision="64-true")
    assert len(calls) == 2 * 3 * 6  # epochs, steps, layers
    for a, b in zip(weights_of(usual), weights_of(hooked), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["weight_norm", "per_layer"])
def test_a_layer_that_no_pass_uses_keeps_no_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = DeepReLU(**SMALL)
    learned = PARAMETRIZATIONS[name](network)
    (flat,) = flats_of(p for p in learned.leading() if p.requires_grad)
    norms = flat.norms(flat.values)
    learned.use(flat, norms[: len(learned.weights)])
    first = network.weight_layers()["conv1"]
    for _ in range(2):
        for p in flat.parameters:
            p.grad = None
        with learned.once():
            first(torch.ones(1, 3, 16, 16)).square().sum().backward()
        flat.collect()
        given = {k for k, p in learned.weights.items() if p.grad is not None}
        assert given == {"conv1"}
    with learned.once():
        network(torch.ones(1, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in learned.weights.values())
    with pytest.raises(ZeroDivisionError), learned.once():
        raise ZeroDivisionError  # the layers compute for themselves again
    assert all(m.held.weight is None for m in learned._layers)  # type: ignore[attr-defined]


# The number of operations

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero")


def names_of(operations: Operations) -> set[str]:
    return {name for _, name in operations.found}


def velocity() -> list[Callback]:
    return [LayerVelocity()]


BUDGETS: dict[str, tuple[int, dict[str, Any]]] = {
    "SGD": (79, {}),
    "GD in four parts": (215, {"batch_size": "full", "micro_batch_size": 16}),
    "per_layer": (77, {"normalization": "per_layer"}),
    "lagrange": (87, {"normalization": "lagrange", "learning_rate": 1e-4}),
    "none": (69, {"normalization": "none"}),
    "norms held": (88, {"hold_norms": 1.0}),
}


@pytest.mark.parametrize("what", BUDGETS)
def test_a_step_stays_within_its_budget_and_waits_for_nothing(what: str) -> None:
    budget, options = BUDGETS[what]
    found = counted(velocity(), **options)
    assert sum(found.by_part().values()) <= budget, found.by_part()
    assert not [name for name in names_of(found) if any(wait in name for wait in WAITS)]


def test_update_split_has_a_budget_of_its_own() -> None:
    parts = counted([*velocity(), UpdateSplit()]).by_part()
    assert parts["UpdateSplit"] <= 287
    assert sum(parts.values()) - parts["UpdateSplit"] <= 79
    plain = counted([UpdateSplit()], optimizer=optimizer(0.0)).by_part()
    assert plain["UpdateSplit"] <= 40


def test_the_parts_of_a_step_are_all_counted() -> None:
    parts = counted(velocity()).by_part()
    assert set(parts) == {
        "network and loss",
        "normalization",
        "guard",
        "optimizer",
        "LayerVelocity",
    }
    assert min(parts.values()) >= 2


class Added(Callback):
    """One operation more in each step, and one view."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        module.network.rho.detach().view(1).add(1)


class Waits(Callback):
    """A number that the host asks for within a step."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        float(module.network.rho)


def test_an_operation_more_is_seen_and_a_wait() -> None:
    usual, more = counted(), counted([Added()])
    assert sum(more.by_part().values()) == sum(usual.by_part().values()) + 1
    assert any("_local_scalar_dense" in name for name in names_of(counted([Waits()])))
