"""The comparison of the data of a checkpoint with the data at hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from janus_pl.data.fingerprint import UNKNOWN, DataFacts, shown
from janus_pl.errors import UsageError
from janus_pl.run.description import CHANGES, KEY, read_description, task_of

FLAG = "--allow_data_change"


def facts_of(data: object) -> DataFacts:
    """Return what a data module knows of its data; nothing of somebody else's."""
    facts = getattr(data, "facts", None)
    return facts if isinstance(facts, DataFacts) else DataFacts()


def data_in(described: object) -> Mapping[str, Any]:
    """Return the facts of the data in a plain description; none if there are none."""
    data = described.get("data") if isinstance(described, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def changes_in(described: object) -> list[dict[str, Any]]:
    """Return the changes of its data that a run had seen when it was described."""
    return [dict(change) for change in data_in(described).get(CHANGES, ())]


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
    then, changes = data_in(described), changes_in(described)
    before = then.get("sha256", UNKNOWN)
    if UNKNOWN in (before, now.sha256) or before == now.sha256:
        return changes
    if not allowed:
        # The closed form of a linear run is about the data that it began with.
        linear = isinstance(described, Mapping) and described.get("kind") == "linear"
        other = "" if linear and training else f", or {FLAG}"
        raise UsageError("data", shown(now.to_plain()), f"those of {where}, {shown(then)}{other}")
    rank_zero_warn(f"{FLAG}: from step {step} on, {shown(now.to_plain())}, before {shown(then)}")
    return [*changes, {"step": step, "from": before, "to": now.sha256}]


def check_checkpoint_data(
    path: str | Path | None, module: object, data: object, allowed: bool, training: bool
) -> None:
    """Refuse a checkpoint of other data before a run is made.

    The checkpoint of another module has other faults, which whoever loads it names.

    Args:
        path: The checkpoint's file, or the folder of a run that has no checkpoint yet; None if
            there is neither.
        module: The module that is to take the checkpoint.
        data: The data module, after its setup.
        allowed: Whether the data may differ.
        training: Whether a fit goes on from there.

    Raises:
        UsageError: The data differ and may not.
    """
    if path is None or allowed:
        return
    path = Path(path)
    described = read_description(path) if path.is_dir() else _description_in(path)
    if described.get("task") == task_of(module):
        changes_since(described, facts_of(data), 0, where=str(path), training=training)


def _description_in(path: Path) -> Mapping[str, Any]:
    """Return the description in a checkpoint; its tensors are not read."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # of another format; whoever loads it says what is wrong with it
        return {}
    described = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    return described if isinstance(described, dict) else {}
