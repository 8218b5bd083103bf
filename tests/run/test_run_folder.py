"""Which run `fit --ckpt_path last` goes on with, and which it leaves alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from records.test_records import row

from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.run.folder import RunFolder, checkpoint_of, differences, interrupted
from janus_pl.run.journal import Journal
from janus_pl.run.rows import Histogram, log_row

FIT = [
    *("fit", "--config", "quickstart.yaml", "--data.num_train", "40", "--model.hidden", "8"),
    *("--model.channels", "[2,3,4,4]", "--trainer.max_epochs", "4", "--trainer.limit_val_batches"),
    *("0", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    "--trainer.callbacks=callbacks.RunCheckpoint",
    *("--data.batch_size=32", "--model.schedule=cosine", "--model.weight_decay=4e-3"),
]
LAST = ["--ckpt_path", "last"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def folders() -> list[Path]:
    return sorted(Path("runs/janus_pl").iterdir())


def interrupt(folder: Path) -> None:
    """As if the run had been killed after its last checkpoint."""
    (folder / "outcome.json").unlink()


def make(folder: Path, age: float = 0, **outcome: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {}\n")
    os.utime(folder / "config.yaml", (1e9 - age, 1e9 - age))
    if outcome:
        (folder / "outcome.json").write_text(json.dumps(outcome))
    return folder


# Folders


def test_interrupted_runs_are_those_without_an_end_newest_first(tmp_path: Path) -> None:
    old, new = make(tmp_path / "a", age=100), make(tmp_path / "b")
    signalled = make(tmp_path / "c", age=50, exit_code=143)
    defect = make(tmp_path / "d", age=60, exit_code=1)
    for name, code in {"done": 0, "diverged": 3, "broken": 5}.items():
        make(tmp_path / name, exit_code=code)
    (tmp_path / "no run").mkdir()
    assert interrupted(tmp_path) == [new, signalled, defect, old]
    assert interrupted(tmp_path / "nowhere") == []


def test_a_checkpoint_makes_a_run_newer(tmp_path: Path) -> None:
    old, new = make(tmp_path / "a", age=100), make(tmp_path / "b")
    assert checkpoint_of(old) is None
    (old / "checkpoints").mkdir()
    (old / "checkpoints" / "last.ckpt").touch()
    assert checkpoint_of(old) == old / "checkpoints" / "last.ckpt"
    assert interrupted(tmp_path) == [old, new]


def test_a_run_under_way_is_not_interrupted_and_nobody_else_s(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    held = RunFolder(folder)
    assert interrupted(tmp_path) == []
    with pytest.raises(UsageError, match="no other process"):
        RunFolder(folder)
    held.end(143)
    assert json.loads((folder / "outcome.json").read_text()) == {"exit_code": 143}
    assert interrupted(tmp_path) == [folder]
    RunFolder(folder).end(0)
    assert interrupted(tmp_path) == []


def test_differences_name_key_and_values_and_leave_names_out() -> None:
    before = {"model": {"init_args": {"lr": 0.1, "old": 1}}, "name": "a", "run_dir": "x"}
    now = {"model": {"init_args": {"lr": 0.2, "new": None}}, "name": "b", "group": "g"}
    assert differences(before, now) == [
        "model.init_args.lr: 0.1 in the run, now 0.2",
        "model.init_args.old: 1 in the run, now nothing",
    ]


# The journal


def test_the_journal_gives_back_what_it_was_given_and_forgets_the_rest(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    hist = Histogram(torch.tensor([1, 2]).numpy(), torch.tensor([0.0, 0.1, 1 / 3]).numpy())
    rows = [row(0, loss=0.1 + 0.2), row(1, hist=hist), row(2)]
    for item in rows:
        journal.append(item)
    journal.close()
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')  # the process was killed in the middle of a line
    again = Journal(tmp_path)
    first, second = again.keep(2)
    assert first == rows[0]
    assert second["hist"].edges.tolist() == hist.edges.tolist()
    again.append(row(2, loss=5.0))
    again.close()
    assert [r["epoch"] for r in Journal(tmp_path).keep(3)] == [0, 1, 2]
    with pytest.warns(UserWarning, match="of the 4 rows .* damaged or missing: 3. The run goes on"):
        Journal(tmp_path).keep(4)


def test_an_online_run_that_is_resumed_gets_no_row_twice() -> None:
    class Run:
        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []

        def define_metric(self, *args: Any, **kwargs: Any) -> None: ...

        def log(self, row: dict[str, Any]) -> None:
            self.rows.append(row)

    class Logger:
        experiment = Run()
        sent_steps = 4

    for epoch in (1, 2, 3):
        log_row(Logger(), row(epoch))
    assert [item["epoch"] for item in Logger.experiment.rows] == [3]


# The command line


def test_without_an_interrupted_run_it_is_a_new_one(caplog: pytest.LogCaptureFixture) -> None:
    assert main([*FIT, *LAST]) == 0
    assert main([*FIT, *LAST]) == 0
    assert len(folders()) == 2, "a run that is done is not gone on with"
    assert "No interrupted run to go on with: this is a new one." in caplog.text
    config = yaml.safe_load((folders()[0] / "config.yaml").read_text())
    assert config["ckpt_path"] is None


def test_a_changed_config_is_refused_with_its_differences_unless_allowed(
    capsys: pytest.CaptureFixture,
) -> None:
    assert main([*FIT, "--name", "one"]) == 0
    (folder,) = folders()
    interrupt(folder)
    changed = [*FIT, *LAST, "--model.weight_decay", "0.5", "--trainer.max_epochs", "6"]
    capsys.readouterr()
    assert main(changed) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --ckpt_path: got 'last', allowed: the config of runs/janus_pl/")
    assert "model.init_args.weight_decay: 0.004 in the run, now 0.5" in error
    assert "trainer.max_epochs: 4 in the run, now 6" in error
    assert folders() == [folder]
    assert main([*changed, "--allow_config_change"]) == 0
    assert folders() == [folder]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["weight_decay"] == 0.5
    assert config["ckpt_path"] is None


def test_a_folder_whose_config_cannot_be_read_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(Path("runs/janus_pl/broken"))
    (folder / "config.yaml").write_text("model: [1,\n")
    with pytest.warns(UserWarning, match="broken is left out: its config.yaml cannot be read"):
        assert main([*FIT, *LAST, "--trainer.max_epochs=1"]) == 0
    assert len(folders()) == 2
    monkeypatch.setenv("WANDB_RUN_ID", "broken")
    assert main([*FIT, *LAST]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert "WANDB_RUN_ID: got 'broken'" in line
    assert "config.yaml cannot be read" in line
    assert (folder / "config.yaml").read_text() == "model: [1,\n"


def test_another_name_is_no_change_and_the_fitting_run_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main([*FIT, "--name", "one"]) == 0
    (first,) = folders()
    assert main([*FIT, "--model.weight_decay", "0.5"]) == 0
    for folder in folders():
        interrupt(folder)
    assert main([*FIT, *LAST, "--name", "two"]) == 0
    assert f"Going on with {first} from its newest checkpoint" in caplog.text
    assert (first / "outcome.json").is_file()
    assert len(folders()) == 2
