"""The axis of a scan: where the values of an option are, and how they are called."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from janus_pl.records.scans import Value
from janus_pl.report.figures import style

LINEAR = ("label_noise", "depth", "optimizer")
APART, WIDEST = 0.025, 0.1  # of the axis: between two lines, and between the first and the last
ROOM, LETTER = 0.03, 0.037  # of the axis: between two labels, and the width of a letter


@dataclass(frozen=True)
class Places:
    """The places of values on an axis.

    Attributes:
        at: The place of each value.
        names: The label of each value.
        logarithmic: Whether the axis is; 0 is a decade left of the least other value then.
    """

    at: Mapping[Value, float]
    names: Mapping[Value, str]
    logarithmic: bool

    def __getitem__(self, value: Value) -> float:
        return self.at[value]

    def joined(self, values: Sequence[Value]) -> list[Value]:
        """Return the values that a line joins: numbers, on a logarithmic axis those above 0."""
        least = 0 if self.logarithmic else -math.inf
        return [value for value in values if not isinstance(value, str) and value > least]

    def aside(self, i: int, count: int) -> Places:
        """Return the places of one of several lines, a little apart so that bars do not overlap."""
        apart = min(APART, WIDEST / max(1, count - 1))
        shift = apart * self._span() * (i - (count - 1) / 2)
        moved = {v: x * 10**shift if self.logarithmic else x + shift for v, x in self.at.items()}
        return replace(self, at=moved)

    def set(self, axes: Axes, words: str) -> None:
        """Set the x axis of a panel, with as many labels as there is room for."""
        if self.logarithmic:
            axes.set_xscale("log")
        low, high, margin = min(self.at.values()), max(self.at.values()), 0.08 * self._span()
        axes.set_xlim(self._moved(low, -margin), self._moved(high, margin))
        kept = self._labelled()
        axes.xaxis.set_major_locator(FixedLocator([self.at[value] for value in kept]))
        axes.set_xticks([self.at[v] for v in kept], [self.names[v] for v in kept])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(words)

    def _labelled(self) -> list[Value]:
        """Return the last value, the first one, and the others as far as there is room."""
        ordered = sorted(self.at, key=lambda value: self.at[value])
        kept: list[Value] = []
        for value in dict.fromkeys([ordered[-1], ordered[0], *reversed(ordered)]):
            if all(self._is_room(value, other) for other in kept):
                kept.append(value)
        return sorted(kept, key=lambda value: self.at[value])

    def _span(self) -> float:
        low, high = min(self.at.values()), max(self.at.values())
        return (math.log10(high / low) if self.logarithmic else high - low) or 1.0

    def _is_room(self, one: Value, other: Value) -> bool:
        a, b = self.at[one], self.at[other]
        apart = abs(math.log10(a / b)) if self.logarithmic else abs(a - b)
        widths = [max(map(len, self.names[value].splitlines())) for value in (one, other)]
        letters = sum(widths) / 2
        return apart >= (ROOM + LETTER * letters) * self._span()

    def _moved(self, place: float, by: float) -> float:
        return place * 10**by if self.logarithmic else place + by


def places_of(values: Sequence[Value], option: str) -> Places:
    """Return the places of the values of an option, in their order."""
    names = labels_of(values, option)
    if option == "optimizer":
        return Places({value: float(k) for k, value in enumerate(values)}, names, False)
    numbers = [float(value) for value in values]
    if option in LINEAR:
        return Places(dict(zip(values, numbers, strict=True)), names, False)
    least = min((number for number in numbers if number > 0), default=1.0)
    at = {v: number or least / 10 for v, number in zip(values, numbers, strict=True)}
    return Places(at, names, True)


def labels_of(values: Sequence[Value], option: str) -> dict[Value, str]:
    r"""Name the values of an option; optimizers of one class by the options that tell them apart.

    >>> labels_of([0.0, 1e-4, 0.001], "weight_decay")
    {0.0: '0', 0.0001: '1e-4', 0.001: '1e-3'}
    >>> list(labels_of(['SGD {"momentum": 0.9}', 'SGD {"momentum": 0}'], "optimizer").values())
    ['SGD\nmomentum\n0.9', 'SGD\nmomentum\n0']
    """
    if option == "weight_decay":
        return {value: style.number(float(value)) for value in values}
    if option != "optimizer":
        return {value: f"{value:g}" for value in values}
    parts = {value: _parts(str(value)) for value in values}
    named = {}
    for value, (name, given) in parts.items():
        same = [options for other, options in parts.values() if other == name]
        apart = [k for k in given if len({repr(options.get(k)) for options in same}) > 1]
        named[value] = "\n".join([name, *(f"{k}\n{given[k]}" for k in apart)])
    return named


def _parts(value: str) -> tuple[str, dict[str, Any]]:
    name, _, given = value.partition(" ")
    return name, json.loads(given or "{}")
