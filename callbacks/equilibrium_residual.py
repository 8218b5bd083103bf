r"""How far rho is from its equilibrium (Section 2.1, Eq. 13 to 16)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from janus_pl.callbacks._observer import Observer
from janus_pl.observables.wide import wide
from janus_pl.run.rows import Value
from janus_pl.training.subject import Subject


class EquilibriumResidual(Observer):
    r"""Logs `equilibrium/...` over the whole training set, for every loss and parametrization.

    Keys: `nu`, the Lagrange multiplier (1/N) sum_n (pull_n/2) rho fbar_n (Eq. 14); `rho_dot`, the
    flow drho/dt of the learned rho with its weight decay (Eq. 13 and 16), or `rho_dot/<layer>`
    where every layer learns its own norm; for the square loss and a global rho also `residual` =
    mu - (M + lambda) rho and `common_mode`, the part of it that a second output leaves. At
    equilibrium rho_dot is 0 and `residual` is `common_mode`.

    A module without a scale of its own (linear regression, modules of others) has none of it, nor
    has a run with another optimizer than SGD: the formulas are those of SGD. It is said once.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off. A look is one
            forward pass over the training set, shared with `MarginHistogram`.
    """

    keys = (
        *("equilibrium/residual", "equilibrium/common_mode", "equilibrium/nu"),
        *("equilibrium/rho_dot", "equilibrium/rho_dot/LAYER"),
    )

    def __init__(self, every_n_epochs: int = 10) -> None:
        super().__init__(every_n_epochs)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        numbers = subject.equilibrium()
        values = torch.stack([wide(value) for value in numbers.values()]).tolist()
        return {f"equilibrium/{k}": v for k, v in zip(numbers, values, strict=True)}
