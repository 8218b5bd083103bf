"""The runs of a report, and the parts that its figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.series import AXES, Unavailable


@dataclass(frozen=True)
class Study:
    """All runs of a report, the x axis of its time courses, its colours."""

    runs: Sequence[Run]
    x: str
    colours: dict[float, Any]

    def deep(self, dynamics: str, loss: str) -> list[Run]:
        """Return the classifiers of one dynamics and loss at a single lambda.

        Raises:
            Unavailable: No run is of that dynamics and loss.
        """
        found = [
            run
            for run in self.runs
            if run.options.get("model.loss") == loss
            and run.dynamics == dynamics
            and isinstance(run.options.get("model.weight_decay"), int | float)
        ]
        if not found:
            raise Unavailable(f"no {dynamics} run with model.loss: {loss}")
        return found


def time_axis(axes: Axes, x: str) -> None:
    """Set the x axis of a time course."""
    axes.set_xlabel(AXES[x])
    style.plain_ticks(axes)
    axes.margins(x=0.02)


def x_name(x: str) -> str:
    """Name an x axis in the words of a caption."""
    return {"epoch": "epochs", "eta_t": "accumulated learning rate eta t"}.get(x, "steps")


def others(runs: Sequence[Run], chosen: Sequence[Run]) -> list[Run]:
    return [run for run in runs if not any(run is one for one in chosen)]


def names_of(runs: Sequence[Run]) -> str:
    named = ", ".join(run.name for run in runs[:3])
    return named + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
