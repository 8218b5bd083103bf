"""The size, the depth and the keys of nested values from elsewhere, before anything uses them.

A YAML file of some hundred bytes may hold more values than a machine, by aliases of aliases. Of a
key that is there twice PyYAML drops the first value without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from janus_pl.errors import UsageError

DEEPEST = 64  # levels of a config; ours have ten
MOST = 100_000  # values of a config, each as often as it is referred to; ours have some hundred
MERGE = "tag:yaml.org,2002:merge"  # the key <<
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RepeatedKey(ValueError):
    """A key that is there twice; the message names it and its lines."""


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
        RepeatedKey: It has a key twice.
        ValueError: It is no YAML, too large or too deep, or holds something that is no value.
    """
    check_yaml(text)
    try:
        return _loaded(text)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_told(error, text)) from error
    except (yaml.YAMLError, TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def read_mapping(field: str, name: str, path: Path, wanted: str) -> dict[str, Any]:
    """Return the mapping that a user's YAML file holds.

    Args:
        field: The option that names the file.
        name: The name that was given.
        path: The file.
        wanted: What the file should be, as `a file with method: and parameters:`.

    Raises:
        UsageError: The file cannot be read, is no YAML, has a key twice or holds no mapping.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except RepeatedKey as error:
        raise UsageError(field, name, f"a YAML file with each key once ({error})") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(field, name, f"a YAML file in UTF-8 ({reason})") from error
    if not isinstance(content, dict):
        held = type(content).__name__ if content is not None else "nothing"
        raise UsageError(field, name, f"{wanted}; it holds {held}")
    return content


def _loaded(text: str | bytes) -> Any:
    """Return the values of the safe loader in C, which is ten times as fast as in Python."""
    loader = LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(node, "", set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_keys(node: yaml.Node, above: str, seen: set[int]) -> None:
    """Refuse a mapping that has a key twice; `<<` is no key.

    Args:
        node: The mapping, or another node.
        above: The key of the node with those above it, as `trainer.`.
        seen: The ids of the nodes that were checked; aliases are nodes that are there twice.
    """
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each, above, seen)
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        name, line = f"{above}{key.value}", key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
            if (first := lines.get((key.tag, key.value))) is not None:
                where = f"line {line}" if first == line else f"lines {first} and {line}"
                raise RepeatedKey(f"{name} is there twice, in {where}")
            lines[key.tag, key.value] = line
        _check_keys(value, f"{name}.", seen)


def _told(error: yaml.MarkedYAMLError, text: str | bytes) -> str:
    """Return what is wrong with a YAML file, with the line; a tab is named."""
    said = " ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark
    if mark is None:
        return said
    lines = (text if isinstance(text, str) else text.decode(errors="replace")).split("\n")
    before = lines[mark.line][: mark.column + 1] if mark.line < len(lines) else ""
    tab = "; there is a tab, where YAML takes spaces alone" if "\t" in before else ""
    return f"{said}, line {mark.line + 1}{tab}"


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
