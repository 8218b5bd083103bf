"""The parts of a step against sums over the whole history of gradients, written out in numpy."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from janus_pl.observables.update import PARTS, NoSplit, decay_of, momentum_of, split_step

STEPS = 8
SHAPES = ((3, 4), (5, 2, 3), (7,))
DECAYS = (0.3, 0.0, 0.07)

Case = tuple[type[Optimizer], dict[str, Any]]
CASES: list[Case] = [
    (SGD, {}),
    (SGD, {"maximize": True}),
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.8, "dampening": 0.3}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (SGD, {"momentum": 0.7, "maximize": True}),
    (SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    (Adam, {"betas": (0.8, 0.95)}),
    (Adam, {"betas": (0.8, 0.9), "eps": 0.2}),
    (Adam, {"betas": (0.8, 0.6), "amsgrad": True}),
    (Adam, {"maximize": True}),
    (Adam, {"betas": (0.0, 0.95)}),
    (Adam, {"decoupled_weight_decay": True}),
    (AdamW, {"betas": (0.7, 0.9)}),
    (AdamW, {"betas": (0.8, 0.6), "amsgrad": True, "maximize": True}),
    (NAdam, {"momentum_decay": 0.3}),
    (NAdam, {"decoupled_weight_decay": True, "maximize": True}),
    (RAdam, {"betas": (0.8, 0.99), "eps": 0.1}),  # rectified from step 6
    (RAdam, {"decoupled_weight_decay": True, "maximize": True}),
    (Adamax, {"betas": (0.8, 0.7), "eps": 0.1}),
    (Adamax, {"maximize": True}),
    (RMSprop, {"alpha": 0.9}),
    (RMSprop, {"alpha": 0.9, "eps": 0.2, "maximize": True}),
    (RMSprop, {"alpha": 0.9, "centered": True, "eps": 0.1}),
    (RMSprop, {"alpha": 0.9, "momentum": 0.8}),
    (RMSprop, {"alpha": 0.8, "momentum": 0.9, "centered": True, "eps": 0.1, "maximize": True}),
    (Adagrad, {}),
    (Adagrad, {"lr_decay": 0.2, "initial_accumulator_value": 0.5, "eps": 0.1, "maximize": True}),
]


def names(cases: list[Case]) -> list[str]:
    return [f"{c.__name__}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for c, o in cases]


every_case = pytest.mark.parametrize("case", CASES, ids=names(CASES))


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Problem:
    """Three groups with their own learning rates and decays; gradients of no simple form."""

    def __init__(
        self, kind: type[Optimizer], dtype: torch.dtype = torch.float64, **options: Any
    ) -> None:
        draw = torch.Generator().manual_seed(3)
        self.parameters = [
            torch.nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in SHAPES
        ]
        self.noise = [
            [torch.randn(shape, generator=draw).to(dtype) for shape in SHAPES] for _ in range(20)
        ]
        self.projections = [
            [torch.randn(shape, generator=draw).to(dtype) for shape in SHAPES] for _ in range(20)
        ]
        groups = [
            {"params": [p], "lr": 0.05 * (1 + i), "weight_decay": DECAYS[i]}
            for i, p in enumerate(self.parameters)
        ]
        self.optimizer = kind(groups, **options)
        self.buffers: list[dict[str, Tensor]] = [{} for _ in SHAPES]
        self.t = 0

    def backward(self) -> list[dict[str, Tensor]]:
        """Fill in the gradients of the next step; their parts."""
        for group in self.optimizer.param_groups:  # a schedule
            group["lr"] = group["lr"] * (1.3 if self.t % 3 else 0.6)
        self.optimizer.param_groups[0]["weight_decay"] = DECAYS[0] * (1 + self.t % 4)
        parts = []
        for i, p in enumerate(self.parameters):
            p.grad = (p.detach() * 1.7).sin() + p.detach() + self.noise[self.t][i]
            projection = self.projections[self.t][i]
            parts.append({"gradient": p.grad - projection, "projection": projection})
        return parts

    def split(self, parts: list[dict[str, Tensor]], **options: Any) -> list[dict[str, Tensor]]:
        return [
            split_step(self.optimizer, p, part, buffer, **options)
            for p, part, buffer in zip(self.parameters, parts, self.buffers, strict=True)
        ]

    def step(self) -> list[Tensor]:
        """The moves of the parameters."""
        before = [p.detach().clone() for p in self.parameters]
        self.optimizer.step()
        self.t += 1
        return [p.detach() - b for p, b in zip(self.parameters, before, strict=True)]

    def forward_to(self, t: int) -> list[dict[str, Tensor]]:
        """The parts of step t, from the steps before it."""
        split: list[dict[str, Tensor]] = []
        while self.t < t:
            split = self.split(self.backward())
            self.step()
        return split


# The oracle: no recursion but sums over the history, in numpy.


class History:
    """What one parameter has seen: its values, gradients by part, and its group, by step."""

    def __init__(self, kind: type[Optimizer]) -> None:
        self.kind = kind
        self.options: dict[str, Any] = {}
        self.terms: list[dict[str, np.ndarray]] = []
        self.lr = self.decoupled = 0.0
        self.p = np.zeros(0)

    def add(self, group: dict[str, Any], p: Tensor, parts: dict[str, Tensor]) -> None:
        self.options, self.lr, self.p = group, group["lr"], p.detach().numpy().copy()
        sign = -1 if group["maximize"] else 1
        terms = {name: sign * part.numpy().copy() for name, part in parts.items()}
        apart = self.kind is AdamW or group.get("decoupled_weight_decay", False)
        terms["decay"] = (0 if apart else group["weight_decay"]) * self.p
        self.decoupled = group["weight_decay"] if apart else 0.0
        self.terms.append(terms)

    @property
    def t(self) -> int:
        return len(self.terms)

    @property
    def gradients(self) -> list[np.ndarray]:
        return [sum(terms.values(), np.zeros_like(self.p)) for terms in self.terms]

    def averaged(self, series: list[np.ndarray], beta: float, until: int) -> np.ndarray:
        """(1 - beta) sum_s beta^(until - s) x_s."""
        weights = (1 - beta) * beta ** np.arange(until - 1, -1, -1.0)
        return np.tensordot(weights, np.stack(series[:until]), axes=1)

    def parts(self) -> dict[str, np.ndarray]:
        own = {SGD: sgd, RMSprop: rmsprop, Adagrad: adagrad, NAdam: nadam, Adamax: adamax}
        own |= {Adam: adam, AdamW: adam, RAdam: radam}
        step = {part: own[self.kind](self, [x[part] for x in self.terms]) for part in PARTS}
        step["decay"] = step["decay"] - self.lr * self.decoupled * self.p
        return step


def sgd(h: History, x: list[np.ndarray]) -> np.ndarray:
    mu, dampening = h.options["momentum"], h.options["dampening"]
    if mu == 0:
        return -h.lr * x[-1]
    weights = [mu ** (h.t - 1)] + [(1 - dampening) * mu ** (h.t - 1 - s) for s in range(1, h.t)]
    buffer = sum(w * y for w, y in zip(weights, x, strict=True))
    return -h.lr * (x[-1] + mu * buffer if h.options["nesterov"] else buffer)


def squares(h: History, until: int) -> np.ndarray:
    return h.averaged([g**2 for g in h.gradients], h.options["betas"][1], until)


def first_moment(h: History, x: list[np.ndarray]) -> np.ndarray:
    return h.averaged(x, h.options["betas"][0], h.t) / (1 - h.options["betas"][0] ** h.t)


def adam(h: History, x: list[np.ndarray]) -> np.ndarray:
    seen = range(1 if h.options["amsgrad"] else h.t, h.t + 1)
    v = np.max([squares(h, until) for until in seen], axis=0) / (1 - h.options["betas"][1] ** h.t)
    return -h.lr * first_moment(h, x) / (np.sqrt(v) + h.options["eps"])


def radam(h: History, x: list[np.ndarray]) -> np.ndarray:
    beta, t = h.options["betas"][1], h.t
    limit = 2 / (1 - beta) - 1
    rho = limit - 2 * t * beta**t / (1 - beta**t)
    if rho <= 5:
        return -h.lr * first_moment(h, x)
    r = np.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    adaptive = np.sqrt(1 - beta**t) / (np.sqrt(squares(h, t)) + h.options["eps"])
    return -h.lr * first_moment(h, x) * r * adaptive


def nadam(h: History, x: list[np.ndarray]) -> np.ndarray:
    beta, psi = h.options["betas"][0], h.options["momentum_decay"]
    mu = [beta * (1 - 0.5 * 0.96 ** (s * psi)) for s in range(1, h.t + 2)]
    v = squares(h, h.t) / (1 - h.options["betas"][1] ** h.t)
    now = (1 - mu[-2]) * x[-1] / (1 - np.prod(mu[:-1]))
    ahead = mu[-1] * h.averaged(x, beta, h.t) / (1 - np.prod(mu))
    return -h.lr * (now + ahead) / (np.sqrt(v) + h.options["eps"])


def adamax(h: History, x: list[np.ndarray]) -> np.ndarray:
    beta = h.options["betas"][1]
    sizes = [beta ** (h.t - 1 - s) * (abs(g) + h.options["eps"]) for s, g in enumerate(h.gradients)]
    return -h.lr * first_moment(h, x) / np.max(sizes, axis=0)


def rmsprop(h: History, x: list[np.ndarray]) -> np.ndarray:
    alpha, g = h.options["alpha"], h.gradients

    def over(s: int) -> np.ndarray:
        v = h.averaged([y**2 for y in g], alpha, s + 1)
        if h.options["centered"]:
            v = v - h.averaged(g, alpha, s + 1) ** 2
        return x[s] / (np.sqrt(v) + h.options["eps"])

    mu = h.options["momentum"]
    return -h.lr * sum(mu ** (h.t - 1 - s) * over(s) for s in range(h.t))


def adagrad(h: History, x: list[np.ndarray]) -> np.ndarray:
    total = h.options["initial_accumulator_value"] + sum(g**2 for g in h.gradients)
    lr = h.lr / (1 + (h.t - 1) * h.options["lr_decay"])
    return -lr * x[-1] / (np.sqrt(total) + h.options["eps"])


def distance(a: Any, b: Any) -> float:
    """Relative to the larger of the two."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    scale = max(np.abs(a).max(), np.abs(b).max())
    return float(np.abs(a - b).max() / scale) if scale else 0.0


