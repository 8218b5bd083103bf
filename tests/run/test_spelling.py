"""A folder is not its spelling: what a run knows of its checkpoints holds wherever it goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run.small_runs import fit_args, only_run, rows_of

from janus_pl.callbacks import run_checkpoint
from janus_pl.cli.main import main
from janus_pl.run.record import is_in

LENGTH = ["--trainer.max_epochs", "6"]
KEEP = (
    "--trainer.callbacks=[{class_path: janus_pl.callbacks.RunCheckpoint, init_args:"
    " {every_n_epochs: 1, monitor: rho, mode: MODE}}]"
)


@pytest.fixture(scope="module", params=["max", "min"])
def stopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A working directory with a whole run, and one that was killed after four of six epochs."""
    place = tmp_path_factory.mktemp("stopped")
    more = [*LENGTH, KEEP.replace("MODE", request.param)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("WANDB_MODE", "offline")
        assert main(fit_args(*more, "--run_dir", "whole")) == 0
        save = run_checkpoint.RunCheckpoint.on_train_epoch_end

        def stop(self: Any, trainer: Any, module: Any) -> None:
            save(self, trainer, module)
            if trainer.current_epoch == 3:
                raise KeyboardInterrupt

        patch.setattr(run_checkpoint.RunCheckpoint, "on_train_epoch_end", stop)
        main(fit_args(*more))
    (only_run(str(place / "runs/janus_pl")) / "outcome.json").unlink()
    return place, more


@pytest.fixture
def here(stopped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of the run, in a copy of its working directory."""
    place, more = stopped
    shutil.copytree(place, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return more


def best_of(folder: Path) -> tuple[int, float]:
    """The step and the score of the best checkpoint."""
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    score = last["callbacks"]["RunCheckpoint"]["best_model_score"]
    return state["global_step"], float(score)


def goes_on(more: list[str], root: Path = Path("runs")) -> None:
    """The run goes on from this working directory, and ends as the whole one."""
    command = ["fit", "--config", "tiny.yaml", *more, "--ckpt_path", "last"]
    assert main([*command, "--run_dir", str(root)]) == 0
    folder = only_run(str(root / "janus_pl"))
    whole = only_run(str(root.resolve().parent / "whole" / "janus_pl"))
    assert rows_of(folder) == rows_of(whole)
    assert best_of(folder) == best_of(whole)


def test_in_place(here: list[str]) -> None:
    goes_on(here)


def test_by_an_absolute_path(here: list[str]) -> None:
    goes_on(here, Path("runs").absolute())


def test_by_a_link(here: list[str]) -> None:
    os.symlink("runs", "link")
    goes_on(here, Path("link"))


def test_from_a_subfolder(here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("deeper").mkdir()
    shutil.copy("tiny.yaml", "deeper")
    monkeypatch.chdir("deeper")
    goes_on(here, Path("../runs"))


def test_after_a_new_name(here: list[str]) -> None:
    Path("runs").rename("moved")
    goes_on(here, Path("moved"))


def test_of_the_folder_itself(here: list[str]) -> None:
    """The id is the folder's name."""
    folder = only_run()
    folder.rename(folder.with_name("renamed"))
    goes_on(here)
    assert json.loads(Path("runs/janus_pl/renamed/outcome.json").read_text())["exit_code"] == 0


def test_the_control_a_run_that_forgets_its_best_ends_with_another(
    here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if best_of(only_run("whole/janus_pl"))[0] > 12:
        pytest.skip("the best of the whole run comes after the stop")
    monkeypatch.setattr(run_checkpoint.RunCheckpoint, "load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError):
        goes_on(here)


def test_a_best_one_that_is_gone_is_replaced(here: list[str]) -> None:
    folder = only_run()
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert main(fit_args(*here, "--ckpt_path", "last")) == 0
    assert best_of(folder)[0] in (15, 18), "the best of the two epochs that were left"


@pytest.mark.parametrize("damaged", [False, True])
def test_without_the_last_one_it_goes_on_from_the_newest_sound_one(
    damaged: bool, here: list[str], capsys: pytest.CaptureFixture, recwarn: Any
) -> None:
    kept = only_run() / "checkpoints"
    steps = {}
    for path in kept.iterdir():
        steps[path.name] = torch.load(path, weights_only=True)["global_step"]
    assert steps.pop("last.ckpt") == 12 and steps["previous.ckpt"] == 9
    (kept / "last.ckpt").unlink()
    if damaged:
        (kept / "previous.ckpt").write_bytes(b"PK not at all")
        del steps["previous.ckpt"]
    newest = max(steps, key=lambda name: steps[name])
    goes_on(here)
    said = "".join(str(warning.message) for warning in recwarn)
    assert f"taking {newest} beside it instead, of step {steps[newest]}" in said


def test_without_any_sound_one_it_is_refused(
    here: list[str], capsys: pytest.CaptureFixture
) -> None:
    kept = only_run() / "checkpoints"
    (kept / "last.ckpt").unlink()
    for path in kept.iterdir():
        path.write_bytes(b"")
    assert main(fit_args(*here, "--ckpt_path", "last")) == 2
    assert "there is no sound one beside it" in capsys.readouterr().err


def test_a_file_that_is_named_has_to_be_there(
    here: list[str], capsys: pytest.CaptureFixture
) -> None:
    path = only_run() / "checkpoints" / "last.ckpt"
    path.unlink()
    assert main(fit_args(*here, "--ckpt_path", str(path))) == 2
    assert "an existing checkpoint file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "direct", "below"),
    [
        ("a/b", True, True),
        ("./a/../a/b", True, True),
        ("link/b", True, True),
        ("a/b/c", False, True),
        ("a", False, True),
        ("ab/c", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_whether_a_path_is_in_a_folder(
    path: str | None, direct: bool, below: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    os.symlink("a", "link")
    for folder in (Path("a"), tmp_path / "a", Path("link")):
        assert is_in(path, folder) is direct
        assert is_in(path, folder, below=True) is below
