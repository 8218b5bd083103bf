"""The singular values of a run, read back: the lines of `spectra.jsonl`, one look each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_pl.errors import is_number
from janus_pl.records.parts import STEP, Look
from janus_pl.run.lines import SIGMA, SPECTRA, Lines, parse, ranges

Line = dict[str, Any]


def read_spectra(folder: Path, written: int | None, notes: list[str]) -> list[Line]:
    """Return the sound lines of a run's folder; without the file there are none.

    Args:
        folder: The folder.
        written: How many lines the run wrote; None if it does not say.
        notes: Takes what is damaged, doubled, out of order or missing, each in a few words.
    """
    try:
        lines = parse((folder / SPECTRA).read_bytes())
    except FileNotFoundError:
        lines = Lines({})
    except OSError as error:
        notes.append(f"{SPECTRA} cannot be read ({error.strerror})")
        return []
    sound = {number: line for number, line in lines.rows.items() if look_of(line) is not None}
    damaged = lines.damaged + len(lines.rows) - len(sound)
    if damaged:
        notes.append(f"{damaged} lines of {SPECTRA} are damaged")
    if lines.doubled:
        doubled = ranges(sorted(set(lines.doubled)))
        notes.append(f"lines {doubled} of {SPECTRA} are doubled, read once")
    if not lines.in_order:
        notes.append(f"the lines of {SPECTRA} are out of order, read in theirs")
    if missing := lines._replace(rows=sound).missing(written):
        notes.append(f"{SPECTRA} lacks lines {ranges(missing)}, and nothing has a copy of them")
    return list(sound.values())


def looks_of(lines: Iterable[Mapping[str, Any]]) -> Sequence[Look]:
    """Return the looks of some lines, without those that are none."""
    return tuple(look for line in lines if (look := look_of(line)) is not None)


def look_of(line: Mapping[str, Any]) -> Look | None:
    """Return the look that a line holds; None if it holds none."""
    times: list[Any] = [line.get(axis) for axis in ("epoch", STEP, "eta_t")]
    sigma = line.get(SIGMA)
    if not all(map(is_number, times)) or not isinstance(sigma, dict):
        return None
    found = {layer: _values(values) for layer, values in sigma.items()}
    if any(values is None for values in found.values()):
        return None
    epoch, step, eta_t = map(float, times)
    return Look(epoch, step, eta_t, found)


def _values(given: Any) -> Any:
    """Return finite numbers as an array; None if they are something else, or none at all."""
    if not isinstance(given, list) or not given:
        return None
    try:
        values = np.asarray(given)
    except (ValueError, OverflowError):  # lists of unequal lengths
        return None
    sound = values.dtype.kind in "iuf" and values.ndim == 1 and np.isfinite(values).all()
    return values.astype(float) if sound else None