def total(step: dict[str, Tensor]) -> Tensor:
    assert tuple(step) == PARTS
    return step["gradient"] + step["decay"] + step["projection"]


@every_case
def test_parts_sum_to_the_step_and_each_is_the_sum_over_its_history(case: Case) -> None:
    kind, options = case
    problem = Problem(kind, **options)
    histories = [History(kind) for _ in SHAPES]
    for t in range(STEPS):
        parts = problem.backward()
        for i, history in enumerate(histories):
            history.add(dict(problem.optimizer.param_groups[i]), problem.parameters[i], parts[i])
        split = problem.split(parts)
        sizes = [p.detach().abs().max().item() for p in problem.parameters]
        moves = problem.step()
        for i, (step, moved) in enumerate(zip(split, moves, strict=True)):
            # p(t+1) - p(t) has the rounding of p.
            error = (total(step) - moved).abs().max().item()
            assert error < 1e-12 * max(sizes[i], moved.abs().max().item()), (t, i)
            expected = histories[i].parts()
            for part in PARTS:
                assert distance(step[part], expected[part]) < 1e-10, (t, i, part)
        assert split[0]["decay"].abs().max() > 1e-4
        assert not split[1]["decay"].any()  # its group has no weight decay


IMPLEMENTATIONS: list[Case] = [
    *((kind, {"foreach": True}) for kind in (Adam, AdamW, NAdam, RAdam, Adamax, Adagrad)),
    (RMSprop, {"foreach": True, "momentum": 0.9, "centered": True}),
    (SGD, {"foreach": True, "momentum": 0.9, "nesterov": True, "maximize": True}),
    *((kind, {"fused": True}) for kind in (Adam, AdamW, Adagrad)),
    (SGD, {"fused": True, "momentum": 0.9, "nesterov": True}),
    (SGD, {"fused": True, "momentum": 0.9, "maximize": True}),
    (Adam, {"fused": True, "amsgrad": True, "maximize": True}),
    (Adam, {"differentiable": False, "foreach": False}),
]


