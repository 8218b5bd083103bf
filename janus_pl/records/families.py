"""Which runs may be compared: equal options and seeds, and networks that were trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Literal

from janus_pl.records.run import Run

CONVERGED_ERROR = 0.01  # of the training set; the paper's for converged GD (Fig. 2b)
UNTRAINED = 0.99  # of the loss of f = 0
EMPTIED = 0.01  # of the outputs at the start; those of an emptied network are 1e-7 and less

LOSS_AT_ZERO = {
    **{"square": 1.0, "exponential": 1.0},
    **{"logistic": math.log(2), "cross_entropy": math.log(2)},
}

Varied = Literal["lambda", "batch", "seed", "epochs", "loss"]
OPTIONS_OF: dict[Varied, tuple[str, ...]] = {
    "lambda": ("model.weight_decay",),
    "batch": ("data.batch_size", "data.micro_batch_size"),
    "seed": ("seed_everything", "data.seed"),
    "epochs": ("trainer.max_epochs", "trainer.max_steps"),
    "loss": ("model.loss",),
}
# What else of the trainer changes the numbers; the rest is how they are computed and shown.
TRAINER = ("trainer.max_epochs", "trainer.max_steps", "trainer.precision")


def seed_of(run: Run) -> tuple[Any, Any]:
    """The seeds of weights and of samples."""
    return run.options.get("seed_everything"), run.options.get("data.seed")


def lambda_of(run: Run) -> float:
    """The paper's lambda; NaN for a run over several, or none."""
    value = run.options.get("model.weight_decay")
    return float(value) if isinstance(value, int | float) else math.nan


def is_untrained(run: Run) -> bool:
    """Whether a network's training loss ended at that of f = 0, within 1% of it, or above.

    It is no evidence for or against what is said of trained networks.
    """
    at_zero = LOSS_AT_ZERO.get(str(run.options.get("model.loss")), math.inf)
    return run.last("train/loss") >= UNTRAINED * at_zero


def is_zero_function(run: Run) -> bool:
    """Whether a network ended as f = 0: untrained, and its outputs next to none of what they were.

    Its margins are rounding and its directions those of a network that weight decay has emptied.
    Outputs start near 0 too, so that the loss alone does not tell it from one that is hardly
    trained.
    """
    return is_untrained(run) and outputs_left(run) < EMPTIED


def outputs_left(run: Run) -> float:
    """Root mean square of y_n f_W(x_n), at the end over that at the start; NaN if not recorded."""
    end, start = (
        abs(at("rho")) * math.hypot(at("margin/mean"), at("margin/std"))
        for at in (run.last, run.first)
    )
    return end / start if start > 0 else math.nan


def why_untrained(run: Run) -> str:
    """What shows that a network is untrained, with the numbers."""
    loss, left = run.last("train/loss"), outputs_left(run)
    if is_zero_function(run):
        return f"its training loss is {loss:.3g} and its outputs {left:.1e} of the first: f = 0"
    kept = "" if math.isnan(left) else f" (and its outputs are {left:.2g} of the first, not 0)"
    return f"it is not trained: its loss, {loss:.3g}, is not 1% below that of f = 0{kept}"


def setup(run: Run, *varied: Varied) -> str:
    """All options that matter to a run's numbers but the varied ones: equal for comparable runs."""
    left_out = {option for name in varied for option in OPTIONS_OF[name]}
    kept = {
        key: value
        for key, value in run.options.items()
        if key not in left_out and (not key.startswith("trainer.") or key in TRAINER)
    }
    return json.dumps(kept, sort_keys=True, default=str)


def families(runs: Iterable[Run], *varied: Varied) -> list[list[Run]]:
    """Runs that differ in nothing but seeds and the varied options, together."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(setup(run, "seed", *varied), []).append(run)
    return list(found.values())


def by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of the same seeds, together."""
    found: dict[tuple[Any, Any], list[Run]] = {}
    for run in runs:
        found.setdefault(seed_of(run), []).append(run)
    return list(found.values())
