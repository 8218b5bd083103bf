"""`python -m janus_pl verify`: from training to the table, in one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from report.synthetic import deep_run, linear_run

from janus_pl.cli import verify
from janus_pl.cli.main import main
from janus_pl.errors import Exit
from janus_pl.records.read import Records, Skipped

PARTS = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
DIGITS = ["--config", "quickstart.yaml", "--trainer.max_epochs", "3", "--model.hidden", "8"]
DIGITS += ["--model.channels", "[2,3,4,4]", "--data.num_train", "40", "--data.batch_size"]
MOMENTUM_FREE = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0"]
BOUND = ["--trainer.callbacks+=callbacks.RankBound", *MOMENTUM_FREE, "--name", "bound"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SGD and GD of a small network, of Fig. A.2 cut short and of Fig. A.1, and one with bounds."""
    folder = tmp_path_factory.mktemp("records")
    stable = ["--model.learning_rate", "0.05", "--data.batch_size"]
    a2 = ["--config", "linear/a2.yaml", "--trainer.max_epochs", "100", *stable]
    a1 = ["--config", "linear/a1.yaml", *stable]
    commands = [[*a2, "1"], [*a2, "full"], [*a1, "1"], [*a1, "full"], [*DIGITS, "8"]]
    commands += [[*DIGITS, "full"], [*DIGITS, "1", *BOUND]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(sys, "argv", ["janus_pl"])
        for command in commands:
            assert main(["fit", *command, *PARTS, "--run_dir", str(folder)]) == 0
    return folder


def verdicts_of(runs: Path, capsys: pytest.CaptureFixture) -> list[dict[str, Any]]:
    assert main(["verify", str(runs), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_theorems_hold_in_real_records(runs: Path, capsys: pytest.CaptureFixture) -> None:
    found = verdicts_of(runs, capsys)
    theorems = [v for v in found if v["theorem"]]
    assert {v["prediction"] for v in theorems} == {"Theorem 1", "law over B", "A.1", "tail bound"}
    assert {v["verdict"] for v in theorems} == {"holds"}
    (law,) = [v for v in theorems if v["prediction"] == "law over B"]
    assert law["effects"][0]["value"] == pytest.approx(10, rel=1e-9)
    (bound,) = [v for v in theorems if v["prediction"] == "tail bound"]
    assert 0 < max(effect["value"] for effect in bound["effects"]) <= 1


def test_every_number_names_its_runs(runs: Path, capsys: pytest.CaptureFixture) -> None:
    ids = {folder.name for folder in (runs / "janus_pl").iterdir()}
    for verdict in verdicts_of(runs, capsys):
        named = {name.rsplit("(", 1)[-1].rstrip(")") for name in verdict["runs"]}
        assert named <= ids
        assert bool(named) == (verdict["verdict"] != "not testable")
        assert bool(verdict["missing"]) == (verdict["verdict"] == "not testable")


def test_the_table_has_a_line_for_each_and_says_what_is_missing(
    runs: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    target = tmp_path / "verdicts.json"
    assert main(["verify", str(runs / "janus_pl"), "--json", str(target)]) == 0
    out = capsys.readouterr().out
    assert "Predictions of the paper in 7 runs" in out
    for word in ("Theorem 1", "janus: noise", "holds", "not", "missing:", "cross_entropy"):
        assert word in out
    found = json.loads(target.read_text())
    counts = [sum(v["verdict"] == o for v in found) for o in ("holds", "fails", "not testable")]
    assert f"{counts[0]} holds, {counts[1]} fails, {counts[2]} not testable" in out


def test_a_violated_theorem_is_exit_code_5_and_a_failed_prediction_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    skipped = [Skipped(Path("half"), "it has not ended")]
    broken = Records([linear_run(), linear_run("full", off=1e-3)], skipped)
    monkeypatch.setattr(verify, "read", lambda *_: broken)
    assert main(["verify", "anything"]) == Exit.BROKEN_THEOREM
    captured = capsys.readouterr()
    assert "A theorem is violated: Theorem 1, law over B" in captured.out
    assert "left out: half: it has not ended" in captured.err
    monkeypatch.setattr(verify, "read", lambda *_: Records([linear_run()], []))
    assert main(["verify", "anything"]) == 0


def test_untrained_runs_are_named_with_what_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    runs = [deep_run(train_loss=1.0, rho=1e-6), deep_run(batch="full", train_loss=0.998)]
    monkeypatch.setattr(verify, "read", lambda *_: Records([*runs, deep_run(seed=1)], []))
    assert main(["verify", "anything"]) == 0
    emptied, begun = capsys.readouterr().err.splitlines()
    assert emptied.startswith("left out of the predictions: square-B32-lam0.001-seed0 (")
    assert emptied.endswith("its training loss is 1 and its outputs 1.0e-07 of the first: f = 0")
    assert begun.startswith("left out of the predictions: square-Bfull-lam0.001-seed0 (")
    assert "it is not trained: its loss, 0.998, is not 1% below that of f = 0" in begun


def test_json_is_strict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A NaN or an infinity that a record holds does not get into what other programs read."""
    broken = linear_run()
    broken.rows.loc[5, "null/norm"] = float("inf")
    monkeypatch.setattr(verify, "read", lambda *_: Records([broken], []))
    assert main(["verify", "anything", "--json", "-"]) == Exit.BROKEN_THEOREM
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (theorem,) = [v for v in found if v["verdict"] == "fails"]
    assert theorem["effects"][0]["value"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            [],
            "error: verify: got '', allowed: RUN... [--unfinished] [--json FILE]",
        ),
        (["nowhere"], "error: RUN: got 'nowhere', allowed: a folder with W&B's records"),
        (["RUNS", "--jsn", "x"], "got '--jsn', allowed: a valid option, the nearest is --json"),
        (["RUNS", "--json"], "error: --json: got None, allowed: a value; RUN..."),
        (["RUNS", "--json", "no/where.json"], "error: --json: got 'no/where.json', allowed: a fil"),
        (["RUNS", "--json", "RUNS"], "allowed: a file to write to (Is a directory)"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture
) -> None:
    given = [str(runs) if arg == "RUNS" else arg for arg in args]
    assert main(["verify", *given]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_help_says_what_it_reads(capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", "--help"]) == 0
    out = capsys.readouterr().out
    assert "RUN" in out
    assert "--json" in out
    assert main(["--help"]) == 0
    assert "verify RUN" in capsys.readouterr().out