@pytest.mark.parametrize("case", IMPLEMENTATIONS, ids=names(IMPLEMENTATIONS))
def test_the_implementation_of_a_step_does_not_matter(case: Case) -> None:
    kind, options = case
    problem = Problem(kind, **options)
    for _ in range(STEPS):
        split = problem.split(problem.backward())
        for step, moved in zip(split, problem.step(), strict=True):
            assert distance(total(step), moved) < 1e-11


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Adagrad, NAdam])
def test_learning_rates_and_betas_may_be_tensors(kind: type[Optimizer]) -> None:
    options: dict[str, Any] = {"foreach": False}
    if kind in (Adam, AdamW):
        options["betas"] = (torch.tensor(0.8), torch.tensor(0.95))
    if kind in (SGD, RMSprop):
        options["momentum"] = 0.9
    problem = Problem(kind, **options)
    for i, group in enumerate(problem.optimizer.param_groups):
        group["lr"] = torch.tensor(group["lr"]) if i else torch.tensor([group["lr"]])
    for _ in range(STEPS):
        split = problem.split(problem.backward())
        for step, moved in zip(split, problem.step(), strict=True):
            assert distance(total(step), moved) < 1e-11
    assert isinstance(problem.optimizer.param_groups[0]["lr"], Tensor)


