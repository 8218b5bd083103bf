r"""Learning-rate schedules, given by a config.

A schedule is eta(e) = eta_0 m(e) after e completed epochs or steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from janus_pl.errors import UsageError

ScheduleName = Literal["cosine", "constant", "inverse_sqrt"]
ScheduleFactory = Callable[[Optimizer], LRScheduler]
# `growing` is of a network alone (`janus_pl.deep.growing`).
Schedule = ScheduleName | Literal["growing"] | ScheduleFactory
Interval = Literal["epoch", "step"]


class SequentialLR(lr_scheduler.SequentialLR):
    """PyTorch's `SequentialLR` as a config can write it: its parts are made for the optimizer.

    A warm-up over 5 epochs, then a cosine over 95 (steps if `model.schedule_interval` is `step`):

        schedule:
          class_path: janus_pl.SequentialLR
          init_args:
            schedulers:
              - class_path: torch.optim.lr_scheduler.LinearLR
                init_args: {start_factor: 0.1, total_iters: 5}
              - class_path: torch.optim.lr_scheduler.CosineAnnealingLR
                init_args: {T_max: 95}
            milestones: [5]

    Args:
        optimizer: The optimizer.
        schedulers: The parts, each of which makes a scheduler for an optimizer.
        milestones: The numbers of steps of the schedule at which the next part begins.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[ScheduleFactory], milestones: list[int]
    ) -> None:
        super().__init__(optimizer, [make(optimizer) for make in schedulers], milestones)


def cosine(epoch: int, epochs: int) -> float:
    r"""Return m(e) = (1 + cos(pi e/E))/2, cosine annealing over the run (Section D.5).

    >>> cosine(0, 10), cosine(5, 10), cosine(10, 10)
    (1.0, 0.5, 0.0)
    """
    return round((1 + math.cos(math.pi * epoch / epochs)) / 2, 15)


def constant(epoch: int) -> float:
    """Return m(e) = 1."""
    return 1.0


def inverse_sqrt(epoch: int) -> float:
    r"""Return m(e) = 1/sqrt(e + 1); epoch e + 1 is the paper's t (Section 3.3).

    >>> inverse_sqrt(0), inverse_sqrt(3)
    (1.0, 0.5)
    """
    return 1 / math.sqrt(epoch + 1)


def multiplier(name: ScheduleName, epochs: int) -> Callable[[int], float]:
    """Return the schedule of a name, for a run of `epochs` epochs."""
    if name == "cosine":
        return partial(cosine, epochs=epochs)
    return {"constant": constant, "inverse_sqrt": inverse_sqrt}[name]


def multipliers(name: ScheduleName, first: int, last: int, epochs: int) -> NDArray[np.float64]:
    """Return m(e) of epochs first to last - 1 of a run of `epochs` epochs, (last - first,).

    >>> multipliers("inverse_sqrt", 0, 4, 4).tolist()[::3], multipliers("cosine", 5, 6, 10).tolist()
    ([1.0, 0.5], [0.5])
    """
    e = np.arange(first, last)
    if name == "cosine":
        return np.round((1 + np.cos(np.pi * e / epochs)) / 2, 15)
    return np.ones(len(e)) if name == "constant" else 1 / np.sqrt(e + 1.0)


def build_scheduler(
    schedule: Schedule, optimizer: Optimizer, trainer: Trainer, interval: Interval = "epoch"
) -> LRScheduler:
    """Build the scheduler of a config for the length of this trainer's run."""
    if not isinstance(schedule, str):
        return schedule(optimizer)
    assert schedule != "growing", "it is built where the weights are known"
    length = planned(trainer, interval) if schedule == "cosine" else 1
    return LambdaLR(optimizer, multiplier(schedule, length))


def step_schedules(trainer: Trainer, interval: Interval) -> None:
    """Step the schedules of an interval, which has ended; Lightning does not under manual steps."""
    for config in trainer.lr_scheduler_configs:
        if config.interval == interval:
            config.scheduler.step()  # type: ignore[call-arg]


def check_schedule(schedule: Schedule, optimizer: Optimizer) -> None:
    """Refuse a PyTorch scheduler that does not work; the optimizer serves for the try alone.

    Raises:
        UsageError: The scheduler refuses its options, or needs a metric.
    """
    if isinstance(schedule, str):
        return
    name = factory_name(schedule)
    try:
        scheduler = schedule(optimizer)
    except (TypeError, ValueError) as error:
        raise UsageError("model.schedule", name, f"options that it accepts ({error})") from error
    if isinstance(scheduler, ReduceLROnPlateau):
        raise UsageError("model.schedule", name, "a scheduler that needs no metric")


def check_end(schedule: Schedule, trainer: Trainer) -> None:
    """Refuse a cosine and a growing rate if the length of the run is not known.

    Raises:
        UsageError: Neither epochs nor steps are limited.
    """
    ends = schedule in ("cosine", "growing")
    if ends and trainer.max_epochs == -1 and trainer.max_steps == -1:
        allowed = f"a number of epochs or of trainer.max_steps, for schedule: {schedule}"
        raise UsageError("trainer.max_epochs", -1, allowed)


def planned(trainer: Trainer, interval: Interval = "epoch") -> int:
    """Return the number of epochs or steps that the trainer will run, at least 1."""
    trainer.fit_loop.setup_data()  # only then is the number of batches known
    steps = trainer.estimated_stepping_batches
    in_one = 1 if interval == "step" else max(1, trainer.num_training_batches)
    return max(1, math.ceil(steps / in_one))


def factory_name(factory: object) -> str:
    """Name a class of a config, or return "its class" if the parser wrapped it in a function."""
    if factory is None or isinstance(factory, type):
        return getattr(factory, "__name__", "null")
    return "its class"
