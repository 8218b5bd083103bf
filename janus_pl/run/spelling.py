"""The two spellings of our callbacks: `janus_pl.callbacks.X`, and `callbacks.X` of older configs.

Both name one class. The folder was no part of the package when the first runs were recorded, and
the ids of runs and sweeps are computed from the older spelling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGE, OLDER = "janus_pl.callbacks.", "callbacks."
OPTION = "trainer.callbacks"  # the only option that takes callbacks


def older(path: str) -> str:
    """Return the older spelling of a class path; others stay as they are.

    >>> older("janus_pl.callbacks.LayerRank"), older("callbacks.LayerRank"), older("own.LayerRank")
    ('callbacks.LayerRank', 'callbacks.LayerRank', 'own.LayerRank')
    """
    return OLDER + path.removeprefix(PACKAGE) if path.startswith(PACKAGE) else path


def comparable(option: str, value: Any) -> Any:
    """Return the value of an option such that it is equal for both spellings of our callbacks.

    >>> comparable("trainer.callbacks", [{"class_path": "janus_pl.callbacks.LayerRank"}])
    [{'class_path': 'callbacks.LayerRank'}]

    Args:
        option: The dotted name of the option.
        value: Its value.
    """
    if option.rstrip("+") == OPTION or option.startswith(f"{OPTION}."):
        return with_texts(value, older)
    return value


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return nested plain values with each text changed; keys stay.

    Args:
        value: The values.
        change: The function that returns the new text.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: with_texts(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [with_texts(each, change) for each in value]
    return value
