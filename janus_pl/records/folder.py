"""The folder of a run, read back without W&B: config, description, rows, spectra and outcome.

The folder is the record, and W&B's file a copy of it. The copy is asked if the rows have a gap or
are older than seals, if the config is gone, or if the folder does not say how the run ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from janus_pl.errors import INTERRUPTED, is_integer
from janus_pl.records.checked import read_mapping
from janus_pl.records.parts import STEP, Part, Skipped, in_turn, joined, joined_config
from janus_pl.records.spectra import read_spectra
from janus_pl.run import history
from janus_pl.run.description import FILE as DESCRIPTION
from janus_pl.run.description import KEY, Description
from janus_pl.run.folder import CONFIG, OUTCOME, differences
from janus_pl.run.lines import FILE, Lines, parse, ranges
from janus_pl.run.name import run_name

Item = dict[str, Any]


class _Facts(NamedTuple):
    """What the small files of a folder say; None of what they do not say."""

    config: dict[str, Any] | None
    description: dict[str, Any] | None
    code: int | None
    written: int | None
    spectra: int | None


def is_run_folder(folder: Path) -> bool:
    """Tell whether a folder is a run's record; of runs older than rows.jsonl W&B has the record."""
    ended = (folder / OUTCOME).is_file() and (folder / CONFIG).is_file()
    return ended or (folder / FILE).is_file()


class Folder:
    """The record in a run's folder, read up to what W&B's copy may have to add.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._notes: list[str] = []
        self._facts = _facts(path, self._notes)
        self._history = _history(path, self._notes)
        self._lines = _lines(path, self._notes)
        self._spectra = read_spectra(path, self._facts.spectra, self._notes)

    @property
    def needs_copy(self) -> bool:
        """Whether W&B's copy has to be asked."""
        facts, lines = self._facts, self._lines
        known = None not in (facts.config, facts.code, facts.written)
        return not known or not lines.sealed or bool(lines.missing(facts.written))

    def part(self, copies: Iterable[Part | Skipped] = ()) -> Part | Skipped:
        """Return the record, completed by what W&B's files of the run have."""
        facts, notes = self._facts, [*self._notes]
        rows = {number: dict(_flat(row)) for number, row in self._lines.rows.items()}
        found = list(copies)
        parts = in_turn(part for part in found if isinstance(part, Part))
        items = _completed(rows, self._lines, facts, parts, notes)
        unread = [copy.reason for copy in found if isinstance(copy, Skipped)]
        if not items and (reasons := [*notes, *unread]):
            return Skipped(self.path, "; ".join(reasons))
        described = {KEY: _description(facts.description)} if facts.description else {}
        newest = parts[-1] if parts else None
        return Part(
            path=self.path / FILE,
            id=_said(facts, "id") or self.path.name,
            name=_name(facts) or (newest.name if newest else self.path.name),
            group=_said(facts, "group") or (newest.group if newest else None),
            start=newest.start if newest else "",
            config=joined_config(parts) | (facts.config or {}) | described | self._history,
            items=items,
            exit_code=newest.exit_code if facts.code is None and newest else facts.code,
            notes=tuple(notes),
            spectra=self._spectra,
        )


def _facts(folder: Path, notes: list[str]) -> _Facts:
    found: list[dict[str, Any] | None] = []
    for name in (CONFIG, DESCRIPTION, OUTCOME):
        try:
            found.append(read_mapping(folder / name))
        except ValueError as error:
            notes.append(str(error))
            found.append(None)
    config, description, outcome = found
    ended = [(outcome or {}).get(key) for key in ("exit_code", "rows", "spectra")]
    counts = (value if is_integer(value) else None for value in ended)
    return _Facts(config, description, *counts)


def _history(folder: Path, notes: list[str]) -> dict[str, Any]:
    """Return the changes of the run's options as W&B's config has them; empty without one."""
    try:
        lines = [line for line in history.read(folder) if isinstance(line, dict)]
    except (OSError, ValueError) as error:
        notes.append(f"{history.FILE} cannot be read ({error})")
        return {}
    return {history.KEY: lines} if lines else {}


def _lines(folder: Path, notes: list[str]) -> Lines:
    """Return the lines of rows.jsonl; note what is wrong with them, except for lost rows."""
    try:
        lines = parse((folder / FILE).read_bytes())
    except OSError as error:
        notes.append(f"{FILE} cannot be read ({error.strerror})")
        return Lines({})
    if lines.doubled:
        notes.append(f"rows {ranges(sorted(set(lines.doubled)))} of {FILE} are doubled, read once")
    if not lines.in_order:
        notes.append(f"the rows of {FILE} are out of order, read in theirs")
    if lines.damaged:
        notes.append(f"{lines.damaged} lines of {FILE} are damaged")
    return lines


