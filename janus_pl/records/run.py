"""One recorded run: its config, its rows and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from janus_pl.errors import SOUND
from janus_pl.records.described import described
from janus_pl.records.parts import STEP as STEP
from janus_pl.records.parts import Histogram as Histogram
from janus_pl.records.parts import Look as Look
from janus_pl.run.description import Description


@dataclass(frozen=True)
class Run:
    """One run; if it was resumed, its parts are merged.

    Attributes:
        id: W&B's id of the run.
        name: The run's name, or its id if it has none.
        group: W&B's group, or None.
        path: The run's rows.jsonl, the newest of W&B's files of the run, or the archive.
        config: The resolved config, nested.
        exit_code: 0, or 5 if a theorem broke; another one, or None, for an unfinished run.
        rows: The numbers of the record, one row for each recorded epoch. The columns are the keys
            of the table in docs/record.md; NaN if a row has no such number.
        histograms: The histograms by key, in the order of the rows.
        notes: What is damaged, doubled or missing in the record, each in a few words.
        spectra: The looks at the singular values, oldest first; empty without `LayerRank`.
    """

    id: str
    name: str
    group: str | None
    path: Path
    config: Mapping[str, Any]
    exit_code: int | None
    rows: pd.DataFrame
    histograms: Mapping[str, Sequence[Histogram]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spectra: Sequence[Look] = ()

    def has(self, *keys: str) -> bool:
        """Tell whether every key was recorded at least once."""
        return all(key in self.rows and self.rows[key].notna().any() for key in keys)

    def last(self, key: str) -> float:
        """Return the newest number of a key; NaN if there is none."""
        if key not in self._last:
            found = self.has(key)
            self._last[key] = float(self.rows[key].dropna().iloc[-1]) if found else float("nan")
        return self._last[key]

    @cached_property
    def _last(self) -> dict[str, float]:
        return {}  # asked thousands of times for a report

    def first(self, key: str) -> float:
        """Return the oldest number of a key; NaN if there is none."""
        return float(self.rows[key].dropna().iloc[0]) if self.has(key) else float("nan")

    def layers(self, kind: str) -> list[str]:
        """Return the layers with keys `kind/<layer>`, in the order of `ordered`."""
        prefix = f"{kind}/"
        return ordered([k.removeprefix(prefix) for k in self.rows if k.startswith(prefix)], [self])

    @property
    def finished(self) -> bool:
        """Whether the run has its result, so that its last row describes the whole run."""
        return self.exit_code in SOUND

    @cached_property
    def description(self) -> Description:
        """What the run measurably was; of an old record of our own classes, what was configured."""
        return described(self.config)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of the run, flat: `model.loss`, `data.batch_size`, `trainer.max_epochs`.

        They say what was configured, and the module alone knows what an option means.
        `description` says what the run was. A run whose options changed at a checkpoint has the
        changes as `history`, so it is no run of its config alone.
        """
        flat = {"seed_everything": self.config.get("seed_everything")}
        for part in ("model", "data"):
            given = _mapping(self.config.get(part))
            flat[part] = given.get("class_path")
            flat |= dict(_flatten(_mapping(given.get("init_args")), part))
        flat |= dict(_flatten(_mapping(self.config.get("trainer")), "trainer"))
        history = self.config.get("history")
        if isinstance(history, list) and history:
            flat["history"] = [line.get("changed") for line in history if isinstance(line, Mapping)]
        return flat

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in an epoch: N/B, rounded up; 1 is GD."""
        return self.last(STEP) / self.last("epoch")

    @property
    def dynamics(self) -> str:
        """The dynamics as measured: `GD`, `SGD`, or another optimizer's name."""
        return self.description.dynamics


def ordered(names: Iterable[str], runs: Iterable[Run]) -> list[str]:
    """Return the names of layers, each once, in the order of the forward pass.

    The descriptions of the runs have the order. Layers that they lack follow as they come. If no
    description has layers, as in old records, the order is that of `natural`.
    """
    found = dict.fromkeys(names)
    known = _merged(dict.fromkeys(run.description.layers for run in runs))
    if not known:
        return sorted(found, key=natural)
    return [name for name in known if name in found] + [k for k in found if k not in known]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key to sort by, so that numbers in names are in the order of their size.

    >>> sorted(["layer10", "layer2", "fc"], key=natural)
    ['fc', 'layer2', 'layer10']
    """
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _merged(orders: Iterable[Sequence[str]]) -> list[str]:
    """Merge several orders; a name that the earlier ones lack stands before its next known one."""
    found: list[str] = []
    for order in orders:
        for place, name in enumerate(order):
            if name not in found:
                later = [found.index(other) for other in order[place + 1 :] if other in found]
                found.insert(min(later, default=len(found)), name)
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flatten(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
