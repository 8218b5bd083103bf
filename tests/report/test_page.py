"""The page without a browser: what is in it, how large it is, and that text stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.pages import (
    HOSTILE,
    data,
    data_of,
    deep,
    linear,
    long_run,
    of_lines,
    renamed,
    series_of,
    several,
    verdict,
    with_histograms,
)
from report.synthetic import bounded_run, deep_run

from janus_pl.errors import StorageError
from janus_pl.records.run import Histogram
from janus_pl.report.page import document, write
from janus_pl.report.page.numbers import inline_json, thinned
from janus_pl.report.page.series import histograms, limits

MEGA = 1e6


class Elements(HTMLParser):
    """Every start tag with its attributes, and the scripts' texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.mark.soak
def test_twenty_long_runs_are_below_ten_megabytes_and_200_still_open(tmp_path: Path) -> None:
    runs = [long_run(seed) for seed in range(20)]
    page = write(runs, tmp_path / "20.html")
    assert page.stat().st_size < 10 * MEGA
    # Nothing but the thinning keeps it there.
    whole = json.dumps([run.rows.to_dict("list") for run in runs])
    assert len(whole) > 10 * MEGA
    many = write(
        [renamed(long_run(k, epochs=60), f"{k}") for k in range(200)], tmp_path / "200.html"
    )
    assert many.stat().st_size < 20 * MEGA
    assert len(data_of(many)["runs"]) == 200


def test_equal_runs_give_equal_bytes_and_folders_are_made(tmp_path: Path) -> None:
    options = {"verdicts": of_lines(verdict()), "command": "report x"}
    one = write(several(), tmp_path / "a" / "b" / "index.html", **options)
    two = write(several(), tmp_path / "two.html", **options)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != write(several()[1:], tmp_path / "two.html", **options).read_bytes()


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write([deep()], tmp_path / "file" / "index.html")


