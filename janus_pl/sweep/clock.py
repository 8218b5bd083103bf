"""The clock of a sweep: runs of equal epochs, equal steps or equal accumulated learning rate.

    clock: steps        at the top of a sweep file; or epochs, or eta_t

The reference is the file's run at the batch size and the learning rate of its configs: parameters
with several values are left out of its config, those with one value are in it. It lasts
`trainer.max_epochs` = E epochs of ceil(N/B) steps at a rate eta, so T = E ceil(N/B) steps and an
accumulated rate eta T. Each run of the file then has

- `epochs`: E epochs;
- `steps`: T steps;
- `eta_t`: the number of steps nearest to eta T over its own rate, which is constant.

The steps of a run are given as `trainer.max_epochs` if they are whole epochs, and else as
`trainer.max_steps` beside the epochs that they begin. A file without a clock leaves runs as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from janus_pl.errors import UsageError, is_integer, is_number, nearest

CLOCKS = ("epochs", "steps", "eta_t")
EPOCHS, STEPS = "trainer.max_epochs", "trainer.max_steps"
# Options that change how many steps an epoch has, with their usual values.
OF_EPOCHS: Mapping[str, tuple[Any, ...]] = {
    "limit_train_batches": (None, 1.0),
    "accumulate_grad_batches": (None, 1),
}
Config = Mapping[str, Any]


class Length(NamedTuple):
    """The length of the reference.

    Attributes:
        clock: A name in `CLOCKS`.
        epochs: E.
        steps: T; None at equal epochs.
        rate: eta; None but at equal eta t.
    """

    clock: str
    epochs: int
    steps: int | None = None
    rate: float | None = None


def check_clock(clock: object) -> None:
    """Refuse a clock that is none.

    Raises:
        UsageError: It is no name in `CLOCKS`.
    """
    if clock not in CLOCKS:
        raise UsageError("clock", clock, nearest(str(clock), CLOCKS))


def check_varied(varied: Sequence[str]) -> None:
    """Refuse a length that a file with a clock varies.

    Raises:
        UsageError: The file has several values of a length.
    """
    for name in (EPOCHS, STEPS):
        if name in varied:
            allowed = "one value, for clock gives each run its length"
            raise UsageError(f"parameters.{name}", "several values", allowed)


def length_of(clock: str, config: Config, samples: Callable[[Config], int | None]) -> Length:
    """Return the length of the reference.

    Args:
        clock: The clock of the file.
        config: The resolved config of the reference.
        samples: Returns the number N of training samples of a config; None if it is not known.

    Raises:
        UsageError: The reference is not given in epochs, or its steps or rate are not known.
    """
    trainer = config["trainer"]
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if not is_integer(epochs, 1):
        raise UsageError(EPOCHS, epochs, f"an integer from 1 up, for clock: {clock}")
    if steps not in (None, -1):
        raise UsageError(STEPS, steps, f"-1, for clock: {clock} gives each run its length")
    if clock == "epochs":
        return Length(clock, epochs)
    steps = epochs * steps_per_epoch(clock, config, samples)
    return Length(clock, epochs, steps, _rate(config) if clock == "eta_t" else None)


def options_of(
    length: Length, config: Config, samples: Callable[[Config], int | None]
) -> dict[str, int]:
    """Return the options that give a run the reference's length.

    Raises:
        UsageError: The run's steps or its rate are not known.
    """
    if length.steps is None:
        return {EPOCHS: length.epochs, STEPS: -1}
    steps = length.steps
    if length.rate is not None:
        steps = max(1, round(steps * length.rate / _rate(config)))
    epochs, rest = divmod(steps, steps_per_epoch(length.clock, config, samples))
    return {EPOCHS: epochs, STEPS: -1} if not rest else {EPOCHS: epochs + 1, STEPS: steps}


def steps_per_epoch(clock: str, config: Config, samples: Callable[[Config], int | None]) -> int:
    """Return the steps of an epoch, ceil(N/B).

    Raises:
        UsageError: N or B is not known, or an option changes the number of steps.
    """
    for option, usual in OF_EPOCHS.items():
        if (given := config["trainer"].get(option)) not in usual:
            allowed = f"{usual[-1]}, for clock: {clock} counts the steps of whole epochs"
            raise UsageError(f"trainer.{option}", given, allowed)
    batch: Any = _init(config, "data").get("batch_size")
    count = samples(config)
    if batch == "full":
        return 1
    if count is None or not is_integer(batch, 1):
        allowed = "epochs, for N and B of these data are not known"
        raise UsageError("clock", clock, allowed)
    return math.ceil(count / batch)


def _rate(config: Config) -> float:
    model = _init(config, "model")
    rate: Any = model.get("learning_rate")
    schedule = model.get("schedule")
    if not is_number(rate) or rate <= 0:
        raise UsageError("model.learning_rate", rate, "a number above 0, for clock: eta_t")
    if schedule != "constant":
        allowed = "constant, for clock: eta_t; the sum of other rates depends on the run's length"
        raise UsageError("model.schedule", schedule, allowed)
    return float(rate)


def _init(config: Config, part: str) -> Mapping[str, Any]:
    given = config.get(part) or {}
    return given.get("init_args") or {}
