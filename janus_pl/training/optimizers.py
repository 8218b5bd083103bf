"""The options of an optimizer's groups, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import SGD, Optimizer

from janus_pl.observables.update import decay_of


def learning_rate_of(optimizer: Optimizer, parameter: Tensor) -> float:
    """Return the learning rate of the group that holds the parameter; 0 if none does."""
    for group in optimizer.param_groups:
        if any(parameter is held for held in group["params"]):
            return float(group["lr"])
    return 0.0


def initial_rate_of(optimizers: Sequence[Optimizer], parameter: Tensor) -> float | None:
    """Return the rate of a parameter's group before a schedule acts; None if no group holds it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(parameter is held for held in group["params"]) and "lr" in group:
                return float(group.get("initial_lr", group["lr"]))
    return None


def initial_rate(optimizers: Sequence[Optimizer]) -> float | None:
    """Return the rate of all groups before a schedule acts; None if they differ or have none."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = {group.get("initial_lr", group.get("lr")) for group in groups}
    return float(rate) if len(rates) == 1 and (rate := rates.pop()) is not None else None


def decays_of(
    optimizers: Sequence[Optimizer], parameters: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    """Return how PyTorch's weight decay acts on each parameter, and its value, by layer."""
    found = {}
    for name, parameter in parameters.items():
        kind, value = "none", 0.0
        for optimizer in optimizers:
            if kind == "none":
                kind, value = decay_of(optimizer, parameter)
        found[name] = {"kind": kind, "weight_decay": float(value)}
    return found


def is_sgd(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is PyTorch's SGD, of which the paper's formulas are true."""
    return type(optimizer) is SGD


def has_no_memory(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer is SGD without momentum: a step depends on its gradient alone."""
    return is_sgd(optimizer) and all(group["momentum"] == 0 for group in optimizer.param_groups)
