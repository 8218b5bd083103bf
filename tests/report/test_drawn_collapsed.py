"""Networks that ended as f = 0 in the figures: named, and in no axis' range and no mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report.drawn import Panel, Picture, picture
from report.generic import LAYERS, network, zero_function

from janus_pl.records.run import Histogram, Run
from janus_pl.report.figures import series
from janus_pl.report.figures.janus import sides_of

LAMBDAS = (0.0, 1e-4, 2e-3)
DOTTED = "--"  # what matplotlib calls any dashes


def emptied(lam: float, seed: int = 0) -> Run:
    """A network whose velocities and margins are 15 orders of magnitude below the others'."""
    run = zero_function(network(lam, seed=seed))
    tiny = {f"velocity/{k}": run.rows[f"velocity/{k}"] * 1e-15 for k in LAYERS}
    wide = {"margin/mean": run.rows["margin/mean"] * 1e-9}
    shown = [Histogram(h.epoch, h.counts, h.edges * 1e6) for h in run.histograms["margin/hist"]]
    return replace(run, rows=run.rows.assign(**tiny, **wide), histograms={"margin/hist": shown})


SOUND = [network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]
ENDED = emptied(1e-2)


def both(key: str, folder: Path, ended: Sequence[Run] = (ENDED,)) -> tuple[Picture, Picture]:
    """A figure of the sound runs alone, and with some that ended as f = 0."""
    return picture(SOUND, folder / "sound", key), picture([*SOUND, *ended], folder / "all", key)


def values(panel: Panel, dashes: str = "-") -> np.ndarray:
    """All numbers of the lines of a panel."""
    points = [bars.y for bars in panel.bars] if dashes == "-" else []
    lines = [line.y for line in panel.lines if line.dashes == dashes]
    return np.concatenate([*points, *lines])


@pytest.mark.parametrize("key", ["fig3", "fig1b"])
def test_axes_of_time_courses_follow_the_sound_runs(key: str, tmp_path: Path) -> None:
    alone, among = both(key, tmp_path)
    before, after = (
        found.panels if key == "fig3" else found.panels[1:] for found in (alone, among)
    )
    for one, other in zip(before, after, strict=True):
        assert other.ylim == one.ylim
        assert other.yscale == "log"
        dotted = [line for line in other.lines if line.dashes != "-"]
        assert len(dotted) == 1, "it is drawn as far as the panel goes"
        low, high = other.ylim
        assert (dotted[0].y < low).all() or (dotted[0].y > high).all(), "control: it would stretch"
        assert ((values(other) >= low) & (values(other) <= high)).all()
    assert [entry.label for entry in among.legend][-1] == "λ = 1e-2 (f = 0)"
    assert [entry.dashes for entry in among.legend] == ["-", "-", "-", DOTTED]
    assert f"in no axis' range and no mean over seeds for it: {ENDED.name}" in among.caption
    assert "f = 0" not in alone.caption + "".join(entry.label for entry in alone.legend)


def test_points_at_the_end_that_are_below_the_axis_are_named_in_the_panel(tmp_path: Path) -> None:
    alone, among = both("fig4a", tmp_path)
    (one,), (other,) = alone.panels, among.panels
    low, high = one.ylim
    assert other.ylim[1] == high
    assert low > other.ylim[0] > low * (low / high) ** 0.2, "room for a line of text, no more"
    assert other.texts == ["below, f = 0: λ = 1e-2"]
    assert one.texts == []
    assert max(bars.y.max() for bars in other.bars[-1:]) < other.ylim[0]
    assert among.written(id=ENDED.id, panel="end"), "its numbers are in the CSV"


def test_ranks_of_an_emptied_network_are_in_the_panel_and_not_called_below(tmp_path: Path) -> None:
    found = picture([*SOUND, ENDED], tmp_path, "fig4b")
    assert all(panel.texts == [] for panel in found.panels)
    assert all(panel.ylim[0] == 0 for panel in found.panels)


