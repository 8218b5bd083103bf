"""Checkpoints through the command line: damaged, hostile, on a disk that is full or read-only."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from record_reader import exit_code, read_rows
from storage import REFUSED, cut, fill, flip, read_only, small_disk

from janus_pl.callbacks import RunCheckpoint
from janus_pl.cli import lightning_cli
from janus_pl.cli import main as cli
from janus_pl.cli.main import main
from janus_pl.training.checkpoints import load_sound

MODEL = ["--model.strides", "[2, 2, 2, 2]", "--model.channels", "[2, 3, 4, 4]"]
MODEL += ["--model.init_scale", "1"]  # so that the loss moves
BARE = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
RUN = ["--config", "sgd.yaml", "--data", "janus_pl.data.DigitsPair", *MODEL, *BARE]
KEEP = '--trainer.callbacks=[{"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": '
FIT = ["fit", *RUN, "--model.hidden", "8", KEEP + '{"every_n_epochs": 2}}]']
FIT += ["--trainer.max_epochs", "6"]
READ = [
    *RUN,
    "--model.hidden",
    "8",
    '--trainer.callbacks=[{"class_path": "janus_pl.callbacks.MarginCSV"}',
]
READ[-1] += ', {"class_path": "janus_pl.callbacks.RunCheckpoint"}]'
LINEAR = ["fit", "--config", "linear/a1.yaml", *BARE[:2], "--trainer.max_epochs", "200"]
LINEAR += ["--model.learning_rate", "0.03"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoints of a run of six epochs: last of the sixth, previous of the fourth."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("finished"))
        monkeypatch.setattr(sys, "argv", ["janus_pl"])
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_SILENT", "true")
        assert main(FIT) == 0
        wandb.finish()
        (folder,) = Path.cwd().glob("runs/janus_pl/*/checkpoints")
    yield folder


@pytest.fixture
def kept(finished: Path, tmp_path: Path) -> Path:
    """A copy of last and previous to damage."""
    copy = Path(shutil.copytree(finished, tmp_path / "old" / "checkpoints"))
    (copy / "best.ckpt").unlink()  # it is of the last epoch, too
    return copy


def folder_of(runs: str | Path = "runs") -> Path:
    (folder,) = Path(runs).glob("janus_pl/*")
    return folder


def the_error(capsys: pytest.CaptureFixture) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    (line,) = lines
    return line


def before_save(monkeypatch: pytest.MonkeyPatch, n: int, act: Callable[[], object]) -> None:
    """Do something just before the nth time that checkpoints are saved."""
    save, calls = RunCheckpoint.save, []

    def then_save(self: RunCheckpoint, trainer: Any) -> None:
        calls.append(trainer.global_step)
        if len(calls) == n:
            act()
        save(self, trainer)

    monkeypatch.setattr(RunCheckpoint, "save", then_save)


# What a run leaves


def test_a_run_leaves_last_previous_and_best(finished: Path) -> None:
    assert {p.name for p in finished.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    steps = {p.stem: load_sound(p)[1]["global_step"] for p in finished.iterdir()}
    assert (steps["last"], steps["previous"]) == (18, 12)
    assert all(b"janus_pl sha256 " in p.read_bytes()[-90:] for p in finished.iterdir())


@pytest.mark.parametrize(
    "more", [[], ["--data.replicas=3", "--model.weight_decay=[0.01,0.1]"]], ids=["one", "replicas"]
)
def test_linear_regression_leaves_them_too(more: list[str]) -> None:
    assert main([*LINEAR, *more]) == 0
    kept = folder_of() / "checkpoints"
    assert {p.name for p in kept.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    for path in kept.iterdir():
        load_sound(path)
    last = kept / "last.ckpt"
    line = [*LINEAR, *more, "--trainer.max_epochs=300", "--run_dir=again"]
    assert main([*line, "--ckpt_path", str(last)]) == 0
    assert read_rows(folder_of("again"))[-1]["epoch"] == 300


def test_the_users_own_plugin_stays() -> None:
    own = "--trainer.plugins=lightning.pytorch.plugins.TorchCheckpointIO"
    assert main([*FIT, own]) == 0
    kept = folder_of() / "checkpoints"
    assert {p.name for p in kept.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert b"janus_pl sha256" not in (kept / "last.ckpt").read_bytes()


# Damaged


def test_a_run_goes_on_from_the_newest_sound_checkpoint(kept: Path) -> None:
    flip(kept / "last.ckpt", 5000)
    line = [*FIT, "--trainer.max_epochs", "8", "--ckpt_path", str(kept / "last.ckpt")]
    with pytest.warns(UserWarning) as caught:
        assert main(line) == 0
    (said,) = (m for w in caught if "cannot be used" in (m := str(w.message)))
    assert f"{kept / 'last.ckpt'} cannot be used: it is damaged" in said
    assert "of step 12" in said
    assert [row["epoch"] for row in read_rows(folder_of())] == [5, 6, 7, 8]


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_so_does_everything_else_that_reads_one(
    subcommand: str, kept: Path, capsys: pytest.CaptureFixture
) -> None:
    def result(name: str) -> str:
        assert main([subcommand, *READ, "--ckpt_path", str(kept / f"{name}.ckpt")]) == 0
        if subcommand == "predict":
            return Path(f"margins-{kept.parent.name}.csv").read_text()
        return capsys.readouterr().out

    last, previous = result("last"), result("previous")
    assert last != previous
    cut(kept / "last.ckpt", -100)
    with pytest.warns(UserWarning, match=r"last.ckpt cannot be used: it is cut off"):
        assert result("last") == previous


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def hostile(path: Path) -> None:
    held = torch.load(path, weights_only=True)
    torch.save({**held, "hyper_parameters": Code()}, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: cut(path, 0),
        lambda path: cut(path, 3000),
        lambda path: flip(path, 100, 3),
        lambda path: flip(path, -3, 1),
        hostile,
    ],
    ids=["empty", "truncated", "flipped", "flipped in the checksum", "code"],
)
def test_with_no_sound_one_the_run_is_refused_in_one_line(
    damage: Callable[[Path], None], kept: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in kept.iterdir():
        damage(path)
    assert main([*FIT, "--ckpt_path", str(kept / "last.ckpt")]) == 2
    line = the_error(capsys)
    assert f"--ckpt_path: got '{kept / 'last.ckpt'}', allowed: a sound checkpoint; this" in line
    assert ("posix.mkdir" in line) == (damage is hostile)
    assert not Path("made").exists()
    assert not Path("runs").exists()
    if damage is hostile:  # negative control: it is one that would have run
        torch.load(kept / "last.ckpt", weights_only=False)
        assert Path("made").exists()


def test_nobody_can_ask_for_code(kept: Path, capsys: pytest.CaptureFixture) -> None:
    for path in kept.iterdir():
        hostile(path)
    last = ["--ckpt_path", str(kept / "last.ckpt"), "--weights_only", "false"]
    assert main([*FIT, *last]) == 2
    assert "--weights_only: got False, allowed: true" in the_error(capsys)
    assert not Path("made").exists()
    assert not Path("runs").exists()


def test_a_checkpoint_of_another_model_is_refused_in_one_line(
    kept: Path, capsys: pytest.CaptureFixture
) -> None:
    last = ["--ckpt_path", str(kept / "last.ckpt")]
    assert main([*FIT, "--model.hidden", "9", *last]) == 2
    assert "model.hidden: got 9, allowed: 8, as in the checkpoint" in the_error(capsys)
    assert main([*LINEAR, *last]) == 2
    assert "one of a LinearRegressor" in the_error(capsys)
    held = torch.load(kept / "last.ckpt", weights_only=True)
    torch.save({**held, "hyper_parameters": {}}, kept / "last.ckpt")
    assert main([*FIT, "--model.hidden", "9", *last]) == 2
    where = "fc1.parametrizations.weight.original1 is (9, 4); in the file it is (8, 4)"
    assert where in the_error(capsys)
    del held["optimizer_states"]
    torch.save(held, kept / "last.ckpt")
    assert main([*FIT, *last]) == 2
    assert "this one holds the weights alone" in the_error(capsys)
    assert main(["validate", *FIT[1:], *last]) == 0  # which is all that this takes


# The disk


def test_a_disk_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        seen: dict[str, bytes] = {}

        def leave_little() -> None:
            last = folder_of(disk) / "checkpoints" / "last.ckpt"
            seen["last"] = last.read_bytes()
            filler = fill(disk)
            os.truncate(filler, filler.stat().st_size - 100_000)  # for the record

        before_save(monkeypatch, 2, leave_little)
        assert main([*FIT, "--model.hidden", "3000", "--run_dir", str(disk)]) == 4
        line = the_error(capsys)
        folder = folder_of(disk)
        assert f"error: {folder}/checkpoints/" in line
        assert "cannot be written: No space left on device; the one before it is kept" in line
        assert {p.name for p in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
        assert (folder / "checkpoints" / "last.ckpt").read_bytes() == seen["last"]
        assert load_sound(folder / "checkpoints" / "last.ckpt")[1]["global_step"] == 6
        assert exit_code(folder) == 4
        assert read_rows(folder)[-1]["epoch"] >= 3


@pytest.mark.parametrize("n", [None, 2], ids=["from the start", "later"])
def test_a_disk_without_a_byte_left(
    n: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """W&B has no room for its logs either, and says nothing of it."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        if n is None:
            fill(disk)
        else:
            before_save(monkeypatch, n, lambda: fill(disk))
        logging.raiseExceptions = True
        assert main([*FIT, "--run_dir", str(disk)]) == 4
        assert logging.raiseExceptions
        err = capfd.readouterr().err
        (line,) = (line for line in err.splitlines() if "No space left" in line)
        assert line.startswith("error: ")
        assert "Traceback" not in err
        if n is not None:
            kept = folder_of(disk) / "checkpoints" / "last.ckpt"
            assert load_sound(kept)[1]["global_step"] == 6


