"""Families of runs that may be compared, and the test whether a network was trained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

from janus_pl.errors import is_number
from janus_pl.records.run import Run
from janus_pl.run.description import SHOWN, UNKNOWN
from janus_pl.run.folder import is_place

CONVERGED_ERROR = 0.01  # on the training set; the paper's value for converged GD (Fig. 2b)
DIVERGED = "diverged"  # the key of a run that its config lets diverge
UNTRAINED = 0.99  # share of the loss of f = 0
EMPTIED = 0.01  # share of the outputs at the start; an emptied network has 1e-7 or less

# The loss of f = 0, by the number of classes.
LOSS_AT_ZERO: dict[str, Callable[[int], float]] = {
    **{name: lambda classes: 1.0 for name in ("square", "exponential")},
    "square_one_hot": lambda classes: 1 / classes,
    "logistic": lambda classes: math.log(2),
    "cross_entropy": lambda classes: math.log(classes),
}

Varied = Literal[
    "lambda",
    "batch",
    "seed",
    "epochs",
    "loss",
    "rate",
    "width",
    "depth",
    "label_noise",
    "optimizer",
]
OPTIONS_OF: dict[Varied, tuple[str, ...]] = {
    "lambda": ("model.weight_decay",),
    "batch": ("data.batch_size", "data.micro_batch_size"),
    "seed": ("seed_everything", "data.seed"),
    "epochs": ("trainer.max_epochs", "trainer.max_steps"),
    "loss": ("model.loss",),
    "rate": ("model.learning_rate",),
    "width": ("model.network.init_args.width", "model.hidden"),
    "depth": ("model.network.init_args.depth", "model.depth"),
    "label_noise": ("data.label_noise",),
    "optimizer": ("model.optimizer",),
}
# Options of ours that change no number beyond rounding: what a run does if it diverges, how much
# memory it has, and whether its steps are compiled.
NO_NUMBER = ("model.on_divergence", "model.compile", "data.micro_batch_size")
# Options of ours that the description knows better: old records lack them.
DESCRIBED = ("model.hold_norms",)
# Options of the paper's network that older records lack, with the values that their runs had.
ADDED = {"model.schedule_interval": "epoch", "model.depth": 6, "model.kernel_size": 3}
IEEE, WIDE = "ieee", "64-true"  # values of `numerics` and of `precision`
# The trainer's options that change the numbers; others say how to compute and show them.
TRAINER = ("trainer.max_epochs", "trainer.max_steps", "trainer.precision")


def seed_of(run: Run) -> tuple[Any, Any]:
    """Return the seeds of the weights and of the samples."""
    return run.description.seed, run.description.data_seed


def lambda_of(run: Run) -> float:
    """Return lambda (`Description.lam`); NaN if the run has several, or none."""
    value = run.description.lam
    return float(value) if isinstance(value, int | float) else math.nan


def is_untrained(run: Run) -> bool:
    """Tell whether a network's training loss ended within 1% of that of f = 0, or above it.

    Such a run is no evidence for or against claims about trained networks. Other modules have
    losses of their own, so nothing is known of f = 0.
    """
    if not run.description.is_network:
        return False
    at_zero = LOSS_AT_ZERO.get(str(run.description.loss))
    if at_zero is None:
        return False
    classes = len(run.description.classes or ()) or 2
    return run.last("train/loss") >= UNTRAINED * at_zero(classes)


def is_zero_function(run: Run) -> bool:
    """Tell whether a network ended as f = 0: untrained, with outputs below 1% of the first.

    Its margins are rounding errors; its directions are those of a network that weight decay has
    emptied. Outputs start near 0 too, so the loss alone does not tell such a network from one that
    is hardly trained.
    """
    return is_untrained(run) and outputs_left(run) < EMPTIED


def outputs_left(run: Run) -> float:
    """Return the root mean square of y_n f_W(x_n) at the end over that at the start.

    NaN if it was not recorded, or is 0 at the start.
    """
    end, start = (
        abs(at("rho")) * math.hypot(at("margin/mean"), at("margin/std"))
        for at in (run.last, run.first)
    )
    return end / start if start > 0 else math.nan


def why_untrained(run: Run) -> str:
    """Return the reason why a network counts as untrained, with the numbers."""
    loss, left = run.last("train/loss"), outputs_left(run)
    if is_zero_function(run):
        return f"its training loss is {loss:.3g} and its outputs {left:.1e} of the first: f = 0"
    kept = "" if math.isnan(left) else f" (and its outputs are {left:.2g} of the first, not 0)"
    return f"it is not trained: its loss, {loss:.3g}, is not 1% below that of f = 0{kept}"


def setup(run: Run, *varied: Varied) -> str:
    """Return all that changes the numbers, except what is varied; equal if comparable.

    These are the options as configured, and measured facts that need not be options: the optimizer,
    the batch size, the controls and, of somebody else's module, how its weights decay. An option of
    somebody else's class is kept even if its name is that of a varied one of ours, unless its value
    is the batch size, the weight decay or the learning rate that was measured.

    The data and their place are not a part of it: see `by_data`.
    """
    left_out = {option for name in varied for option in OPTIONS_OF[name]}
    left_out |= {*NO_NUMBER, *DESCRIBED}
    # An optimizer's options are those of its class.
    parts = f"{OPTIONS_OF['optimizer'][0]}." if "optimizer" in varied else ()
    kept = {
        key: value
        for key, value in run.options.items()
        if not ((key in left_out or key.startswith(parts)) and is_of_ours(run, key))
        and not any(_is_measured(run, name, key, value) for name in varied)
        and not is_place(key, value)
        and not (run.description.kind == "network" and ADDED.get(key) == value)
        and (not key.startswith("trainer.") or key in TRAINER)
    }
    return json.dumps({**kept, "description": _facts(run, *varied)}, sort_keys=True, default=str)


# The last part of an option of somebody else's, and what is measured of it.
MEASURED: dict[str, tuple[tuple[str, ...], Callable[[Run], Any]]] = {
    "batch": (("batch_size",), lambda run: run.description.batch_size),
    "lambda": (("weight_decay",), lambda_of),
    "rate": (("learning_rate", "lr"), lambda run: run.description.learning_rate),
}


def _is_measured(run: Run, varied: Varied, option: str, value: Any) -> bool:
    """Tell whether an option is what is varied, by its name and by what was measured."""
    names, of = MEASURED.get(varied, ((), lambda_of))
    # An optimizer of ours has a `weight_decay` of its own, which is 0 whatever lambda is.
    theirs = varied == "batch" or run.description.kind == "module"
    return theirs and option.rpartition(".")[2] in names and value == of(run)


def is_of_ours(run: Run, option: str) -> bool:
    """Tell whether an option means what its name says: the trainer's, or of a class of ours."""
    part = option.partition(".")[0]
    if run.description.kind != "module" or part in ("trainer", "seed_everything"):
        return True
    return part == "data" and str(run.options.get("data")).startswith("janus_pl.data.")


