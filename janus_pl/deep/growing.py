r"""The control `model.schedule: growing`: no decay on v_k, and a rate of v_k that grows instead.

SGD with weight decay lambda on every v_k and rho, at the rate eta, has a twin: without decay on
v_k, at the rate eta alpha^(-2t-1) of v_k in step t, and with a first momentum buffer of v_k. All
V_k of the two are the same, and all rho (`janus_pl.theory.growing`). rho keeps rate and decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from janus_pl.deep.parametrization import Groups
from janus_pl.errors import UsageError
from janus_pl.theory.growing import first_buffer, growth, shrinkage
from janus_pl.training.optimizers import is_sgd
from janus_pl.training.restoring import FROM, check_options
from janus_pl.training.schedules import constant

GROWING = "growing"
FOR = f"for model.schedule: {GROWING}"
MOST = 1e12  # of alpha^(-2T); ||v_k|| then grows by up to 1e6


def without_decay(groups: Groups) -> Groups:
    """Return the groups of a parametrization with no decay in the first one, that of the v_k."""
    return [{**groups[0], "weight_decay": 0.0}, *groups[1:]]


def check_growing(
    optimizer: Optimizer, normalization: str, weight_decay: float, decay: str
) -> None:
    """Refuse options under which a growing rate is not the twin of weight decay.

    Raises:
        UsageError: Normalization, decay or optimizer is another, or lambda is too large.
    """
    wanted = {"model.normalization": (normalization, "weight_norm"), "model.decay": (decay, "all")}
    for field, (value, allowed) in wanted.items():
        if value != allowed:
            raise UsageError(field, value, f"{allowed}, {FOR}")
    if not is_sgd(optimizer):
        raise UsageError("model.optimizer", type(optimizer).__name__, f"torch.optim.SGD, {FOR}")
    group = optimizer.param_groups[0]
    for name, allowed in {"nesterov": "false", "dampening": "0", "maximize": "false"}.items():
        if group[name]:
            raise UsageError(f"model.optimizer.{name}", group[name], f"{allowed}, {FOR}")
    try:
        alpha_of(optimizer, weight_decay)
    except ValueError as error:
        most = _rounded_down((1 - math.sqrt(group["momentum"])) ** 2 / _base(optimizer))
        allowed = f"at most {most:g} at this rate and momentum, {FOR}"
        raise UsageError("model.weight_decay", weight_decay, allowed) from error


def check_growth(optimizer: Optimizer, weight_decay: float, steps: int) -> None:
    """Refuse a run over whose steps the rate grows by more than `MOST`.

    Raises:
        UsageError: It has too many steps.
    """
    logarithm = -2 * math.log(alpha_of(optimizer, weight_decay))  # of the growth in one step
    if steps * logarithm > math.log(MOST):
        longest = math.floor(math.log(MOST) / logarithm)
        most = _rounded_down(_largest_decay(optimizer, steps))
        allowed = (
            f"a run of at most {longest} steps at this rate and lambda (it has {steps}), or"
            f" model.weight_decay of at most {most:g}: the rate grows by {MOST:g} at most"
        )
        raise UsageError("model.schedule", GROWING, allowed)


def steps_ahead(trainer: Trainer, samples: int, batch_size: int) -> int:
    """Return the optimizer steps of a run of N samples in minibatches of B, before it starts."""
    batches, limit = math.ceil(samples / batch_size), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * (limit or 0))
    bounds = [trainer.max_steps] if trainer.max_steps != -1 else []
    if trainer.max_epochs not in (-1, None):
        bounds.append(trainer.max_epochs * batches)
    return min(bounds)


def growing_scheduler(optimizer: Optimizer, weight_decay: float) -> LambdaLR:
    """Build the schedule, by the step: the v_k are in the first group, and the others stay."""
    grows = partial(growth, alpha_of(optimizer, weight_decay))
    return LambdaLR(optimizer, [grows, *[constant] * (len(optimizer.param_groups) - 1)])


@torch.no_grad()
def fill_buffers(
    optimizer: Optimizer, weight_decay: float, weights: Iterable[nn.Parameter]
) -> None:
    """Put the first momentum buffer of each v_k, before the first step; none without momentum."""
    if not optimizer.param_groups[0]["momentum"]:
        return
    c = first_buffer(alpha_of(optimizer, weight_decay), _base(optimizer))
    for v in weights:
        optimizer.state[v]["momentum_buffer"] = c * v.detach()


def check_unchanged(
    checkpoint: Mapping[str, Any], schedule: object, options: Mapping[str, Any], momentum: float
) -> None:
    """Refuse a checkpoint whose growth would not go on as it began.

    Rate, lambda and momentum decide alpha, and ||v_k|| and its buffer are those of the steps so
    far, so no run with weight decay would have the V_k of one in which they change.

    Args:
        checkpoint: Its content.
        schedule: The schedule of the config.
        options: The options of the model by name.
        momentum: The optimizer's momentum.

    Raises:
        UsageError: One of them changed, or one of two schedules is growing.
    """
    described = checkpoint.get("description") or {}
    grew = described.get("schedule") == GROWING
    if grew != (schedule == GROWING):
        value = schedule if isinstance(schedule, str) else "its class"
        allowed = GROWING if grew else f"another one than {GROWING}"
        raise UsageError("model.schedule", value, f"{allowed}, {FROM}")
    if grew:
        then = checkpoint.get("hyper_parameters") or {}
        names = [name for name in ("learning_rate", "weight_decay") if name in then]
        check_options(
            {"model.optimizer.momentum": momentum} | {f"model.{k}": options[k] for k in names},
            {"model.optimizer.momentum": described.get("momentum", momentum)}
            | {f"model.{k}": then[k] for k in names},
        )


def alpha_of(optimizer: Optimizer, weight_decay: float) -> float:
    """Return alpha of the optimizer's own rate and momentum.

    Raises:
        ValueError: There is none.
    """
    return shrinkage(_base(optimizer), weight_decay, optimizer.param_groups[0]["momentum"])


def _base(optimizer: Optimizer) -> float:
    """Return eta, which a schedule leaves as `initial_lr`."""
    group = optimizer.param_groups[0]
    return float(group.get("initial_lr", group["lr"]))


def _largest_decay(optimizer: Optimizer, steps: int) -> float:
    """Return the largest lambda with which so many steps are allowed."""
    beta = optimizer.param_groups[0]["momentum"]
    alpha = max(MOST ** (-1 / (2 * steps)), math.sqrt(beta))
    return (1 + beta - alpha - beta / alpha) / _base(optimizer)


def _rounded_down(number: float) -> float:
    """Return a number in four digits that is not above it.

    >>> _rounded_down(0.0123456), _rounded_down(0.0)
    (0.01234, 0.0)
    """
    if number <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(number)) - 3)
    return float(f"{math.floor(number / unit) * unit:.4g}")
