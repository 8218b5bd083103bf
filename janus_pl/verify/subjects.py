"""The subjects of claims and theorems: which runs a statement of the paper is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from janus_pl.records.described import OURS, UNKNOWN
from janus_pl.records.run import Run


class Subjects(NamedTuple):
    """The runs that a statement is about.

    Attributes:
        words: The runs in words.
        why_not: The function that returns the reason why a run is none of them, said of the run;
            None if it is one.
    """

    words: str
    why_not: Callable[[Run], str | None]


def apart(runs: Iterable[Run], subjects: Subjects) -> tuple[list[Run], list[str]]:
    """Return the runs that a statement is about, and one sentence for each reason of the others.

    A sentence names the first run that the reason holds for, and counts the others.
    """
    kept: list[Run] = []
    reasons: dict[str, list[Run]] = {}
    for run in runs:
        reason = subjects.why_not(run)
        if reason is None:
            kept.append(run)
        else:
            reasons.setdefault(reason, []).append(run)
    return kept, [f"{_named(same)} {reason}" for reason, same in reasons.items()]


def _named(runs: list[Run]) -> str:
    return runs[0].name + (f" (and {len(runs) - 1} more)" if len(runs) > 1 else "")


def _of(kind: str, words: str) -> Callable[[Run], str | None]:
    """Make the function that refuses runs of another kind, and those that SGD does not train."""

    def why_not(run: Run) -> str | None:
        seen = run.description
        if seen.kind == "module" and seen.task in OURS:
            return "has no description that can be read"
        if seen.kind != kind:
            name = seen.task.rpartition(".")[2]
            said = (
                f"{_article(name)} {name}" if name else "of a class that the record does not name"
            )
            return f"is {said}, not {words}"
        if seen.optimizer != "SGD":
            by = "an optimizer that the record does not name"
            by = by if seen.optimizer == UNKNOWN else seen.dynamics
            return f"is trained by {by}; the statement is about SGD"
        if any("decoupled" in facts.values() for facts in seen.decays.values()):
            return "has decoupled weight decay; the statement is about a decay in the gradient"
        return None

    return why_not


def _any_network(run: Run) -> str | None:
    """Return why a run is of no network that SGD trains; None if it is of one."""
    return _of(run.description.kind if run.description.kind != "linear" else "", "a network")(run)


def _article(name: str) -> str:
    return "an" if name[0].lower() in "aeiou" else "a"


NETWORK = Subjects(
    "the paper's network, trained by SGD, on minibatches or (GD) on the whole set",
    _of("network", "the paper's network"),
)
LINEAR = Subjects(
    "linear regression by SGD, on minibatches or (GD) on the whole set",
    _of("linear", "linear regression"),
)
NETWORK_OF_ANY_KIND = Subjects(
    "a network trained by SGD, on minibatches or (GD) on the whole set", _any_network
)
# By the word of a claim.
NETWORKS = {"paper": NETWORK, "any": NETWORK_OF_ANY_KIND}
ANY = Subjects("any run", lambda _: None)
