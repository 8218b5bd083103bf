r"""Noise in time: how values fluctuate over consecutive steps once their drift is taken out.

Over a window of W steps t = 0 ... W - 1, each value x_t is fitted by a line a + b t. The noise is
the standard deviation of the residuals, sqrt(sum_t (x_t - a - b t)^2/(W - 2)). The drift is b W,
the change over the window. The margins' spread over samples is another noise, at one time
(`janus_pl.observables.margins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from janus_pl.observables.wide import at_home, home_of, wide

PIECE = 65_536  # values at a time


class Fluctuation(NamedTuple):
    """What a window says of some values.

    Attributes:
        variance: The sum over the values of the unbiased variances of their residuals; shape ().
        drift: The change over the window by the line, in the shape of the values.
    """

    variance: Tensor
    drift: Tensor


class Window:
    r"""Running sums over consecutive steps of values of one shape, without keeping the values.

    With d_t = x_t - x_0 and s_t = t - (W - 1)/2 they are sum d and sum s d of each value, and the
    sum of d^2 over steps and values. They are in float64: float32 loses the noise if the drift over
    the window is a hundred times as large. A piece of the values at a time stays in the cache of a
    processor, which makes a step six times as fast.

    Attributes:
        steps: The number of steps so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._shape = torch.Size()
        self._first = self._sum = self._weighted = self._squares = torch.empty(0)

    def add(self, values: Tensor) -> None:
        """Take the values of the next step; any shape, the same at each step."""
        flat = at_home(values.detach().reshape(-1))
        if self.steps == 0:
            self._shape, self._first = values.shape, flat.clone()
            self._sum = wide(torch.zeros_like(flat))
            self._weighted = torch.zeros_like(self._sum)
            self._squares = self._sum.new_zeros(())
        arrays = flat, self._first, self._sum, self._weighted
        for now, first, total, weighted in zip(*(a.split(PIECE) for a in arrays), strict=True):
            difference = wide(now) - first
            total += difference
            weighted.add_(difference, alpha=self.steps)
            self._squares += difference.dot(difference)
        self.steps += 1

    def result(self) -> Fluctuation:
        """Return the fluctuation of the values over the steps so far, in float64.

        Raises:
            ValueError: There are fewer than three steps.
        """
        count = self.steps
        if count < 3:
            raise ValueError(f"{count} steps are no window: a line and its residuals need 3")
        total = self._sum
        weighted = self._weighted - (count - 1) / 2 * total
        spread = count * (count**2 - 1) / 12  # sum_t s_t^2
        slope = weighted / spread
        rest = self._squares - total.dot(total) / count - slope.dot(weighted)
        return Fluctuation(rest.clamp(min=0) / (count - 2), (slope * count).view(self._shape))

    def state(self) -> dict[str, Any]:
        """Return a copy of the sums, as a checkpoint holds them."""
        names = ("first", "sum", "weighted", "squares")
        arrays = (self._first, self._sum, self._weighted, self._squares)
        sums = {name: array.clone() for name, array in zip(names, arrays, strict=True)}
        return {"steps": self.steps, "shape": tuple(self._shape)} | sums

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from the sums of a checkpoint."""
        self.steps, self._shape = state["steps"], torch.Size(state["shape"])
        self._first, self._sum = state["first"], state["sum"]
        self._weighted, self._squares = state["weighted"], state["squares"]

    def move_to(self, device: torch.device) -> None:
        """Move the sums to the device of the values to come."""
        home = home_of(device)
        arrays = (a.to(home) for a in (self._first, self._sum, self._weighted, self._squares))
        self._first, self._sum, self._weighted, self._squares = arrays
