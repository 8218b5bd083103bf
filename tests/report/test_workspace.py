"""The workspace and the report of W&B's UI, as JSON: which runs each panel selects and averages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

from janus_pl.cli import subcommands as tools
from janus_pl.deep.losses import LOSSES
from janus_pl.report.figures import FIGURES
from janus_pl.report.workspace import GROUPED, MOST_RUNS, Views, as_json
from janus_pl.run.columns import COLUMNS, described
from janus_pl.run.compared import COMPARED, OF_LAYERS
from janus_pl.run.description import Description

SGD = Description(
    *("janus_pl.DeepReLUClassifier", "network", "normalized", "SGD", False, ()),
    **{"batch_size": 8, "num_train": 64, "eta": 0.1, "loss": "square", "data": {"pool": "ab"}},
    normalization="weight_norm",
)
LAMBDAS, NETWORKS, SEEDS = (0.0, 0.001, 0.01), (None, "MLP"), (0, 1)


def run(job: str = "train", description: Description | None = SGD) -> dict[str, Any]:
    """A run as W&B's server has it: attributes of the run, and the config with its envelopes."""
    config = {} if description is None else described(description, {})
    return {"jobType": job, "config": {key: {"value": value} for key, value in config.items()}}


def mixed() -> dict[str, dict[str, Any]]:
    """SGD and GD at three lambdas, two networks and two seeds; another optimizer, and figures."""
    made = {}
    for whole, lam, network, seed in product((False, True), LAMBDAS, NETWORKS, SEEDS):
        facts = {"whole": whole, "weight_decay": lam, "seed": seed, "network": network}
        kind = {"kind": "classifier", "loss": "cross_entropy"} if network else {}
        name = f"{'gd' if whole else 'sgd'} {lam:g} {network or 'paper'} {seed}"
        made[name] = run(description=replace(SGD, **facts, **kind, batch_size=64 if whole else 8))
    made["adam"] = run(description=replace(SGD, optimizer="AdamW", weight_decay=0.001, seed=0))
    return {**made, "figures": run("report", None), "foreign": run("train", None)}


RUNS = mixed()


def value_of(run: Mapping[str, Any], key: Mapping[str, str]) -> Any:
    """The value behind a key of W&B's UI; None if the run has none."""
    if key["section"] == "run":
        return run[key["name"]]
    assert key["section"] == "config"
    held: Any = run["config"]
    for name in key["name"].split("."):
        held = held.get(name) if isinstance(held, dict) else None
    return held


def passes(run: Mapping[str, Any], items: list[dict[str, Any]]) -> bool:
    """Evaluate filters: AND binds before OR; an item may be a group of items."""
    either: list[list[bool]] = []
    for item in items:
        if "filters" in item:
            found = passes(run, item["filters"])
        else:
            inside = value_of(run, item["key"]) in item["value"]
            found = inside if item["op"] == "IN" else not inside
            assert item["op"] in ("IN", "NIN") and not item["disabled"]
        if item.get("connector") == "OR" or not either:
            either.append([])
        either[-1].append(found)
    return any(map(all, either)) if either else True


def lines_of(run_set: Mapping[str, Any]) -> list[set[str]]:
    """The runs of each line of a run set: those that it selects, grouped."""
    assert run_set["filters"]["filterFormat"] == "filterV2"
    assert run_set["selections"] == {"root": 1, "bounds": [], "tree": []}, "none is hidden"
    lines: dict[str, set[str]] = {}
    for name, each in RUNS.items():
        if passes(each, run_set["filters"]["filters"]):
            key = json.dumps([value_of(each, level) for level in run_set["grouping"]])
            lines.setdefault(key, set()).add(name)
    return list(lines.values())


def seeds_of(*dynamics: str) -> list[set[str]]:
    """The lines that are to be drawn: the two seeds of each experiment."""
    experiments = product(dynamics, LAMBDAS, NETWORKS)
    return [{f"{d} {lam:g} {n or 'paper'} {s}" for s in SEEDS} for d, lam, n in experiments]


def same(found: list[set[str]], expected: list[set[str]]) -> bool:
    return sorted(map(sorted, found)) == sorted(map(sorted, expected))


def built(**fixed: str) -> Any:
    view = Views(workspaces, panels, fixed).workspace("e", "p", "n")
    return as_json(view)["spec"]["section"]


