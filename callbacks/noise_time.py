r"""Noise in time: how margins and V_k fluctuate over consecutive steps, their drift taken out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from janus_pl.callbacks._observer import LayerObserver, owner_of
from janus_pl.errors import UsageError, check_integer
from janus_pl.observables.time_noise import Window
from janus_pl.run.rows import Value
from janus_pl.training.precision import full_precision
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import subject_of

LEAST = 8  # steps: fewer tell little of a variance once a line is taken out
MARGIN = ""  # the margins' window among those of layers, of which none has this name


class NoiseTime(LayerObserver):
    r"""Logs the fluctuations of margins and of each V_k over W consecutive steps, and their drift.

    The window of a look is the W steps that end with it; each value is taken after each step. A
    line is fitted to each value over the window (`janus_pl.observables.time_noise`): the noise is
    the standard deviation about the line, the drift is the line's change over the window.

        noise_time/margin                  the noise of fbar_n, as a root mean square over a fixed
                                           sample of training samples
        noise_time/drift_margin            the drift of fbar_n, as a root mean square
        noise_time/direction/<layer>       the noise of V_k: the root of the sum of the variances of
                                           its entries, a Frobenius norm
        noise_time/drift_direction/<layer> the Frobenius norm of the drift of V_k

    The sample is drawn by a fixed seed and depends on N and `samples` alone. A module without
    margins has the keys of its layers alone. Margins of a module without a scale are in the units
    of its outputs.

    It looks at the multiples of n and at the last epoch, not at epochs 1, 2, 4, ..., because each
    step of a window costs a forward pass of the sample. A look costs 0.7 of an epoch of the paper's
    network at B = 128, and 4 epochs of the quickstart at B = 8 (`benchmarks/noise_time.py`). A
    window may span several epochs, as that of GD does, and two windows may overlap. A look is left
    out if it has fewer than W steps before it, or if the run ends unforeseen (early stopping); one
    line says so once. A checkpoint within a window holds its sums, which take five times the memory
    of float32 weights. Steps of linear regression within a window are taken one at a time, to the
    same bits.

    Args:
        every_n_epochs: n: look at its multiples and at the last epoch; 0 is off.
        window: W, at least 8 and at most the steps of n epochs.
        samples: The number of training samples whose margins are taken; all N if there are fewer.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = (
        *("noise_time/margin", "noise_time/drift_margin"),
        *("noise_time/direction/LAYER", "noise_time/drift_direction/LAYER"),
    )

    def __init__(
        self,
        every_n_epochs: int = 100,
        window: int = 64,
        samples: int = 256,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_integer("callbacks.NoiseTime.window", window, LEAST)
        check_integer("callbacks.NoiseTime.samples", samples, 1)
        self.window = window
        self.samples = samples
        self._clear()

    def _clear(self) -> None:
        self._windows: dict[int, dict[str, Window]] = {}  # by look and layer
        self._sample: Sequence[Any] = ()
        self._hears = self._left_out = False
        self._steps = 0  # optimizer steps, as the trainer counts them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._clear()

    def is_due(self, epoch: int) -> bool:
        return epoch > 0 and self.every_n_epochs > 0 and epoch % self.every_n_epochs == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self.every_n_epochs:
            return
        for window in self._windows.values():  # a checkpoint's were loaded to the CPU
            for one in window.values():
                one.move_to(pl_module.device)
        self._steps = trainer.global_step
        subject = subject_of(trainer, pl_module)
        try:
            steps = subject.steps_per_unit()
        except NotOffered as reason:
            self.refuse(subject, reason)
            return
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # its epochs are cut short
            self._check_window(steps)
        self._sample = self._sample_of(pl_module, subject)
        take = partial(self._take, pl_module, subject)
        self._hears = not subject.follow(self.window, self.is_due, take)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._hears or trainer.global_step == self._steps:
            return  # it accumulates gradients
        self._steps = trainer.global_step
        subject = subject_of(trainer, pl_module)
        looks = self._looks(trainer, subject, batch_idx)
        if looks:
            self._take(pl_module, subject, looks)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        look = subject.completed()
        window = self._windows.pop(look, {})
        self._windows = {k: each for k, each in self._windows.items() if k > look}
        if not window or any(each.steps != self.window for each in window.values()):
            self._leave_out(look)
            return {}
        found = [each.result() for each in window.values()]
        pairs = [(each.variance, torch.linalg.vector_norm(each.drift)) for each in found]
        numbers = torch.stack([number for pair in pairs for number in pair]).view(-1, 2)
        values: dict[str, float] = {}
        # One transfer, since each makes the host wait.
        for name, each, (variance, drift) in zip(window, found, numbers.tolist(), strict=True):
            count = each.drift.numel() if name == MARGIN else 1
            what = "direction/" + name if name != MARGIN else "margin"
            values[f"noise_time/{what}"] = math.sqrt(variance / count)
            values[f"noise_time/drift_{what}"] = drift / count**0.5
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        windows = {
            look: {name: each.state() for name, each in window.items()}
            for look, window in self._windows.items()
        }
        return super().state_dict() | {"windows": windows, "left_out": self._left_out}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._windows = {
            look: {name: Window() for name in window}
            for look, window in state_dict["windows"].items()
        }
        for look, window in self._windows.items():
            for name, each in window.items():
                each.load(state_dict["windows"][look][name])
        self._left_out = state_dict["left_out"]

    # Parts

    def _check_window(self, steps: int) -> None:
        most = steps * self.every_n_epochs
        if self.window > most:
            between = f"the steps from one look to the next (every_n_epochs {self.every_n_epochs})"
            allowed = f"from {LEAST} to {most}, {between}"
            if most < LEAST:
                allowed = f"at most {most}, {between}, and at least {LEAST}: look less often"
            raise UsageError("callbacks.NoiseTime.window", self.window, allowed)

    def _sample_of(self, module: LightningModule, subject: Subject) -> Sequence[Any]:
        """Return the batches whose margins are taken; none if the subject has no margins."""
        try:
            sample = subject.sample(self.samples)
            with full_precision(module.device):
                count = sum(len(subject.margins_of(batch)) for batch in sample)
        except NotOffered as reason:
            rank_zero_info(f"NoiseTime records no margin of {owner_of(subject)}: {reason}")
            return ()
        if count < self.samples:
            rank_zero_info(
                f"NoiseTime: all {count} training samples are taken, fewer than {self.samples}"
            )
        return sample

    def _looks(self, trainer: Trainer, subject: Subject, batch_idx: int) -> list[int]:
        """Return the looks whose windows hold the state after this step of the trainer."""
        size = subject.steps_per_unit()
        in_epoch = math.ceil((batch_idx + 1) / trainer.accumulate_grad_batches)
        step = subject.completed() * size + in_epoch
        ends = [math.inf]
        if (epochs := trainer.max_epochs or -1) > 0:
            ends.append(epochs * size)
        if trainer.max_steps > 0:
            ends.append(step + trainer.max_steps - trainer.global_step)
        return looks_of(step, min(ends), size, self.every_n_epochs, self.window)

    @torch.no_grad()
    def _take(self, module: LightningModule, subject: Subject, looks: Sequence[int]) -> None:
        """Take margins and V_k as they are into the windows of some looks."""
        with full_precision(module.device):
            values = {k: V for k, V in subject.directions().items() if self.takes(k)}
            if self._sample:
                values[MARGIN] = torch.cat([subject.margins_of(batch) for batch in self._sample])
        for look in looks:
            window = self._windows.setdefault(look, {})
            for name, value in values.items():
                window.setdefault(name, Window()).add(value)

    def _leave_out(self, look: int) -> None:
        if not self._left_out:
            rank_zero_info(
                f"NoiseTime leaves out the look at {look}: there is no whole window of"
                f" {self.window} steps before it"
            )
        self._left_out = True


def looks_of(step: int, total: float, size: int, every: int, window: int) -> list[int]:
    """Return the looks, as epochs, whose windows hold the state after a step.

    Args:
        step: The step, from 1.
        total: The steps of the run; infinite if they are not known.
        size: The steps of an epoch.
        every: The epochs from one look to the next; the last epoch is looked at as well.
        window: The steps of a window.

    >>> [looks_of(step, 26, 5, 2, 8) for step in (2, 3, 10, 12, 13, 19, 20, 21)]
    [[], [2], [2], [], [4], [4, 6], [4, 6], [6]]
    """
    due = math.ceil(step / (size * every)) * every
    ends: dict[int, float] = {due: due * size} if due * size < total else {}
    if math.isfinite(total):
        ends[math.ceil(total / size)] = total
    return [look for look, end in ends.items() if end - window < step <= end]
