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
from janus_pl.verify.claims import read_claims

PARTS = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
DIGITS = ["--config", "quickstart.yaml", "--trainer.max_epochs", "30", "--model.hidden", "16"]
DIGITS += [
    "--model.channels",
    "[4,8,8,8]",
    "--model.init_scale",
    "0.4",
    "--data.num_train",
    "40",
    "--data.batch_size",
]
MOMENTUM_FREE = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.momentum", "0"]
BOUND = ["--trainer.callbacks+=janus_pl.callbacks.RankBound", *MOMENTUM_FREE, "--name", "bound"]


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


def verdicts_of(runs: Path, capsys: pytest.CaptureFixture) -> dict[str, Any]:
    assert main(["verify", str(runs), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_theorems_hold_in_real_records(runs: Path, capsys: pytest.CaptureFixture) -> None:
    theorems = {t["name"]: t for t in verdicts_of(runs, capsys)["theorems"]}
    assert {*theorems} == {"Theorem 1", "law over B", "A.1", "tail bound"}
    assert {t["answer"] for t in theorems.values()} == {"holds"}
    (law,) = theorems["law over B"]["findings"]
    assert "falls 10 times as fast per epoch" in law["measured"]
    (bound,) = theorems["tail bound"]["findings"]
    assert 0 < bound["size"] <= 1
    assert "at first)" in theorems["tail bound"]["sentence"]


def test_every_number_names_its_runs(runs: Path, capsys: pytest.CaptureFixture) -> None:
    ids = {folder.name for folder in (runs / "janus_pl").iterdir()}
    found = verdicts_of(runs, capsys)
    judged = [each for claim in found["claims"] for each in claim["settings"]]
    judged += [each for theorem in found["theorems"] for each in theorem["findings"]]
    assert len(judged) >= 5
    for each in judged:
        named = {name.rsplit("(", 1)[-1].rstrip(")") for name in each["runs"]}
        assert named
        assert named <= ids


def test_a_run_of_now_is_prospective(runs: Path, capsys: pytest.CaptureFixture) -> None:
    """Its record holds the SHA-256 of the claims file of now."""
    found = verdicts_of(runs, capsys)
    judged = [each for claim in found["claims"] for each in claim["settings"]]
    assert judged
    assert not any(each["retrospective"] for each in judged)
    (one, *_) = (runs / "janus_pl").iterdir()
    described = json.loads((one / "description.json").read_text())
    assert found["claims_file"]["sha256"] in described["claims"].values()


def test_the_table_is_short_and_says_what_is_missing(
    runs: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    target = tmp_path / "verdicts.json"
    assert main(["verify", str(runs / "janus_pl"), "--json", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith(" x GD's, equal epochs; 1 of 5 seeds")
    assert lines[6].startswith("not testable  gd_spread: needs runs at lambda > 0 and at 0 by seed")
    found = json.loads(target.read_text())
    assert [line["sentence"][:20] for line in found["lines"] if line["primary"]] == [
        line[14:34] for line in lines if not line.startswith("left out")
    ]


def test_all_shows_every_claim_and_setting(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(runs), "--all"]) == 0
    out = capsys.readouterr().out
    for claim in read_claims().claims:
        assert f"{claim.name} ({claim.source}): " in out
    assert "- B 8, lambda 0.002" in out
    assert "1 seed, descriptive" in out


def test_one_s_own_claims_are_answered(
    runs: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    mine: dict[str, Any] = {
        "says": "ranks {}",
        "source": "here",
        "estimator": "sgd_over_gd",
        "quantity": "rank",
    }
    mine |= {"bound": {"below": 1}, "effect": 0.5, "deviation": 0.1}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"claims": {"mine": mine}}))
    assert main(["verify", str(runs), "--claims", str(path)]) == 0
    first, *theorems = capsys.readouterr().out.splitlines()
    assert first.startswith("not testable  ranks ")
    assert first.endswith("; 1 of 5 seeds")
    assert len(theorems) >= 4


def test_a_violated_theorem_is_exit_code_5_and_a_contradicted_claim_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    skipped = [Skipped(Path("half"), "it has not ended")]
    broken = Records([linear_run(), linear_run("full", off=1e-3)], skipped)
    monkeypatch.setattr(verify, "read", lambda *_: broken)
    assert main(["verify", "anything"]) == Exit.BROKEN_THEOREM
    captured = capsys.readouterr()
    assert sum(line.startswith("broken        W_perp") for line in captured.out.splitlines()) == 2
    assert "left out: half: it has not ended" in captured.err
    pairs = [
        deep_run(batch=b, seed=s, velocities=[1 + s] * 6) for b in (32, "full") for s in range(5)
    ]
    for run in pairs:
        run.config["model"]["init_args"]["schedule"] = "constant"
    monkeypatch.setattr(verify, "read", lambda *_: Records(pairs, []))
    assert main(["verify", "anything"]) == 0
    assert capsys.readouterr().out.startswith("contradicted* SGD's velocity is 1 [1, 1] x GD's")


def test_untrained_runs_are_counted_in_the_table_and_named_by_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    runs = [deep_run(train_loss=1.0, rho=1e-6), deep_run(batch="full", train_loss=0.998)]
    monkeypatch.setattr(verify, "read", lambda *_: Records([*runs, deep_run(seed=1)], []))
    assert main(["verify", "anything"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("left out      1 collapsed to f = 0, 1 not trained")
    assert main(["verify", "anything", "--all"]) == 0
    out = capsys.readouterr().out
    assert "- square-B32-lam0.001-seed0 (" in out.partition("collapsed to f = 0")[2]


def test_json_is_strict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """A NaN or an infinity that a record holds does not get into what other programs read."""
    broken = linear_run()
    broken.rows.loc[5, "null/norm"] = float("inf")
    monkeypatch.setattr(verify, "read", lambda *_: Records([broken], []))
    assert main(["verify", "anything", "--json", "-"]) == Exit.BROKEN_THEOREM
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (theorem,) = [t for t in found["theorems"] if t["answer"] == "broken"]
    assert theorem["findings"][0]["size"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            [],
            "error: verify: got '', allowed: RUN... [--all] [--claims FILE] [--unfinished] [--js",
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