def grids(**fixed: str) -> Iterator[Any]:
    report = as_json(Views(workspaces, panels, fixed).report("", "p", "n", []))
    for block in report["spec"]["blocks"]:
        if block["type"] == "panel-grid":
            yield block["metadata"]


def panels_of(section: Any) -> list[dict[str, Any]]:
    return [p for each in section["panelBankConfig"]["sections"] for p in each["panels"]]


# Which runs


def test_a_line_of_the_workspace_is_the_seeds_of_one_experiment() -> None:
    section = built()
    (run_set,) = section["runSets"]
    alone = [{"adam"}, {"figures", "foreign"}]
    assert same(lines_of(run_set), [*seeds_of("sgd", "gd"), *alone])
    assert section["settings"]["useRunsTableGroupingInPanels"]
    grouped = {p["config"].get("groupBy") for p in panels_of(section)}
    assert grouped == {None}, "no panel has groups of its own"


def test_grouped_by_lambda_alone_sgd_and_gd_would_be_one_line() -> None:
    """The negative control: the evaluator sees what was wrong before."""
    run_set = dict(built()["runSets"][0])
    run_set["grouping"] = [{"section": "config", "name": "lambda.value"}]
    assert any({"sgd 0.01 paper 0", "gd 0.01 paper 0", "sgd 0.01 MLP 0"} <= line
               for line in lines_of(run_set))  # fmt: skip


def test_in_the_report_sgd_and_gd_are_run_sets_of_their_own() -> None:
    first, *others = grids()
    (figures,) = first["runSets"]
    assert lines_of(figures) == [{"figures"}]
    assert len(others) == 7
    for grid in others:
        sets = {each["name"]: lines_of(each) for each in grid["runSets"]}
        assert [*sets] == ["SGD", "GD", "Other dynamics"]
        assert same(sets["SGD"], seeds_of("sgd")) and same(sets["GD"], seeds_of("gd"))
        assert same(sets["Other dynamics"], [{"adam"}, {"foreign"}])
        assert all(each["project"] is None for each in grid["runSets"]), "that of the report"


def test_a_loss_and_a_normalization_can_be_fixed() -> None:
    (run_set,) = built(loss="square", normalization="weight_norm")["runSets"]
    paper = [line for line in seeds_of("sgd", "gd") if "paper" in min(line)]
    assert same(lines_of(run_set), [*paper, {"adam"}, {"figures"}])
    names = [level["name"] for level in run_set["grouping"]]
    assert "loss.value" not in names and "dynamics.value" in names
    for grid in [*grids(loss="square")][1:]:
        sgd, *_ = grid["runSets"]
        assert same(lines_of(sgd), [line for line in paper if min(line).startswith("sgd")])


def test_the_groups_are_the_columns_but_the_seed_and_the_code() -> None:
    assert {*GROUPED} == {*COLUMNS} - {"seed", "code"} and len({*GROUPED}) == len(GROUPED)


# Which quantities


def test_the_sections_are_the_papers_figures() -> None:
    section = built()
    titles = [each["name"] for each in section["panelBankConfig"]["sections"]]
    for figure in ("Figs. 1, 2, 5", "Figs. 3, 4a", "Fig. 4b", "Figs. A.1 to A.7"):
        assert any(figure in title for title in titles)
    found = panels_of(section)
    plotted = {key for panel in found for key in panel["config"].get("metrics") or []}
    assert plotted >= {
        *("margin/mean", "margin/std", "margin/hist", "rho", "train/loss", "val/error"),
        *("margin_raw/mean", "null/norm", "null/predicted", "sigma_min", "gradient_norm"),
    }
    axes = {panel["config"].get("xAxis") for panel in found} - {None}
    assert axes == {"epoch", "trainer/global_step", "eta_t"}
    shown = {key for panel in found for key in panel["config"].get("mediaKeys") or []}
    assert shown == {f"figures/{key}" for key, *_ in FIGURES}
    kinds = {panel["viewType"] for panel in found}
    assert {"Run Comparer", "Parallel Coordinates Plot", "Media Browser"} <= kinds


@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        (["conv1", "fc2"], "velocity"),
        (["blocks_3_conv2", "head"], "effective_rank"),
        (["network_0"], "stable_rank"),
    ],
)
def test_every_layer_of_any_network_has_its_line(layers: list[str], kind: str) -> None:
    patterns = [
        p["config"]["metricRegex"] for p in panels_of(built()) if p["config"].get("metricRegex")
    ]
    keys = [f"{kind}/{layer}" for layer in layers]
    matching = [pattern for pattern in patterns if re.search(pattern, keys[0])]
    assert len(matching) == 1, "in one panel"
    assert all(re.search(matching[0], key) for key in keys)
    assert not any(re.search(matching[0], other) for other in (f"{kind}_full/fc1", f"own_{kind}/a"))


