r"""The parts of an optimizer's step: gradient, weight decay and projection.

A step is linear in its first moment. Let g_a be the parts of what the optimizer averages: the
gradient of the loss, the coupled decay wd p, the projection. Each part has a buffer m_a that
follows the optimizer's own recursion, and all parts share the coefficients of the step:

    m_a <- keep m_a + take g_a,     p(t+1) - p(t) = sum_a (along m_a + direct g_a) - lr wd p.

The last term is there for decoupled decay only (AdamW); it belongs to the decay. With g = sum_a g_a
and steps t = 1, 2, ...:

    optimizer  keep  take           along                      direct
    SGD        mu    1 - dampening  -lr                        0
    Nesterov   mu    1 - dampening  -lr mu                     -lr
    RMSprop    mu    1/d            -lr                        0
    Adam       b1    1 - b1         -lr/((1 - b1^t) d)         0
    RAdam      b1    1 - b1         -lr/((1 - b1^t) d)         0
    Adamax     b1    1 - b1         -lr/((1 - b1^t) d)         0
    NAdam      b1    1 - b1         -lr n_(t+1)/((1 - P_(t+1)) d)  -lr (1 - n_t)/((1 - P_t) d)
    Adagrad    none  none           none                       -lr/((1 + (t - 1) lr_decay) d)

The denominator d is a function of all of g, such as sqrt(v/(1 - b2^t)) + eps of Adam; n_t is the
momentum of NAdam, b1 (1 - 0.96^(t momentum_decay)/2), and P_t = n_1 ... n_t. The first step of SGD
has keep 0 and take 1. Without momentum SGD and RMSprop have no buffers, and direct is -lr and
-lr/d. `maximize` turns the signs of gradient and projection, not that of the decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import (
    SGD,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

PARTS = ("gradient", "decay", "projection")


class NoSplit(ValueError):
    """The step of an optimizer cannot be split; the message says why."""


def identity(tensor: Tensor) -> Tensor:
    """Return the tensor itself: the view of a whole parameter."""
    return tensor


@torch.no_grad()
def split_step(
    optimizer: Optimizer,
    parameter: Tensor,
    parts: Mapping[str, Tensor],
    buffers: dict[str, Tensor],
    read: Callable[[Tensor], Tensor] = identity,
) -> dict[str, Tensor]:
    r"""Return the parts by name of p(t+1) - p(t), for the step that optimizer.step() takes next.

    Call it once a step, after the backward pass (unscaled, clipped) and before the step. The parts
    sum to the step (equations: top of this module); optimizer, parameter and gradient stay as they
    are. Known are SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop and Adagrad of PyTorch, with all
    their options.

    A step without a call, or a call without its step, leaves the buffers behind the optimizer's
    own, and the parts no longer sum to the step. Tensors in `buffers` are replaced and never
    written to, so `dict(buffers)` before a call undoes it.

    Args:
        optimizer: The optimizer that takes the step.
        parameter: The parameter p as the optimizer holds it, any shape, real and dense.
        parts: The parts of parameter.grad that sum to it: "gradient" and, if there is one,
            "projection". Each has the shape of the parameter or that of read(parameter); a part of
            the latter shape is not read again.
        buffers: The buffers m_a by part, in the shape of read(parameter). The caller owns them:
            empty before the first step, updated here, and kept in checkpoints. They have an entry
            for each part that there has been, and none without a first moment.
        read: A view that picks entries of a tensor of the parameter's shape, such as a slice of a
            packed weight. It is applied to the parameter, its gradient and the optimizer's state.

    Returns:
        One tensor for each of PARTS, in the shape of read(parameter) and the parameter's dtype;
        zeros for a part that the step does not have.

    Raises:
        NoSplit: The class of the optimizer is not known, no group holds the parameter, the
            gradient is sparse or complex, or the first moment is older than the buffers.
        ValueError: The parameter has no gradient, or `parts` has other names or other shapes.

    >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
    >>> sgd = torch.optim.SGD([weight], lr=0.5, momentum=0.5, weight_decay=0.25)
    >>> buffers = {}
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(1)
    ...     step = split_step(sgd, weight, {"gradient": weight.grad}, buffers)
    ...     sgd.step()
    >>> {part: float(move) for part, move in step.items()}
    {'gradient': -0.75, 'decay': -0.28125, 'projection': 0.0}
    """
    if type(optimizer) not in _LAWS:
        raise NoSplit(f"the step of {type(optimizer).__name__} is not known in parts")
    if (group := _group_of(optimizer, parameter)) is None:
        raise NoSplit("no group of the optimizer holds the parameter")
    weight = read(parameter.detach())
    sign = -1.0 if group["maximize"] else 1.0
    gradient = sign * read(_gradient(parameter))
    terms = {name: sign * part for name, part in _read_parts(parts, weight, read).items()}
    kind, decay = decay_of(optimizer, parameter)
    if kind == "coupled":
        terms["decay"] = decay * weight
        gradient = gradient + terms["decay"]
    state = {
        name: read(value) if isinstance(value, Tensor) and name not in _SCALARS else value
        for name, value in optimizer.state.get(parameter, {}).items()
    }
    law = _LAWS[type(optimizer)](_Step(optimizer, group, state, gradient))
    moments = {} if law.take is None else _advance(buffers, terms, law, state)
    step = {}
    for part in PARTS:
        step[part] = torch.zeros_like(weight)
        if part in moments:
            step[part] += law.along * moments[part]
        if part in terms:
            step[part] += law.direct * terms[part]
    if kind == "decoupled":
        step["decay"] -= _number(group["lr"]) * decay * weight
    return step


def momentum_of(optimizer: Optimizer) -> float | None:
    """Return the momentum of the first group, or None if the class has no first moment.

    That is `momentum` of SGD and RMSprop and beta_1 of the family of Adam, 0 included. A class that
    is not known here, and is no subclass of one, has None.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> momentum_of(torch.optim.AdamW([weight])), momentum_of(torch.optim.SGD([weight]))
    (0.9, 0.0)
    """
    group = optimizer.param_groups[0]
    if isinstance(optimizer, (SGD, RMSprop)):
        return _number(group["momentum"])
    if isinstance(optimizer, (Adam, NAdam, RAdam, Adamax)):
        return _number(group["betas"][0])
    return None


def decay_of(optimizer: Optimizer, parameter: Tensor) -> tuple[str, float]:
    """Return how the optimizer decays a parameter, and the weight decay of the parameter's group.

    "coupled": wd p is added to the gradient. "decoupled": lr wd p is taken from the parameter.
    "none", with 0: the group has no weight decay, or no group holds the parameter. Decay is
    decoupled if the group says so (`decoupled_weight_decay`) or the class is AdamW, Adafactor or
    Muon. Every other class counts as coupled, also one that is not known here and may decay
    otherwise.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> decay_of(torch.optim.AdamW([weight], weight_decay=0.1), weight)
    ('decoupled', 0.1)
    >>> decay_of(torch.optim.SGD([weight]), weight)
    ('none', 0.0)
    """
    group = _group_of(optimizer, parameter) or {}
    decay = _number(group.get("weight_decay") or 0.0)
    if not decay:
        return "none", 0.0
    if group.get("decoupled_weight_decay") or isinstance(optimizer, (AdamW, Adafactor, Muon)):
        return "decoupled", decay
    return "coupled", decay


class _Law(NamedTuple):
    """The coefficients of one step, as at the top of this module; take is None without buffers."""

    keep: float = 0.0
    take: float | Tensor | None = None
    along: float | Tensor = 0.0
    direct: float | Tensor = 0.0


@dataclass(frozen=True)
class _Step:
    """An optimizer before a step; tensors of the state and the gradient are read.

    Attributes:
        optimizer: Not stepped yet.
        group: The parameter's group.
        state: The parameter's state by name; empty before the first step.
        gradient: All that the optimizer averages: signed by maximize, with coupled decay.
    """

    optimizer: Optimizer
    group: Mapping[str, Any]
    state: Mapping[str, Any]
    gradient: Tensor

    def option(self, name: str) -> float:
        """Return a number of the group, which may hold it as a tensor."""
        return _number(self.group[name])

    @property
    def betas(self) -> tuple[float, float]:
        """The two rates of the moments."""
        first, second = self.group["betas"]
        return _number(first), _number(second)

    @property
    def count(self) -> float:
        """The number t of this step, from 1."""
        return _number(self.state.get("step", 0.0)) + 1

    def old(self, name: str) -> Tensor:
        """Return a tensor of the state; zeros before the first step."""
        return self.state[name] if name in self.state else torch.zeros_like(self.gradient)

    def averaged_square(self, name: str, rate: float) -> Tensor:
        """Return the average of g^2 after this step."""
        return rate * self.old(name) + (1 - rate) * self.gradient.square()


def _sgd(step: _Step) -> _Law:
    lr, momentum = step.option("lr"), step.option("momentum")
    if not momentum:
        return _Law(direct=-lr)
    first = step.state.get("momentum_buffer") is None
    keep, take = (0.0, 1.0) if first else (momentum, 1 - step.option("dampening"))
    if step.group["nesterov"]:
        return _Law(keep, take, along=-lr * momentum, direct=-lr)
    return _Law(keep, take, along=-lr)


def _adam(step: _Step) -> _Law:
    first, second = step.betas
    square = step.averaged_square("exp_avg_sq", second)
    if step.group["amsgrad"]:
        square = torch.maximum(step.old("max_exp_avg_sq"), square)
    denominator = square.sqrt() / (1 - second**step.count) ** 0.5 + step.option("eps")
    size = step.option("lr") / (1 - first**step.count)
    return _Law(first, 1 - first, along=-size / denominator)


def _nadam(step: _Step) -> _Law:
    lr, count, (first, second) = step.option("lr"), step.count, step.betas
    square = step.averaged_square("exp_avg_sq", second) / (1 - second**count)
    denominator = square.sqrt() + step.option("eps")

    def warmed(number: float) -> float:
        return first * (1 - 0.5 * 0.96 ** (number * step.option("momentum_decay")))

    # In the dtype of the state, which is float32 also for parameters in float64.
    wide = torch.get_default_dtype() == torch.float64
    fresh = torch.ones((), dtype=torch.float64 if wide else torch.float32)
    product = _number(step.state.get("mu_product", fresh) * warmed(count))
    along = -lr * warmed(count + 1) / (1 - product * warmed(count + 1))
    direct = -lr * (1 - warmed(count)) / (1 - product)
    return _Law(first, 1 - first, along / denominator, direct / denominator)


def _radam(step: _Step) -> _Law:
    count, (first, second) = step.count, step.betas
    size = step.option("lr") / (1 - first**count)
    longest = 2 / (1 - second) - 1
    length = longest - 2 * count * second**count / (1 - second**count)
    if length <= 5:
        return _Law(first, 1 - first, along=-size)
    rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    denominator = step.averaged_square("exp_avg_sq", second).sqrt() + step.option("eps")
    size *= (rectified * (1 - second**count)) ** 0.5
    return _Law(first, 1 - first, along=-size / denominator)


def _adamax(step: _Step) -> _Law:
    first, second = step.betas
    largest = torch.maximum(second * step.old("exp_inf"), step.gradient.abs() + step.option("eps"))
    size = step.option("lr") / (1 - first**step.count)
    return _Law(first, 1 - first, along=-size / largest)


def _rmsprop(step: _Step) -> _Law:
    lr, rate = step.option("lr"), step.option("alpha")
    square = step.averaged_square("square_avg", rate)
    if step.group["centered"]:
        mean = torch.lerp(step.old("grad_avg"), step.gradient, 1 - rate)
        square = square.addcmul(mean, mean, value=-1)
    denominator = square.sqrt() + step.option("eps")
    if (momentum := step.option("momentum")) > 0:
        return _Law(momentum, take=1 / denominator, along=-lr)
    return _Law(direct=-lr / denominator)


def _adagrad(step: _Step) -> _Law:
    size = step.option("lr") / (1 + (step.count - 1) * step.option("lr_decay"))
    total = step.state.get("sum", step.optimizer.defaults["initial_accumulator_value"])
    denominator = (total + step.gradient.square()).sqrt() + step.option("eps")
    return _Law(direct=-size / denominator)


# By the class itself: a subclass may step in another way.
_LAWS: dict[type[Optimizer], Callable[[_Step], _Law]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
    NAdam: _nadam,
    RAdam: _radam,
    Adamax: _adamax,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
_SCALARS = ("step", "mu_product")  # of the state; everything else has the parameter's shape
_MOMENTS = ("momentum_buffer", "exp_avg")


def _advance(
    buffers: dict[str, Tensor], terms: Mapping[str, Tensor], law: _Law, state: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return m_a after the step by part, and put them into the buffers.

    Buffers are dropped if the optimizer begins anew: its state has no step yet.
    """
    assert law.take is not None
    moment = next((state[name] for name in _MOMENTS if state.get(name) is not None), None)
    if moment is None or _number(state.get("step", 1.0)) == 0:
        buffers.clear()
    if law.keep and "gradient" not in buffers and _began(moment, state):
        raise NoSplit("its momentum began before it was watched")
    like = terms["gradient"]
    moments = {}
    for part in PARTS:
        if part in terms:
            moments[part] = law.take * terms[part]
        if law.keep and part in buffers:
            old = law.keep * buffers[part].to(like)
            moments[part] = old + moments[part] if part in moments else old
    buffers.clear()
    buffers.update(moments)
    return moments


