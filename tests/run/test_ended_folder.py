"""The folder of a run that has ended is bitwise the same after every attempt to write into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from run.small_runs import SCRIPT, content_of, fit_args, only_run

from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.run.folder import RunFolder, check_new, check_outside

READ = ["--config", "tiny.yaml", "--ckpt_path"]
CSV = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
KEEP = '--trainer.callbacks+={"class_path": "lightning.pytorch.callbacks.ModelCheckpoint",'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one run that has ended."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("WANDB_MODE", "offline")
        assert main(fit_args()) == 0
    return place


@pytest.fixture
def ended(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, in a working directory of the test's own; relative."""
    shutil.copytree(trained, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return only_run()


# With the folder, the attempts and how they end; None where no one decides it.
ATTEMPTS: dict[str, tuple[Callable[[Path], list[str]], int | None]] = {
    "validate": (lambda run: ["validate", *READ, f"{run}/checkpoints/last.ckpt"], 0),
    "test": (lambda run: ["test", *READ, f"{run}/checkpoints/last.ckpt"], 0),
    "predict": (lambda run: ["predict", *READ, f"{run}/checkpoints/best.ckpt"], 0),
    "fit from its checkpoint": (lambda run: fit_args("--ckpt_path", f"{run}/nothing.ckpt"), 2),
    "verify": (lambda run: ["verify", str(run)], 0),
    "verify into it": (lambda run: ["verify", str(run), "--json", f"{run}/v.json"], 2),
    "report": (lambda run: ["report", str(run), "--out", "report"], 0),
    "report into it": (lambda run: ["report", str(run), "--out", f"{run}/report"], 2),
    "root": (lambda run: fit_args("--trainer.default_root_dir", str(run)), 2),
    "root of predict": (
        lambda run: [
            *("predict", *READ, f"{run}/checkpoints/last.ckpt"),
            *("--trainer.default_root_dir", str(run)),
        ],
        2,
    ),
    "run_dir": (lambda run: fit_args("--run_dir", f"{run}/runs"), 2),
    "csv": (lambda run: fit_args(CSV, f"--trainer.logger.save_dir={run}"), 2),
    "checkpoints": (
        lambda run: fit_args(f'{KEEP} "init_args": {{"dirpath": "{run}/checkpoints"}}}}'),
        2,
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_command(
    attempt: tuple[Callable[[Path], list[str]], int | None],
    ended: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    args, code = attempt
    before = content_of(ended)
    assert main(args(ended)) == code
    assert content_of(ended) == before
    if code == 2:
        said = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(said) == 1
        runs = [path.parent for path in Path("runs").glob("*/*/.lock")]
        assert runs == [ended], "nothing is made"


@pytest.mark.parametrize("more", [[], ["--trainer.logger=false"]], ids=["wandb", "no logger"])
def test_its_id(
    more: list[str], ended: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", ended.name)
    before = content_of(ended)
    for last in ([], ["--ckpt_path", "last"], ["--ckpt_path", f"{ended}/checkpoints/last.ckpt"]):
        assert main(fit_args(*more, *last)) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(said) == 1 and "has ended" in said[0] and ended.name in said[0]
        assert content_of(ended) == before


def test_its_id_spelled_in_another_way(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", ended.name)
    before = content_of(ended)
    os.symlink("runs", "link")
    for place in (str(Path("runs").absolute()), "./runs/../runs", "link"):
        assert main(fit_args("--run_dir", place)) == 2
        assert content_of(ended) == before


@pytest.mark.filterwarnings("ignore")
def test_its_id_in_a_script(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_of(ended)
    assert 'project="janus_pl"' in SCRIPT
    code = SCRIPT.replace('project="janus_pl"', f'project="janus_pl", id="{ended.name}"')
    with pytest.raises(UsageError, match="has ended"):
        exec(compile(code, "script.py", "exec"), {"__name__": "script"})
    # W&B's own file was begun before anybody could look, beside the folder and not in it.
    assert content_of(ended) == before


def test_a_sweep_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit_args()
    Path("sweep.yaml").write_text(
        "program: janus_pl\nmethod: grid\n"
        "command: [python, -m, janus_pl, fit, --config, tiny.yaml, --config, '${args_json_file}']\n"
        "parameters: {model.weight_decay: {values: [0.002]}}\n"
    )
    assert main(["sweep", "sweep.yaml"]) == 0
    before = content_of(only_run())
    assert main(["sweep", "sweep.yaml"]) == 0
    assert content_of(only_run()) == before


def test_a_run_that_can_go_on_is_not_begun_anew(
    ended: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its rows and checkpoints would be lost."""
    (ended / "outcome.json").unlink()
    monkeypatch.setenv("WANDB_RUN_ID", ended.name)
    before = content_of(ended)
    assert main(fit_args()) == 2
    assert "can go on by --ckpt_path last" in capsys.readouterr().err
    assert content_of(ended) == before
    assert main(fit_args("--ckpt_path", "last")) == 0
    assert content_of(ended) != before, "the control: going on does write"


# The checks by themselves


def test_a_place_is_refused_whatever_its_spelling(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    (run / "outcome.json").write_text(json.dumps({"exit_code": 0}))
    os.symlink(run, tmp_path / "link")
    for place in (run, run / "deep" / "er", tmp_path / "link" / "x", run / ".." / "a"):
        with pytest.raises(UsageError, match="whose run has ended"):
            check_outside("--out", place)
    for place in (tmp_path, tmp_path / "b", run / ".." / "ab"):
        check_outside("--out", place)


@pytest.mark.parametrize("code", [130, 143, 1])
def test_a_run_that_was_interrupted_may_be_written_to(code: int, tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text(json.dumps({"exit_code": code}))
    check_outside("--out", tmp_path / "x")
    check_new(tmp_path)


@pytest.mark.parametrize("name", ["rows.jsonl", "checkpoints/previous.ckpt"])
def test_a_folder_with_a_record_is_not_new(name: str, tmp_path: Path) -> None:
    check_new(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    check_new(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match="can go on"):
        check_new(tmp_path)
    with pytest.raises(UsageError, match="can go on"):
        RunFolder(tmp_path, goes_on=False)
    assert not (tmp_path / ".lock").exists(), "it is not locked for a look"
    RunFolder(tmp_path).let_go()
