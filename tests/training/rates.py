"""The rate of every step, as a command line can ask for it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback


class Rates(Callback):
    """Notes the rate of every step."""

    seen: list[float] = []  # noqa: RUF012

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])
