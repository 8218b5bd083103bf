"""The two controls by one line of a config each, on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from record_reader import files_of, read_rows
from sweep.driving import write_sweep

from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.records.families import families
from janus_pl.records.read import read
from janus_pl.records.run import Run
from janus_pl.report.page.columns import table
from janus_pl.sweep.file import load, points
from janus_pl.sweep.plan import plan

LOOKS = '[{"class_path": "janus_pl.callbacks.LayerRotation", "init_args": {"every_n_epochs": 1}}]'
FIT = [
    *("fit", "--config=quickstart.yaml", "--name=null", "--data.num_train=40"),
    "--trainer.max_epochs=2",
    *("--model.channels=[2,3,4,4]", "--model.hidden=8", "--trainer.check_val_every_n_epoch=9"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    f"--trainer.callbacks={LOOKS}",
]
CONTROLS = {
    "model: {schedule: growing}": "growing",
    "model: {hold_norms: 0.5}": "hold0.5",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def run_of(*args: str) -> Run:
    """The run that a command line makes."""
    before = set(Path().glob("runs/*/*"))
    assert main([*FIT, *args]) == 0
    (folder,) = set(Path().glob("runs/*/*")) - before
    (run,) = read([folder]).runs
    return run


def test_each_is_one_line_and_a_family_of_its_own() -> None:
    runs = [run_of("--model.schedule=constant")]
    for line, name in CONTROLS.items():
        Path("control.yaml").write_text(line)
        run = run_of("--config=control.yaml")
        assert run.name == f"sgd-B8-lam0.002-{name}-seed0"
        runs.append(run)
    usual, grown, held = runs
    assert len(families(runs, "lambda", "seed")) == 3
    assert [run.description.schedule for run in runs] == ["constant", "growing", "constant"]
    assert [run.description.hold_norms for run in runs] == [None, None, 0.5]
    # As measured: v_k decays, or not; lambda is the config's.
    assert {run.description.weight_decay for run in runs} == {0.002}
    decays = [run.description.decays["conv1"] for run in runs]
    assert [decay["weight_decay"] for decay in decays] == [0.002, 0.0, 0.002]
    assert decays[1]["kind"] == "none"
    heads, values = table(runs)
    column = [head["label"] for head in heads].index("control")
    shown = [row[column] for row in values]
    assert shown == [None, "schedule growing", "hold_norms 0.5"]
    # eta t is that of the base rate.
    assert grown.rows["eta_t"].tolist() == usual.rows["eta_t"].tolist()
    stays = [held.first("weight_norm/fc1")] * 3
    assert held.rows["weight_norm/fc1"].tolist() == pytest.approx(stays, rel=1e-6)
    assert held.first("weight_norm/fc1") == pytest.approx(usual.first("weight_norm/fc1") / 2)
    assert usual.last("weight_norm/fc1") < 0.9999 * usual.first("weight_norm/fc1")


@pytest.mark.parametrize("option", ["schedule=growing", "hold_norms=1"])
def test_a_trial_run_and_full_batches_work(option: str, home: Path) -> None:
    assert main([*FIT, f"--model.{option}", "--trainer.fast_dev_run=true"]) == 0
    run = run_of(f"--model.{option}", "--data.batch_size=full")
    assert run.dynamics == "GD"
    assert len(read_rows(run.path.parent)) == 3


REFUSED = {
    "model.normalization": ["--model.schedule=growing", "--model.normalization=per_layer"],
    "model.decay": ["--model.schedule=growing", "--model.decay=rho"],
    "model.optimizer.nesterov": [
        "--model.schedule=growing",
        "--model.optimizer.init_args.nesterov=true",
    ],
    "model.optimizer": ["--model.schedule=growing", "--model.optimizer=torch.optim.Adam"],
    "model.weight_decay": ["--model.schedule=growing", "--model.weight_decay=0.5"],
    "model.hold_norms": ["--model.hold_norms=0"],
    "trainer.max_epochs": ["--model.schedule=growing", "--trainer.max_epochs=-1"],
}
REFUSALS = [*REFUSED.items()]
REFUSALS += [
    ("model.schedule", ["--model.schedule=growing", "--trainer.max_epochs=100000"]),
    ("model.schedule", ["--model.schedule=growing", "--model.hold_norms=1"]),
    ("model.normalization", ["--model.hold_norms=1", "--model.normalization=none"]),
    ("model.hold_norms", ["--model.hold_norms=-1"]),
    ("model.hold_norms", ["--model.hold_norms=much"]),
]


@pytest.mark.parametrize(("field", "args"), REFUSALS)
def test_a_mistake_is_one_line_and_leaves_nothing(
    field: str, args: list[str], home: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*FIT, *args]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert line.startswith(f"error: {field}: ")
    assert not [*files_of(home)]


def test_a_linear_run_has_neither(capsys: pytest.CaptureFixture) -> None:
    for given, says in (("schedule=growing", "inverse_sqrt"), ("hold_norms=1", "unknown key")):
        assert main(["fit", "--config=linear/a2.yaml", f"--model.{given}"]) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert f"model.{given.partition('=')[0]}" in line
        assert says in line


@pytest.mark.parametrize(
    ("option", "values"), [("schedule", ["constant", "growing"]), ("hold_norms", [None, 0.5, 1])]
)
def test_a_sweep_can_turn_them(option: str, values: list[Any]) -> None:
    write_sweep(Path(), **{f"model.{option}": values})
    sweep, resolve = load("some.yaml"), Resolver()
    planned = plan(sweep, points(sweep), [], resolve, resolve.data_of)
    assert [run.config["model"]["init_args"][option] for run in planned] == values
    assert len({run.id for run in planned}) == len(values)