@pytest.mark.parametrize("key", ["fig3", "fig4a"])
def test_means_over_seeds_are_of_the_sound_seeds(key: str, tmp_path: Path) -> None:
    alone, among = both(key, tmp_path, [emptied(2e-3, seed=2)])
    for one, other in zip(alone.panels, among.panels, strict=True):
        for before, after in zip(
            one.lines, [x for x in other.lines if x.dashes == "-"], strict=True
        ):
            np.testing.assert_array_equal(after.y, before.y)
        for bars, same in zip(one.bars, other.bars, strict=False):
            np.testing.assert_array_equal(bars.y, same.y)
            np.testing.assert_array_equal(bars.low, same.low)
    # The lambda has sound seeds, so the legend says nothing and the caption names the run.
    assert [entry.label for entry in among.legend] == [entry.label for entry in alone.legend]
    assert f"no mean over seeds for it: {emptied(2e-3, seed=2).name}" in among.caption


def test_a_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the test for f = 0 the axis spans fifteen decades."""
    right = picture([*SOUND, ENDED], tmp_path, "fig3").panels[0].ylim
    monkeypatch.setattr(series, "is_zero_function", lambda run: False)
    wrong = picture([*SOUND, ENDED], tmp_path, "fig3").panels[0].ylim
    assert np.log10(right[1] / right[0]) < 5 < 14 < np.log10(wrong[1] / wrong[0])


@pytest.mark.parametrize("key", ["fig3", "fig4a", "fig4b", "fig1a"])
def test_where_no_run_is_sound_the_axes_follow_those_there_are(key: str, tmp_path: Path) -> None:
    found = picture([ENDED, emptied(1e-2, seed=1)], tmp_path, key)
    for panel in found.panels:
        shown = [outline.edges for outline in panel.outlines]
        if not panel.outlines:
            shown = [line.y for line in panel.lines] + [bars.y for bars in panel.bars]
        low, high = panel.xlim if panel.outlines else panel.ylim
        for each in shown:
            assert len(each)
            assert low <= each.min() and each.max() <= high
    assert "f = 0" in found.caption


def test_a_row_of_margins_says_f_0_and_the_axis_is_that_of_the_others(tmp_path: Path) -> None:
    alone, among = both("fig1a", tmp_path)
    (one,), (other,) = alone.panels, among.panels
    assert other.xlim == one.xlim
    assert max(outline.edges.max() for outline in other.outlines) > other.xlim[1], "control"
    assert other.rows == {0.0: "0", 1.0: "1e-4", 2.0: "2e-3", 3.0: "1e-2"}
    assert other.texts == [*one.texts[:3], "f = 0", *one.texts[3:]]


@pytest.mark.parametrize("ranks", [126.0, 125.9])
def test_a_line_of_ranks_is_not_on_the_upper_edge_of_its_panel(
    ranks: float, tmp_path: Path
) -> None:
    """At one lambda, where the ranks stay as they were."""
    columns = {f"effective_rank/{k}": [126.0, 126.0, 126.0, 126.0, ranks] for k in LAYERS}
    found = picture([network(1e-3, columns=columns)], tmp_path, "fig4b")
    for panel in [found.panels[0], *found.panels[2:]]:
        assert panel.ylim[0] == 0
        assert 1.03 * 126 < panel.ylim[1] < 1.2 * 126


def test_the_two_faces_are_of_a_lambda_whose_network_is_sound() -> None:
    runs = [network(0.0), network(2e-3), network(2e-3, "full"), ENDED, network(1e-2, "full")]
    assert [side.runs for side in sides_of(runs)] == [[runs[1]], [runs[0]], [runs[2]]]
    # Of seeds, too, those that are sound.
    seeds = [network(2e-3), emptied(2e-3, seed=1), network(0.0)]
    assert [side.runs for side in sides_of(seeds)] == [[seeds[0]], [seeds[2]]]
    # Where none is, they are shown.
    assert sides_of([ENDED, network(0.0)])[0].runs == [ENDED]
