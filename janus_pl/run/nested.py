"""The size and the depth of nested values from elsewhere, before anything works on them.

A YAML file of some hundred bytes may hold more values than a machine, by aliases of aliases.
"""

from __future__ import annotations

from typing import Any

import yaml

DEEPEST = 64  # levels of a config; ours have ten
MOST = 100_000  # values of a config, each as often as it is referred to; ours have some hundred
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str | bytes) -> None:
    """Refuse YAML that expands to too many values, or is too deep; leave what is no YAML alone.

    Raises:
        ValueError: It is too large or too deep.
    """
    sizes: dict[str, int] = {}  # by anchor
    levels: list[tuple[str | None, int]] = [(None, 0)]  # the anchor and the values of each level
    try:
        for event in yaml.parse(text, LOADER):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.CollectionStartEvent):
                levels.append((anchor, 1))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, size = levels.pop()
                _add(levels, sizes, anchor, size)
            elif isinstance(event, yaml.ScalarEvent):
                _add(levels, sizes, anchor, 1)
            elif isinstance(event, yaml.AliasEvent):
                _add(levels, sizes, None, sizes.get(str(anchor), 1))
            _check(levels[-1][1], len(levels) - 1)
    except yaml.YAMLError:
        return


def load_yaml(text: str | bytes) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        ValueError: It is no YAML, too large or too deep, or holds something that is no value.
    """
    check_yaml(text)
    try:
        return _loaded(text)
    except (yaml.YAMLError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _loaded(text: str | bytes) -> Any:
    """Return the values of the safe loader in C, which is ten times as fast as in Python."""
    loader = LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def check_nesting(value: Any, depth: int = 1) -> int:
    """Refuse plain nested values that are too many or too deep, and return their number.

    Raises:
        ValueError: They are.
    """
    size = 1
    if isinstance(value, dict | list):
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            size += check_nesting(each, depth + 1)
            _check(size, depth)
    return size


def _add(levels: list[tuple[str | None, int]], sizes: dict[str, int], anchor: Any, by: int) -> None:
    if anchor is not None:
        sizes[anchor] = by
    levels[-1] = levels[-1][0], levels[-1][1] + by


def _check(size: int, depth: int) -> None:
    if size > MOST:
        raise ValueError(f"more than {MOST} values, aliases counted as often as they are used")
    if depth > DEEPEST:
        raise ValueError(f"values nested more than {DEEPEST} deep")
