"""The pages of results say what the recorded runs say, and nothing else."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from janus_pl.cli import subcommands as tools
from janus_pl.records.read import read
from janus_pl.records.run import Run
from janus_pl.report.figures.linear_settings import SETTINGS, pair_of

DOCS = ROOT / "docs"
RECORDED = DOCS / "results"
LOCKED = (ROOT / "requirements.lock").read_text().split()
SECTIONS = (
    *("Figure 1", "Figure 2a", "Figure 2b", "Figure 3", "Figure 4", "Figure 5a", "Figure 5b"),
    *(f"Figure A.{i}" for i in range(1, 8)),
    *("Theorem 1", "law over B", "Lemma 1", "default network"),
    *(f"Prediction {i}" for i in range(1, 6)),
)


@pytest.fixture(scope="module")
def results() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    import results

    yield results
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    found = read([RECORDED])
    assert not found.skipped
    return found.runs


@pytest.fixture(scope="module")
def page(results: ModuleType) -> str:
    return results.all_pages()


def of(package: str) -> Any:
    """Skip where a package is not the one that made what is committed."""
    found = version(package)
    return pytest.mark.skipif(
        f"{package}=={found}" not in LOCKED,
        reason=f"made with another {package}, whose last digits or pixels differ: {found} is here",
    )


@of("scipy")
def test_the_committed_verdicts_are_what_verify_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tools.main(["verify", str(RECORDED), "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    committed = json.loads((RECORDED / "verdicts.json").read_text(encoding="utf-8"))
    assert_close(printed, committed)
    # Control: a number that differs in its eleventh digit is another.
    claim = next(claim for claim in printed["claims"] if claim["settings"])
    claim["settings"][0]["effects"][0] *= 1 + 1e-11
    with pytest.raises(AssertionError, match=r"settings\[0\].effects\[0\]"):
        assert_close(printed, committed)


def assert_close(one: Any, other: Any, where: str = "") -> None:
    """All exactly, but numbers to twelve digits: without AVX-512 one differs in the sixteenth. A
    difference that is nothing but rounding has no digits, and is below 1e-15."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_close(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_close(*pair, f"{where}[{i}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-15), (where, one, other)
    else:
        assert one == other, where