def _facts(run: Run, *varied: Varied) -> dict[str, Any]:
    seen = run.description
    facts: dict[str, Any] = {**seen.controls}
    if (numerics := numerics_of(run)) != IEEE:  # IEEE goes unsaid, as in older records
        facts["numerics"] = numerics
    if "optimizer" not in varied:
        facts["optimizer"] = seen.optimizer
    if "batch" not in varied:
        facts["batch"] = "whole" if seen.whole else seen.batch_size
    if seen.kind == "module":
        known = "lambda" in varied and is_number(seen.lam)
        decays = sorted(seen.decays) if known else seen.decays
        facts |= {"decays": decays, "num_train": seen.num_train}
        if "optimizer" not in varied:
            facts["momentum"] = seen.momentum
    return facts


def numerics_of(run: Run) -> str:
    """Return how a run computed float32; `ieee` also if it has no float32.

    Older records do not say it. They count as IEEE, which all of them on a CPU are.
    """
    seen = run.description
    return IEEE if seen.precision == WIDE or seen.numerics is None else seen.numerics


def families(runs: Iterable[Run], *varied: Varied) -> list[list[Run]]:
    """Group the runs on equal data that differ in seeds and the varied options only."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(setup(run, "seed", *varied), []).append(run)
    return [same for group in found.values() for same in by_data(group)]


def by_data(runs: Iterable[Run]) -> list[list[Run]]:
    """Group the runs on equal data, whatever the seed chooses or draws of them.

    A run that does not know its data is with those from the same place, unless these have several.
    """
    known: dict[Any, set[str]] = {}
    for run in (runs := list(runs)):
        if run.description.pool is not None:
            known.setdefault(_place(run), set()).add(run.description.pool)
    found: dict[Any, list[Run]] = {}
    for run in runs:
        here = known.get(_place(run), set())
        likely = next(iter(here)) if len(here) == 1 else _place(run)
        found.setdefault(run.description.pool or likely, []).append(run)
    return list(found.values())


def _place(run: Run) -> tuple[str, ...]:
    return tuple(sorted(f"{k}={v}" for k, v in run.options.items() if is_place(k, v)))


def told_apart(runs: Iterable[Run]) -> list[str]:
    """Say which runs are not compared since their data differ, one sentence for each setup."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(setup(run, *OPTIONS_OF), []).append(run)
    groups = [by_data(group) for group in found.values()]
    return [
        f"other data are not compared: {'; '.join(map(_of_data, group))}"
        for group in groups
        if len(group) > 1 and any(run.description.pool for runs in group for run in runs)
    ]


def _of_data(runs: list[Run]) -> str:
    """Name the first of some runs on the same data, count the others, and say which data."""
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    data = runs[0].description.data
    where = f" from {data['source']}" if data.get("source") else ""
    return f"{runs[0].name} ({runs[0].id}){more} on {digest_of(runs[0]) or UNKNOWN}{where}"


def digest_of(run: Run) -> str | None:
    """Return the first digits of the fingerprint of a run's newest data; None if not known."""
    pool = run.description.pool
    return None if pool is None else pool.rpartition("+")[2][:SHOWN]


def by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Group the runs of equal seeds."""
    found: dict[tuple[Any, Any], list[Run]] = {}
    for run in runs:
        found.setdefault(seed_of(run), []).append(run)
    return list(found.values())
