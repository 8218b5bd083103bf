"""The quantities of a scan: what is drawn of each run against the scanned option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from janus_pl.records.late import Window, geometric_mean, rank, velocity

DASHES = (0, (4, 1.5))


class Quantity(NamedTuple):
    """A quantity against the scanned option.

    Attributes:
        key: Its name in the CSV.
        label: Its name on the axis.
        of: The function of a window.
        logarithmic: Whether means are geometric.
        axis: Whether the y axis is logarithmic.
        second: Whether it is the second of a panel: dashed, with hollow points.
        share: Whether it lies in [0, 1], where its intervals are cut off.
    """

    key: str
    label: str
    of: Callable[[Window], float]
    logarithmic: bool = True
    axis: bool = True
    second: bool = False
    share: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """The line and the points."""
        fill = "none" if self.second else "full"
        return {"linestyle": DASHES if self.second else "-", "marker": "o", "fillstyle": fill}


def _of(key: str) -> Callable[[Window], float]:
    return lambda at: at.mean(key)


def noise_in_time(at: Window) -> float:
    """Return the geometric mean over layers of the standard deviation of V_k in training."""
    kind = "noise_time/direction"
    return geometric_mean([at.mean(f"{kind}/{k}") for k in at.run.layers(kind)])


RANK = Quantity("effective_rank", "effective rank, middle layers", rank, True, False)
ERRORS = (
    Quantity("train/error", "error", _of("train/error"), False, False, share=True),
    Quantity("val/error", "error", _of("val/error"), False, False, True, True),
)
NAMES = {"train/error": "training", "val/error": "test"}
NOISE = (
    Quantity("velocity", r"$\|\dot V_k\|_F$, mean over layers", velocity),
    Quantity("noise_time/direction", r"noise of $V_k$ in time", noise_in_time),
    Quantity("gradient_noise/scale", "noise scale, samples", _of("gradient_noise/scale")),
)
