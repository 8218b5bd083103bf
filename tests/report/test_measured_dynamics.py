"""Figures and the page say the dynamics, the margins and the layers as they were measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.drawn import Picture, pictures
from report.generic import TEN_LAYERS, by_adam, measured, network, ten_classes
from report.pages import data_of

from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.report.page import write
from janus_pl.verify.claims import read_claims
from janus_pl.verify.judge import judge
from janus_pl.verify.lines import to_json

LAMBDAS = (0.0, 1e-4, 1e-3)
NOISY = ("fig1a", "fig1b", "fig3", "fig4a", "fig4b", "fig5a", "fig5b")
DEEP = (*NOISY, "fig2a", "fig2b")


def runs_of(batch: int | str = 32, loss: str = "square") -> list[Run]:
    return [network(lam, batch, seed, loss) for lam in LAMBDAS for seed in (0, 1)]


def renamed(run: Run, prefix: str, **facts: Any) -> Run:
    made = measured(run, **facts)
    return replace(made, name=f"{prefix}-{run.name}", id=f"{prefix}-{run.id}")


def texts(found: Picture, but: Sequence[str] = ()) -> str:
    """All that a figure says: titles, labels, legends, the CSV and the caption."""
    panels = [
        text
        for panel in found.panels
        for text in (panel.title, panel.xlabel, panel.ylabel, *panel.texts)
    ]
    legend = [entry.label for entry in found.legend]
    table = [f"{key} {value}" for row in found.rows for key, value in row.items()]
    caption = "\n".join(line for line in found.caption.split("\n") if not line.startswith(but))
    return "\n".join([found.title, *panels, *legend, *table, caption])


ADAM = [by_adam(run) for run in [*runs_of(), *runs_of(loss="cross_entropy")]]


@pytest.fixture(scope="module")
def under_adam(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    return pictures(ADAM, tmp_path_factory.mktemp("adam"), DEEP)


@pytest.mark.parametrize("key", NOISY)
def test_without_sgd_the_figures_are_of_the_optimizer_there_is(
    key: str, under_adam: dict[str, Picture], tmp_path: Path
) -> None:
    found = under_adam[key]
    assert found.missing is None
    said = texts(found)
    assert "SGD" not in said
    assert "sgd" not in said
    assert {row["dynamics"] for row in found.rows} == {"AdamW"}
    assert "Runs: AdamW, B = 32, lambda = " in found.caption
    titles = " ".join([found.title, *(panel.title for panel in found.panels)])
    assert ("AdamW" in titles) == (key != "fig1b" and key != "fig4b")
    # Control: the same runs by SGD say SGD, with the same numbers.
    sgd = [*runs_of(), *runs_of(loss="cross_entropy")]
    other = pictures(sgd, tmp_path, [key])[key]
    assert "AdamW" not in texts(other)
    assert {row["dynamics"] for row in other.rows} == {"SGD"}
    assert [row["value"] for row in other.rows] == [row["value"] for row in found.rows]


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("fig1a", "Figure 1a: margins under AdamW by lambda. "),
        ("fig1b", "Figure 1b: margins under AdamW at small lambda, and their spread. "),
        ("fig3", "Figure 3: AdamW noise by layer over time. "),
        ("fig4a", "Figure 4a: AdamW noise by layer at the end. "),
        ("fig5a", "Figure 5a: margins under cross entropy. "),
    ],
)
def test_captions_begin_with_the_title_of_the_measured_dynamics(
    key: str, title: str, under_adam: dict[str, Picture]
) -> None:
    assert under_adam[key].caption.startswith(title)


def test_titles_of_panels_name_it_too(under_adam: dict[str, Picture]) -> None:
    title = "Margins under AdamW, B = 32, {}"
    assert under_adam["fig1a"].panels[0].title == title.format("square loss")
    assert under_adam["fig5a"].panels[0].title == title.format("cross entropy")
    assert under_adam["fig5b"].panels[0].title == title.format("square loss")
    assert under_adam["fig3"].title == "AdamW noise by layer, B = 32, square loss"
    assert under_adam["fig4a"].panels[0].title == "AdamW noise at the end, B = 32, square loss"


def test_full_batch_adam_is_not_gd(tmp_path: Path) -> None:
    full = [by_adam(run) for run in runs_of("full")]
    assert {run.dynamics for run in full} == {"full-batch AdamW"}
    found = pictures(full, tmp_path / "alone", DEEP)
    assert {one.missing is None for one in found.values()} == {False}
    assert found["fig2a"].missing == found["fig2b"].missing == "no GD run with model.loss: square"
    # Beside GD they are named and left out; the numbers are those of GD alone.
    gd = runs_of("full")
    both = pictures([*full, *gd], tmp_path / "both", ["fig2a", "fig2b"])
    alone = pictures(gd, tmp_path / "gd", ["fig2a", "fig2b"])
    for key, one in both.items():
        assert one.rows == alone[key].rows
        assert {row["dynamics"] for row in one.rows} == {"GD"}
        names = ", ".join(sorted(run.name for run in full)[:3])
        assert f"Left out, since trained by full-batch AdamW: {names} and 3 more." in one.caption


@pytest.mark.parametrize("key", NOISY)
def test_beside_sgd_others_are_named_and_left_out(key: str, tmp_path: Path) -> None:
    sgd = [*runs_of(), *runs_of(loss="cross_entropy")]
    found = pictures([*ADAM, *sgd], tmp_path / "both", [key])[key]
    alone = pictures(sgd, tmp_path / "alone", [key])[key]
    assert found.rows == alone.rows
    assert "Left out, since trained by AdamW: adamw-B32-lam" in found.caption
    assert "AdamW" not in texts(found, but=("Left out, since trained by",))
    assert "Left out" not in alone.caption


def test_of_several_optimizers_the_one_with_most_runs_is_drawn(tmp_path: Path) -> None:
    adam = [by_adam(run) for run in runs_of()]
    few = [renamed(run, "rms", optimizer="RMSprop") for run in runs_of()[:2]]
    found = pictures([*few, *adam], tmp_path / "most", ["fig3"])["fig3"]
    assert {row["dynamics"] for row in found.rows} == {"AdamW"}
    assert f"since trained by RMSprop: {few[0].name}, {few[1].name}." in found.caption
    equal = pictures([*few, *adam[:2]], tmp_path / "equal", ["fig3"])["fig3"]
    assert {row["dynamics"] for row in equal.rows} == {"AdamW"}, "of equal ones the first by name"


def test_other_dynamics_have_a_colour_and_a_line_of_their_own() -> None:
    looks = {name: style.look(name) for name in ("SGD", "GD", "AdamW", "full-batch AdamW")}
    assert len({look["color"] for look in looks.values()}) == 3
    assert looks["SGD"] == style.DYNAMICS["SGD"]
    assert looks["GD"] == style.DYNAMICS["GD"]
    assert looks["AdamW"]["linestyle"] == looks["SGD"]["linestyle"]
    assert looks["full-batch AdamW"]["linestyle"] == looks["GD"]["linestyle"]


# Somebody else's module


def test_figures_of_the_paper_s_network_are_not_of_a_module(tmp_path: Path) -> None:
    theirs = [ten_classes(lam, seed) for lam in LAMBDAS for seed in (0, 1)]
    theirs += [ten_classes(lam, optimizer="SGD", seed=7) for lam in LAMBDAS]
    found = pictures(theirs, tmp_path)
    assert {key for key, one in found.items() if one.missing is None} == set()
    assert found["fig1a"].missing == "no SGD run with model.loss: square"


def test_raw_margins_are_called_raw_and_never_normalized(tmp_path: Path) -> None:
    theirs = [ten_classes(lam) for lam in LAMBDAS]
    file = write(theirs, tmp_path / "p.html", to_json(judge(read_claims(), theirs)))
    found = data_of(file)
    assert "normalized" not in json.dumps(found).lower()
    heads = {column["label"]: column["title"] for column in found["columns"]}
    assert heads["margin_raw/mean"] == "mean of the raw margins (units of the outputs), last row"
    assert heads["margin_raw/std"].startswith("standard deviation of the raw margins (units of the")
    assert "margin/mean" not in heads
    values = dict(zip(heads, found["runs"][0]["cells"], strict=True))
    last = theirs[0].rows.iloc[-1]
    assert values["margin_raw/mean"] == float(f"{last['margin_raw/mean']:.6g}")
    spread = last["margin_raw/std"] / abs(last["margin_raw/mean"])
    assert values["std/mean"] == float(f"{spread:.6g}")
    for run in found["runs"]:
        assert run["margins"] == {
            "key": "margin_raw/hist",
            "axis": "raw margin (units of the outputs)",
        }
        assert "margin_raw/hist" in run["histograms"]
    assert {"margin_raw/mean", "margin_raw/std", "margin_raw/std over mean"} <= set(
        found["quantities"]
    )
    # Control: those of the paper's network are.
    (ours,) = data_of(write([network()], tmp_path / "q.html"))["runs"]
    assert ours["margins"] == {"key": "margin/hist", "axis": "normalized margin f̄"}


def test_margins_of_an_old_record_of_theirs_have_no_name_of_a_scale(tmp_path: Path) -> None:
    old = network(task="somebody.TenClassMLP")
    found = data_of(write([old, network(seed=1)], tmp_path / "p.html"))
    assert [run["margins"]["axis"] for run in found["runs"]] == [
        "margin (units not recorded)",
        "normalized margin f̄",
    ]
    heads = {column["label"]: column["title"] for column in found["columns"]}
    assert heads["margin/mean"] == "mean μ of the margins, in the units of each run, last row"
    alone = data_of(write([network()], tmp_path / "q.html"))
    heads = {column["label"]: column["title"] for column in alone["columns"]}
    assert heads["margin/mean"] == "mean μ of the normalized margins, last row"


# The page


def test_the_page_says_what_each_run_was(tmp_path: Path) -> None:
    runs = [
        *(network(), network(batch="full"), by_adam(network()), by_adam(network(batch="full"))),
        *(ten_classes(), network(task="somebody.Old")),
    ]
    found = data_of(write(runs, tmp_path / "p.html"))
    dynamics = ["SGD", "GD", "AdamW", "full-batch AdamW", "AdamW", "unknown"]
    assert [run["facets"]["dynamics"] for run in found["runs"]] == dynamics
    assert [run["whole"] for run in found["runs"]] == [False, True, False, True, False, False]
    assert [run["facets"]["B"] for run in found["runs"]] == [32, "full", 32, "full", 32, None]
    assert found["dynamics"] == ["SGD", "AdamW", "unknown", "GD", "full-batch AdamW"]
    theirs = found["runs"][4]["facets"]
    assert (theirs["λ"], theirs["loss"], theirs["model"]) == (None, None, "TenClassMLP")
    ours = found["runs"][2]["facets"]
    assert (ours["λ"], ours["loss"], ours["model"]) == (1e-3, "square", "DeepReLUClassifier")


def test_layers_of_the_page_are_in_the_order_of_the_forward_pass(tmp_path: Path) -> None:
    found = data_of(write([ten_classes()], tmp_path / "p.html"))
    assert found["layers"] == {"TenClassMLP": list(TEN_LAYERS)}
    ranks = [c["label"] for c in found["columns"] if c["label"].startswith("eff. rank")]
    assert ranks == [f"eff. rank {layer}" for layer in TEN_LAYERS[:8]]
    # Control: an old record has them by name.
    old = network(layers=TEN_LAYERS, task="somebody.TenClassMLP")
    by_name = data_of(write([old], tmp_path / "q.html"))["layers"]["TenClassMLP"]
    assert (by_name[0], by_name[-1]) == ("head", "stem")


def test_so_are_the_panels_of_the_figures(tmp_path: Path) -> None:
    names = ("stem", "net_10", "net_2", "head")
    made = [measured(network(lam, layers=names), layers=names) for lam in LAMBDAS]
    found = pictures(made, tmp_path, ["fig3", "fig4a", "fig4b"])
    assert [panel.title for panel in found["fig3"].panels] == list(names)
    assert list(found["fig4a"].panels[0].ticks.values()) == list(names)
    assert [panel.title for panel in found["fig4b"].panels[2:]] == list(names)