@every_case
def test_float32_stays_float32(case: Case) -> None:
    torch.set_default_dtype(torch.float32)
    kind, options = case
    problem = Problem(kind, torch.float32, **options)
    for _ in range(STEPS):
        parts = problem.backward()
        split = problem.split([{n: x.double() for n, x in part.items()} for part in parts])
        for step, moved in zip(split, problem.step(), strict=True):
            assert all(x.dtype == torch.float32 for x in step.values())
            assert distance(total(step), moved) < 1e-4


@every_case
def test_splitting_changes_nothing(case: Case) -> None:
    kind, options = case
    watched, alone = Problem(kind, **options), Problem(kind, **options)
    for _ in range(STEPS):
        parts = watched.backward()
        alone.backward()
        given = copy.deepcopy(parts)
        state = copy.deepcopy(watched.optimizer.state_dict())
        kept = {parameter: dict(s) for parameter, s in watched.optimizer.state.items()}
        weights = [p.detach().clone() for p in watched.parameters]
        gradients = [p.grad.clone() for p in watched.parameters]
        watched.split(parts)
        assert same(watched.optimizer.state_dict(), state)
        # Not a tensor of the state is another one either, and no entry is new.
        assert {*watched.optimizer.state} == {*kept}
        for parameter, entries in watched.optimizer.state.items():
            assert all(entries[name] is value for name, value in kept[parameter].items())
        assert same(parts, given)
        assert same([p.detach() for p in watched.parameters], weights)
        assert same([p.grad for p in watched.parameters], gradients)
        watched.step()
        alone.step()
        for a, b in zip(watched.parameters, alone.parameters, strict=True):
            assert torch.equal(a, b)