def _began(moment: Tensor | None, state: Mapping[str, Any]) -> bool:
    """Tell whether there is a first moment from earlier steps; SGD does not count its steps."""
    if moment is None:
        return False
    return _number(state.get("step", 0.0)) > 0 or bool(moment.any())


def _group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any] | None:
    """Return the group that holds a parameter, by identity."""
    for group in optimizer.param_groups:
        if any(held is parameter for held in group["params"]):
            return group
    return None


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter; refuse one that is sparse or complex."""
    if parameter.grad is None:
        raise ValueError("the parameter has no gradient")
    if parameter.grad.layout != torch.strided:
        raise NoSplit("its gradient is sparse")
    if parameter.is_complex() or parameter.grad.is_complex():
        raise NoSplit("its gradient is complex")
    return parameter.grad.detach()


def _read_parts(
    parts: Mapping[str, Tensor], weight: Tensor, read: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the parts in the shape, dtype and device of the read parameter."""
    if "gradient" not in parts or not {*parts} <= {"gradient", "projection"}:
        raise ValueError(f"parts are gradient and projection, not {', '.join(parts) or 'none'}")
    found = {}
    for name, part in parts.items():
        part = part.detach()
        found[name] = (part if part.shape == weight.shape else read(part)).to(weight)
        if found[name].shape != weight.shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(weight.shape)}"
            raise ValueError(f"the part {name} has the shape {shapes}")
    return found


def _number(value: float | Tensor) -> float:
    """Return a number that an optimizer may hold as a tensor of one entry."""
    return float(value.detach().item() if isinstance(value, Tensor) else value)
