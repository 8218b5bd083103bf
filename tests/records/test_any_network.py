"""Records of `janus_pl.Classifier`: names, what counts as trained, families, figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.generic import TEN_LAYERS, measured, network

from janus_pl.records.families import families, is_untrained
from janus_pl.records.late import middle
from janus_pl.records.run import Run
from janus_pl.report.figures import draw
from janus_pl.run.description import Description
from janus_pl.run.name import run_name
from janus_pl.verify.claims import read_claims
from janus_pl.verify.judge import judge

TEN = {f"digit {k}": k for k in range(10)}


def of_any_network(lam: float = 1e-3, batch: Any = 32, seed: int = 0, **facts: Any) -> Run:
    run = network(lam, batch, seed, layers=TEN_LAYERS)
    options: dict[str, Any] = {"kind": "classifier", "network": "MLP", "classes": TEN}
    return measured(run, **{**options, "task": "janus_pl.Classifier", **facts})


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"loss": "cross_entropy", "normalization": "none"}, "MLP-sgd-B32-lam0.001-seed0"),
        (
            {"loss": "square_one_hot", "normalization": "weight_norm", "decay": "rho"},
            "MLP-sgd-B32-lam0.001-square_one_hot-weight_norm-rho-seed0",
        ),
    ],
)
def test_a_name_begins_with_the_network_s(facts: dict[str, Any], name: str) -> None:
    assert run_name(of_any_network(**facts).description) == name


@pytest.mark.parametrize(
    ("loss", "at_zero"),
    [("square", 1.0), ("square_one_hot", 0.1), ("cross_entropy", math.log(10)), ("mine", math.inf)],
)
def test_untrained_is_by_the_loss_of_f_0_of_so_many_classes(loss: str, at_zero: float) -> None:
    def ended(value: float) -> Run:
        run = of_any_network(loss=loss)
        return replace(run, rows=run.rows.assign(**{"train/loss": value}))

    assert not is_untrained(ended(min(0.98 * at_zero, 1e9)))
    assert is_untrained(ended(0.995 * at_zero)) is (loss != "mine")


def test_descriptions_are_read_back() -> None:
    seen = of_any_network().description
    assert Description.of(seen.to_plain()) == seen
    assert seen.is_network


def test_other_networks_are_another_family() -> None:
    runs = [of_any_network(), of_any_network(seed=1), network(1e-3, layers=TEN_LAYERS)]
    other = replace(runs[0], config={**runs[0].config, "model": {"class_path": "janus_pl.Other"}})
    assert len(families(runs[:2], "seed")) == 1
    assert len(families([runs[0], other], "seed")) == 2


def test_figures_of_layers_are_drawn(tmp_path: Path) -> None:
    runs = [of_any_network(lam, seed=s) for lam in (0.0, 1e-3) for s in (0, 1)]
    found = {figure.key: figure.missing for figure in draw(runs, tmp_path)}
    drawn = {key for key, missing in found.items() if missing is None}
    assert {"claims", "fig1a", "fig3", "fig4a", "fig4b"} <= drawn


def test_the_paper_s_claims_are_about_the_paper_s_network() -> None:
    runs = [of_any_network(lam, b, s) for lam in (0, 1e-3) for b in (32, "full") for s in range(5)]
    (verdict, *_) = judge(read_claims(), runs).verdicts
    assert verdict.missing is not None
    assert "is a Classifier, not the paper's network" in verdict.missing


def test_middle_layers_are_those_within_whatever_their_names() -> None:
    layers = ("fc1", "fc2", "fc3", "fc4")
    run = network(1e-3, layers=layers)
    mine = measured(run, kind="classifier", task="janus_pl.Classifier", network="MLP")
    assert middle(mine) == ["fc2", "fc3"]
    assert middle(measured(run, kind="module", task="a.Mine")) == ["fc2", "fc3"]
    assert middle(network(1e-3)) == ["conv3", "conv4", "fc1"]
