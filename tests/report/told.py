"""Runs with tags, and what a table of the pages of results has to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from janus_pl.records.run import Run


def tagged(run: Run, *tags: str, **more: Any) -> Run:
    return replace(run, config={**run.config, "tags": list(tags)}, **more)


def cells(table: str) -> list[dict[str, str]]:
    head, _, *lines = [
        [c.strip() for c in line.strip("| ").split(" | ")] for line in table.split("\n")
    ]
    return [dict(zip(head, line, strict=True)) for line in lines]


def told(values: Sequence[float], geometric: bool, form: str) -> str:
    """A mean with its interval of Student's t, by scipy's own function for it."""
    numbers = np.log(values) if geometric else np.asarray(values)
    low, high = stats.t.interval(0.95, len(values) - 1, numbers.mean(), stats.sem(numbers))
    center, low, high = (np.exp(v) if geometric else v for v in (numbers.mean(), low, high))
    return f"{center:{form}} [{low:{form}}, {high:{form}}]"