def same(a: Any, b: Any) -> bool:
    """Bit for bit, through lists and dictionaries."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_what_is_returned_is_not_what_is_kept() -> None:
    problem = Problem(SGD, momentum=0.9)
    split = problem.split(problem.backward())
    before = copy.deepcopy(problem.buffers)
    for step in split:
        for part in step.values():
            part.fill_(torch.nan)
    assert same(problem.buffers, before)


def middle(x: Tensor) -> Tensor:
    return x[1:3]


def flat(x: Tensor) -> Tensor:
    return x.movedim(0, -1).flatten()


@pytest.mark.parametrize("whole_parts", [True, False])
@pytest.mark.parametrize("read", [middle, flat])
@every_case
def test_a_slice_has_the_slice_of_the_parts(
    case: Case, read: Callable[[Tensor], Tensor], whole_parts: bool
) -> None:
    kind, options = case
    whole, packed = Problem(kind, **options), Problem(kind, **options)
    for _ in range(5):
        expected = whole.split(whole.backward())
        parts = packed.backward()
        if not whole_parts:
            parts = [{name: read(x) for name, x in part.items()} for part in parts]
        split = packed.split(parts, read=read)
        for step, of_whole in zip(split, expected, strict=True):
            for part in PARTS:
                assert torch.equal(step[part], read(of_whole[part]))
        whole.step()
        packed.step()


@every_case
def test_buffers_go_through_a_checkpoint(case: Case) -> None:
    kind, options = case
    first = Problem(kind, **options)
    first.forward_to(4)
    file = io.BytesIO()
    torch.save(
        {
            "buffers": first.buffers,
            "optimizer": first.optimizer.state_dict(),
            "parameters": [p.detach() for p in first.parameters],
        },
        file,
    )
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = Problem(kind, **options)
    second.t, second.buffers = 4, saved["buffers"]
    second.optimizer.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for p, value in zip(second.parameters, saved["parameters"], strict=True):
            p.copy_(value)
    assert same(second.forward_to(STEPS), first.forward_to(STEPS))
    assert same(second.buffers, first.buffers)


@every_case
def test_buffers_hold_one_moment_for_each_part_there_has_been(case: Case) -> None:
    kind, options = case
    problem = Problem(kind, **options)
    problem.forward_to(3)
    moment = "exp_avg" if "betas" in problem.optimizer.defaults else "momentum_buffer"
    remembers = moment == "exp_avg" or problem.optimizer.defaults.get("momentum")
    for i, (p, buffers) in enumerate(zip(problem.parameters, problem.buffers, strict=True)):
        decays = decay_of(problem.optimizer, p)[0] == "coupled"
        names = {"gradient", "projection"} | ({"decay"} if decays else set())
        assert {*buffers} == (names if remembers else set())
        assert decays == (i != 1 and kind is not AdamW and "decoupled" not in str(options))
        if remembers:
            own = problem.optimizer.state[p][moment]
            assert distance(sum(buffers.values()), own) < 1e-12


def test_a_snapshot_of_the_buffers_undoes_a_call() -> None:
    once, twice = Problem(Adam), Problem(Adam)
    for problem in (once, twice):
        problem.forward_to(3)
    parts, again = once.backward(), twice.backward()
    snapshots = [dict(buffers) for buffers in twice.buffers]
    twice.split([{name: x * torch.inf for name, x in part.items()} for part in again])
    for buffers, snapshot in zip(twice.buffers, snapshots, strict=True):
        buffers.clear()
        buffers.update(snapshot)
    assert same(twice.split(again), once.split(parts))


@pytest.mark.parametrize(
    ("kind", "options"), [(SGD, {"momentum": 0.9}), (Adam, {}), (RMSprop, {"momentum": 0.9})]
)
def test_parts_without_a_projection_and_parts_that_come_later(
    kind: type[Optimizer], options: dict[str, Any]
) -> None:
    """Only step 4 has a projection; its buffer moves the weight in steps 5 and 6 too."""
    problem = Problem(kind, **options)
    for t in range(6):
        parts = problem.backward()
        if t != 3:
            parts = [{"gradient": p.grad.clone()} for p in problem.parameters]
        split = problem.split(parts)
        for step, moved in zip(split, problem.step(), strict=True):
            assert distance(total(step), moved) < 1e-11
            assert bool(step["projection"].any()) == (t >= 3)


def test_the_split_without_memory_is_another_one() -> None:
    """Negative control: -lr g and -lr wd p of this step alone, a gradient that turns its sign."""
    weight = torch.nn.Parameter(torch.full((2, 3), 2.0))
    sgd_ = SGD([weight], lr=0.01, momentum=0.9, weight_decay=0.1)
    buffers: dict[str, Tensor] = {}
    for t in range(6):
        weight.grad = torch.full((2, 3), (-1.0) ** t)
        today = {"gradient": -0.01 * weight.grad, "decay": -0.01 * 0.1 * weight.detach()}
        step = split_step(sgd_, weight, {"gradient": weight.grad}, buffers)
        sgd_.step()

    def share(parts: dict[str, Tensor]) -> float:
        norms = {name: part.norm().item() for name, part in parts.items()}
        return norms["decay"] / sum(norms.values())

    # Decays add up, gradients cancel.
    assert share(today) < 0.2
    assert share(step) > 0.5


def test_decay_of_adamw_is_apart_and_has_no_memory() -> None:
    """AdamW's share of decay is lr wd p; as coupled decay it would be divided and averaged."""
    apart, coupled = Problem(AdamW), Problem(Adam)
    for _ in range(STEPS):
        weights = [p.detach().clone() for p in apart.parameters]
        split = apart.split(apart.backward())
        for group, weight, step in zip(apart.optimizer.param_groups, weights, split, strict=True):
            by_hand = -group["lr"] * group["weight_decay"] * weight
            assert torch.allclose(step["decay"], by_hand, rtol=1e-14, atol=0)
        apart.step()
    other = coupled.forward_to(STEPS)
    assert distance(split[0]["decay"], other[0]["decay"]) > 0.3


