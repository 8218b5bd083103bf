"""The page in a browser: runs told apart by colour, dash and mark; spectra in order; claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from report.pages import deep, of_lines, several, verdict

# Its fixtures, too.
from report.test_page_browser import Open, changed, chromium, draw_all, drawn, pytestmark, show

__all__ = ["changed", "chromium", "pytestmark", "show"]

Change = Callable[[str, str, str], None]
LOOKS = (
    "(section) => [...document.querySelectorAll(`#${section} .plot`)].map((plot) =>"
    " plot.data.map((curve) => [curve.line.color, curve.line.dash,"
    " curve.mode.includes('markers') ? curve.marker.symbol : null]))"
)
SHARED = ("velocities", "ranks", "spectra")  # SGD and GD in one panel


def looks(page: Any, section: str) -> list[list[tuple[Any, ...]]]:
    """Colour, dash and mark of every curve in the panels of a section."""
    draw_all(page)
    return [[tuple(curve) for curve in panel] for panel in page.evaluate(LOOKS, section)]


def legend(page: Any) -> list[str]:
    items = page.locator("#legend .key").all_inner_texts()
    return [" ".join(item.split()) for item in items]


@pytest.mark.parametrize("section", SHARED)
def test_sgd_and_gd_differ_by_dash_and_mark_at_one_lambda(section: str, show: Open) -> None:
    page = show([deep(lam=1e-3, batch=32), deep(lam=1e-3, batch="full")])
    panels = looks(page, section)
    assert panels
    for sgd, gd in panels:
        assert sgd[0] == gd[0]
        assert sgd[1:] == ("solid", None)
        assert gd[1:] == ("dash", "square-open")
    assert legend(page) == ["λ = 0.001", "SGD", "□ GD"]
    dashes = page.locator("#legend path").evaluate_all(
        "(all) => all.map((line) => line.hasAttribute('stroke-dasharray'))"
    )
    assert dashes == [False, False, True]


@pytest.mark.parametrize("section", SHARED)
def test_lambdas_differ_by_mark_where_the_colour_is_that_of_b(section: str, show: Open) -> None:
    page = show(several()[:-2])  # without the linear pair
    page.locator("#colour").select_option("B")
    assert page.get_by_label("marks").input_value() == "λ"
    for panel in looks(page, section):
        assert len(panel) == 6
        assert len(set(panel)) == 6  # each lambda and B looks like itself
        assert len({colour for colour, *_ in panel}) == 2
        assert {mark for *_, mark in panel} == {None, "square-open", "diamond-open"}
    shown = ["λ = 0", "□ λ = 1e-4", "◇ λ = 0.001"]
    assert legend(page)[-3:] == shown
    page.locator("#colour").select_option("λ")
    assert page.get_by_label("marks").input_value() == "dynamics"
    assert legend(page)[-2:] == ["SGD", "□ GD"]
    page.get_by_label("marks").select_option("λ")
    assert legend(page)[:3] == shown  # the colour's own line has the mark


def test_lambdas_would_be_alike_without_their_marks(show: Open, changed: Change) -> None:
    changed("colours.js", "return mark(run.facets[state.marks]);", "return null;")
    page = show(several())
    page.locator("#colour").select_option("B")
    (panel, *_) = looks(page, "velocities")
    assert len(set(panel)) == 2


def test_a_mark_is_that_of_its_lambda_whatever_is_filtered(show: Open) -> None:
    page = show(several())
    page.locator("#colour").select_option("B")
    page.get_by_label("filter").fill("lam0.001")
    (panel, *_) = looks(page, "velocities")
    assert {mark for *_, mark in panel} == {"diamond-open"}


def test_a_spectrum_in_order_tells_how_many_values_are_at_least_sigma(show: Open) -> None:
    run = deep()
    page = show([run])
    ((_, x, y),) = drawn(page, "spectra")[0]
    last = next(found for key, found in run.histograms.items() if key.startswith("spectrum/"))[-1]
    for above, sigma in zip(x, y, strict=True):  # counted edge by edge, and not summed up
        place = int(np.argmin(abs(last.edges - np.log10(sigma))))
        assert last.edges[place] == pytest.approx(np.log10(sigma))
        assert above == last.counts[place:].sum()
    assert (x[0], x[-1]) == (0, last.counts.sum())
    assert len(x) == np.ptp(np.flatnonzero(last.counts)) + 2  # empty ends are not shown
    low, high = page.evaluate("() => document.querySelector('#spectra .plot').layout.yaxis.range")
    assert high - low < 3, "the axis is that of the filled bins, all epochs of them"
    page.get_by_label("shown").select_option("in bins")
    ((_, sigma, counts),) = drawn(page, "spectra")[0]
    assert sigma[1:] == pytest.approx(y[::-1])
    assert counts[1:-1] == last.counts[np.flatnonzero(last.counts)].tolist()


def test_the_claims_are_all_in_sight_with_their_details_on_demand(show: Open) -> None:
    answers = ["supported", "contradicted", "undecided", "not testable", "holds", "broken"]
    lines = [verdict(f"sentence {k}", answers[k % 6]) for k in range(15)]
    lines += [{**verdict("another", "undecided"), "primary": False}]
    page = show([deep()], verdicts=of_lines(*lines))
    rows = page.locator("#verdict-table tbody tr")
    assert rows.count() == 15
    box = page.locator("#verdicts .scroll")
    assert box.evaluate("(box) => box.scrollHeight - box.clientHeight") <= 0
    for k in (0, 14):
        assert rows.nth(k).locator("summary").is_visible()
    assert not page.get_by_text("another").is_visible()
    assert not page.get_by_text("supported if").first.is_visible()
    rows.nth(3).locator("summary").click()
    assert rows.nth(3).get_by_text("supported if a slope is above 0").is_visible()
    assert rows.nth(3).get_by_text("lambda 0, 1: 2, 5 seeds").is_visible()
    page.get_by_text("More claims").click()
    assert page.get_by_text("another").is_visible()
    assert (
        "supported: 3, contradicted: 3, undecided: 3, not testable: 2,"
        in page.locator("#verdicts .note").inner_text()
    )
    colours = rows.locator("td").evaluate_all(
        "(all) => all.map((td) => getComputedStyle(td).color)"
    )
    assert (
        colours[2]
        == colours[3]
        == page.locator("#verdicts .note").evaluate("(note) => getComputedStyle(note).color")
    ), "undecided and not testable are neutral"
    assert len({colours[0], colours[1], colours[2]}) == 3
    assert colours[4:6] == colours[:2]


def test_a_box_that_scrolls_would_be_seen(show: Open, changed: Change) -> None:
    changed("page.css", "#verdicts .scroll { max-height: none; }", "")
    page = show([deep()], verdicts=of_lines(*[verdict(f"s{k}") for k in range(15)]))
    box = page.locator("#verdicts .scroll")
    assert box.evaluate("(box) => box.scrollHeight - box.clientHeight") > 0
