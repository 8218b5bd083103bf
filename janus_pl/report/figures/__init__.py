"""The paper's figures from run records: PNG, SVG, their numbers, their captions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.style

from janus_pl.records.run import Run
from janus_pl.report.figures import (
    by_layer,
    claims,
    edge,
    events,
    janus,
    linear,
    scans,
    spectra,
    style,
)
from janus_pl.report.figures import margins as deep
from janus_pl.report.figures.caption import Again, report_command
from janus_pl.report.figures.series import Unavailable, axis
from janus_pl.report.figures.sheet import Sheet, shown_lambdas
from janus_pl.report.figures.study import Study


class Figure(NamedTuple):
    """One figure of the paper.

    Attributes:
        key: `janus`, `fig1a`, ..., `fig5b`, `spectra`, `events`, `a1`, ..., `a7`.
        title: what it shows, in one line.
        caption: what stands under it: its runs, seeds and commands; empty where it is missing.
        files: KEY.png, KEY.svg, KEY.csv, KEY.txt; none where it is missing or is another's.
        missing: in one line, why the runs do not allow it; None where they do.
        like: the key of the figure that shows the same runs in the same way; None without one.
    """

    key: str
    title: str
    caption: str
    files: Sequence[Path]
    missing: str | None
    like: str | None = None


FIGURES: tuple[tuple[str, str, Callable[[Study], Sheet]], ...] = (
    ("janus", "SGD beside GD: margins, noise and rank", janus.janus),
    ("edge", "Edge of stability: sharpness, its limit, and spikes of the loss", edge.edge),
    ("claims", "The claims: spread, noise and rank against lambda", claims.claims),
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
SCANS = tuple(key for key, *_ in scans.FIGURES)
# The paper draws these twice; from the same runs they are the same picture.
TWINS = {"fig2b": "fig2a", "fig5b": "fig1a"}
_ONE_AT_A_TIME = threading.Lock()  # matplotlib's settings are the process's


def draw(
    runs: Sequence[Run],
    folder: Path,
    x: str = "epoch",
    again: str | None = None,
    by: Sequence[str] = (),
) -> list[Figure]:
    """Draw every figure of the paper, in its order; write what the runs allow to a folder.

    A figure of the same runs as an earlier one, and drawn alike, has no files of its own.

    Args:
        runs: of a report; each figure takes those that are of its kind.
        folder: where the files go; made where it is not there. Files of an earlier call that are
            of a figure now missing are removed.
        x: of time courses: `epoch`, `trainer/global_step` (or `step`) or `eta_t`.
        again: the command that draws them, for the captions; None for that of these runs.
        by: the option of a scan, and a second one if there is; the figures of the scan are first.

    Raises:
        UsageError: another x.
    """
    ordered = sorted(runs, key=lambda run: (run.name, run.id))
    study = Study(ordered, axis(x), style.colours(shown_lambdas(ordered)))
    folder.mkdir(parents=True, exist_ok=True)
    with _ONE_AT_A_TIME, matplotlib.style.context(["default", style.STYLE]):
        asked = [*_scans(by), *FIGURES]
        sheets = {key: _sheet(study, function) for key, _, function in asked}
        titles = {key: _titled(title, sheets[key]) for key, title, _ in asked}
        twins = {key: first for key, first in TWINS.items() if _alike(sheets, key, first)}
        for key, first in twins.items():
            _name_in(sheets[first], titles[key], sheets[key])
        for key in () if by else SCANS:
            _remove(key, folder)
        made = Again(again or report_command(ordered, folder, study.x), folder)
        return [_figure(key, titles, sheets[key], twins.get(key), made) for key in sheets]


def _scans(by: Sequence[str]) -> list[tuple[str, str, Callable[[Study], Sheet]]]:
    """Return the figures of a scan; none without an option."""
    words = " and ".join(by)
    return [
        (key, title.replace("{by}", words), partial(_scan, function, by))
        for key, title, function in (scans.FIGURES if by else ())
    ]


def _scan(function: Callable[[Study, Sequence[str]], Sheet], by: Sequence[str], of: Study) -> Sheet:
    return function(of, by)


def _sheet(study: Study, function: Callable[[Study], Sheet]) -> Sheet | Unavailable:
    try:
        return function(study)
    except Unavailable as reason:
        return reason


def _titled(title: str, sheet: Sheet | Unavailable) -> str:
    return title.format(dynamics="SGD" if isinstance(sheet, Unavailable) else sheet.dynamics)


def _alike(sheets: Mapping[str, Sheet | Unavailable], *keys: str) -> bool:
    """Tell whether two figures can be drawn, and of the same runs."""
    runs = [
        {id(run) for run in sheet.runs}
        for sheet in (sheets.get(key) for key in keys)
        if isinstance(sheet, Sheet)
    ]
    return len(runs) == 2 and runs[0] == runs[1] != set()


def _name_in(first: Sheet | Unavailable, title: str, twin: Sheet | Unavailable) -> None:
    """Say in a caption that the figure is another one as well, with what is noted there."""
    assert isinstance(first, Sheet) and isinstance(twin, Sheet)
    more = [note for note in twin.notes if note not in first.notes]
    first.notes += [f"From the same runs, so this is {title}, too.", *more]


def _figure(
    key: str,
    titles: Mapping[str, str],
    sheet: Sheet | Unavailable,
    like: str | None,
    again: Again,
) -> Figure:
    title = titles[key]
    try:
        if isinstance(sheet, Unavailable):
            raise sheet
        if like is None:
            return Figure(key, title, *sheet.write(key, title, again), None)
        said, missing = f"{title}. As {titles[like]}: the runs are the same.", None
    except Unavailable as reason:
        said, missing = "", str(reason)
    _remove(key, again.folder)
    return Figure(key, title, said, [], missing, None if missing else like)


def _remove(key: str, folder: Path) -> None:
    """Remove the files that an earlier call left of a figure."""
    for suffix in ("png", "svg", "csv", "txt"):
        (folder / f"{key}.{suffix}").unlink(missing_ok=True)
