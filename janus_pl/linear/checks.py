"""The checks of linear regression's options before its first step: errors and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ThroughputMonitor
from lightning.pytorch.utilities import rank_zero_warn

from janus_pl.data.regression import LinearProblem
from janus_pl.errors import UsageError, check_name, is_number
from janus_pl.linear.replicas import LinearTraining, check_left, check_plan, check_state
from janus_pl.observables.wide import has_float64
from janus_pl.theory import stability_limit
from janus_pl.training.callback_checks import refuse
from janus_pl.training.lightning import detects_anomalies
from janus_pl.training.schedules import ScheduleName

# Options of the trainer that would override the plan of a run.
FIXED: dict[str, float] = {"max_steps": -1, "min_steps": 0, "min_epochs": 0}
FIXED |= {"overfit_batches": 0.0, "limit_train_batches": 1.0}
CHECKED = 200  # pairs of seed and lambda whose limit of stability is computed, some 10 ms each
MOST_PER_DECADE = 10_000
# Callbacks of Lightning, and what is allowed instead: an optimizer step of the trainer is a stretch
# of many steps.
REFUSED: dict[type, str] = {
    LearningRateMonitor: "no monitor of the rate: each row has learning_rate",
    ThroughputMonitor: "no monitor of batches: one of the trainer is a stretch of many steps here",
}
MOMENT_SAMPLES = 10_000  # of a stream, to estimate its limit of stability


def listed(value: Any) -> list[Any]:
    """Return a list of a value's items, or of the value alone.

    >>> listed(0.1), listed((0.1, 0.2))
    ([0.1], [0.1, 0.2])
    """
    return list(value) if isinstance(value, list | tuple) else [value]


def check_options(
    learning_rate: object,
    gd_learning_rate: object,
    weight_decay: object,
    schedule: object,
    gd_schedule: object,
) -> None:
    """Refuse rates, weight decays and schedules outside their range.

    Raises:
        UsageError: A value is outside its range.
    """
    _check_numbers("model.learning_rate", learning_rate, "above 0")
    if gd_learning_rate is not None:
        _check_numbers("model.gd_learning_rate", gd_learning_rate, "above 0")
    _check_numbers("model.weight_decay", weight_decay, "from 0 up")
    check_name("model.schedule", schedule, get_args(ScheduleName))
    check_name("model.gd_schedule", gd_schedule, get_args(ScheduleName))


def check_run(trainer: Trainer, data: object, rates: Sequence[object]) -> None:
    """Refuse options of the trainer and of the data that a linear run cannot use.

    Args:
        trainer: The trainer before its fit.
        data: The data module, or None.
        rates: The learning rates of SGD and of GD, as the config gives them.

    Raises:
        UsageError: The options do not go together.
    """
    if not isinstance(data, LinearProblem):
        given = "none" if data is None else f"janus_pl.data.{type(data).__name__}"
        raise UsageError("data", given, "janus_pl.data.LinearProblem, for a LinearRegressor")
    refuse(trainer, REFUSED)
    _check_devices(trainer)
    if detects_anomalies(trainer):
        allowed = "false: compiled code trains a LinearRegressor, without a backward pass"
        raise UsageError("trainer.detect_anomaly", True, allowed)
    if "auto" in listed(rates[data.whole]) and not data.compressed()[0].any((1, 2)).all():
        raise UsageError("model.learning_rate", "auto", "a number: X is zero")
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if data.order == "online" and trainer.max_epochs != 1:
        allowed = "1, for data.order: online, where every sample is seen once"
        raise UsageError("trainer.max_epochs", trainer.max_epochs, allowed)
    for name, fixed in FIXED.items():
        given = getattr(trainer, name)
        if given is not None and (given != fixed or type(given) is not type(fixed)):
            allowed = f"{fixed}: trainer.max_epochs decides how long a linear run is"
            raise UsageError(f"trainer.{name}", given, allowed)
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        raise UsageError("trainer.max_epochs", trainer.max_epochs, "an integer from 1 up")


def _check_devices(trainer: Trainer) -> None:
    """Refuse several processes, and a device without float64."""
    if not has_float64(device := trainer.strategy.root_device.type):
        allowed = f"cpu, for a LinearRegressor: {device} has no float64"
        raise UsageError("trainer.accelerator", device, allowed)
    if trainer.world_size > 1:
        allowed = "1 process in all, for a LinearRegressor: its compiled epochs are not shared"
        raise UsageError("trainer.devices", trainer.world_size, allowed)


def check_restored(
    checkpoint: Mapping[str, Any],
    data: LinearProblem,
    epochs: int,
    options: Mapping[str, Any],
    resumes: bool,
) -> None:
    """Refuse a checkpoint that a linear run cannot go on from.

    Args:
        checkpoint: Its content.
        data: The problem, after its `setup`.
        epochs: The option `trainer.max_epochs`.
        options: The options of the model.
        resumes: Whether the run itself is resumed; it may have been killed at its very end.

    Raises:
        UsageError: The samples, W0, the minibatches, the number of replicas or the length of a
            cosine differ, or no step is left.
    """
    state, then = checkpoint["linear"]["training"], checkpoint.get("hyper_parameters") or options
    combinations = 1
    for name, values in _of_dynamics(options, data.whole).items():
        before = _of_dynamics(then, data.whole)[name]
        if name == "schedule":
            continue
        if len(listed(before)) != len(listed(values)):
            allowed = f"as many values as in the checkpoint, {before!r}"
            raise UsageError(f"model.{name}", values, allowed)
        combinations *= len(listed(values))
    total = data.steps_per_epoch if data.order == "online" else epochs
    check_state(state, data, combinations)
    check_plan(state, _of_dynamics(options, data.whole)["schedule"], total)
    check_left(state, total + resumes)


def _of_dynamics(options: Mapping[str, Any], whole: bool) -> dict[str, Any]:
    """Return lambda, rate and schedule of SGD or, if a batch is the whole set, of GD."""
    names = ("learning_rate", "schedule")
    found = {name: (whole and options[f"gd_{name}"]) or options[name] for name in names}
    return {"weight_decay": options["weight_decay"], **found}


def warn_of_instability(run: LinearTraining, data: LinearProblem) -> None:
    """Warn once if a learning rate is above the limit of stability of its replica."""
    some = min(MOMENT_SAMPLES, data.num_train)
    x = data.stream(0, some)[0] if data.streamed else data.problem.x
    size = "full" if data.whole else data.batch_size
    lams, etas = run.landscape.lam.tolist(), run.eta.tolist()
    limits: dict[tuple[int, float], float] = {}
    above = []
    for r, (seed, lam, eta) in enumerate(zip(run.seed - data.seed, lams, etas, strict=True)):
        if (seed, lam) not in limits and len(limits) < CHECKED:
            sample = torch.from_numpy(x[seed].copy())
            limits[seed, lam] = stability_limit(sample, size, lam, data.order)
        if eta > limits.get((seed, lam), math.inf):
            above.append((r, eta, limits[seed, lam]))
    if not above:
        return
    r, eta, limit = above[0]
    late = run.multipliers(0, run.plan.total) * eta > limit
    unit = "step" if run.in_steps else "epoch"
    last = int(late.nonzero()[0][-1]) + 1
    ends = "" if late[-1] else f"; {run.schedule} is below it after {unit} {last}"
    among = f" ({len(above)} of {len(etas)} replicas; this is {r})" if len(etas) > 1 else ""
    rank_zero_warn(
        f"model.learning_rate: {eta:.4g} is above {limit:.4g}, where training on these"
        f" minibatches stops being stable at a constant rate{ends}{among}"
    )


def _check_numbers(field: str, value: Any, allowed: str) -> None:
    """Refuse all but a finite number or a list of them; a learning rate may be "auto"."""
    rate = field.endswith("rate")
    names = ", auto" if rate else ""
    numbers = listed(value)
    for number in numbers:
        if rate and number == "auto":
            continue
        if not is_number(number) or number < 0 or (rate and number == 0):
            raise UsageError(field, number, f"a finite number {allowed}{names}, or a list of them")
    if not numbers:
        raise UsageError(field, value, "at least one number")


def warn_of_zero_targets(left: int, n: int) -> None:
    """Say that samples with y = 0, `left` of n, have no margin."""
    rank_zero_warn(
        f"{left} of {n} samples have y = 0 and no margin; margin/* is of the other {n - left},"
        " margin/count on each row"
    )