def test_momentum_of_decay_outlives_the_decay() -> None:
    problem = Problem(SGD, momentum=0.5)
    problem.forward_to(2)
    parts = problem.backward()
    group, buffer = problem.optimizer.param_groups[0], problem.buffers[0]["decay"]
    group["weight_decay"] = 0.0
    split = problem.split(parts)
    assert torch.allclose(split[0]["decay"], -group["lr"] * 0.5 * buffer, rtol=1e-14, atol=0)
    assert distance(total(split[0]), problem.step()[0]) < 1e-12


def test_what_the_optimizer_forgets_does_not_come_back() -> None:
    """Without beta_1 for a step, the decay of before is gone when beta_1 is back."""
    problem = Problem(Adam)
    problem.forward_to(3)
    for group in problem.optimizer.param_groups:
        group["betas"] = (0.0, 0.9)
    parts = problem.backward()
    problem.optimizer.param_groups[0]["weight_decay"] = 0.0
    problem.split(parts)
    problem.step()
    assert {*problem.buffers[0]} == {"gradient", "projection"}
    for group in problem.optimizer.param_groups:
        group["betas"] = (0.9, 0.9)
    split = problem.split(problem.backward())
    for step, moved in zip(split, problem.step(), strict=True):
        assert distance(total(step), moved) < 1e-12


def test_momentum_may_begin_later() -> None:
    problem = Problem(SGD)
    problem.forward_to(2)
    for group in problem.optimizer.param_groups:
        group["momentum"] = 0.9
    for _ in range(3):
        split = problem.split(problem.backward())
        for step, moved in zip(split, problem.step(), strict=True):
            assert distance(total(step), moved) < 1e-12


@pytest.mark.parametrize(
    ("kind", "options"), [(SGD, {"momentum": 0.9}), (Adam, {}), (RMSprop, {"momentum": 0.9})]
)
def test_buffers_of_an_earlier_optimizer_are_dropped(
    kind: type[Optimizer], options: dict[str, Any]
) -> None:
    old, new = Problem(kind, **options), Problem(kind, **options)
    old.forward_to(3)
    parts = new.backward()
    expected = new.split(parts)
    new.buffers = old.buffers
    assert same(new.split(parts), expected)


def test_an_optimizer_of_a_late_group_begins_with_it() -> None:
    """Adagrad makes the state of such a group in its step."""
    ada = Adagrad([torch.nn.Parameter(torch.ones(2))], initial_accumulator_value=0.3)
    late = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    ada.add_param_group({"params": [late]})
    late.grad = torch.tensor([0.2, 0.7, -0.4])
    step = split_step(ada, late, {"gradient": late.grad}, {})
    before = late.detach().clone()
    ada.step()
    assert distance(total(step), late.detach() - before) < 1e-12


def test_nadams_product_is_float32_unless_float64_is_the_default() -> None:
    torch.set_default_dtype(torch.float32)
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    nadam_ = NAdam([weight], lr=0.1, momentum_decay=0.3)
    buffers: dict[str, Tensor] = {}
    for t in range(STEPS):
        weight.grad = torch.tensor([1.0, -0.5, 0.2 * t], dtype=torch.float64)
        before = weight.detach().clone()
        step = split_step(nadam_, weight, {"gradient": weight.grad}, buffers)
        nadam_.step()
        assert distance(total(step), weight.detach() - before) < 1e-12
    assert nadam_.state[weight]["mu_product"].dtype == torch.float32


