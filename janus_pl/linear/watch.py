"""What the steps of SGD do between two looks: speed, velocity, noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from janus_pl.linear.kernels import PROBE_SPREAD, SPEED, SPREAD, STEPS, VELOCITY


class Watch:
    r"""What SGD does between two looks, from up to `most` of its steps, spread evenly over them.

    Of all steps where there are no more than that. A stride that shares no factor with the steps of
    an epoch visits every phase of a fixed order. The last step is always among those looked at.

    Args:
        w: W, (R, m, d), for shape and device.
        probes: The inputs whose predictions are watched, (R, K, d).
        steps: How many steps will be taken.
        steps_per_epoch: ceil(n/B).
        most: How many to look at, at the most.

    Attributes:
        before: W before the last step looked at, (R, m, d).
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
        """Steps still to take before the next one that is looked at."""
        return (self.steps - 1 - self.taken) % self.stride

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """Where the sums are gathered."""
        return self.probes, self.sums, self._start, self._drift, self.before, self.slope

    @property
    def speed(self) -> Tensor:
        """Mean of ||W(t+1) - W(t)||/eta = ||slope + 2 lambda W|| over the steps, (R,)."""
        return self.sums[:, SPEED] / self.sums[:, STEPS]

    @property
    def velocity(self) -> Tensor:
        """Mean of ||V dot|| = ||W|| ||G - <G, V> V||, G the slope and V = W/||W||, (R,)."""
        return self.sums[:, VELOCITY] / self.sums[:, STEPS]

    @property
    def mean(self) -> Tensor:
        """The mean of W over the steps, (R, m, d)."""
        return self._start + self._drift / self.sums[:, STEPS, None, None]

    @property
    def variance(self) -> Tensor:
        """Mean over the steps of ||W - mean W||^2, (R,)."""
        drift = self._drift / self.sums[:, STEPS, None, None]
        spread = self.sums[:, SPREAD] / self.sums[:, STEPS] - drift.square().sum((1, 2))
        return spread.clamp(min=0)

    @property
    def probe_variance(self) -> Tensor:
        """The same for W z, as a mean over the probes z, (R,)."""
        drift = self._drift / self.sums[:, STEPS, None, None] @ self.probes.mT
        probes = self.probes.shape[1]
        spread = self.sums[:, PROBE_SPREAD] / self.sums[:, STEPS] - drift.square().sum((1, 2))
        return spread.clamp(min=0) / probes
