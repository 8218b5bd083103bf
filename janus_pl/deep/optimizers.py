"""The optimizer of a config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer, SparseAdam

from janus_pl.errors import UsageError
from janus_pl.training.schedules import factory_name

OptimizerFactory = Callable[[Iterable, float], Optimizer]


def build_optimizer(
    factory: OptimizerFactory, groups: list[dict[str, Any]], learning_rate: float
) -> Optimizer:
    """Build the optimizer of a config; each group of parameters brings its own weight decay.

    Raises:
        UsageError: The optimizer refuses its options, needs sparse gradients or a closure, or has a
            weight decay of its own; or it cannot take the steps of a fit.
    """
    try:
        optimizer = factory(groups, learning_rate)
    except (TypeError, ValueError, RuntimeError) as error:
        if (alone := _without_groups(factory, groups, learning_rate)) is not None:
            _check_step(alone)
        allowed = f"an optimizer with options that it accepts ({error})"
        raise UsageError("model.optimizer", factory_name(factory), allowed) from error
    _check_step(optimizer)
    if isinstance(optimizer, SparseAdam):
        raise UsageError("model.optimizer", "SparseAdam", "an optimizer for dense gradients")
    if given := optimizer.defaults.get("weight_decay"):
        raise UsageError("model.optimizer.weight_decay", given, "0; set model.weight_decay instead")
    if optimizer.defaults.get("differentiable"):
        allowed = "false: a step changes the weights in place"
        raise UsageError("model.optimizer.differentiable", True, allowed)
    if optimizer.defaults.get("capturable") and not torch.accelerator.is_available():
        allowed = "false on a machine without an accelerator"
        raise UsageError("model.optimizer.capturable", True, allowed)
    return optimizer


def _without_groups(
    factory: OptimizerFactory, groups: list[dict[str, Any]], learning_rate: float
) -> Optimizer | None:
    """Return an optimizer that takes no groups, such as LBFGS; None if that is not the trouble."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    try:
        return factory(parameters, learning_rate)
    except (TypeError, ValueError, RuntimeError):
        return None


def _check_step(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose step evaluates the loss again, as that of LBFGS does."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        allowed = "an optimizer whose step needs no closure: a row's steps have one gradient each"
        raise UsageError("model.optimizer", type(optimizer).__name__, allowed)