@given(count=st.integers(1, 5000), most=st.integers(2, 500))
def test_thinning_keeps_both_ends_and_the_order(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= most or len(kept) == count <= most
    assert (np.diff(kept) > 0).all()


def test_curves_keep_first_and_last_and_every_value_is_the_recorded_one_rounded(
    tmp_path: Path,
) -> None:
    run = long_run(3, epochs=2000)
    (shown,) = data([run], tmp_path)["runs"]
    for key in ("velocity/conv2", "number7", "stable_rank/fc2"):
        axes, values = series_of(shown, key)
        assert 200 < len(values) <= 400
        assert axes["epoch"][0] == 0
        assert axes["epoch"][-1] == 2000
        recorded = run.rows[key].to_numpy()[np.array(axes["epoch"])]
        assert values == [float(f"{value:.6g}") for value in recorded]
        assert axes["step"] == [8 * epoch for epoch in axes["epoch"]]
        assert axes["eta"] == pytest.approx([0.8 * epoch for epoch in axes["epoch"]], rel=1e-5)


def test_a_number_that_is_missing_or_not_finite_is_no_point_and_no_token(tmp_path: Path) -> None:
    run = deep()
    rows = run.rows.assign(odd=[1, math.nan, math.inf, -math.inf, *[2.0] * 7], none=math.nan)
    rows = rows.drop(columns=["eta_t"])
    (shown,) = data([replace(run, rows=rows)], tmp_path)["runs"]
    axes, values = series_of(shown, "odd")
    assert axes == {"epoch": [0, *range(4, 11)], "step": [0, *range(32, 88, 8)]}
    assert values == [1, *[2] * 7]
    assert not [group for group in shown["series"] if "none" in group["y"]]
    with pytest.raises(ValueError, match="not JSON compliant"):
        inline_json([math.nan])


def test_histograms_come_back_as_they_were_recorded() -> None:
    narrow = np.linspace(8.26e-8, 8.26e-8 * (1 + 2e-4), 65)
    uneven = np.array([0.0, 1.0, 3.0, 9.0])
    counts = np.zeros(64)
    counts[[5, 9]] = 2, 7
    run = replace(
        deep(),
        histograms={
            "margin/hist": [Histogram(e, counts, narrow) for e in range(100)],
            "spectrum/any": [
                Histogram(1, np.array([1, 0, 2]), uneven),
                Histogram(2, np.zeros(3), uneven),
            ],
            "other/hist": [Histogram(1, counts, narrow)],
        },
    )
    broken = [Histogram(0, counts, narrow * np.nan), Histogram(0, counts, narrow[1:])]
    run = replace(
        run,
        histograms={
            **run.histograms,
            "margin/hist": [*broken, *run.histograms["margin/hist"]],
        },
    )
    found = histograms(run, limits(1).epochs)
    assert set(found) == {"margin/hist", "spectrum/any"}
    margins = found["margin/hist"]
    assert len(margins) <= 60
    assert [margins[0][0], margins[-1][0]] == [0, 99]
    _, edges, bins, first, filled = margins[0]
    assert (bins, first, filled) == (64, 5, [2, 0, 0, 0, 7])
    width = narrow[1] - narrow[0]
    assert np.abs(np.linspace(edges[0], edges[1], bins + 1) - narrow).max() < 1e-3 * width
    assert found["spectrum/any"] == [
        [1, [0, 1, 3, 9], 3, 0, [1, 0, 2]],
        [2, [0, 1, 3, 9], 3, 0, []],
    ]


def test_text_of_records_stays_text(tmp_path: Path) -> None:
    run = with_histograms(renamed(deep(), HOSTILE, HOSTILE), [HOSTILE])
    rows = run.rows.assign(**{f"velocity/{HOSTILE}": 1.0})
    page = write(
        [replace(run, rows=rows)], tmp_path / "page.html", of_lines(verdict(HOSTILE)), HOSTILE
    )
    own = [tag for tag, _ in Elements(page.read_text()).tags]
    plain = [tag for tag, _ in Elements(write([deep()], tmp_path / "plain.html").read_text()).tags]
    assert own == plain
    assert own.count("script") == 3
    found = data_of(page)
    assert (
        found["runs"][0]["name"] == found["command"] == found["verdicts"][0]["sentence"] == HOSTILE
    )
    # What the page would be without the escape.
    text = page.read_text().replace("\\u003c", "<")
    assert "img" in [tag for tag, _ in Elements(text).tags]


def test_nothing_is_loaded_and_only_the_pages_own_scripts_may_run(tmp_path: Path) -> None:
    found = Elements(write(several(), tmp_path / "page.html").read_text())
    loads = [
        value
        for _, attributes in found.tags
        for name in ("src", "href")
        if (value := attributes.get(name))
    ]
    assert loads
    assert all(value.startswith("#") or value == "data:," for value in loads)
    style = files("janus_pl.report.page").joinpath("static", "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [
        a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")
    for script in found.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "http" not in policy


def test_every_file_beside_the_code_is_in_the_page() -> None:
    names = {file.name for file in files("janus_pl.report.page").joinpath("static").iterdir()}
    assert names == {*document.SCRIPTS, "page.html", "page.css"}


def test_the_table_has_what_some_run_has(tmp_path: Path) -> None:
    both = data(several(), tmp_path)
    labels = [column["label"] for column in both["columns"]]
    assert labels[:2] == ["family", "model"]
    assert {
        "λ",
        "B",
        "margin/mean",
        "std/mean",
        "eff. rank conv1",
        "null/norm",
        "sigma_min",
    } <= set(labels)
    values = dict(zip(labels, both["runs"][0]["cells"], strict=True))
    assert values["margin/mean"] == 1e-8
    assert values["std/mean"] == 1e7
    assert (values["B"], values["λ"], values["epochs"], values["steps"]) == (32, 0, 10, 80)
    assert values["end"] == "done"
    assert values["null/norm"] is None
    alone = [column["label"] for column in data([deep()], tmp_path)["columns"]]
    assert "null/norm" not in alone
    cut = data([replace(deep(), exit_code=None)], tmp_path)
    assert "unfinished" in cut["runs"][0]["cells"]


def test_at_first_one_seed_of_the_largest_set_that_compares_is_ticked(tmp_path: Path) -> None:
    runs = [*several(), deep(loss="logistic")]
    found = data(runs, tmp_path)
    ticked = [runs[k].name for k in found["chosen"]]
    assert len(ticked) == 3 * 2 + 2
    assert all("seed0" in name for name in ticked)
    assert not any("logistic" in name for name in ticked)
    many = [deep(lam=k * 1e-4) for k in range(200)]
    assert len(data(many, tmp_path)["chosen"]) == 12


def test_of_many_lambdas_those_ticked_are_spread_and_have_sgd_and_gd(tmp_path: Path) -> None:
    runs = [deep(batch=batch, lam=k * 1e-3) for batch in ("full", 32) for k in range(10)]
    found = data(runs, tmp_path)
    ticked = [runs[k].options for k in found["chosen"]]
    lambdas = {
        batch: [o["model.weight_decay"] for o in ticked if o["data.batch_size"] == batch]
        for batch in ("full", 32)
    }
    assert lambdas["full"] == lambdas[32] == [k * 1e-3 for k in (0, 2, 4, 5, 7, 9)]


def test_layers_and_ranks_are_those_of_the_records(tmp_path: Path) -> None:
    run = deep()
    rows = run.rows[["epoch", "trainer/global_step"]].assign(
        **{
            "velocity/block_10": 1.0,
            "velocity/block_2": 2.0,
            "rank_relative_1e-02/block_2": 3.0,
            "rank_absolute_odd/block_2": 1,
        }
    )
    found = data([replace(run, rows=rows, histograms={})], tmp_path)
    assert found["layers"] == {"DeepReLUClassifier": ["block_2", "block_10"]}
    assert [entry["label"] for entry in found["ranks"]] == [
        "rank_absolute_odd",
        "rank, σᵢ > 0.01 σ₁",
    ]
    assert found["quantities"] == []


@pytest.mark.parametrize("runs", [[], [deep()], [linear()], [bounded_run()], [deep_run(epochs=0)]])
def test_a_page_of_few_or_strange_runs_is_written(runs: list, tmp_path: Path) -> None:
    found = data(runs, tmp_path)
    assert len(found["runs"]) == len(runs)
    assert found["chosen"] == list(range(len(runs)))


def test_the_page_has_the_lines_of_verify(tmp_path: Path) -> None:
    given = of_lines(verdict(), verdict("no", "contradicted"))
    found = data([deep()], tmp_path, verdicts=given)
    assert found["verdicts"] == given["lines"]
    assert found["left_out"] == "1 not trained"
    assert data([deep()], tmp_path)["verdicts"] == []
