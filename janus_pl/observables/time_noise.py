r"""Noise in time: how values fluctuate over consecutive steps once their drift is taken out.

Over a window of W steps t = 0 ... W - 1, each value x_t is fitted by a line a + b t. The noise is
the standard deviation of the residuals, sqrt(sum_t (x_t - a - b t)^2/(W - 2)). The drift is b W,
the change over the window. The margins' spread over samples is another noise, at one time
(`janus_pl.observables.margins`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Fluctuation(NamedTuple):
    """What a window says of some values.

    Attributes:
        variance: The unbiased variance of the residuals of each value, in the shape of the values.
        drift: The change over the window by the line, in the same shape.
    """

    variance: Tensor
    drift: Tensor


class Window:
    r"""Running sums over consecutive steps of values of one shape, without keeping the values.

    With d_t = x_t - x_0 and s_t = t - (W - 1)/2 they are sum d, sum s d and sum d^2 of each value.
    They are in float64: float32 loses the noise if the drift over the window is a hundred times as
    large.

    Attributes:
        steps: The number of steps so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._first = self._sum = self._weighted = self._squares = torch.empty(0)

    def add(self, values: Tensor) -> None:
        """Take the values of the next step; any shape, the same at each step."""
        if self.steps == 0:
            self._first = values.detach().double().clone()
            zero = torch.zeros_like(self._first)
            self._sum, self._weighted, self._squares = zero, zero.clone(), zero.clone()
        difference = values.detach().double() - self._first
        self._sum += difference
        self._weighted.add_(difference, alpha=self.steps)
        self._squares.addcmul_(difference, difference)
        self.steps += 1

    def result(self) -> Fluctuation:
        """Return the fluctuation of each value over the steps so far, in float64.

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
        rest = self._squares - total.square() / count - slope * weighted
        return Fluctuation(rest.clamp(min=0) / (count - 2), slope * count)