def test_a_folder_that_becomes_read_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with ExitStack() as mounts:

        def remount() -> None:
            mounts.enter_context(read_only(folder_of().absolute() / "checkpoints"))

        before_save(monkeypatch, 2, remount)
        assert main(FIT) == 4
        assert re.search(f"{REFUSED}; the one before it is kept", the_error(capsys))
        kept = folder_of() / "checkpoints" / "last.ckpt"
        assert load_sound(kept)[1]["global_step"] == 6
    assert exit_code(folder_of()) == 4


def test_a_run_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It could when it was checked."""
    (tmp_path / "runs").mkdir()
    check = lightning_cli.check_run_dir
    with ExitStack() as mounts:

        def check_and_remount(path: str) -> None:
            check(path)
            mounts.enter_context(read_only(tmp_path / "runs"))

        monkeypatch.setattr(lightning_cli, "check_run_dir", check_and_remount)
        assert main(FIT) == 4
        said = f"error: runs/janus_pl.* cannot be written: {REFUSED}"
        assert re.fullmatch(said, the_error(capsys))


def test_predictions_that_cannot_be_written(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    checkpoint, place = (kept / "last.ckpt").absolute(), tmp_path / "place"
    place.mkdir()
    with read_only(place), monkeypatch.context() as patch:
        patch.chdir(place)
        assert main(["predict", *READ, "--ckpt_path", str(checkpoint)]) == 4
    assert re.search(rf"margins-\w+.csv: cannot be written: {REFUSED}", the_error(capsys))


@pytest.mark.parametrize("kind", ["another device", "full"])
def test_a_temporary_folder_elsewhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "tmp", "64k") as other:
        assert other.stat().st_dev != tmp_path.stat().st_dev
        wandb.setup().ensure_service()  # whose start needs a little room
        if kind == "full":
            fill(other)
        monkeypatch.setenv("TMPDIR", str(other))
        monkeypatch.setattr(tempfile, "tempdir", str(other))
        assert main([*FIT, "--model.hidden", "3000"]) == 0  # whose checkpoint fits in neither
        kept = folder_of()
        assert load_sound(kept / "checkpoints" / "last.ckpt")[1]["global_step"] == 18
        own = "--trainer.plugins=lightning.pytorch.plugins.TorchCheckpointIO"  # negative control
        assert main([*FIT, "--model.hidden", "3000", "--run_dir", "control", own]) == 4
    assert exit_code(kept) == 0


# What is no matter of the disk


def test_an_error_of_another_kind_stays_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")

    before_save(monkeypatch, 1, fail)
    with pytest.raises(FileNotFoundError):
        main(FIT)
    assert exit_code(folder_of()) == 1


@pytest.mark.parametrize(("rate", "code"), [("0.03", 4), ("1e20", 3)])
def test_a_record_that_cannot_be_closed(
    rate: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It is the first error that counts, and the only one that is said."""

    def fail(exit_code: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "a.wandb")

    monkeypatch.setattr(cli.logger, "finish", fail)
    assert main([*FIT, "--model.learning_rate", rate]) == code
    said = {4: "error: a.wandb: Disk quota exceeded", 3: "error: parameter conv1 not finite"}
    assert the_error(capsys).startswith(said[code])
