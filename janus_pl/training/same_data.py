"""The comparison of the data of a checkpoint with the data at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from janus_pl.data.fingerprint import UNKNOWN, DataFacts, shown
from janus_pl.errors import UsageError
from janus_pl.run.description import CHANGES, task_of

FLAG = "--allow_data_change"


def facts_of(data: object) -> DataFacts:
    """Return what a data module knows of its data; nothing of somebody else's."""
    facts = getattr(data, "facts", None)
    return facts if isinstance(facts, DataFacts) else DataFacts()


def data_in(described: object) -> Mapping[str, Any]:
    """Return the facts of the data in a plain description; empty if it has no data."""
    data = described.get("data") if isinstance(described, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def changes_in(described: object) -> list[dict[str, Any]]:
    """Return the changes of its data that a run had seen when it was described."""
    changes = data_in(described).get(CHANGES)
    return [dict(change) for change in changes] if isinstance(changes, list) else []


def changes_since(
    described: object,
    now: DataFacts,
    step: int,
    allowed: bool = False,
    where: str = "the checkpoint",
    training: bool = True,
) -> list[dict[str, Any]]:
    """Return the changes of its data that a run has seen, this one among them.

    Data without a fingerprint, then or now, are taken for the same.

    Args:
        described: The description in a checkpoint or in a run's folder, plain; None if there is
            none.
        now: The data at hand.
        step: The step of the checkpoint.
        allowed: Whether the data may differ.
        where: The checkpoint or the folder, for the message.
        training: Whether a fit goes on from there.

    Raises:
        UsageError: The data differ and may not.
    """
    changes = changes_in(described)
    if not _differ(described, now):
        return changes
    _check(described, now, allowed, where, training)
    then = data_in(described)
    rank_zero_warn(f"{FLAG}: from step {step} on, {shown(now.to_plain())}, before {shown(then)}")
    return [*changes, {"step": step, "from": then["sha256"], "to": now.sha256}]


def check_data(
    described: object, where: object, module: object, data: object, allowed: bool, training: bool
) -> None:
    """Refuse a checkpoint of other data before a run is made.

    The checkpoint of another module has other faults, which whoever loads it names.

    Args:
        described: The description in the checkpoint, or in the folder of a run that has no
            checkpoint yet, plain; None if there is none.
        where: The checkpoint or the folder, for the message.
        module: The module that is to take the checkpoint.
        data: The data module, after its setup.
        allowed: Whether the data may differ.
        training: Whether a fit goes on from there.

    Raises:
        UsageError: The data differ and may not.
    """
    if isinstance(described, Mapping) and described.get("task") == task_of(module):
        _check(described, facts_of(data), allowed, str(where), training)


def _differ(described: object, now: DataFacts) -> bool:
    before = data_in(described).get("sha256", UNKNOWN)
    return UNKNOWN not in (before, now.sha256) and before != now.sha256


def _check(described: object, now: DataFacts, allowed: bool, where: str, training: bool) -> None:
    """Refuse other data unless they are allowed.

    A linear fit never goes on with other data: its closed form is about those that it began with.
    """
    fixed = training and isinstance(described, Mapping) and described.get("kind") == "linear"
    if _differ(described, now) and (fixed or not allowed):
        given, then = shown(now.to_plain()), shown(data_in(described))
        raise UsageError(
            "data", given, f"those of {where}, {then}{'' if fixed else f', or {FLAG}'}"
        )
