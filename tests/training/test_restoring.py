"""Going on from a checkpoint with another config: what is in force, refused and noted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from record_reader import files_of, read_rows

from janus_pl.cli.main import main
from janus_pl.records.read import read
from janus_pl.records.run import Run

LOOKS = '[{"class_path": "janus_pl.callbacks.MarginHistogram"}, '
LOOKS += '{"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}}]'
FIT = [
    *("fit", "--config=quickstart.yaml", "--data.num_train=100", "--trainer.max_epochs=2"),
    *("--data.batch_size=32", "--model.schedule=cosine", "--model.weight_decay=4e-3"),
    *("--model.channels=[2,3,4,4]", "--model.hidden=8", "--trainer.check_val_every_n_epoch=9"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    f"--trainer.callbacks={LOOKS}",
]
LINE = ["fit", "--config=linear/a2.yaml", "--trainer.max_epochs=10", *FIT[-3:]]
LINE += ["--model.learning_rate=0.03"]
RUNS = {"network": FIT, "linear": LINE}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run of each task, named `network` and `linear`."""
    home = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["janus_pl"])
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        for name, args in RUNS.items():
            patch.setenv("WANDB_RUN_ID", name)
            assert main(args) == 0
            wandb.finish()
    yield home


@pytest.fixture
def home(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = Path(shutil.copytree(kept, tmp_path / "home"))
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return copy


def folder_of(name: str) -> Path:
    return Path("runs/janus_pl") / name


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in files_of(folder)}


def new_folder() -> Path:
    (folder,) = (p for p in Path("runs/janus_pl").iterdir() if p.name not in RUNS)
    return folder


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def recorded(folder: Path) -> Run:
    (run,) = read([folder]).runs
    return run


def the_error(capsys: pytest.CaptureFixture) -> str:
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    return line


def interrupt(name: str) -> Path:
    """As if the run had been killed after the checkpoint before its last."""
    folder = folder_of(name)
    (folder / "outcome.json").unlink()
    (folder / "checkpoints" / "previous.ckpt").replace(folder / "checkpoints" / "last.ckpt")
    return folder


# A finished run is made longer


