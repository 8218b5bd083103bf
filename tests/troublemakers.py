"""Callbacks that make trouble at a chosen moment, for a config of a test to name."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback
from torch import Tensor


class SendSignal(Callback):
    """Sends a signal to its own process, once, in a hook after so many calls of it.

    Args:
        signal_name: as `SIGTERM`.
        hook: the name of a hook, as `on_train_batch_start`.
        calls: how many calls of the hook to let pass.
        rank: the process of several that does it; None: all.
    """

    def __init__(
        self, signal_name: str, hook: str, calls: int = 0, rank: int | None = None
    ) -> None:
        self.signum = signal.Signals[signal_name]
        self.calls = calls
        self.rank = rank
        setattr(self, hook, self._count)

    def _count(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.calls -= 1
        if self.calls == -1 and self.rank in (None, trainer.global_rank):
            os.kill(os.getpid(), self.signum)


class Poison(Callback):
    """Writes a value into the first entry of something at one step.

    Args:
        step: the optimizer steps taken before.
        value: as `nan`.
        what: `image`, `weight` or `gradient`.
        name: of the layer whose weight or gradient it is, or `rho`.
    """

    def __init__(self, step: int, value: str, what: str = "image", name: str = "") -> None:
        self.step, self.value, self.what, self.name = step, float(value), what, name

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self.step:
            return
        named = {**pl_module.parametrization.weights, "rho": pl_module.network.rho}
        if self.what == "image":
            self._write(batch.x)
        elif self.what == "weight":
            self._write(named[self.name])
        else:
            named[self.name].register_post_accumulate_grad_hook(self._poison_gradient)

    def _poison_gradient(self, parameter: Any) -> None:
        self._write(parameter.grad)

    def _write(self, tensor: Any) -> None:
        tensor.detach()[(0,) * tensor.dim()] = self.value


class PoisonLinear(Callback):
    """Writes NaN into the first weight of linear regression, before one of its pieces of training.

    Args:
        piece: those that have been trained before.
    """

    def __init__(self, piece: int) -> None:
        self.piece = piece

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step and trainer.fit_loop.total_batch_idx == self.piece:
            pl_module.weight.detach()[..., 0, 0] = torch.nan


class Witness(Callback):
    """Keeps the weights after every step, and those at the end, however it came.

    Attributes:
        steps: the weights by the number of steps taken, of the newest run.
        final: the weights when the run ended.
    """

    steps: ClassVar[dict[int, list[Tensor]]] = {}
    final: ClassVar[list[Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.steps.clear()
        self.steps[0] = _weights(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.steps[trainer.global_step] = _weights(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.final[:] = _weights(pl_module)


def _weights(module: Any) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


class Visit(Callback):
    """Asks for a page at the start of an epoch.

    Args:
        url: of the page.
        epoch: counted from 0.
    """

    def __init__(self, url: str, epoch: int) -> None:
        self.url, self.epoch = url, epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            urllib.request.urlopen(self.url, data=b"", timeout=30).close()


class KeepCheckpoints(Callback):
    """Notes at which steps a checkpoint was saved.

    Attributes:
        steps: of the newest run.
    """

    steps: ClassVar[list[int]] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.steps.clear()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self.steps.append(trainer.global_step)


class KillService(Callback):
    """Kills W&B's service, the process that writes its record, before the first step of an epoch.

    Args:
        epoch: the epoch, from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            kill_service()


def kill_service() -> None:
    """Kill W&B's service of this process with SIGKILL and wait until it is gone."""
    for name in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # a process that has just ended
            parent = (name.parent / "stat").read_text().rpartition(")")[2].split()[1]
            if name.read_text().strip() == "wandb-core" and int(parent) == os.getpid():
                pid = int(name.parent.name)
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


class RemoveFolders(Callback):
    """Removes the folders where W&B stages tables, as a cleaner of old files does, after an epoch.

    Args:
        epoch: the epoch, from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            from wandb.env import get_data_dir
            from wandb.sdk.data_types._private import MEDIA_TMP

            for folder in (get_data_dir(), MEDIA_TMP.name):
                shutil.rmtree(folder, ignore_errors=True)