# Refusals.


def one(shape: tuple[int, ...] = (2, 3)) -> Any:
    """A parameter with a gradient."""
    weight = torch.nn.Parameter(torch.ones(shape))
    weight.grad = torch.full(shape, 0.5)
    return weight


class Louder(SGD):
    """Steps in another way."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-100)


@pytest.mark.parametrize("kind", [Louder, torch.optim.Adadelta, torch.optim.Rprop])
def test_an_unknown_step_is_refused(kind: type[Optimizer]) -> None:
    weight = one()
    name = kind.__name__
    with pytest.raises(NoSplit, match=f"^the step of {name} is not known in parts$"):
        split_step(kind([weight], lr=0.1), weight, {"gradient": weight.grad}, {})


REMEMBERS: list[Case] = [
    (SGD, {"momentum": 0.9}),
    (SGD, {"momentum": 0.9, "nesterov": True}),
    (RMSprop, {"momentum": 0.9}),
    *((kind, {}) for kind in (Adam, AdamW, NAdam, RAdam, Adamax)),
]


@pytest.mark.parametrize("case", REMEMBERS, ids=names(REMEMBERS))
def test_momentum_from_before_is_refused(case: Case) -> None:
    kind, options = case
    problem = Problem(kind, **options)
    problem.backward()
    problem.step()
    parts = problem.backward()
    with pytest.raises(NoSplit, match=r"^its momentum began before it was watched$"):
        problem.split(parts)
    assert problem.buffers == [{}, {}, {}]


FORGETS: list[Case] = [
    (SGD, {}),
    (RMSprop, {}),
    (RMSprop, {"centered": True}),
    (Adagrad, {}),
    (Adam, {"betas": (0.0, 0.9)}),
]


@pytest.mark.parametrize("case", FORGETS, ids=names(FORGETS))
def test_without_a_first_moment_the_watch_may_begin_at_any_step(case: Case) -> None:
    kind, options = case
    problem = Problem(kind, **options)
    for _ in range(3):
        problem.backward()
        problem.step()
    split = problem.split(problem.backward())
    for step, moved in zip(split, problem.step(), strict=True):
        assert distance(total(step), moved) < 1e-12


def test_a_zero_momentum_has_not_begun() -> None:
    weight = one()
    weight.grad = torch.zeros(2, 3)
    sgd_ = SGD([weight], lr=0.1, momentum=0.9, dampening=0.4)
    sgd_.step()
    weight.grad = torch.full((2, 3), 0.5)
    step = split_step(sgd_, weight, {"gradient": weight.grad}, {})
    assert torch.allclose(step["gradient"], torch.full((2, 3), -0.1 * 0.6 * 0.5))


def test_a_counted_step_has_begun_also_with_a_zero_moment() -> None:
    weight = one()
    weight.grad = torch.zeros(2, 3)
    adam_ = Adam([weight], lr=0.1)
    adam_.step()
    with pytest.raises(NoSplit, match="began before"):
        split_step(adam_, weight, {"gradient": weight.grad}, {})


def test_sparse_and_complex_gradients_are_refused() -> None:
    weight = one()
    weight.grad = torch.eye(3)[:2].to_sparse()
    with pytest.raises(NoSplit, match=r"^its gradient is sparse$"):
        split_step(SGD([weight], lr=0.1), weight, {"gradient": weight.grad}, {})
    turned = torch.nn.Parameter(torch.ones(2, dtype=torch.complex128))
    turned.grad = torch.ones(2, dtype=torch.complex128)
    with pytest.raises(NoSplit, match=r"^its gradient is complex$"):
        split_step(SGD([turned], lr=0.1), turned, {"gradient": turned.grad}, {})


def test_a_parameter_is_found_by_identity() -> None:
    weight, twin = one(), one()
    with pytest.raises(NoSplit, match=r"^no group of the optimizer holds the parameter$"):
        split_step(SGD([weight], lr=0.1), twin, {"gradient": twin.grad}, {})


def test_a_parameter_without_a_gradient_is_refused() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"^the parameter has no gradient$") as caught:
        split_step(SGD([weight], lr=0.1), weight, {"gradient": torch.ones(2)}, {})
    assert not isinstance(caught.value, NoSplit)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "parts are gradient and projection, not none"),
        ({"projection": (2, 3)}, "parts are gradient and projection, not projection"),
        ({"gradient": (2, 3), "decay": (2, 3)}, "not gradient, decay"),
        ({"gradient": (3, 2)}, r"the part gradient has the shape \(3, 2\), not \(2, 3\)"),
    ],
)
def test_wrong_parts_are_refused(parts: dict[str, tuple[int, ...]], text: str) -> None:
    weight = one()
    given = {name: torch.zeros(shape) for name, shape in parts.items()}
    with pytest.raises(ValueError, match=text):
        split_step(SGD([weight], lr=0.1), weight, given, {})


# Momentum and decay by name.


@pytest.mark.parametrize(
    ("kind", "options", "momentum"),
    [
        (SGD, {}, 0.0),
        (SGD, {"momentum": 0.7}, 0.7),
        (Louder, {"momentum": 0.6}, 0.6),
        (RMSprop, {"momentum": 0.4}, 0.4),
        (Adam, {"betas": (0.8, 0.9)}, 0.8),
        (AdamW, {"betas": (torch.tensor(0.75, dtype=torch.float64), 0.9)}, 0.75),
        (NAdam, {}, 0.9),
        (RAdam, {"betas": (0.3, 0.9)}, 0.3),
        (Adamax, {"betas": (0.2, 0.9)}, 0.2),
        (Adagrad, {}, None),
        (torch.optim.Adadelta, {}, None),
    ],
)
def test_momentum_of(
    kind: type[Optimizer], options: dict[str, Any], momentum: float | None
) -> None:
    if any(isinstance(beta, Tensor) for beta in options.get("betas", ())):
        options = options | {"betas": tuple(torch.as_tensor(b) for b in options["betas"])}
        options["foreach"] = False
    assert momentum_of(kind([one()], lr=0.1, **options)) == momentum


class Unknown(Optimizer):
    """An optimizer of somebody else."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, options)