def test_all_runs_are_shown_and_the_columns_that_people_compare_are_pinned() -> None:
    section = built()
    assert section["settings"]["maxRuns"] == MOST_RUNS
    lines = [p["config"] for p in panels_of(section) if p["viewType"] == "Run History Line Plot"]
    assert lines and {config["limit"] for config in lines} == {MOST_RUNS}
    (run_set,) = section["runSets"]
    pinned = [name for name, on in run_set["runFeed"]["columnPinned"].items() if on]
    assert pinned[0] == "run:displayName" and len(pinned) <= 20
    (parallel,) = [p for p in panels_of(section) if p["viewType"] == "Parallel Coordinates Plot"]
    columns = [column["accessor"] for column in parallel["config"]["columns"]]
    for name in (*pinned[1:], *columns):
        part, _, key = name.partition(":")
        if part == "config":
            assert key.removesuffix(".value") in COLUMNS
        else:
            assert key in {*COMPARED, *OF_LAYERS, "epoch"}, "the summary has it"


# The command


def test_the_command_prints_what_is_saved(capsys: pytest.CaptureFixture) -> None:
    assert tools.main(["workspace", "--json", "--project", "q", "--loss", "logistic"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["project"] == "q"
    (run_set,) = view["spec"]["section"]["runSets"]
    assert run_set["filters"]["filters"][0]["value"] == ["logistic"]


@pytest.mark.parametrize(
    ("option", "name", "known"),
    [
        ("--loss", "squared", "square, logistic, exponential, cross_entropy, square_one_hot"),
        ("--normalization", "weightnorm", "weight_norm, per_layer, lagrange, none"),
    ],
)
def test_a_mistyped_name_is_refused_lest_panels_are_empty(
    option: str, name: str, known: str, capsys: pytest.CaptureFixture
) -> None:
    assert tools.main(["workspace", "--json", option, name]) == 2
    said = capsys.readouterr()
    others = "or one that --module MODULE registers"
    assert said.err == f"error: {option}: got '{name}', allowed: {known}, {others}\n"
    assert not said.out


def test_a_name_that_a_module_of_ones_own_registers_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("janus_pl.deep.losses.LOSSES", {**LOSSES})
    own = "from janus_pl.deep.losses import LOSSES\nLOSSES['a_hinge'] = LOSSES['square']\n"
    (tmp_path / "a_hinge_of_the_test.py").write_text(own)
    monkeypatch.syspath_prepend(str(tmp_path))
    line = ["workspace", "--json", "--loss", "a_hinge"]
    assert tools.main(line) == 2
    assert tools.main([*line, "--module", "no_such_module"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: --module: got 'no_such_module', allowed: a module that Python")
    assert tools.main([*line, "--module", "a_hinge_of_the_test"]) == 0
    (run_set,) = json.loads(capsys.readouterr().out)["spec"]["section"]["runSets"]
    assert run_set["filters"]["filters"][0]["value"] == ["a_hinge"]


def test_the_report_has_the_verdicts_on_the_given_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    results = Path(__file__).parents[2] / "docs" / "results"
    archive = min(results.glob("*.xz"), key=lambda file: file.stat().st_size)
    assert tools.main(["verify", str(archive), "--json", "-"]) in (0, 5)
    answers = [each for each in json.loads(capsys.readouterr().out)["lines"] if each["primary"]]
    assert tools.main(["workspace", "--report", str(archive), "--json"]) == 0
    spec = json.loads(capsys.readouterr().out)["spec"]
    (text,) = [block["content"] for block in spec["blocks"] if block["type"] == "markdown-block"]
    rows = text.splitlines()[2:]
    assert len(rows) == len(answers) > 5
    for row, each in zip(rows, answers, strict=True):
        assert row.startswith(f"| {each['answer']} | ")
    assert tools.main(["workspace", "--report", "nowhere", "--json"]) == 2


def test_without_an_account_it_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    named = ["--entity", "e"]
    for args, field in (([], "--entity"), (named, "account of W&B"), (["-x"], "workspace")):
        assert tools.main(["workspace", *args]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {field}: got")
