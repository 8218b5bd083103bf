"""What of a run's nested config is sent to W&B, and the way back from W&B's config.

W&B's agent puts the values of a sweep into the config by the names of the options, as
`data.batch_size`, and keeps them from being changed. The nested config has the same values, as
`data: {init_args: {batch_size: ...}}`. W&B's table of runs would show both, so that the nested one
is not sent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from janus_pl.run.account import sweep_values
from janus_pl.run.columns import without_columns

PARTS = ("model", "data")  # whose options are `init_args` of a class
NESTED = (*PARTS, "trainer")
OF_CLASS = ("class_path", "init_args")
NOTHING: dict[str, Any] = {}  # no options are there


def sent(config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a nested config that W&B's config does not have yet.

    >>> config = {"data": {"class_path": "a.B", "init_args": {"batch_size": 8, "seed": 0}}}
    >>> sent(config, {"data.batch_size": 8})
    {'data': {'class_path': 'a.B', 'init_args': {'seed': 0}}}
    >>> sent(config, {"data.batch_size": 4}) == config  # an option that came later won
    True

    Args:
        config: The resolved config of the run.
        known: W&B's config.
    """
    fixed = sweep_values()
    news = {key: value for key, value in config.items() if key not in fixed}
    news = copy.deepcopy(news)
    for key, value in known.items():
        place = _place(news, key)
        if place is not None and place[1] in place[0] and place[0][place[1]] == value:
            del place[0][place[1]]
    return news


def received(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested config of a run from W&B's: each option in its place, no columns.

    >>> received({"data": {"class_path": "a.B", "init_args": {}}, "data.batch_size": 8})
    {'data': {'class_path': 'a.B', 'init_args': {'batch_size': 8}}}
    """
    whole = copy.deepcopy(without_columns(config))
    for key in [*whole]:
        if (place := _place(whole, key)) is not None:
            held, name = place
            held.setdefault(name, whole[key])
            del whole[key]
    return whole


def _place(config: Mapping[str, Any], key: str) -> tuple[dict[str, Any], str] | None:
    """Return the mapping in a nested config that an option is in, and its name there."""
    head, *rest = key.split(".")
    if head not in NESTED or not rest:
        return None
    names: Sequence[str] = rest
    if head in PARTS and rest[0] not in OF_CLASS:
        names = ["init_args", *rest]
    held: Any = config.get(head)
    for name in names[:-1]:
        held = _options(held, name).get(name)
    held = _options(held, names[-1])
    return None if held is NOTHING else (held, names[-1])


def _options(held: Any, name: str) -> dict[str, Any]:
    """Return the options among which a name is: those of a class are its `init_args`."""
    if not isinstance(held, dict):
        return NOTHING
    inner = held.get("init_args")
    if name not in held and name not in OF_CLASS and isinstance(inner, dict):
        return inner
    return held
