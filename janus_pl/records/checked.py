"""Checks of files from elsewhere: what a record may hold, how large and how deeply nested it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from janus_pl.errors import is_integer
from janus_pl.records.parts import Histogram, Part
from janus_pl.records.spectra import look_of
from janus_pl.run.nested import check_nesting, load_yaml

LARGEST = 2**22  # bytes of a config, a description or an outcome; ours have some thousand
CODES = 2**31
FIELDS = get_type_hints(Part).keys() - {"path"}


def part_of(path: Path, plain: Any) -> Part:
    """Return the part that a line of an archive holds.

    Raises:
        ValueError: It is no record of a run.
    """
    if not isinstance(plain, dict) or not plain.keys() <= FIELDS:
        raise ValueError("a line is no record of a run")
    plain = {"notes": [], "spectra": [], **plain}
    if absent := sorted(FIELDS - plain.keys()):
        raise ValueError(f"a record has no {absent[0]}")
    items, config, code, notes = (plain[key] for key in ("items", "config", "exit_code", "notes"))
    spectra = plain["spectra"]
    sound = {
        **{key: isinstance(plain[key], str) for key in ("id", "name", "start")},
        "group": isinstance(plain["group"], str | None),
        "config": isinstance(config, dict),
        "items": isinstance(items, list) and all(isinstance(item, dict) for item in items),
        "exit_code": code is None or is_integer(code, -CODES, CODES),
        "notes": isinstance(notes, list) and all(isinstance(note, str) for note in notes),
        "spectra": isinstance(spectra, list) and all(map(_is_look, spectra)),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise ValueError(f"a record's {key} is not of its kind: {str(plain[key])[:40]}")
    check_nesting(config)
    return Part(path=path, **{**plain, "notes": tuple(notes)})


def _is_look(line: Any) -> bool:
    return isinstance(line, dict) and look_of(line) is not None


def read_mapping(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a YAML or JSON file; None if the file does not exist.

    Raises:
        ValueError: It cannot be read, holds something else, or is too large or too deeply nested.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise ValueError(f"{path.name} has more than {LARGEST} bytes")
    try:
        found = _json(content) if path.suffix == ".json" else load_yaml(content)
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise ValueError("it holds no options by name")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path.name} is damaged: {reason}") from error
    return found


def _json(content: bytes) -> Any:
    found = json.loads(content)
    check_nesting(found)
    return found


def numbers_in(item: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by key, without W&B's own columns and those of its objects."""
    # W&B's own columns begin with an underscore; those of its objects have a dot.
    return {
        key: value if isinstance(value, float) else _float(value)
        for key, value in item.items()
        if isinstance(value, (float, int)) and key[:1] != "_" and "." not in key
    }


def histogram_of(epoch: float, counts: Any, edges: Any) -> Histogram | None:
    """Return the histogram of some counts and edges; None if they make none."""
    if not isinstance(counts, list) or not isinstance(edges, list):
        return None
    values, bins = _array(counts), _array(edges)
    if values is None or bins is None or not 0 < len(counts) == len(edges) - 1:
        return None
    return Histogram(epoch, values, bins)


def _array(values: list[Any]) -> NDArray[np.float64] | None:
    """Return finite numbers as an array, integers as such; None if they are something else."""
    try:
        found = np.asarray(values)
    except (ValueError, OverflowError):  # lists of unequal lengths
        return None
    return found if found.dtype.kind in "iuf" and np.isfinite(found).all() else None


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return math.nan
