"""The line of each page of results that says what its runs were told, and by which claims.

A run records the SHA-256 of the claims files that were there when it started. `mismatches` finds
the runs that another text of a file would judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from results_judged import BEFORE
from results_tables import NONE, of_sweeps

from janus_pl.records.run import Run
from janus_pl.run.claims import claims_there
from janus_pl.verify.claims import read_claims

SQUARE = ("two_cores_fig1", "two_cores_seeds")
LAWS = ("a2_printed_schedule", "batch_sizes", "seeds", "toy")
# The sweeps of each page, by the name of the page.
SWEEPS: dict[str, Sequence[str]] = {
    **BEFORE,
    "figure-1": SQUARE,
    "small": ("small",),
    "settled": SQUARE,
    "figure-2a": ("two_cores_fig2a",),
    "figure-2b": ("two_cores_fig2b", "small", "two_cores_equal_steps"),
    "figure-3": SQUARE,
    "figure-4": SQUARE,
    "figure-5": ("two_cores_fig5a",),
    "against-lambda": (*SQUARE, "two_cores_fig2a"),
    "lemma-1": ("two_cores_theory",),
    "equal-steps": ("two_cores_equal_steps", "two_cores_equal_steps_sgd"),
    "constant-rate": ("two_cores_constant", "two_cores_constant_seeds"),
    "decay-on-rho": ("two_cores_rho",),
    "multipliers": ("two_cores_lagrange",),
    "default-network": ("default_network",),
    "linear": tuple(f"linear-{name}" for name in (*(f"a{k}" for k in range(1, 8)), *LAWS)),
    **{f"linear-a{k}": (f"linear-a{k}",) for k in (1, 3, 4, 5, 6, 7)},
    "linear-a2": ("linear-a2", "linear-a2_printed_schedule", "linear-seeds"),
}
DYNAMICS = {"figure-2b": "GD", "linear-a5": "SGD"}  # of pages on one of the two


def lines(runs: Sequence[Run]) -> dict[str, str]:
    """The line of each page, by the name of its place."""
    return {
        f"scale_{page.replace('-', '_')}": line(
            [
                run
                for run in of_sweeps(runs, *sweeps)
                if run.dynamics == DYNAMICS.get(page, run.dynamics)
            ]
        )
        for page, sweeps in SWEEPS.items()
    }


def line(runs: Sequence[Run]) -> str:
    """What some runs were told, how many they are, and whether the claims were there before."""
    if not runs:
        return NONE
    told = [word for word in (words(runs) for words in WORDS) if word]
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    symbols = " Symbols and units: [how to read](../results.md#how-to-read-the-pages)."
    network = any(run.description.kind == "network" for run in runs)
    return f"**Scale.** {'; '.join(told)}; {count}.{_claims(runs)}{symbols * network}"


def _claims(runs: Sequence[Run]) -> str:
    """Whether the claims are older than the runs; empty for theorems, which need none."""
    if not any(run.description.kind == "network" for run in runs):
        return ""
    paper = read_claims().sha256
    older = sum(paper not in run.description.claims.values() for run in runs)
    if not older:
        return " The claims were written down before them."
    which = "they are" if older == len(runs) else f"{older} of them are"
    if len(runs) == 1:
        which = "it is"
    return f" Retrospective: {which} older than `configs/claims/paper.yaml`."


def mismatches(runs: Sequence[Run]) -> list[str]:
    """Runs that know another text of a claims file, or not the one that was written for them."""
    found, here = [], claims_there()
    for run in runs:
        for name, sha256 in run.description.claims.items():
            if name in here and sha256 != here[name]:  # others judge nothing on the pages
                found.append(f"{run.name} ({run.id}) was begun under another {name}")
    for name, sweeps in BEFORE.items():
        for run in of_sweeps(runs, *sweeps):
            if here[f"{name}.yaml"] not in run.description.claims.values():
                found.append(f"{run.name} ({run.id}) does not know {name}.yaml")
    return found


def _option(name: str) -> Callable[[Run], Any]:
    return lambda run: run.options.get(name)


def _limit(name: str) -> Callable[[Run], int | None]:
    """Lightning's -1 is no limit."""
    return lambda run: value if (value := run.options.get(name) or 0) > 0 else None


def _listed(what: str, of: Callable[[Run], Any]) -> Callable[[Sequence[Run]], str]:
    """The values of something in words; empty if no run has it."""

    def words(runs: Sequence[Run]) -> str:
        values = sorted({value for run in runs if (value := of(run)) is not None}, key=_order)
        if len(values) > 6:
            return what.format(f"{_plain(values[0])} to {_plain(values[-1])} ({len(values)})")
        return what.format(", ".join(map(_plain, values))) if values else ""

    return words


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _plain(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _batch(run: Run) -> Any:
    return "full" if run.description.whole else run.description.batch_size


def _strides(run: Run) -> str | None:
    strides = run.options.get("model.strides")
    return strides and f"({', '.join(map(str, strides))})"


def _draws(run: Run) -> int | None:
    draws = int(run.options.get("data.replicas") or 1)
    return draws if draws > 1 else None


WORDS = (
    _listed("N = {}", lambda run: run.description.num_train),
    _listed("d = {}", _option("data.dim")),
    _listed("strides {}", _strides),
    _listed("B = {}", _batch),
    _listed("epochs {}", _limit("trainer.max_epochs")),
    _listed("steps {}", _limit("trainer.max_steps")),
    _listed("rate {}", _option("model.learning_rate")),
    _listed("schedule {}", _option("model.schedule")),
    _listed("lambda {}", lambda run: run.description.lam),
    _listed("seed {}", lambda run: run.description.seed),
    _listed("draws of the data {}", _draws),
)
