"""Spikes of the training loss over time, and the effective ranks that layers lose in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from janus_pl.observables.events import THRESHOLD, Event, Events, RankLost
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.figures.pair import option_of, pair_of, title_of, told
from janus_pl.report.figures.series import curve, has, last, layers
from janus_pl.report.figures.sheet import Sheet
from janus_pl.report.figures.study import Study, time_axis, x_name

LOSS, RANK = "train/loss_running", "effective_rank"
WITHIN, BETWEEN = "event/rank_within", "event/rank_between"
SHADE: dict[str, Any] = {
    "color": "#CC79A7",
    "alpha": 0.25,
    "linewidth": 0,
}  # Okabe and Ito's purple
LINE: dict[str, Any] = {"color": "0.3", "linewidth": 0.8, "linestyle": (0, (4, 1.5))}


class Spikes(NamedTuple):
    """The spikes of a run.

    Attributes:
        events: The spikes, oldest first.
        threshold: The threshold; None if the run recorded its spikes, and its config has none.
    """

    events: list[Event]
    threshold: float | None


class Lost(NamedTuple):
    """The effective rank lost by layer, within the spikes of a run and between them."""

    within: Mapping[str, float]
    between: Mapping[str, float]


def events(study: Study) -> Sheet:
    """Draw the running loss with its spikes, and beneath it the effective ranks of the layers."""
    runs, left_out = pair_of(study.runs, lambda run: has(run, LOSS), LOSS, _spikes)
    names = layers(runs, RANK)
    tall = 3.5 + 0.14 * -(-len(names) // 2)
    sheet = Sheet(style.canvas(style.PAGE, tall), study.x, runs[0].dynamics)
    sheet.left_out, sheet.notes = left_out, told(runs, left_out)
    if left_out:
        sheet.notes.append("Of several runs on minibatches, one with a spike is taken first.")
    grid = sheet.canvas.subplots(2, len(runs), squeeze=False, sharex="col", sharey="row")
    colours = _colours(names)
    said = []
    for (above, below), run in zip(grid.T, runs, strict=True):
        spikes = spikes_of(run)
        lost = lost_of(run, spikes)
        _losses(sheet, above, run, spikes)
        above.set_title(title_of(run))
        _ranks(sheet, below, run, colours, lost)
        for axes in (above, below):
            _shade(axes, run, spikes, study.x)
            time_axis(axes, study.x)
        above.set_xlabel("")
        said.append(_told(run, spikes, lost))
    grid[0, 0].set_ylabel("running training loss")
    grid[1, 0].set_ylabel("effective rank of $V_k$")
    style.logarithmic(grid[0, 0])
    grid[1, 0].set_ylim(0, None)
    style.legend(
        sheet.canvas,
        [style.handle("spike", **{**SHADE, "linewidth": 5}), style.handle("threshold", **LINE)],
        2,
    )
    sheet.text = (
        f"Above: mean training loss of an epoch against {x_name(study.x)}; shaded from the first"
        " epoch of a spike to the first after it. Below: effective rank of V_k by layer; in the"
        " legend the rank lost over intervals of two looks within spikes / over all others,"
        f" negative where it recovers. {' '.join(said)}"
    )
    return sheet


def spikes_of(run: Run) -> Spikes:
    """Return the spikes of a run, by the threshold of its config, or else the default one.

    A script's config lacks its callbacks. Then the spikes are those that were recorded, as far as
    they have ended.
    """
    threshold = option_of(run, "LossEvents", "threshold")
    if threshold is None and has(run, "event/count"):
        return Spikes(_recorded(run), None)
    found = Events(threshold or THRESHOLD)
    for (epoch, _), loss in curve(run, LOSS, "epoch").items():
        found.add(int(epoch), float(loss))
    return Spikes(found.found, found.threshold)


def _spikes(run: Run) -> bool:
    return bool(spikes_of(run).events)


def lost_of(run: Run, spikes: Spikes) -> Lost:
    """Return the ranks lost as recorded, or else over the looks at effective ranks."""
    recorded = layers([run], WITHIN) + layers([run], BETWEEN)
    if recorded:
        within, between = (
            {k: last(run, f"{kind}/{k}") for k in recorded if has(run, f"{kind}/{k}")}
            for kind in (WITHIN, BETWEEN)
        )
        return Lost(within, between)
    sums, before = RankLost(), -1.0
    names = layers([run], RANK)
    looks = run.rows[["epoch", *(f"{RANK}/{k}" for k in names)]].dropna()
    for now, *ranks in looks.itertuples(index=False):
        spiked = any(_holds(event, before, now) for event in spikes.events)
        sums.add(dict(zip(names, ranks, strict=True)), spiked)
        before = now
    return Lost(sums.within, sums.between)


def _holds(event: Event, after: float, to: float) -> bool:
    """Tell whether an epoch of a spike lies after a look and up to the next."""
    end = np.inf if event.end is None else event.end
    return event.begin <= to and end > after + 1


def _recorded(run: Run) -> list[Event]:
    if not has(run, "event/end"):
        return []
    rows = run.rows[run.rows["event/end"].notna()]
    columns = (rows[f"event/{name}"] for name in ("begin", "end", "peak"))
    return [Event(int(a), int(b), float(peak)) for a, b, peak in zip(*columns, strict=True)]


def _losses(sheet: Sheet, axes: Axes, run: Run, spikes: Spikes) -> None:
    look = {"color": style.look(run.dynamics)["color"], "linewidth": 0.9}
    sheet.curves("loss", axes, [run], LOSS, shaded=False, **look)
    if spikes.threshold is not None:
        axes.axhline(spikes.threshold, **LINE)
        sheet.add("threshold", run, "threshold", spikes.threshold)
    for event in spikes.events:
        end = np.nan if event.end is None else event.end
        edges = {"x": event.begin, "x_end": end, "x_name": "epoch"}
        sheet.add("spike", run, "event/peak", event.peak, **edges)


def _ranks(sheet: Sheet, axes: Axes, run: Run, colours: Mapping[str, Any], lost: Lost) -> None:
    for layer, colour in colours.items():
        key = f"{RANK}/{layer}"
        look = {"color": colour, "linewidth": 1.0}
        sheet.curves("rank", axes, [run], key, layer=layer, shaded=False, **look)
        for kind, sums in ((WITHIN, lost.within), (BETWEEN, lost.between)):
            if layer in sums:
                sheet.add("lost", run, f"{kind}/{layer}", sums[layer], layer=layer)
    handles = [
        style.handle(f"{layer}  {_numbers(layer, lost)}", color=colour)
        for layer, colour in colours.items()
        if has(run, f"{RANK}/{layer}")
    ]
    style.tell_empty(axes, "effective rank")
    if handles:
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.27), "ncols": 2}
        axes.legend(handles=handles, title="rank lost within / between spikes", **below)


def _shade(axes: Axes, run: Run, spikes: Spikes, x: str) -> None:
    at = curve(run, x, "epoch")
    epochs = at.index.get_level_values(0).to_numpy(float)
    for event in spikes.events:
        end = epochs[-1] if event.end is None else event.end
        axes.axvspan(*np.interp([event.begin, end], epochs, at.to_numpy()), **SHADE)


def _colours(names: Sequence[str]) -> dict[str, Any]:
    scale = matplotlib.colormaps["viridis"]
    return {k: scale(0.92 * i / max(len(names) - 1, 1)) for i, k in enumerate(names)}


def _numbers(layer: str, lost: Lost) -> str:
    sums = [round(each.get(layer, 0.0), 2) + 0.0 for each in lost]  # no -0.00
    return " / ".join(f"{value:.2f}" for value in sums)


def _told(run: Run, spikes: Spikes, lost: Lost) -> str:
    """Say of a run how many spikes there are, and the rank that each layer lost."""
    number = len(spikes.events)
    above = "as recorded" if spikes.threshold is None else f"above {spikes.threshold:g}"
    spiked = f"{number or 'no'} spike{'' if number == 1 else 's'} {above}"
    ranks = [f"{k} {_numbers(k, lost)}" for k in dict.fromkeys([*lost.within, *lost.between])]
    rank = f"; rank lost within / between: {', '.join(ranks)}" if ranks else ""
    return f"{title_of(run)}: {spiked}{rank}.".replace("λ", "lambda")
