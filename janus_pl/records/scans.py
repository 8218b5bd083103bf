"""Scans: runs that differ in one option, or two, and in their seeds.

| option | what it is |
|---|---|
| `batch_size` | the samples of a step, as measured; N if each step takes the whole set |
| `learning_rate` | `model.learning_rate`, or as measured |
| `weight_decay` | `model.weight_decay`, or as measured |
| `width` | `width` of `model.network`, or `model.hidden` |
| `depth` | `depth` of `model.network`, or `model.depth` |
| `label_noise` | `data.label_noise` |
| `optimizer` | the optimizer's class, with the options in which those of a class differ |

Options have these meanings in classes of ours. Of somebody else's LightningModule, the batch size,
the optimizer, and a learning rate and a weight decay that all its layers share are known, for they
are measured; of its data, options of a class of ours are. What varies has to be an option by the
name of `batch_size`, `learning_rate` or `lr`, or `weight_decay`: another name tells runs apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from janus_pl.errors import is_number
from janus_pl.records.families import (
    DIVERGED,
    OPTIONS_OF,
    Varied,
    families,
    is_of_ours,
    is_zero_function,
    lambda_of,
    seed_of,
)
from janus_pl.records.late import CLOCKS, Window, window
from janus_pl.records.run import STEP, Run

NO_NUMBER = ("fused", "foreach", "capturable")  # how an optimizer computes
Value = float | str  # a number, or an optimizer in words


class Option(NamedTuple):
    """An option that runs may be scanned over.

    Attributes:
        varied: Its name among the families.
        of: The function that returns its value in a run; None if it is not known.
        words: The option on an axis.
        symbol: The option before a value in a legend.
    """

    varied: Varied
    of: Callable[[Run], Value | None]
    words: str
    symbol: str


class Scan(NamedTuple):
    """Comparable runs of a scan at one clock.

    Attributes:
        clock: A name in `CLOCKS`.
        end: The common end of the runs at that clock.
        runs: By the value of a second option (None without one) and that of the option, its runs,
            one a seed.
        silent: Runs that have no row in the window before the common end.
        lengths: Whether the runs were configured for different lengths.
    """

    clock: str
    end: float
    runs: Mapping[Value | None, Mapping[Value, Sequence[Window]]]
    silent: Sequence[Run]
    lengths: bool

    @property
    def windows(self) -> list[Window]:
        """The windows of all runs."""
        return [at for line in self.runs.values() for some in line.values() for at in some]

    @property
    def values(self) -> list[Value]:
        """The scanned values, each once, in order."""
        return in_order(value for line in self.runs.values() for value in line)


def option_of(name: str) -> Callable[[Run], Value | None]:
    """Make the function that returns the number of an option of ours in a run."""
    keys = OPTIONS_OF[_VARIED[name]]

    def of(run: Run) -> Value | None:
        given = [run.options[k] for k in keys if k in run.options and is_of_ours(run, k)]
        return next((float(value) for value in given if is_number(value)), None)

    return of


def batch_size(run: Run) -> Value | None:
    """Return the measured batch size; N of a run on the whole set."""
    seen = run.description
    size = seen.num_train if seen.whole and seen.num_train else seen.batch_size
    return None if size is None else float(size)


def weight_decay(run: Run) -> Value | None:
    """Return the paper's lambda; None if a run has several, or none that is known."""
    value = lambda_of(run)
    return option_of("weight_decay")(run) if math.isnan(value) else value


def learning_rate(run: Run) -> Value | None:
    """Return the learning rate: that of the options or, of somebody else's module, as measured."""
    value = run.description.learning_rate if run.description.kind == "module" else None
    return option_of("learning_rate")(run) if value is None else float(value)


def optimizer(run: Run) -> Value | None:
    """Return the optimizer's class with its options, as text that tells any two apart."""
    given = {
        key.rpartition(".")[2]: value
        for key, value in sorted(run.options.items())
        if key.startswith("model.optimizer.init_args.")
        and key.rpartition(".")[2] not in NO_NUMBER
        and is_of_ours(run, key)
    }
    given.setdefault("momentum", run.description.momentum)
    return f"{run.description.optimizer} {json.dumps(given, sort_keys=True, default=str)}"


