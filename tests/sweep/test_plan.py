"""What a sweep would run: configs, ids, states; and that looking makes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep.driving import write_sweep

from janus_pl.cli import sweep as command
from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.errors import UsageError
from janus_pl.run.folder import RunFolder, exit_code_of
from janus_pl.sweep.file import load, points
from janus_pl.sweep.plan import PlannedRun, labels_of, plan


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def planned(**parameters: Any) -> list[PlannedRun]:
    write_sweep(Path(), **parameters)
    sweep = load("some.yaml")
    resolve = Resolver()
    return plan(sweep, points(sweep), [], resolve, resolve.data_of)


def id_of(**parameters: Any) -> str:
    (run,) = planned(**parameters)
    return run.id


def test_a_run_is_known_by_what_its_numbers_depend_on() -> None:
    known = id_of(**{"model.weight_decay": 0.001})
    same: list[dict[str, Any]] = [
        {"name": "a"},
        {"group": "fig1"},
        {"run_dir": "elsewhere"},
        {"project": "p"},
    ]
    same += [{"trainer.enable_progress_bar": False}, {"data.seed": 0}]
    for other in same:
        assert id_of(**{"model.weight_decay": 0.001}, **other) == known, other
    others: list[dict[str, Any]] = [{"data.seed": 1}, {"data.batch_size": "full"}]
    others += [{"model.weight_decay": 0.002}, {"seed_everything": 1}, {"trainer.max_epochs": 301}]
    ids = {id_of(**{"model.weight_decay": 0.001, **other}) for other in others}
    assert len(ids) == 5
    assert known not in ids


def test_an_id_is_the_same_in_every_process() -> None:
    """A hash that a new Python would make anew would lose every run: this one is pinned."""
    from janus_pl.run.folder import identity

    config = {"model": {"lr": 0.1, "layers": [1, None]}, "name": "x", "data": {"n": "full"}}
    assert identity(config) == "e0822f5cb49b"
    assert identity(dict(reversed(config.items()))) == "e0822f5cb49b"


def test_points_of_the_same_numbers_are_one_run(capsys: pytest.CaptureFixture) -> None:
    runs = planned(name=["a", "b"], **{"model.weight_decay": [0, 0.1]})
    assert [run.config["name"] for run in runs] == ["a", "a"]
    assert main(["sweep", "some.yaml", "--dry-run"]) == 0
    assert "2 of 4 runs have another's numbers" in capsys.readouterr().out


def test_what_a_run_is_told() -> None:
    write_sweep(Path(), **{"data.batch_size": ["full", 32], "name": None, "project": "p"})
    sweep = load("some.yaml")
    first, second = plan(sweep, points(sweep), ["--run_dir", "moved"], Resolver())
    assert first.folder == Path("moved/p") / first.id
    assert first.log == Path("moved/p/sweeps/some") / f"{first.id}.log"
    assert first.config["name"] is None
    assert first.config["data"]["init_args"]["batch_size"] == "full"
    assert [first.label, second.label] == ["batch_size=full", "batch_size=32"]
    values = f"moved/p/sweeps/some/{first.id}.json"
    assert first.args == [
        *("fit", "--config", "quickstart.yaml", "--config", values),
        *("--run_dir", "moved", "--ckpt_path", "last"),
    ]


def test_how_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "gpus", lambda: ["0", "1", "2"])
    monkeypatch.setattr(command, "cores", lambda: 8)
    assert command._share(planned(name="a")) == (["0", "1", "2"], 3)
    cpu = {"trainer.accelerator": "cpu"}
    assert command._share(planned(**cpu)) == ([], 4)
    assert command._share(planned(**cpu, **{"trainer.devices": 2})) == ([], 1)


def test_labels_are_short_and_tell_runs_apart() -> None:
    points = [{"model.seed": s, "data.seed": 0, "x": None, "y": [1] * 20} for s in (0, 0.123456789)]
    assert labels_of(points) == ["seed=0", "seed=0.123457"]
    both = [{"model.seed": 0, "data.seed": 0}, {"model.seed": 1, "data.seed": 1}]
    assert labels_of(both)[1] == "model.seed=1 data.seed=1"
    (long,) = labels_of([{"y": [1] * 20, "x": None}])
    assert long == "y=[1, 1, 1, 1, 1, 1, 1, 1… x=null"


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = planned(**{"data.seed": [1, 2, 3, 4], "model.hidden": 8})
    for run, code in zip(runs, (0, 3, 143), strict=False):
        run.folder.mkdir(parents=True)
        (run.folder / "outcome.json").write_text(json.dumps({"exit_code": code}))
        (run.folder / "config.yaml").write_text("model: {}")
        (run.folder / "rows.jsonl").write_text('{"epoch": 7}\n')
    before = sorted(tmp_path.rglob("*"))
    assert main(["sweep", "some.yaml", "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in line[1:-1]] for line in lines]
    assert cells == [
        [runs[0].id, "1", "done before", "7/150"],
        [runs[1].id, "2", "diverged before", "7/150"],
        [runs[2].id, "3", "to be resumed", "7/150"],
        [runs[3].id, "4", "new", ""],
    ]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"data.batch_size": [32, 8, 0]}, "error: data.batch_size: got 0"),
    (
        {"model.weight_decay": [0, 0.1, -1]},
        "error: model.weight_decay: got -1.0, allowed: a",
    ),
    ({"model.weight_decai": [0.1]}, "error: model.weight_decai: unknown key"),
    ({"model.loss": ["square", "squared"]}, "error: model.loss: got 'squared'"),
    ({"seed_everything": [1, -1]}, "error: seed_everything: got -1"),
    ({"trainer.check_val_every_n_epoch": [1, 0]}, "error: trainer.check_val_every_n_epoch: got 0"),
    ({"ckpt_path": ["last"]}, "error: ckpt_path: got 'last', allowed: null"),
    ({"trainer.logger": [False]}, "error: trainer.logger: got False, allowed: null"),
    ({"project": ["a/b"]}, "error: --project: got 'a/b'"),
    ({"config": ["x.yaml"]}, 'error: Parser key "config": File does not exist'),
]


@pytest.mark.parametrize(("parameters", "says"), MISTAKES)
def test_a_mistake_in_one_point_is_one_line_and_nothing_is_started(
    parameters: dict[str, Any], says: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    write_sweep(tmp_path, **parameters)
    assert main(["sweep", "some.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
    assert [file.name for file in tmp_path.iterdir()] == ["some.yaml"]


ARGUMENTS: list[tuple[list[str], str]] = [
    ([], "error: sweep: got '', allowed: FILE [--jobs N]"),
    (["nowhere.yaml"], "error: sweep: got 'nowhere.yaml', allowed: an existing file"),
    (["some.yaml", "more"], "error: sweep: got 'some.yaml more', allowed: FILE"),
    (["some.yaml", "--jobs", "0"], "error: --jobs: got 0, allowed: an integer from 1 up"),
    (["some.yaml", "--jobs", "many"], "error: --jobs: got 'many'"),
    (["some.yaml", "--jobs-per-gpu", "0"], "error: --jobs-per-gpu: got 0, allowed: an integer"),
    (
        ["some.yaml", "--jobs-per-gpu", "2", "--jobs", "4"],
        "error: --jobs-per-gpu: got 2, allowed: one of --jobs",
    ),
    (["some.yaml", "--count", "-1"], "error: --count: got -1"),
    (["some.yaml", "--seed", "-1"], "error: --seed: got -1"),
    (["some.yaml", "--run_dir", ""], "error: --run_dir: got ''"),
]


@pytest.mark.parametrize(("args", "says"), ARGUMENTS)
def test_a_mistake_on_the_command_line_is_one_line(
    args: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    write_sweep(Path(), **{"data.seed": [1]})
    assert main(["sweep", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)


def test_help_reads_well(capsys: pytest.CaptureFixture) -> None:
    assert main(["sweep", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        word in text
        for word in (
            "--jobs",
            "--jobs-per-gpu",
            "MPS",
            "--dry-run",
            "--run_dir",
            "--count",
            "Exit codes",
        )
    )


# `fit --ckpt_path last` with an id

FIT = [
    *("fit", "--config", "quickstart.yaml", "--data.num_train", "40", "--model.hidden", "8"),
    *("--model.channels", "[2,3,4,4]", "--trainer.max_epochs", "2", "--trainer.limit_val_batches"),
    *("0", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.callbacks=callbacks.RunCheckpoint", "--ckpt_path", "last"),
]


def test_with_an_id_only_that_run_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for run_id in ("first", "second"):
        monkeypatch.setenv("WANDB_RUN_ID", run_id)
        assert main(FIT) == 0
    first, second = (Path("runs/janus_pl") / run_id for run_id in ("first", "second"))
    for folder in (first, second):
        (folder / "outcome.json").unlink()
    monkeypatch.setenv("WANDB_RUN_ID", "first")
    assert main(FIT) == 0
    assert (first / "outcome.json").is_file()
    assert not (second / "outcome.json").exists()
    monkeypatch.setenv("WANDB_RUN_ID", "third")
    assert main(FIT) == 0, "an interrupted run of the same config is another one's"
    assert not (second / "outcome.json").exists()
    assert sorted(p.name for p in Path("runs/janus_pl").iterdir()) == ["first", "second", "third"]
    capsys.readouterr()
    monkeypatch.setenv("WANDB_RUN_ID", "first")
    assert main(FIT) == 2, "one that has ended is not overwritten"
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error
        == "error: WANDB_RUN_ID: got 'first', allowed: a run to go on with; that one has ended"
    )
    assert exit_code_of(first) == 0


def test_a_run_whose_folder_another_process_holds_leaves_it_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Also where that process has made it in the very moment."""
    import janus_pl.run.logger as wandb_run

    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    theirs: list[RunFolder] = []

    def hold(folder: Path, goes_on: bool = True) -> None:
        theirs.append(RunFolder(folder))
        raise UsageError("--ckpt_path", str(folder), "a run that no other process is at work on")

    monkeypatch.setattr(wandb_run, "_hold", hold)
    assert main(FIT) == 2
    assert "no other process" in capsys.readouterr().err
    assert (theirs[0].path / ".lock").is_file()
    theirs[0].let_go()
