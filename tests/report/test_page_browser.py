"""The page in a browser: nothing leaves it, and what is moved, typed and clicked has its effect."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report.generic import by_adam, network, ten_classes
from report.pages import HOSTILE, deep, linear, of_lines, renamed, several, verdict, with_histograms

from janus_pl.records.run import Run
from janus_pl.report.figures import SCANS, draw
from janus_pl.report.page import document, write

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH, nor at CHROMIUM")

DRAWN = (
    "(section) => [...document.querySelectorAll(`#${section} .plot`)]"
    ".map((plot) => plot.data.map((curve) => [curve.name, curve.x, curve.y]))"
)
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page of runs from disk; nothing else is reachable, and all that it does is kept."""
    opened = []

    def open_page(runs: list[Run], scheme: str = "light", **options: Any) -> Any:
        file = write(runs, tmp_path / "index.html", **options)
        context = chromium.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 800})
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.said, page.asked, page.dialogs = [], [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("dialog", lambda dialog: (page.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        opened.append(context)
        return page

    yield open_page
    for context in opened:
        context.close()


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Pages written from now on have a part of one of their files replaced."""

    def change(name: str, old: str, new: str) -> None:
        asset = document._asset
        assert old in asset(name)
        replaced = lambda n: asset(n).replace(old, new) if n == name else asset(n)  # noqa: E731
        monkeypatch.setattr(document, "_asset", replaced)

    return change


def drawn(page: Any, section: str) -> list[Any]:
    """Names and points of every curve in the panels of a section, wherever the window is."""
    page.evaluate("(section) => { near.add(section); redraw(); }", section)
    return page.evaluate(DRAWN, section)


def draw_all(page: Any) -> None:
    page.evaluate("() => { Object.keys(SECTIONS).forEach((s) => near.add(s)); redraw(); }")


def notes(page: Any) -> dict[str, str]:
    """By section, the line that says what is not drawn."""
    draw_all(page)
    return page.evaluate(
        "() => Object.fromEntries(Object.keys(SECTIONS).map((s) =>"
        " [s, document.querySelector(`#${s} .note`).textContent]))"
    )


def test_every_chart_is_drawn_without_an_error_and_no_request_leaves(show: Open) -> None:
    page = show(
        several(), verdicts=of_lines(verdict(), verdict("no", "contradicted")), command="report x"
    )
    assert page.locator("#spectra .main-svg").count() == 0  # only what is near the window is drawn
    page.get_by_role("link", name="spectra").click()
    page.locator("#spectra .main-svg").first.wait_for()
    draw_all(page)
    counts = page.evaluate(
        "() => Object.keys(SECTIONS)"
        ".map((section) => document.querySelectorAll(`#${section} .main-svg`).length)"
    )
    assert len(counts) == 6
    assert all(counts)
    assert page.locator("#made").inner_text() == "Made by report x"
    assert page.locator("#verdict-table .fails").inner_text() == "✗ contradicted"
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 420
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('input, select')]"
        ".filter((control) => !control.labels.length && !control.ariaLabel).length"
    )
    assert unnamed == page.locator("th:not([scope])").count() == 0
    assert page.said == []
    assert page.asked == [page.url.partition("#")[0]]


def test_a_request_that_leaves_would_be_seen(show: Open, changed: Callable[..., None]) -> None:
    changed("page.html", "img-src data:", "img-src *")
    changed("page.html", "<h1>", '<img alt="" src="http://127.0.0.1:9/x.png"><h1>')
    page = show([deep()])
    assert "http://127.0.0.1:9/x.png" in page.asked


def moved(page: Any) -> tuple[list[Any], list[Any]]:
    """Margins before and after the slider goes two epochs back, by key."""
    before = drawn(page, "margins")
    slider = page.locator("#margins input.epoch")
    slider.focus()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    return before, drawn(page, "margins")


def test_the_slider_changes_the_histograms(show: Open) -> None:
    page = show([deep(batch=32), deep(batch="full")])
    assert page.locator("#margins .epoch-label").inner_text() == "epoch 10"
    before, after = moved(page)
    assert page.locator("#margins .epoch-label").inner_text() == "epoch 8"
    assert len(before) == 2  # SGD beside GD
    # Bin 1 of 5 is the first that holds a margin; the lowest edge is 1e-8 times epoch + 1.
    for panel, epoch in ((before, 10), (after, 8)):
        for ((_, x, y),) in panel:
            assert x[0] == pytest.approx(1e-8 * (1 + epoch) + 1e-9, rel=1e-9)
            assert y == pytest.approx([0, 1 / 6, 3 / 6, 2 / 6, 0])
    page.get_by_label("shown").select_option("in bins")
    spectra = drawn(page, "spectra")
    assert spectra[0][0][1][0] == pytest.approx(10 ** (-2 + 0.8 + 0.1))
    assert page.locator("#spectra .epoch-label").inner_text() == "epoch 8"


def test_without_its_handler_the_slider_changes_nothing(
    show: Open, changed: Callable[..., None]
) -> None:
    changed("main.js", 'slider.addEventListener("input"', 'slider.addEventListener("none"')
    before, after = moved(show([deep()]))
    assert before == after


def styles(page: Any) -> dict[str, list[str]]:
    """Colour and dash of each run's curve."""
    drawn(page, "velocities")
    found = page.evaluate(
        "() => document.querySelector('#velocities .plot').data"
        ".map((curve) => [curve.name, curve.line.color, curve.line.dash])"
    )
    return {name: style for name, *style in found}


def test_filters_take_rows_and_curves_away_and_a_lambda_keeps_its_colour(show: Open) -> None:
    page = show(several())
    rows = page.locator("#run-table tbody tr")
    assert rows.count() == 14
    before = styles(page)
    assert len(before) == 6
    assert len({colour for colour, _ in before.values()}) == 3
    page.get_by_label("filter").fill("lam0.001 seed0")
    assert rows.count() == 2
    after = styles(page)
    assert after == {name: style for name, style in before.items() if "lam0.001" in name}
    (_, sgd), (_, gd) = after["square-B32-lam0.001-seed0"], after["square-Bfull-lam0.001-seed0"]
    assert (sgd, gd) == ("solid", "dash")
    page.locator("[data-facet=dynamics]").select_option("GD")
    assert page.locator("#run-table tbody th").all_inner_texts() == ["square-Bfull-lam0.001-seed0"]
    assert set(styles(page)) == {"square-Bfull-lam0.001-seed0"}
    assert page.locator("#status").inner_text() == "14 runs, 1 in the table, 1 ticked and shown."
    page.get_by_role("checkbox", name="show square-Bfull").uncheck()
    assert drawn(page, "velocities") == []
    page.get_by_label("filter").fill("")
    page.get_by_role("button", name="tick all in the table").click()
    assert len(styles(page)) == 6


def test_a_heading_sorts_by_keyboard(show: Open) -> None:
    page = show([deep(lam=lam, mean=mean) for lam, mean in ((0, 2e-8), (1e-4, 1e-7), (1e-3, 3e-9))])
    heading = page.locator("#run-table thead th", has_text="margin/mean")
    place = heading.evaluate("(th) => [...th.parentNode.children].indexOf(th) + 1")
    column = page.locator(f"#run-table tbody td:nth-child({place})")
    heading.locator("button").focus()
    for order, wanted in (
        ("ascending", ["3e-9", "2e-8", "1e-7"]),
        ("descending", ["1e-7", "2e-8", "3e-9"]),
    ):
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == order
        assert column.all_inner_texts() == wanted
    assert page.locator("[aria-sort=descending], [aria-sort=ascending]").count() == 1


def test_the_x_axis_is_epochs_steps_or_eta_t_and_the_same_for_sgd_and_gd(show: Open) -> None:
    page = show([deep(batch=32), deep(batch="full")])
    ranges = (
        "() => [...document.querySelectorAll('#quantities .plot')].map((p) => p.layout.xaxis.range)"
    )
    for choice, sgd, gd in (("epoch", 10, 10), ("step", 80, 10), ("eta", 8, 1)):
        page.get_by_label("x axis").select_option(choice)
        panels = drawn(page, "quantities")
        assert [panel[0][1][-1] for panel in panels] == [sgd, gd]
        one, other = page.evaluate(ranges)
        assert one == other
        assert one[0] < 0 < max(sgd, gd) < one[1]
    page.get_by_label("x scale").select_option("log")
    assert drawn(page, "quantities")[0][0][1][0] is None  # zero has no logarithm
    buttons = page.locator("#quantities .modebar-btn").evaluate_all(
        "(all) => all.map((b) => b.dataset.title)"
    )
    assert {name.lower() for name in buttons} == {  # plotly 6.0 writes "png"
        "download plot as a png",
        "zoom",
        "pan",
        "zoom in",
        "zoom out",
        "reset axes",
    }


def look(page: Any) -> list[str]:
    """Colours of the page, of a curve and of a chart's text."""
    drawn(page, "margins")
    return page.evaluate(
        "() => [getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('#margins .plot').data[0].line.color,"
        " document.querySelector('#margins .plot').layout.font.color]"
    )


def test_colours_follow_the_system_and_the_button(show: Open) -> None:
    page = show([deep(lam=0.0), deep(lam=1e-3)], scheme="dark")
    dark = look(page)
    page.get_by_role("button", name="light colours").click()
    light = look(page)
    assert all(one != other for one, other in zip(dark, light, strict=True))
    assert light[0] == "rgb(255, 255, 255)"
    page.get_by_role("button", name="dark colours").click()
    assert look(page) == dark


def hostile_page(show: Open) -> Any:
    run = with_histograms(renamed(deep(), HOSTILE, HOSTILE), [HOSTILE])
    run.rows[f"velocity/{HOSTILE}"] = 1.0
    page = show([run, deep(lam=0)], verdicts=of_lines(verdict(HOSTILE)), command=HOSTILE)
    page.get_by_role("button", name="tick all in the table").click()
    draw_all(page)
    page.locator("#velocities .plot").first.hover()
    return page


def test_a_hostile_name_is_shown_and_does_nothing(show: Open) -> None:
    page = hostile_page(show)
    assert page.locator("img, #run-table b, .plot b").count() == 0
    assert page.locator("script").count() == 3
    assert page.dialogs == []
    assert page.said == []
    assert page.locator("#run-table tbody th").first.inner_text() == HOSTILE
    assert HOSTILE in page.locator("#velocities figcaption").all_inner_texts()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("data.js", "node.append(...children)", "node.innerHTML = children.join('')"),
        ("page.html", "<h1>", f"{HOSTILE}<h1>"),
    ],
)
def test_a_hostile_name_as_markup_would_be_seen_and_still_not_run(
    name: str, old: str, new: str, show: Open, changed: Callable[..., None]
) -> None:
    changed(name, old, new)
    run = renamed(deep(), HOSTILE)
    page = show([run])
    assert page.locator("img").count() > 0
    assert any("Content Security Policy" in line for line in page.said)
    assert page.dialogs == []


@pytest.mark.parametrize(
    ("runs", "empty"),
    [
        ([linear(batch=1), linear(batch="full")], {"margins", "ranks", "spectra", "velocities"}),
        ([deep()], {"linear"}),
        ([], {"margins", "quantities", "ranks", "spectra", "velocities", "linear"}),
    ],
)
def test_a_section_with_nothing_says_why(runs: list[Run], empty: set[str], show: Open) -> None:
    page = show(runs)
    assert {section for section, text in notes(page).items() if text} == empty
    assert page.said == []
    assert "No verdicts" in page.locator("#verdicts .note").inner_text()


def test_margins_of_other_units_have_panels_of_their_own_and_the_legend_says_the_dynamics(
    show: Open,
) -> None:
    runs = [network(), by_adam(network()), by_adam(network(batch="full")), ten_classes()]
    page = show(runs)
    page.evaluate("() => { RUNS.forEach((_, k) => state.ticked.add(k)); chosenChanged(); }")
    drawn(page, "margins")
    axes = page.evaluate(
        "() => [...document.querySelectorAll('#margins .plot')]"
        ".map((p) => [p.parentElement.dataset.title, p.layout.xaxis.title.text, p.data.length])"
    )
    scaled, raw = "normalized margin f̄", "raw margin (units of the outputs)"
    assert axes == [
        [f"SGD · DeepReLUClassifier · {scaled}", scaled, 1],
        [f"AdamW · DeepReLUClassifier · {scaled}", scaled, 1],
        [f"full-batch AdamW · DeepReLUClassifier · {scaled}", scaled, 1],
        [f"AdamW · TenClassMLP · {raw}", raw, 1],
    ]
    legend = page.locator("#legend .key").all_inner_texts()
    words = [" ".join(item.split()) for item in legend]
    assert [word for word in words if "=" not in word and "no " not in word] == [
        *("SGD", "□ AdamW", "◇ full-batch AdamW"),
    ]
    dashes = {name: dash for name, (_, dash) in styles(page).items()}
    assert dashes[runs[1].name] == "solid"
    assert dashes[runs[2].name] == "dash"
    alone = show([ten_classes()])
    draw_all(alone)
    seen = alone.locator("body").inner_text()
    assert raw in seen
    assert "normalized" not in seen.lower()
    assert "SGD" not in seen


def test_pictures_of_a_scan_are_on_the_page_and_ask_for_nothing(show: Open, tmp_path: Path) -> None:
    assert not show([deep()]).locator("#scans").is_visible()
    batches = [network(batch=b) for b in (16, 32)]
    figures = [f for f in draw(batches, tmp_path / "out", by=["batch_size"]) if f.key in SCANS]
    page = show(batches, scans=[f for f in figures if f.files])
    sizes = "(images) => images.map((image) => image.naturalWidth)"
    assert page.locator("#scans img").evaluate_all(sizes) == [1400, 1400]
    page.get_by_role("link", name="scans").click()
    captions = page.locator("#scans figcaption").all_inner_texts()
    assert [text.split(".")[0] for text in captions] == [
        "Scan: ranks and errors by batch_size",
        "Scan: noise by batch_size",
    ]
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