_VARIED: Mapping[str, Varied] = {
    "batch_size": "batch",
    "learning_rate": "rate",
    "weight_decay": "lambda",
    "width": "width",
    "depth": "depth",
    "label_noise": "label_noise",
    "optimizer": "optimizer",
}
OPTIONS: Mapping[str, Option] = {
    "batch_size": Option("batch", batch_size, "batch size B", "B = "),
    "learning_rate": Option("rate", learning_rate, "learning rate η", "η = "),
    "weight_decay": Option("lambda", weight_decay, "weight decay λ", "λ = "),
    "width": Option("width", option_of("width"), "width", "width "),
    "depth": Option("depth", option_of("depth"), "depth", "depth "),
    "label_noise": Option(
        "label_noise", option_of("label_noise"), "share of noisy labels", "noisy "
    ),
    "optimizer": Option("optimizer", optimizer, "optimizer", ""),
}


def in_order(values: Iterable[Value | None]) -> list[Value]:
    """Return values, each once: numbers by size, then texts; without None."""
    found = {value for value in values if value is not None}
    return sorted(found, key=lambda v: (isinstance(v, str), v if isinstance(v, str) else float(v)))


def varying(runs: Sequence[Run]) -> list[str]:
    """Name the options of which comparable runs have two values or more."""
    return [name for name in OPTIONS if family_of(runs, [name], lengths=True)]


def family_of(runs: Sequence[Run], by: Sequence[str], lengths: bool) -> list[Run]:
    """Return the comparable runs with the most values of an option, two or more; else none.

    Of equally many values, those of more runs are first.

    Args:
        runs: The runs.
        by: The option, and a second one if there is.
        lengths: Whether runs of different lengths are comparable.
    """
    of = OPTIONS[by[0]].of
    known = [run for run in runs if all(OPTIONS[name].of(run) is not None for name in by)]
    varied: list[Varied] = [OPTIONS[name].varied for name in by]
    found = families(known, *varied, *(("epochs",) if lengths else ()))
    sizes = {id(some): len({of(run) for run in some}) for some in found}
    best = max(found, key=lambda some: (sizes[id(some)], len(some)), default=[])
    return best if best and sizes[id(best)] > 1 else []


def candidates(runs: Iterable[Run]) -> list[Run]:
    """Return the runs of networks, of any kind."""
    return [run for run in runs if run.description.kind != "linear"]


def is_shown(run: Run) -> bool:
    """Tell whether a scan averages a run: it has its result, and is neither diverged nor f = 0."""
    return run.finished and not run.has(DIVERGED) and not is_zero_function(run)


def scan(runs: Sequence[Run], by: Sequence[str], clock: str) -> Scan | None:
    """Return the runs of a scan at a clock, up to their common end; None if there are none.

    At equal epochs the runs are configured for equal lengths, if any two values are. At other
    clocks, and if none are, lengths may differ; then the longest run of each seed counts.
    """
    shown = sorted((run for run in runs if is_shown(run)), key=lambda run: run.last(STEP))
    lengths = clock != "epochs" or not family_of(shown, by, lengths=False)
    best = family_of(shown, by, lengths)
    column = CLOCKS[clock]
    best = [run for run in best if math.isfinite(run.last(column))]
    if not best:
        return None
    longest = {(*_place(run, by), seed_of(run)): run for run in best}
    end = min(run.last(column) for run in longest.values())
    found: dict[Value | None, dict[Value, list[Window]]] = {}
    silent: list[Run] = []
    for (second, first, _), run in longest.items():
        at = window(run, column, end)
        if at.rows.empty:
            silent.append(run)
        else:
            found.setdefault(second, {}).setdefault(first, []).append(at)
    return Scan(clock, end, found, silent, len({_length(run) for run in best}) > 1)


def _place(run: Run, by: Sequence[str]) -> tuple[Value | None, Value]:
    first, second = OPTIONS[by[0]].of(run), OPTIONS[by[1]].of(run) if len(by) > 1 else None
    assert first is not None
    return second, first


def _length(run: Run) -> str:
    return str([run.options.get(key) for key in OPTIONS_OF["epochs"]])
