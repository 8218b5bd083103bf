"""Figures that the paper has twice: of the same runs drawn once, of others both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from report.generic import network

from janus_pl.cli import report
from janus_pl.records.run import Run
from janus_pl.report import figures
from janus_pl.report.figures import Figure, style

KEYS = ("fig1a", "fig2a", "fig2b", "fig5a", "fig5b")
LAMBDAS = (0.0, 2e-3)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_: object, folder: Path, key: str) -> list[Path]:
        made = [folder / f"{key}.{suffix}" for suffix in ("png", "svg")]
        for file in made:
            file.touch()
        return made

    monkeypatch.setattr(style, "save", save)
    wanted = [given for given in figures.FIGURES if given[0] in KEYS]
    monkeypatch.setattr(figures, "FIGURES", wanted)


def drawn(runs: Sequence[Run], folder: Path) -> dict[str, Figure]:
    return {figure.key: figure for figure in figures.draw(runs, folder)}


SGD = [network(lam, seed=seed) for lam in LAMBDAS for seed in (0, 1)]
GD = [network(lam, "full") for lam in LAMBDAS]
SLOW = network(1e-2, "full", columns={"train/error": [0.3] * 5})


def test_of_the_same_runs_there_is_one_picture_and_it_has_both_names(tmp_path: Path) -> None:
    for suffix in ("png", "svg", "csv", "txt"):
        (tmp_path / f"fig5b.{suffix}").touch()  # of an earlier call
    found = drawn([*SGD, *GD], tmp_path)
    for second, first in (("fig5b", "fig1a"), ("fig2b", "fig2a")):
        assert found[second].like == first
        assert found[second].missing is None
        assert found[second].files == []
        assert not list(tmp_path.glob(f"{second}.*"))
        assert f"so this is {found[second].title}, too." in found[first].caption
        assert found[second].caption == (
            f"{found[second].title}. As {found[first].title}: the runs are the same."
        )
        assert len(found[first].files) == 4
        assert found[first].like is None


def test_of_other_runs_both_are_drawn(tmp_path: Path) -> None:
    entropy = network(0.0, loss="cross_entropy", model={"learning_rate": 0.7})
    beside = network(0.0, model={"learning_rate": 0.7})
    found = drawn([*SGD, *GD, SLOW, entropy, beside], tmp_path)
    for key in KEYS:
        assert found[key].like is None
        assert len(found[key].files) == 4
        assert "too." not in found[key].caption
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_what_the_second_has_to_say_is_said_under_the_first(tmp_path: Path) -> None:
    entropy = network(0.0, loss="cross_entropy", model={"learning_rate": 0.7})
    found = drawn([*SGD, entropy], tmp_path)
    assert found["fig5b"].like == "fig1a"
    assert "More than the loss differs from the runs of Figure 5a." in found["fig1a"].caption


def test_a_figure_that_is_missing_is_no_twin(tmp_path: Path) -> None:
    found = drawn(GD, tmp_path)
    assert found["fig1a"].missing and found["fig5b"].missing
    assert found["fig1a"].like is found["fig5b"].like is None
    assert found["fig2b"].like == "fig2a"


def test_the_table_of_report_names_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report._print(list(drawn([*SGD, *GD], tmp_path).values()), 6)
    said = " ".join(capsys.readouterr().out.split())
    assert "as fig1a.png, from the same runs" in said
    assert "as fig2a.png, from the same runs" in said
    assert "fig5b.png" not in said
