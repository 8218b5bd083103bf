"""One recorded run: its config, its rows and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from janus_pl.errors import SOUND

STEP = "trainer/global_step"


class Histogram(NamedTuple):
    """One histogram of a run: the row's epoch, counts (bins,), edges (bins + 1,)."""

    epoch: float
    counts: NDArray[np.float64]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run, its parts merged where it was resumed.

    Attributes:
        id: W&B's id of the run.
        name: its name, the id where it has none.
        group: W&B's group, or None.
        path: the newest of W&B's files of it.
        config: the resolved config, nested.
        exit_code: 0, or 5 where a theorem broke; another one, or None, of an unfinished run.
        rows: the numbers of the record, one row for each recorded epoch, columns as the README's
            table of keys has them; NaN where a row has no such number.
        histograms: by key, in the order of the rows.
    """

    id: str
    name: str
    group: str | None
    path: Path
    config: Mapping[str, Any]
    exit_code: int | None
    rows: pd.DataFrame
    histograms: Mapping[str, Sequence[Histogram]] = field(default_factory=dict)

    def has(self, *keys: str) -> bool:
        """Whether every key was recorded at least once."""
        return all(key in self.rows and self.rows[key].notna().any() for key in keys)

    def last(self, key: str) -> float:
        """The newest number of a key; NaN where there is none."""
        return float(self.rows[key].dropna().iloc[-1]) if self.has(key) else float("nan")

    def first(self, key: str) -> float:
        """The oldest number of a key; NaN where there is none."""
        return float(self.rows[key].dropna().iloc[0]) if self.has(key) else float("nan")

    def layers(self, kind: str) -> list[str]:
        """The layers with keys `kind/<layer>`, in the order of their names, which is by depth."""
        prefix = f"{kind}/"
        return sorted(key.removeprefix(prefix) for key in self.rows if key.startswith(prefix))

    @property
    def finished(self) -> bool:
        """Whether it ended by itself, so that its last row is that of the whole run."""
        return self.exit_code in SOUND

    @cached_property
    def options(self) -> dict[str, Any]:
        """What the run was given, flat: `model.loss`, `data.batch_size`, `trainer.max_epochs`."""
        flat = {"seed_everything": self.config.get("seed_everything")}
        for part in ("model", "data"):
            given = self.config.get(part) or {}
            flat[part] = given.get("class_path")
            flat |= dict(_flatten(given.get("init_args") or {}, part))
        flat |= dict(_flatten(self.config.get("trainer") or {}, "trainer"))
        return flat

    @property
    def steps_per_epoch(self) -> float:
        """Optimizer steps in an epoch: N/B, rounded up; 1 is GD."""
        return self.last(STEP) / self.last("epoch")

    @property
    def dynamics(self) -> str:
        """`GD` where every step takes the whole training set, else `SGD`."""
        return "GD" if self.options.get("data.batch_size") == "full" else "SGD"


def _flatten(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
