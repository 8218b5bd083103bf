"""The paper's figures from run records: PNG, SVG, their numbers, their captions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style

from janus_pl.records.run import Run
from janus_pl.report.figures import by_layer, edge, events, janus, linear, spectra, style
from janus_pl.report.figures import margins as deep
from janus_pl.report.figures.series import Unavailable, axis
from janus_pl.report.figures.sheet import Sheet, shown_lambdas
from janus_pl.report.figures.study import Study


class Figure(NamedTuple):
    """One figure of the paper.

    Attributes:
        key: `janus`, `fig1a`, ..., `fig5b`, `spectra`, `events`, `a1`, ..., `a7`.
        title: what it shows, in one line.
        caption: what stands under it: its runs, seeds and commands; empty where it is missing.
        files: KEY.png, KEY.svg, KEY.csv, KEY.txt; none where it is missing.
        missing: in one line, why the runs do not allow it; None where they do.
    """

    key: str
    title: str
    caption: str
    files: Sequence[Path]
    missing: str | None


FIGURES: tuple[tuple[str, str, Callable[[Study], Sheet]], ...] = (
    ("janus", "SGD beside GD: margins, noise and rank", janus.janus),
    ("edge", "Edge of stability: sharpness, its limit, and spikes of the loss", edge.edge),
    ("fig1a", "Figure 1a: margins under {dynamics} by lambda", deep.fig1a),
    ("fig1b", "Figure 1b: margins under {dynamics} at small lambda, and their spread", deep.fig1b),
    ("fig2a", "Figure 2a: margins under GD with SGD's hyperparameters", deep.fig2a),
    ("fig2b", "Figure 2b: margins under converged GD", deep.fig2b),
    ("fig3", "Figure 3: {dynamics} noise by layer over time", by_layer.fig3),
    ("fig4a", "Figure 4a: {dynamics} noise by layer at the end", by_layer.fig4a),
    ("fig4b", "Figure 4b: ranks by layer", by_layer.fig4b),
    ("spectra", "Singular values by layer over time", spectra.spectra),
    ("events", "Spikes of the training loss, and the ranks lost in them", events.events),
    ("fig5a", "Figure 5a: margins under cross entropy", deep.fig5a),
    ("fig5b", "Figure 5b: margins under the square loss", deep.fig5b),
    ("a1", "Figure A.1: linear regression from W0 = 0", linear.figure("a1")),
    ("a2", "Figure A.2: linear regression from a random W0", linear.figure("a2")),
    ("a3", "Figure A.3: sparse features", linear.figure("a3")),
    ("a4", "Figure A.4: sparse features, online", linear.figure("a4")),
    ("a5", "Figure A.5: asymptotic noise of online SGD", linear.figure("a5")),
    ("a6", "Figure A.6: two dimensions, one without data", linear.figure("a6")),
    ("a7", "Figure A.7: log-slopes of the singular values", linear.fig_a7),
)
_ONE_AT_A_TIME = threading.Lock()  # matplotlib's settings are the process's


def draw(runs: Sequence[Run], folder: Path, x: str = "epoch") -> list[Figure]:
    """Every figure of the paper, in its order; what the runs allow is written to a folder.

    Args:
        runs: of a report; each figure takes those that are of its kind.
        folder: where the files go; made where it is not there. Files of an earlier call that are
            of a figure now missing are removed.
        x: of time courses: `epoch`, `trainer/global_step` (or `step`) or `eta_t`.

    Raises:
        UsageError: another x.
    """
    ordered = sorted(runs, key=lambda run: (run.name, run.id))
    study = Study(ordered, axis(x), style.colours(shown_lambdas(ordered)))
    folder.mkdir(parents=True, exist_ok=True)
    with _ONE_AT_A_TIME, matplotlib.style.context(["default", style.STYLE]):
        return [_figure(study, folder, *given) for given in FIGURES]


def _figure(
    study: Study, folder: Path, key: str, title: str, function: Callable[[Study], Sheet]
) -> Figure:
    try:
        sheet = function(study)
    except Unavailable as reason:
        for suffix in ("png", "svg", "csv", "txt"):
            (folder / f"{key}.{suffix}").unlink(missing_ok=True)
        return Figure(key, title.format(dynamics="SGD"), "", [], str(reason))
    named = title.format(dynamics=sheet.dynamics)
    said, files = sheet.write(folder, key, named)
    return Figure(key, named, said, files, None)