def _completed(
    rows: Mapping[int, Item], lines: Lines, facts: _Facts, parts: Sequence[Part], notes: list[str]
) -> list[Item]:
    """Return the rows with those of W&B's copy that are missing among them, in order."""
    copy = _rows_of_copy(parts)
    if not lines.sealed:
        rows = _compared(rows, copy, notes)
    missing = lines.missing(facts.written)
    have = {_key(row) for row in rows.values()}
    # Rows behind the last may be older than a resumption, and of a run that then went elsewhere.
    ended = facts.code is not None and facts.code not in INTERRUPTED
    open_end = not rows or (ended and (not lines.sealed or facts.written is not None))
    last = max((row[STEP] for row in rows.values() if STEP in row), default=-1)
    wanted = missing or not lines.sealed
    more = [r for r in copy if wanted and _key(r) not in have and (open_end or r[STEP] <= last)]
    if missing or more:
        notes.append(_told(rows, missing, len(more), facts.written))
        notes += [note for part in parts for note in part.notes]
    if not more:
        return list(rows.values())
    return sorted([*rows.values(), *more], key=lambda row: row.get(STEP, -1))


def _rows_of_copy(parts: Sequence[Part]) -> list[Item]:
    """Return the rows of W&B's files, oldest first.

    A part that went on with a damaged folder lacks rows that an older part has. Both have equal
    rows if their configs are equal, for a run goes on exactly.
    """
    configs = [{k: v for k, v in part.config.items() if k[0] != "_"} for part in parts]
    if any(differences(config, configs[0]) for config in configs):
        return joined(parts)
    rows: list[Item] = []
    for part in reversed(parts):
        have = {_key(row) for row in rows}
        rows += [row for row in part.rows if _key(row) not in have]
    return sorted(rows, key=lambda row: row[STEP])


def _told(rows: Mapping[int, Item], missing: Sequence[int], more: int, count: int | None) -> str:
    if not rows and count is None:
        return f"no row of {FILE} is left; W&B's copy has {more}"
    if not missing:
        return f"W&B's copy has {more} rows more than {FILE}, read from there"
    left = len(missing) - more
    has = "all of them are" if left <= 0 else f"{more} of them are" if more else "none of them is"
    lost = f", and {left} are lost" if left > 0 else ""
    of = "of 1 row" if count == 1 else f"of {count} rows" if count else "counted from 0"
    gone = f"{FILE} ({of}) lacks rows {ranges(missing)}"
    return f"{gone}; {has} in W&B's copy{lost}"


def _compared(rows: Mapping[int, Item], copy: Sequence[Item], notes: list[str]) -> dict[int, Item]:
    """Return rows without seals, with W&B's, which have a checksum, in place of unlike ones."""
    others = {_key(row): row for row in copy}
    differing = {
        number: other
        for number, row in rows.items()
        if (other := others.get(_key(row))) and any(other.get(k) != v for k, v in row.items())
    }
    if differing:
        notes.append(f"rows {ranges(list(differing))} of {FILE} differ from W&B's copy, read there")
    return {**rows, **differing}


def _key(row: Item) -> tuple[Any, Any]:
    return row.get("epoch"), row.get(STEP)


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and histograms of a row in the form in which W&B has them, nothing else."""
    for key, value in row.items():
        if isinstance(value, int | float):
            yield key, value
        elif isinstance(value, list) and value[:1] == ["histogram"] and len(value) == 3:
            yield f"{key}._type", "histogram"
            yield f"{key}.values", value[1]
            yield f"{key}.bins", value[2]


def _description(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in ("id", "name", "group")}


def _name(facts: _Facts) -> str | None:
    """Return the name that the run was given, or that its description makes."""
    if (name := _said(facts, "name")) is not None:
        return name
    try:
        return run_name(Description.of(facts.description)) if facts.description else None
    except (ValueError, TypeError, AttributeError, KeyError):  # no description of ours
        return None


def _said(facts: _Facts, key: str) -> str | None:
    found = ((held or {}).get(key) for held in (facts.description, facts.config))
    return next((text for text in found if isinstance(text, str) and text), None)