@pytest.mark.parametrize("name", ["network", "runs/janus_pl/network"])
def test_a_finished_run_is_made_longer_by_a_new_one_that_names_it(
    name: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = files(folder_of("network"))
    assert main([*FIT, "--ckpt_path", name, "--trainer.max_epochs=4"]) == 0
    folder = new_folder()
    assert [row["epoch"] for row in read_rows(folder)] == [3, 4]
    checkpoint = str((folder_of("network") / "checkpoints" / "last.ckpt").absolute())
    line = {"step": 8, "parent": "network", "checkpoint": checkpoint}
    assert history(folder) == [{**line, "changed": {"trainer.max_epochs": [2, 4]}}]
    assert recorded(folder).config["history"] == history(folder)
    assert files(folder_of("network")) == before
    assert "From step 8 on: trainer.max_epochs is 4 (2 in the checkpoint)." in caplog.text
    assert "schedule had reached 0 at step 8; the learning rate goes on at 0.015" in caplog.text
    first, _ = read_rows(folder)
    assert first["learning_rate"] == pytest.approx(0.015, rel=1e-12)


def test_a_schedule_that_has_ended_is_said(home: Path) -> None:
    over = ["--model.schedule=torch.optim.lr_scheduler.CosineAnnealingLR"]
    over += ["--model.schedule.init_args.T_max=2", "--trainer.max_epochs=3"]
    with pytest.warns(UserWarning, match="the learning rate is 0 at step 8, where the checkpoint"):
        assert main([*FIT, *over, "--ckpt_path=network"]) == 0


@pytest.mark.parametrize("task", RUNS)
@pytest.mark.parametrize("more", [[], ["--trainer.max_epochs=1"]])
def test_a_checkpoint_at_its_end_is_refused_and_leaves_no_run(
    task: str, more: list[str], home: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(home)
    assert main([*RUNS[task], *more, f"--ckpt_path={task}"]) == 2
    done = {"network": 2, "linear": 10}[task]
    given = 1 if more else done
    line = f"trainer.max_epochs: got {given}, allowed: above {done}, where the checkpoint is"
    assert line in the_error(capsys)
    assert files(home) == before


def test_so_is_one_at_its_last_step(home: Path, capsys: pytest.CaptureFixture) -> None:
    steps = ["--trainer.max_steps=8", "--trainer.max_epochs=-1", "--ckpt_path=network"]
    assert main([*FIT, *steps]) == 2
    assert "trainer.max_steps: got 8, allowed: above 8" in the_error(capsys)


def test_a_run_without_a_checkpoint_is_named(home: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(folder_of("network") / "checkpoints")
    assert main([*FIT, "--ckpt_path=network"]) == 2
    assert "--ckpt_path: got 'network', allowed: a run with a checkpoint" in the_error(capsys)


# What the options in force are seen in


def test_the_equilibrium_and_the_name_are_those_of_the_lambda_in_force(home: Path) -> None:
    args = ["--model.weight_decay=0.5", "--trainer.max_epochs=3", "--name=null"]
    assert main([*FIT, *args, "--ckpt_path=network"]) == 0
    folder = new_folder()
    (row,) = read_rows(folder)
    unit = row["rho"] / abs(row["rho_learned"])
    mean, second = row["margin/mean"] * unit, (row["margin/std"] ** 2 + row["margin/mean"] ** 2)
    # lambda rho^2 in the loss is half of PyTorch's weight decay.
    expected = mean - (second * unit**2 + 0.25) * abs(row["rho_learned"])
    assert row["equilibrium/residual"] == pytest.approx(expected, rel=1e-5)
    described = json.loads((folder / "description.json").read_text())
    assert described["weight_decay"] == 0.5
    assert described["decays"]["conv1"]["weight_decay"] == 0.5
    assert "lam0.5" in recorded(folder).name
    before = torch.load(folder_of("network") / "checkpoints" / "last.ckpt", weights_only=True)
    after = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert [g["weight_decay"] for g in before["optimizer_states"][0]["param_groups"]] == [0.004] * 2
    assert [g["weight_decay"] for g in after["optimizer_states"][0]["param_groups"]] == [0.5] * 2


# The history


def test_a_change_of_a_resumed_run_is_noted_from_its_step_on(home: Path) -> None:
    folder = interrupt("network")
    resume = ["--ckpt_path=last", "--allow_config_change"]
    assert main([*FIT, *resume, "--model.weight_decay=0.5"]) == 0
    line = {"step": 4, "changed": {"model.init_args.weight_decay": [0.004, 0.5]}}
    assert history(folder) == [line]
    now = yaml.safe_load((folder / "config.yaml").read_text())
    assert now["model"]["init_args"]["weight_decay"] == 0.5
    assert recorded(folder).options["history"] == [line["changed"]]
    # From the checkpoint before it, that change is of no step.
    interrupt("network")
    assert main([*FIT, *resume]) == 0
    assert history(folder) == []


def test_an_unchanged_run_has_no_history(home: Path) -> None:
    folder = interrupt("network")
    assert main([*FIT, "--ckpt_path=last"]) == 0
    assert not (folder / "history.jsonl").exists()
    assert recorded(folder).rows["epoch"].tolist() == [0, 1, 2]


def test_a_run_from_a_checkpoint_that_left_none_starts_there_once_more(home: Path) -> None:
    more = ["--trainer.max_epochs=4"]
    assert main([*FIT, *more, "--ckpt_path=network"]) == 0
    folder = new_folder()
    whole = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    rows = read_rows(folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "outcome.json").unlink()
    assert main([*FIT, *more, "--ckpt_path=last"]) == 0
    again = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, again["state_dict"][name]), name
    written = [json.loads(x) for x in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(written) == len(rows) == 2
    assert [line["parent"] for line in history(folder)] == ["network"]


# Refused


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("seed_everything=1", "seed_everything: got 1, allowed: 0, as in the checkpoint"),
        ("model.normalization=per_layer", "got 'per_layer', allowed: 'weight_norm', as in the"),
        ("model.optimizer=torch.optim.Adam", "model.optimizer: got 'Adam', allowed: SGD, as in"),
        ("model.strides=[2,1,2,2]", "got [2, 1, 2, 2], allowed: [2, 2, 2, 2], as in the"),
    ],
)
def test_both_values_are_named(
    option: str, line: str, home: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(home)
    args = [*FIT, f"--{option}", "--trainer.max_epochs=4", "--ckpt_path=network"]
    assert main(args) == 2
    assert line in the_error(capsys)
    assert files(home) == before


def test_other_minibatches_are_refused_within_an_epoch_alone(
    home: Path, capsys: pytest.CaptureFixture
) -> None:
    path = folder_of("network") / "checkpoints" / "last.ckpt"
    args = [*FIT, "--data.batch_size=50", "--trainer.max_epochs=3", f"--ckpt_path={path}"]
    assert main(args) == 0
    held = torch.load(path, weights_only=True)
    assert "batches" not in held
    batches = {"data.batch_size": 32, "data.order": "shuffle", "data.seed": 0}
    torch.save({**held, "batches": {**batches, "data.num_train": 100}}, path)
    assert main(args) == 2
    assert "data.batch_size: got 50, allowed: 32, as in the checkpoint" in the_error(capsys)


def test_weights_are_not_read_by_another_network(home: Path, capsys: pytest.CaptureFixture) -> None:
    """Strides leave no trace in the shapes of the weights."""
    args = ["predict", *FIT[1:], "--ckpt_path=network"]
    assert main([*args, "--model.strides=[2,1,2,2]"]) == 2
    assert "model.strides: got [2, 1, 2, 2]" in the_error(capsys)
    assert main([*args, "--model.loss=logistic"]) == 0
