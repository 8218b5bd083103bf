"""The speed, velocity and noise of the steps of SGD between two rows: of some steps, or of all."""

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


class Moments:
    r"""The mean and variance of W and of its predictions over all steps between two rows.

    The sums are of W less the W of the start. A prediction W z is followed from step to step as W
    is, for a step adds multiples of x_i^T z, which are known before. Followed are min(K, d) columns
    L with L L^T = sum z z^T, so that ||W L||^2 is the sum of ||W z||^2 over the K inputs z.

    Args:
        w: W at the start, (R, m, d).
        probes: The inputs z whose predictions are followed, (R, K, d).

    Attributes:
        columns: L, (R, d, r).
        outputs: W L, (R, m, r).
        steps: The number of steps so far.
    """

    def __init__(self, w: Tensor, probes: Tensor) -> None:
        self.probes = probes.shape[1]
        # One replica at a time: each has to be bitwise equal to its own single run.
        narrow = probes.shape[1] <= probes.shape[2]
        parts = probes if narrow else [torch.linalg.qr(part, mode="r")[1] for part in probes]
        self.columns = torch.stack([part.mT for part in parts]).contiguous()
        self.outputs = self._seen_by(w)
        # Origin, sum and sum of squares of each entry. The sum of W L is that of W, times L.
        self._w, self._outputs = (
            torch.stack((flat, *[torch.zeros_like(flat)] * sums), dim=1)
            for flat, sums in ((w.flatten(1), 2), (self.outputs.flatten(1), 1))
        )
        self.steps, self._shape = 0, w.shape

    def arrays(self, rows: Tensor, images: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the arrays that compiled code changes, for samples of rows (R, N, d).

        Args:
            rows: The samples of the steps to come.
            images: Their x_i^T L, (R, N, r), if they are known.
        """
        known = self.images(rows) if images is None else images
        return known, self._w, self.outputs, self._outputs

    def add(self, w: Tensor) -> None:
        """Add W before a step, (R, m, d), in PyTorch; compiled code does the same by itself."""
        deviation = w.flatten(1) - self._w[:, 0]
        self._w[:, 1] += deviation
        self._w[:, 2] += deviation.square()
        outputs = (w @ self.columns).flatten(1)
        self._outputs[:, 1] += (outputs - self._outputs[:, 0]).square()
        self.steps += 1

    def images(self, rows: Tensor) -> Tensor:
        """Return x_i^T L of samples (R, N, d); shape (R, N, r)."""
        return self._seen_by(rows)

    @property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The arrays that gather the sums, of W and of W L."""
        return self._w, self._outputs

    @property
    def mean(self) -> Tensor:
        """The mean of W over the steps, (R, m, d)."""
        return self._w[:, 0].view(self._shape) + self._moved

    @property
    def variance(self) -> Tensor:
        """The mean over the steps of ||W - mean W||^2, (R,)."""
        spread = self._w[:, 2].sum(1) / self.steps
        return (spread - self._moved.square().sum((1, 2))).clamp(min=0)

    @property
    def probe_variance(self) -> Tensor:
        """The same variance for W z, as a mean over the probes z, (R,)."""
        spread = self._outputs[:, 1].sum(1) / self.steps
        drift = self._seen_by(self._moved).square().sum((1, 2))
        return (spread - drift).clamp(min=0) / self.probes

    @property
    def _moved(self) -> Tensor:
        """The mean of W less the W of the start, (R, m, d)."""
        return (self._w[:, 1] / self.steps).view(self._shape)

    def _seen_by(self, rows: Tensor) -> Tensor:
        """Return rows times L, one replica at a time; (R, n, d) to (R, n, r)."""
        return torch.stack([a @ b for a, b in zip(rows, self.columns, strict=True)])
