"""The speed, velocity and noise of the steps of SGD between two rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from janus_pl.linear.kernels import PROBE_SPREAD, SPEED, SPREAD, STEPS, VELOCITY


class Watch:
    r"""The sums over the watched steps of SGD between two rows: at most `most`, evenly spread.

    If there are no more steps than `most`, all are watched. The stride shares no factor with the
    steps of an epoch, so it visits every phase of a fixed order. The last step is always watched.

    Args:
        w: W, (R, m, d), for shape and device.
        probes: The inputs whose predictions are watched, (R, K, d).
        steps: The number of steps to come.
        steps_per_epoch: The number of steps in an epoch, ceil(n/B).
        most: The largest number of steps to watch.

    Attributes:
        before: W before the last watched step, (R, m, d).
        slope: The gradient of its minibatch, (2/B) sum_{i in S} (W x_i - y_i) x_i^T, (R, m, d).
    """

    def __init__(
        self, w: Tensor, probes: Tensor, steps: int, steps_per_epoch: int = 1, most: int = 512
    ) -> None:
        if steps < 1 or most < 1:
            raise ValueError(f"a watch is of at least one step, not {min(steps, most)}")
        self.steps, self.taken = steps, 0
        self.stride = math.ceil(steps / most)
        while self.stride > 1 and math.gcd(self.stride, steps_per_epoch) > 1:
            self.stride += 1
        self.probes = probes.contiguous()
        self.sums = w.new_zeros(len(w), 5)  # columns as in kernels.py
        self._start, self._drift, self.before, self.slope = (torch.zeros_like(w) for _ in range(4))

    @property
    def until(self) -> int:
        """The number of steps before the next watched one."""
        return (self.steps - 1 - self.taken) % self.stride

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """The arrays that gather the sums."""
        return self.probes, self.sums, self._start, self._drift, self.before, self.slope

    @property
    def speed(self) -> Tensor:
        """The mean of ||W(t+1) - W(t)||/eta = ||slope + 2 lambda W|| over the steps, (R,)."""
        return self.sums[:, SPEED] / self.sums[:, STEPS]

    @property
    def velocity(self) -> Tensor:
        """The mean of ||V dot|| = ||W|| ||G - <G, V> V||, G the slope and V = W/||W||, (R,)."""
        return self.sums[:, VELOCITY] / self.sums[:, STEPS]

    @property
    def mean(self) -> Tensor:
        """The mean of W over the steps, (R, m, d)."""
        return self._start + self._drift / self.sums[:, STEPS, None, None]

    @property
    def variance(self) -> Tensor:
        """The mean over the steps of ||W - mean W||^2, (R,)."""
        drift = self._drift / self.sums[:, STEPS, None, None]
        spread = self.sums[:, SPREAD] / self.sums[:, STEPS] - drift.square().sum((1, 2))
        return spread.clamp(min=0)

    @property
    def probe_variance(self) -> Tensor:
        """The same variance for W z, as a mean over the probes z, (R,)."""
        drift = self._drift / self.sums[:, STEPS, None, None] @ self.probes.mT
        probes = self.probes.shape[1]
        spread = self.sums[:, PROBE_SPREAD] / self.sums[:, STEPS] - drift.square().sum((1, 2))
        return spread.clamp(min=0) / probes