def test_the_table_of_verdicts_is_that_of_the_committed_json(page: str) -> None:
    table = re.search(r"<!-- verdicts -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert table
    rows, _, left = table[1].strip().partition("\n\n")
    _, _, *lines = rows.splitlines()
    committed = json.loads((RECORDED / "verdicts.json").read_text(encoding="utf-8"))
    shown = [line for line in committed["lines"] if line["primary"]]
    assert len(lines) == len(shown) >= 10
    told = {}
    for claim in committed["claims"]:
        first = (claim["settings"] or [{"answer": None}])[0]
        ((kind, ends),) = claim["bound"].items()
        bound = f"{kind} {' to '.join(map(str, ends)) if isinstance(ends, list) else ends}"
        judged = bool(first["answer"])
        level = f"{1 - first['level']:.1%}" if judged else "-"
        told[claim["name"]] = (bound, level, f"{first['power']:.0%}" if judged else "-")
    for line, verdict in zip(lines, shown, strict=True):
        cells = [cell.replace("\\|", "|") for cell in re.split(r" (?<!\\)\| ", line.strip("| "))]
        star = "*" * verdict["retrospective"]
        numbers = told.get(verdict["name"], ("-", "-", "-"))
        answer = f"**{verdict['answer']}**{star}"
        assert cells == [answer, verdict["sentence"], *numbers, verdict["source"]]
    assert len({level for _, level, _ in told.values()} - {"-"}) > 3
    assert left.partition("\n\n")[0] == f"Left out of the claims: {committed['left_out']}."


def test_every_table_is_computed_from_the_recorded_runs(
    results: ModuleType, runs: list[Run], page: str
) -> None:
    tables = results.tables(runs)
    places = re.findall(r"<!-- (\w+) -->", page)
    captions = {place: caption_of(page, place) for place in places if place.startswith("caption_")}
    tables |= captions  # the next test compares these
    assert results.filled(page, tables) == page
    assert set(tables) == set(places) - {"end"}
    # Control: a number that is another in the records is another on the page.
    changed = next(run for run in runs if "two_cores_fig1" in run.config["tags"])
    rows = changed.rows.assign(**{"margin/std": 2 * changed.rows["margin/std"]})
    others = [replace(run, rows=rows) if run is changed else run for run in runs]
    assert results.results_tables.relative_spread(changed) * 2 == (
        results.results_tables.relative_spread(others[runs.index(changed)])
    )
    assert results.filled(page, results.tables(others) | captions) != page


def caption_of(page: str, place: str) -> str:
    """What stands in a place of a page."""
    return page.partition(f"<!-- {place} -->")[2].partition("<!-- end -->")[0].strip()


@of("matplotlib")
def test_every_figure_is_drawn_from_the_recorded_runs_and_shown(
    results: ModuleType, runs: list[Run], page: str, tmp_path: Path
) -> None:
    names = results.draw_all(runs, tmp_path)
    captions = results.captions_of(names)
    shown = re.findall(r"<!-- (caption_\w+) -->", page)
    assert len(shown) >= 15 and {*shown} <= {*captions}
    assert [caption_of(page, place) for place in shown] == [captions[place] for place in shown]
    assert captions["caption_fig1a"].startswith("*Margins f̄_n = y_n f_W(x_n)/rho of all training")
    assert {f"{name}.png" for name in names} == {path.name for path in RECORDED.glob("*.png")}
    for name in names:
        kept = RECORDED / f"{name}.png"
        assert kept.stat().st_size <= 150_000
        one, other = (
            np.asarray(Image.open(p).convert("RGB")) for p in (kept, tmp_path / kept.name)
        )
        assert one.shape == other.shape
        assert (one == other).all(), name
    assert set(re.findall(r"\((?:results/)?(\w+)\.png\)", page)) == set(names)


def test_every_sentence_with_a_number_is_what_the_records_say(
    results: ModuleType, runs: list[Run], page: str
) -> None:
    assert len(results.SENTENCES) >= 100
    assert results.check(page, runs, results.SENTENCES) == []
    assert results.unchecked(page, runs, results.SENTENCES) == []
    # Controls: another number in the records, another on the page, runs that are gone, and a number
    # that no sentence has.
    changed = [with_ranks(run, 0.8) if "whose_held" in run.config["tags"] else run for run in runs]
    (wrong,) = results.check(page, changed, results.results_said_short.SENTENCES)
    assert wrong.startswith("the records say: Where the norms of the v_k are held")
    planted = page.replace(
        "falls mostly in a few large steps, to 15 in", "falls in steps, to 25 in"
    )
    (wrong,) = results.check(planted, runs, results.SENTENCES)
    assert "falls mostly in a few large steps, to 15 in one seed" in wrong
    fewer = [run for run in runs if "two_cores_fig5a" not in run.config["tags"]]
    gone = results.check(page, fewer, results.results_said_figures.SENTENCES)
    assert all(wrong.startswith("cannot be computed (no runs of two_cores_fig5a") for wrong in gone)
    assert len(gone) >= 3
    planted = page.replace("is a description of these runs", "is a description of 17 runs")
    (left,) = results.unchecked(planted, runs, results.SENTENCES)
    assert "of 17 runs" in left


def test_a_linear_figure_is_of_the_runs_that_its_section_names(runs: list[Run]) -> None:
    for key, setting in SETTINGS.items():
        needed = ("SGD",) if key == "a5" else ("SGD", "GD")
        pair = pair_of(runs, setting, needed)
        tags = {run.config["tags"][0] for some in pair.runs.values() for run in some}
        assert tags == {f"linear-{key}"}, "and not the scan of batch sizes, which has more runs"


def with_ranks(run: Run, factor: float) -> Run:
    """Ranks that have fallen in the last row, and nowhere before."""
    rows = run.rows.copy()
    ranks = [key for key in rows if key.startswith("effective_rank/")]
    rows.loc[rows.index[-1], ranks] *= factor
    return replace(run, rows=rows)


WORDS = re.compile(
    r"\b(holds?|fail(s|ed)?|supported|contradicted|undecided|confirmed|refuted|proved)\b", re.I
)
ANSWERED = re.compile(r"`(\w+)` is (supported|contradicted|undecided|not testable)")


def contradictions(text: str, answers: dict[str, str]) -> list[str]:
    """Sentences that answer a claim in other words than verify.

    Text may say `NAME` is ANSWER, with the answer of verify; any other word that sounds like an
    answer is one that nobody compares.
    """
    found = [m[0] for m in ANSWERED.finditer(text) if answers.get(m[1]) != m[2]]
    return found + [m[0] for m in WORDS.finditer(ANSWERED.sub("", text))]


def answers() -> dict[str, str]:
    committed = json.loads((RECORDED / "verdicts.json").read_text(encoding="utf-8"))
    return {line["name"]: line["answer"] for line in committed["lines"]}


def without_tables(page: str) -> str:
    """The sentences of a page, without tables and figures' names."""
    tables = re.sub(r"<!-- \w+ -->.*?<!-- end -->", "", page, flags=re.DOTALL)
    return re.sub(r"```.*?```", "", tables, flags=re.DOTALL)


def test_no_sentence_answers_a_claim_in_other_words_than_verify(results: ModuleType) -> None:
    deep = [path for path in results.pages() if not path.name.startswith("linear")]
    assert len(deep) >= 19
    page = without_tables("\n".join(path.read_text(encoding="utf-8") for path in deep))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = readme.partition("## Does the paper hold?")[0]  # tests/test_pages.py has the rest
    for text in (page, readme):
        assert contradictions(text, answers()) == []
    # Controls: planted sentences are found.
    for planted in ("Prediction 1 holds.", "`spread` is supported", "`spredd` is not testable"):
        assert contradictions(f"{planted} {page}", answers()) != []
    assert contradictions("`spread` is not testable", {"spread": "not testable"}) == []


def test_what_the_readme_says_of_gd_is_of_the_records(results: ModuleType, runs: list[Run]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = results.results_said_short.README
    assert results.check(readme, runs, said) == []
    # Control: another number is found.
    assert len(results.check(readme.replace("is 1.0 times", "is 2.0 times"), runs, said)) == 1


def test_every_claim_has_its_section(page: str) -> None:
    titles = "\n".join(line for line in page.splitlines() if line.startswith("#"))
    assert [name for name in SECTIONS if name not in titles] == []
    for part in ("**Claim.**", "**Command.**", "**Seen.**"):
        assert page.count(part) >= 15, part
    assert page.count("**Verdict.**") >= 9


def test_each_page_says_what_it_is_of_and_is_reached_from_the_first(
    results: ModuleType, runs: list[Run]
) -> None:
    first, *others = results.pages()
    reached = re.findall(r"\(results/([\w-]+)\.md\)", first.read_text(encoding="utf-8"))
    assert {path.stem for path in others} == {*reached}
    told = {path.stem: path.read_text(encoding="utf-8") for path in others}
    lists = ("predictions", "the-papers-figures")  # of what other pages are of
    for name in told.keys() - {*lists}:
        for part in ("# ", "**Claim.**", "**Command.**"):
            assert part in told[name], (name, part)
        assert "**Seen.**" in told[name] or "**Verdict.**" in told[name] or name == "spikes", name
    assert {*results.results_scale.SWEEPS} == told.keys() - {*lists, "spikes"}
    assert "(spikes.md)" in told["figure-1"]
    # Control: a page of other runs has another line.
    lines = results.results_scale.lines([run for run in runs if run.description.seed == 0])
    assert "seed 0, 1, 2; 18 runs" in told["figure-1"]
    assert "seed 0; 10 runs" in lines["scale_figure_1"]
    # A run of so many steps has no number of epochs.
    assert "; epochs 200; rate" in told["figure-1"] and "steps" not in lines["scale_figure_1"]
    assert (
        "; steps 2,016, 4,032, 8,064, 16,128" in lines["scale_dose"]
        and "epochs" not in lines["scale_dose"]
    )


def test_runs_of_other_claims_than_those_that_judge_them_fail_the_build(
    results: ModuleType, runs: list[Run]
) -> None:
    mismatches = results.results_scale.mismatches
    assert mismatches(runs) == []
    run = next(run for run in runs if "scale" in run.config["tags"])
    assert {"paper.yaml", "scale.yaml"} <= {*run.description.claims}
    (wrong,) = mismatches([with_claims(run, {**run.description.claims, "paper.yaml": "0" * 64})])
    assert wrong == f"{run.name} ({run.id}) was begun under another paper.yaml"
    (wrong,) = mismatches([with_claims(run, {})])
    assert wrong == f"{run.name} ({run.id}) does not know scale.yaml"
    line = results.results_scale.line
    assert "; 1 run. The claims were written down before them. Symbols" in line([run])
    (older, *_) = (run for run in runs if "two_cores_fig1" in run.config["tags"])
    told = "Retrospective: {} older than `configs/claims/paper.yaml`."
    assert f"; 2 runs. {told.format('1 of them are')}" in line([run, older])
    assert f"; 1 run. {told.format('it is')}" in line([older])


def with_claims(run: Run, claims: dict[str, str]) -> Run:
    """The run as it would be if it had begun with these claims files."""
    described = {**run.config["description"], "claims": claims}
    return replace(run, config={**run.config, "description": described})


def test_a_run_that_is_recorded_again_is_there_once_and_none_is_lost(
    results: ModuleType, runs: list[Run], tmp_path: Path
) -> None:
    for path in RECORDED.glob("linear-a*.xz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) >= 7
    results.record([str(RECORDED / "linear-a1.jsonl.xz")], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "linear-a1.jsonl.xz").unlink()
    results.record([str(RECORDED / "linear-a1.jsonl.xz")], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_takes_its_own_place_alone(results: ModuleType) -> None:
    page = "a\n<!-- one -->\n<!-- end -->\nb\n<!-- two -->\n\nold\n\n<!-- end -->\nc\n"
    expected = "a\n<!-- one -->\n\n1\n\n<!-- end -->\nb\n<!-- two -->\n\n2\n\n<!-- end -->\nc\n"
    for _ in range(2):
        page = results.filled(page, {"one": "1", "two": "2"})
        assert page == expected


def test_a_run_of_a_folder_keeps_some_looks(results: ModuleType) -> None:
    def item(place: int) -> dict[str, Any]:
        found: dict[str, Any] = {"epoch": place, "rho": 1.0}
        if place % 2 == 0:
            found |= {"margin/hist._type": "histogram", "margin/hist.values": [1]}
        return found

    (part, *_) = results.read_archive(results.RECORDED / f"linear-a1{results.SUFFIX}")
    long = part._replace(
        path=Path("runs/a/rows.jsonl"),
        items=[item(k) for k in range(41)],
        spectra=[{"epoch": k} for k in range(39)],
    )
    few = results.thinned(long)
    with_histograms = [i["epoch"] for i in few.items if "margin/hist._type" in i]
    assert with_histograms == [0, 10, 20, 30, 40]
    assert [i["rho"] for i in few.items] == [1.0] * 41
    assert [len(i) for i in few.items if i["epoch"] not in with_histograms] == [2] * 36
    assert [look["epoch"] for look in few.spectra] == [2 * k for k in range(20)]
    assert results.thinned(few) == few
