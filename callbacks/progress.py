"""A progress bar with the numbers of this experiment, in one line."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, Timer
from lightning.pytorch.trainer.states import TrainerFn

from janus_pl.training.clock import epochs_of
from janus_pl.training.subjects import subject_of

SHOWN = {
    "loss": ("train/loss_running", "train/loss"),
    "error": ("train/error_running", "train/error"),
    "margin": ("margin/mean", "margin_raw/mean"),
    "null": ("null/norm",),
    "rho": ("rho",),
}
SCIENTIFIC = ("rho", "margin", "null")
LEAST, MOST = 4, 24  # characters of the bar
SIGNS, ASCII = ("━", "─"), ("=", "-")  # done, to be done


class ProgressBar(RichProgressBar):
    """One line: the epochs completed, a bar, the time left, loss, error, margins' mean and rho.

    The bar and the time are of the whole run, the numbers of the last epoch, and the epoch is that
    of the rows. Numbers for which the line has no room are left out.

    Args:
        refresh_rate: The most refreshes in a second; 0 draws nothing.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._shown: dict[str, float | str] = {}
        self._drawn = 0.0
        self._began = 0.0, 0.0  # the time of the first drawing, and what was done then

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        return ["{task.description}"] if _fits(trainer) else super().configure_columns(trainer)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        progress = subject_of(trainer, pl_module).row.numbers if _fits(trainer) else {}
        for name, keys in SHOWN.items():
            value = next((progress[k] for k in keys if k in progress), None)
            if value is not None:  # the margins stay on show between two looks
                self._shown[name] = f"{value:.1e}" if name in SCIENTIFIC else value
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {**{name: self._shown[name] for name in SHOWN if name in self._shown}, **metrics}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is not None and self.train_progress_bar_id is None:
            done, total = _done(trainer, pl_module), _total(trainer, pl_module)
            self._began = time.monotonic(), done
            self.train_progress_bar_id = self._add_task(total, "")
            self._draw(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run that goes on within an epoch
        if (time.monotonic() - self._drawn) * self.refresh_rate >= 1:
            self._draw(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, last=True)
        super().on_train_end(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **options: Any) -> None:
        if not _fits(trainer):  # within a fit a second line would come and go
            super().on_validation_batch_start(trainer, *args, **options)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **options: Any) -> None:
        if not _fits(trainer):
            super().on_validation_batch_end(trainer, *args, **options)

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the line, which has the numbers in it, in place of a column beside the bar."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, module: LightningModule, last: bool = False) -> None:
        if self.progress is None or self.train_progress_bar_id is None:
            return
        now, (start, before) = time.monotonic(), self._began
        done, total = _done(trainer, module), _total(trainer, module)
        elapsed, left = now - start, math.inf
        if done > before and math.isfinite(total):
            left = min(elapsed * (total - done) / (done - before), _time_allowed(trainer))
        clock = f"in {_clock(elapsed)}" if last else f"{_clock(left)} left"
        console = self.progress.console
        text = line(
            _epoch(trainer, module),
            clock,
            done / total,
            self.get_metrics(trainer, module),
            console.width - 1,  # a column of Lightning's, which is empty, takes a space
            ASCII if console.options.ascii_only else SIGNS,
        )
        self._drawn = now
        self.progress.update(self.train_progress_bar_id, description=text)
        self._update(self.train_progress_bar_id, round(done), hard=True)

    def refresh(self, hard: bool = False) -> None:
        """Draw; in a fit only at once, and never by Lightning's thread."""
        if hard or not _fits(self.trainer):
            super().refresh(hard)

    def _stop_progress(self) -> None:
        """Stop the display; after a fit without Lightning's wait for its thread, which sleeps."""
        if self.progress is not None and self.train_progress_bar_id is not None:
            from rich.progress import Progress  # Lightning goes without it, unless there is a bar

            Progress.stop(self.progress)
            self._progress_stopped = True
        else:
            super()._stop_progress()


def line(
    epoch: str,
    clock: str,
    share: float,
    metrics: Mapping[str, Any],
    width: int,
    signs: Sequence[str] = SIGNS,
) -> str:
    """Return a line that is no longer than a width, in rich's markup, whose brackets it escapes.

    >>> line("Epoch 3/9", "0:00:20 left", 1 / 3, {"loss": 0.25, "error": 0.125}, 50)
    'Epoch 3/9 ━──── 0:00:20 left loss 0.25 error 0.125'

    Args:
        epoch: How far the run is.
        clock: The time left.
        share: The share of the run that is done, from 0 to 1.
        metrics: The numbers by name, the most important one first.
        width: The columns of the terminal to use.
        signs: The characters of the bar: done, to be done.
    """
    numbers = ""
    room = width - len(f"{epoch} {clock} ") - LEAST
    for name, value in metrics.items():
        shown = f" {name} {value:.3g}" if isinstance(value, float) else f" {name} {value}"
        if len(numbers) + len(shown) > room:
            break
        numbers += shown
    length = min(MOST, width - len(f"{epoch}  {clock}{numbers}"))
    if length < 1:
        return f"{epoch} {clock}"[: max(0, width)]
    full = min(length, max(0, int(share * length)))
    bar = signs[0] * full + signs[1] * (length - full)
    return f"{epoch} {bar} {clock}{numbers}".replace("[", r"\[")


def _fits(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _epoch(trainer: Trainer, module: LightningModule) -> str:
    """Return the epochs completed and, if they are known, those of the run."""
    subject = subject_of(trainer, module)
    planned = subject.planned or trainer.max_epochs or 0
    return f"Epoch {subject.completed()}" + (f"/{planned}" if planned > 0 else "")


def _done(trainer: Trainer, module: LightningModule) -> float:
    """Return the part of the run that is done: epochs if the task plans them, else batches."""
    subject = subject_of(trainer, module)
    if subject.planned is not None:
        return subject.completed()
    loop, batches = trainer.fit_loop, trainer.num_training_batches
    begun, ended = loop.epoch_loop.batch_progress, epochs_of(trainer)
    if not math.isfinite(batches):
        return begun.total.ready
    under_way = loop.epoch_progress.current.ready > ended
    return ended * batches + (begun.current.ready if under_way else 0)


def _total(trainer: Trainer, module: LightningModule) -> float:
    """Return the value of `_done` at the end of the run; infinite if the run has no end."""
    if (planned := subject_of(trainer, module).planned) is not None:
        return planned
    epochs, steps = trainer.max_epochs, trainer.max_steps
    known = [math.inf]
    if epochs is not None and epochs > 0:
        known.append(epochs * trainer.num_training_batches)
    if steps > 0:
        known.append(steps * trainer.accumulate_grad_batches)
    return min(known)


def _time_allowed(trainer: Trainer) -> float:
    """Return the seconds that `max_time` leaves; infinite without it."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    timers = [callback for callback in callbacks if isinstance(callback, Timer)]
    left = [timer.time_remaining() for timer in timers]
    return min([max(0.0, seconds) for seconds in left if seconds is not None], default=math.inf)


def _clock(seconds: float) -> str:
    """Return a time as 0:01:30, and as -:--:-- if it is not known."""
    if not math.isfinite(seconds):
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
