"""The runs of a report, and the parts that its figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from janus_pl.records.families import lambda_of
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.series import AXES, Group, Unavailable
from janus_pl.report.figures.sheet import Sheet


class Networks(NamedTuple):
    """Networks of one dynamics, and those of the same loss that other dynamics trained.

    Attributes:
        dynamics: The dynamics of the runs, as measured.
        runs: The runs to draw.
        left_out: The runs by other optimizers on batches of the same sort.
    """

    dynamics: str
    runs: list[Run]
    left_out: list[Run]

    @property
    def notes(self) -> list[str]:
        """A sentence for each dynamics that is left out."""
        found: dict[str, list[Run]] = {}
        for run in self.left_out:
            found.setdefault(run.dynamics, []).append(run)
        return [f"Left out, since trained by {by}: {names_of(some)}." for by, some in found.items()]


@dataclass(frozen=True)
class Study:
    """All runs of a report, the x axis of its time courses, its colours."""

    runs: Sequence[Run]
    x: str
    colours: dict[float, Any]

    def noisy(self, loss: str) -> Networks:
        """Return the networks on minibatches: under SGD, or else the optimizer with most runs.

        Raises:
            Unavailable: No run is of that loss, or each step of all of them takes the whole set.
        """
        found = [run for run in self._networks(loss) if not run.description.whole]
        names = sorted(run.dynamics for run in found)
        if not names or "SGD" in names:
            return _under("SGD", found, loss)
        return _under(max(names, key=names.count), found, loss)

    def deep(self, dynamics: str, loss: str) -> Networks:
        """Return the networks of one dynamics and loss.

        Raises:
            Unavailable: No run is of that dynamics and loss.
        """
        whole = dynamics == "GD"
        found = [run for run in self._networks(loss) if run.description.whole == whole]
        return _under(dynamics, found, loss)

    def _networks(self, loss: str) -> list[Run]:
        """Return the paper's networks of one loss at a single lambda."""
        return [
            run
            for run in self.runs
            if run.description.is_network
            and run.description.loss == loss
            and not math.isnan(lambda_of(run))
        ]


def _under(dynamics: str, found: Sequence[Run], loss: str) -> Networks:
    runs = [run for run in found if run.dynamics == dynamics]
    if not runs:
        raise Unavailable(f"no {dynamics} run with model.loss: {loss}")
    return Networks(dynamics, runs, others(found, runs))


def sheet_of(
    networks: Networks, width: float, height: float, x: str, left_out: Sequence[Run]
) -> Sheet:
    """Return the empty sheet of a figure of networks, which names their dynamics."""
    canvas = style.canvas(width, height)
    return Sheet(canvas, x, networks.dynamics, left_out=left_out, notes=networks.notes)


COLLAPSED = (0, (1, 1.2))  # the dashes of runs that ended as f = 0


def named(group: Group) -> str:
    """Name the lambda of a group in a legend, and say so if all of its runs ended as f = 0."""
    label = f"λ = {style.number(group.lam)}"
    return label if group.sound else f"{label} (f = 0)"


def entry(group: Group, study: Study, marker: str | None = None) -> Any:
    """Return the entry of a group in a legend."""
    look = {} if group.sound else {"linestyle": COLLAPSED}
    return style.handle(named(group), color=study.colours[group.lam], marker=marker, **look)


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