@pytest.mark.parametrize(
    ("kind", "options", "decay"),
    [
        (SGD, {"weight_decay": 0.2}, ("coupled", 0.2)),
        (SGD, {}, ("none", 0.0)),
        (Adam, {"weight_decay": 0.2}, ("coupled", 0.2)),
        (Adam, {"weight_decay": 0.2, "decoupled_weight_decay": True}, ("decoupled", 0.2)),
        (AdamW, {"weight_decay": 0.2}, ("decoupled", 0.2)),
        (AdamW, {"weight_decay": 0.0}, ("none", 0.0)),
        (NAdam, {"weight_decay": 0.2, "decoupled_weight_decay": True}, ("decoupled", 0.2)),
        (torch.optim.Adadelta, {"weight_decay": 0.2}, ("coupled", 0.2)),
        (torch.optim.Muon, {"weight_decay": 0.2}, ("decoupled", 0.2)),
        (torch.optim.Adafactor, {"weight_decay": 0.2}, ("decoupled", 0.2)),
        (torch.optim.Rprop, {}, ("none", 0.0)),
        (Unknown, {"weight_decay": 0.2}, ("coupled", 0.2)),
        (Unknown, {"weight_decay": 0.2, "decoupled_weight_decay": True}, ("decoupled", 0.2)),
        (Unknown, {"weight_decay": None}, ("none", 0.0)),
    ],
)
def test_decay_of(kind: type[Optimizer], options: dict[str, Any], decay: tuple[str, float]) -> None:
    weight = one()
    optimizer = kind([weight], **options)
    assert decay_of(optimizer, weight) == decay
    assert decay_of(optimizer, one()) == ("none", 0.0)


def test_decay_is_that_of_the_parameters_group() -> None:
    problem = Problem(SGD)
    assert [decay_of(problem.optimizer, p)[1] for p in problem.parameters] == [*DECAYS]
