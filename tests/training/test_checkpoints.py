"""Checkpoints: whole, checked, and without code; Lightning's own as the negative control."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import LIMIT, PACKAGE
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins import AsyncCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from storage import REFUSED, cut, fill, flip, read_only, small_disk
from torch.optim.lr_scheduler import OneCycleLR

from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import RunCheckpoint
from janus_pl.errors import StorageError, UsageError
from janus_pl.training.checkpoints import (
    VerifiedCheckpointIO,
    check_fits,
    load_sound,
    with_verified_io,
)


def checkpoint(step: int = 1, size: int = 10) -> dict[str, Any]:
    weight = torch.full((size,), float(step), dtype=torch.float64)
    return {
        "state_dict": {"weight": weight},
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
    }


def save(path: Path, step: int = 1, size: int = 10) -> None:
    VerifiedCheckpointIO().save_checkpoint(checkpoint(step, size), path)


def step_of(path: Path) -> int:
    """Of a file that is sound itself."""
    place, loaded = load_sound(path)
    assert place == path
    assert set(loaded["state_dict"]["weight"].tolist()) == {loaded["global_step"]}
    return loaded["global_step"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# The file


def test_plain_torch_load_and_zipfile_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path, 7)
    for options in ({}, {"mmap": True}):
        loaded = torch.load(path, weights_only=True, **options)
        assert torch.equal(loaded["state_dict"]["weight"], checkpoint(7)["state_dict"]["weight"])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    loaded = TorchCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 7


def test_the_previous_one_stays_beside_the_last(tmp_path: Path) -> None:
    store = VerifiedCheckpointIO()
    for step in (1, 2, 3):
        store.save_checkpoint(checkpoint(step), tmp_path / "last.ckpt")
        store.save_checkpoint(checkpoint(step), tmp_path / "best.ckpt")
    assert step_of(tmp_path / "last.ckpt") == 3
    assert step_of(tmp_path / "previous.ckpt") == 2
    assert names(tmp_path) == {"last.ckpt", "previous.ckpt", "best.ckpt"}


def test_a_damaged_last_never_takes_the_place_of_the_previous_one(tmp_path: Path) -> None:
    """A run goes on from previous.ckpt and saves: what is damaged must not become previous."""
    for step in (1, 2):
        save(tmp_path / "last.ckpt", step)
    flip(tmp_path / "last.ckpt", 700)
    save(tmp_path / "last.ckpt", 3)
    assert step_of(tmp_path / "last.ckpt") == 3
    assert step_of(tmp_path / "previous.ckpt") == 1


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    held = {**checkpoint(), "hyper_parameters": {"root": Path("x"), "loss": torch.nn.MSELoss()}}
    with pytest.raises(UsageError, match=r"torch.nn.modules.loss.MSELoss.*, allowed: tensors"):
        VerifiedCheckpointIO().save_checkpoint(held, path)
    assert not path.exists()
    TorchCheckpointIO().save_checkpoint(held, path)  # Lightning's own saves it, and cannot load it
    with pytest.raises(pickle.UnpicklingError):
        TorchCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("place", ["s3://bucket/a.ckpt", "memory://a.ckpt"])
def test_a_place_that_is_no_local_folder(place: str) -> None:
    with pytest.raises(UsageError, match="a local folder"):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(), place)


def test_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(), tmp_path / "a.ckpt", {"a": 1})


# What is damaged

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: cut(path, 0),
    "one byte": lambda path: cut(path, 1),
    "half": lambda path: cut(path, path.stat().st_size // 2),
    "without its checksum": lambda path: cut(path, -82),
    "without its last byte": lambda path: cut(path, -1),
    "first bit": lambda path: flip(path, 0),
    "a weight": lambda path: flip(path, path.read_bytes().index(checkpoint_bytes()) + 9, 6),
    "the middle": lambda path: flip(path, path.stat().st_size // 2, 7),
    "the checksum": lambda path: flip(path, -5),
    "last bit": lambda path: flip(path, -1, 7),
    "something appended": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a text": lambda path: path.write_text("no checkpoint"),
    "another archive": lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
    "a tensor": lambda path: torch.save(torch.ones(3), path),
    "no checkpoint of Lightning": lambda path: torch.save({"state_dict": {}}, path),
}


def checkpoint_bytes(step: int = 2) -> bytes:
    return checkpoint(step)["state_dict"]["weight"].numpy().tobytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_newest_sound_one_is_taken(
    damage: str, tmp_path: Path
) -> None:
    save(tmp_path / "last.ckpt", 1)
    save(tmp_path / "last.ckpt", 2)
    DAMAGES[damage](tmp_path / "last.ckpt")
    with pytest.warns(UserWarning) as caught:
        loaded = VerifiedCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert loaded["global_step"] == 1
    (message,) = (str(warning.message) for warning in caught)
    assert str(tmp_path / "last.ckpt") in message
    assert "previous.ckpt beside it instead, of step 1" in message
    assert "\n" not in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_no_sound_one_the_message_is_one_line(damage: str, tmp_path: Path) -> None:
    save(tmp_path / "last.ckpt", 1)
    save(tmp_path / "last.ckpt", 2)
    cut(tmp_path / "previous.ckpt", 100)
    DAMAGES[damage](tmp_path / "last.ckpt")
    with pytest.raises(UsageError) as caught:
        load_sound(tmp_path / "last.ckpt")
    message = str(caught.value)
    assert message.startswith(f"--ckpt_path: got '{tmp_path / 'last.ckpt'}', allowed: a sound")
    assert "\n" not in message


def test_lightnings_own_takes_a_flipped_weight_for_the_weight(tmp_path: Path) -> None:
    """Negative control."""
    path = tmp_path / "last.ckpt"
    TorchCheckpointIO().save_checkpoint(checkpoint(2), path)
    DAMAGES["a weight"](path)
    wrong = TorchCheckpointIO().load_checkpoint(path)["state_dict"]["weight"]
    assert not torch.equal(wrong, checkpoint(2)["state_dict"]["weight"])
    with pytest.raises(UsageError, match="checksum differs"):  # ours sees it in this file, too
        load_sound(path)


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save(path)
    sound = path.read_bytes()
    missed = []
    for byte in range(len(sound)):
        content = bytearray(sound)
        content[byte] ^= 1 << byte % 8
        path.write_bytes(content)
        try:
            load_sound(path)
            missed.append(byte)
        except UsageError:
            pass
    assert missed == []
    path.write_bytes(sound)
    assert step_of(path) == 1


def test_files_of_other_hands_are_taken_when_their_records_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    TorchCheckpointIO().save_checkpoint(checkpoint(5), path)
    assert step_of(path) == 5


def test_the_newest_is_that_of_the_most_steps_whatever_its_date(tmp_path: Path) -> None:
    for name, step in (("best", 40), ("previous", 90), ("epoch=3", 60), ("last", 100)):
        save(tmp_path / f"{name}.ckpt", step)
    os.utime(tmp_path / "previous.ckpt", (0, 0))
    save(tmp_path / ".last.ckpt.janus-part", 1000)  # of a killed save: no checkpoint
    cut(tmp_path / "last.ckpt", -3)
    with pytest.warns(UserWarning, match=r"previous.ckpt beside it instead, of step 90"):
        place, loaded = load_sound(tmp_path / "last.ckpt")
    assert (place.name, loaded["global_step"]) == ("previous.ckpt", 90)


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(UsageError, match="an existing checkpoint file"):
        load_sound(tmp_path / "last.ckpt")
    save(tmp_path / "last.ckpt")

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match=r"cannot be read \(Input/output error\)"):
        load_sound(tmp_path / "last.ckpt")


# What would run code


class Code:
    """Pickled, it is an instruction to make a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def _seal_after(path: Path, held: dict[str, Any]) -> None:
    """A stranger knows how to make our checksum, too."""
    torch.save(held, path)
    body = path.read_bytes()[:-2]
    comment = b"janus_pl sha256 " + sha256(body).hexdigest().encode()
    path.write_bytes(body + struct.pack("<H", len(comment)) + comment)


CODE: dict[str, Callable[[Path, dict[str, Any]], object]] = {
    "pickle": lambda path, held: path.write_bytes(pickle.dumps(held)),
    "torch.save": lambda path, held: torch.save(held, path),
    "torch.save of old": lambda path, held: torch.save(
        held, path, _use_new_zipfile_serialization=False
    ),
    "with our checksum": _seal_after,
}


@pytest.mark.parametrize("kind", CODE)
def test_a_checkpoint_runs_no_code(kind: str, tmp_path: Path) -> None:
    path, made = tmp_path / "last.ckpt", tmp_path / "made"
    CODE[kind](path, {**checkpoint(2), "hyper_parameters": {"a": Code(made)}})
    with pytest.raises(UsageError) as caught:
        VerifiedCheckpointIO().load_checkpoint(path)
    assert not made.exists()
    assert str(path) in str(caught.value)
    if kind in ("torch.save", "with our checksum"):
        assert "posix.mkdir" in str(caught.value)
    # Negative control: the file is one that would have run.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert made.is_dir()


def test_nobody_can_ask_for_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = tmp_path / "last.ckpt", tmp_path / "made"
    torch.save({**checkpoint(2), "hyper_parameters": Code(made)}, path)
    with pytest.raises(UsageError, match="--weights_only: got False"):
        VerifiedCheckpointIO().load_checkpoint(path, weights_only=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UsageError, match=r"posix\.mkdir"):
        VerifiedCheckpointIO().load_checkpoint(path)
    assert not made.exists()


# The disk


def temporary_folder(monkeypatch: pytest.MonkeyPatch, folder: str | Path) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_a_full_disk_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TMPDIR on another device; Lightning's own copies from there over the old file."""
    temporary_folder(monkeypatch, tmp_path)
    with small_disk(tmp_path / "disk", "128k") as disk:
        save(disk / "last.ckpt", 1, 1000)
        with pytest.raises(StorageError, match=r"last.ckpt: cannot be written: No space left"):
            save(disk / "last.ckpt", 2, 30_000)
        assert step_of(disk / "last.ckpt") == 1
        assert names(disk) == {"last.ckpt"}
        save(disk / "last.ckpt", 3, 1000)
        assert step_of(disk / "last.ckpt") == 3

        control = disk / "control.ckpt"
        TorchCheckpointIO().save_checkpoint(checkpoint(1, 1000), control)
        assert step_of(control) == 1
        with pytest.raises(OSError, match="No space left"):
            TorchCheckpointIO().save_checkpoint(checkpoint(2, 30_000), control)
        (disk / "last.ckpt").unlink()
        (disk / "previous.ckpt").unlink()
        with pytest.raises(UsageError, match="there is no sound one beside it"):
            load_sound(control)


def test_a_temporary_folder_that_takes_nothing_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "tmp", "64k") as full:
        fill(full)
        temporary_folder(monkeypatch, full)
        save(tmp_path / "last.ckpt", 1)
        with pytest.raises(OSError, match="No space left"):
            TorchCheckpointIO().save_checkpoint(checkpoint(1), tmp_path / "control.ckpt")
    temporary_folder(monkeypatch, tmp_path / "nowhere")
    save(tmp_path / "last.ckpt", 2)
    assert step_of(tmp_path / "last.ckpt") == 2
    with pytest.raises(FileNotFoundError):
        TorchCheckpointIO().save_checkpoint(checkpoint(1), tmp_path / "control.ckpt")


def test_a_read_only_folder_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "last.ckpt", 1)
    with read_only(tmp_path), pytest.raises(StorageError, match=f"{REFUSED}; the one"):
        save(tmp_path / "last.ckpt", 2)
    assert step_of(tmp_path / "last.ckpt") == 1
    assert names(tmp_path) == {"last.ckpt"}


def test_a_permission_error_is_never_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own returns as if all were well."""

    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"last.ckpt: cannot be written: Permission denied"):
        save(tmp_path / "last.ckpt")
    monkeypatch.setattr("shutil.move", refuse)
    TorchCheckpointIO().save_checkpoint(checkpoint(), tmp_path / "control.ckpt")
    assert not (tmp_path / "control.ckpt").exists()


# Killed while saving

KILLED = """
import io, os, signal, sys
from pathlib import Path
import torch
from janus_pl.run import files
from janus_pl.training.checkpoints import VerifiedCheckpointIO

folder = Path(sys.argv[1])


def held(step):
    weight = torch.full((100_000,), float(step), dtype=torch.float64)
    return {"state_dict": {"weight": weight}, "global_step": step, "pytorch-lightning_version": ""}


def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)


class Half:
    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()


def in_the_middle():
    real = Path.open
    Path.open = lambda self, mode: Half(real(self, mode))


def before_fsync():
    os.fsync = die


def before_the_second_name():
    os.link = die


def before_replace():
    real = os.replace
    os.replace = lambda a, b: die() if str(b).endswith("last.ckpt") else real(a, b)


def before_the_folder_is_synced():
    files._sync_folder = die


def control():
    plain = lambda self, held, path: torch.save(held, Half(open(path, "wb")))
    VerifiedCheckpointIO.save_checkpoint = plain


for moment in (in_the_middle, before_fsync, before_the_second_name, before_replace,
               before_the_folder_is_synced, control):
    path = folder / moment.__name__ / "last.ckpt"
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(held(step), path)
    child = os.fork()
    if child == 0:
        moment()
        VerifiedCheckpointIO().save_checkpoint(held(3), path)
        os._exit(0)
    print(moment.__name__, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_killed_while_saving(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=LIMIT
    )
    moments = dict(line.split() for line in done.stdout.splitlines())
    assert len(moments) == 6
    assert set(moments.values()) == {str(-signal.SIGKILL)}
    for moment in moments.keys() - {"control"}:
        folder = tmp_path / moment
        after = moment == "before_the_folder_is_synced"
        assert step_of(folder / "last.ckpt") == (3 if after else 2), moment
        assert step_of(folder / "previous.ckpt") in (1, 2), moment
        leftovers = names(folder) - {"last.ckpt", "previous.ckpt"}
        assert leftovers == (set() if after else {".last.ckpt.janus-part"}), moment
        last = step_of(folder / "last.ckpt")
        save(folder / "last.ckpt", 4)
        assert names(folder) == {"last.ckpt", "previous.ckpt"}, moment
        assert step_of(folder / "last.ckpt") == 4, moment
        assert step_of(folder / "previous.ckpt") == last, moment
    with pytest.warns(UserWarning, match="cut off"):  # a plain write leaves half a file
        assert load_sound(tmp_path / "control" / "last.ckpt")[1]["global_step"] == 1


# In a trainer


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad],
    ids=lambda kind: kind.__name__,
)
def test_what_lightning_and_the_tasks_save_is_plain_and_resumes(
    optimizer: Any, small_task: Any, small_loader: Any, fit: Any, tmp_path: Path
) -> None:
    """Optimizer, scheduler, callbacks: all of it loads, and the run goes on bitwise."""

    def task() -> DeepReLUClassifier:
        make = lambda params, lr: optimizer(params, lr)  # noqa: E731
        cycle = partial(OneCycleLR, max_lr=0.1, total_steps=9, cycle_momentum=False)
        return small_task(optimizer=make, schedule=cycle)

    def train(module: DeepReLUClassifier, epochs: int, **options: Any) -> Any:
        callbacks = [RunCheckpoint(1), EarlyStopping("train/loss_running", patience=50)]
        options |= {"plugins": [VerifiedCheckpointIO()], "enable_checkpointing": True}
        return fit(module, small_loader(), epochs, callbacks, **options)

    whole, half, resumed = task(), task(), task()
    train(whole, 4, default_root_dir=tmp_path / "whole")
    train(half, 2, default_root_dir=tmp_path / "half")
    last = tmp_path / "half" / "checkpoints" / "last.ckpt"
    train(resumed, 4, default_root_dir=tmp_path / "resumed", ckpt_path=last)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    pairs = zip(whole.parameters(), half.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    loaded = DeepReLUClassifier.load_from_checkpoint(last, weights_only=True)
    for a, b in zip(loaded.parameters(), half.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_users_own_way_of_storing_stays() -> None:
    own = TorchCheckpointIO()
    stored = SingleDeviceStrategy(checkpoint_io=own)
    assert with_verified_io(own, "auto") == [own]
    assert with_verified_io([own], "auto") == [own]
    assert with_verified_io(None, stored) == []
    wrapped = AsyncCheckpointIO()
    assert with_verified_io([wrapped], "auto") == [wrapped]
    for plugins, strategy in ((None, "auto"), ([], SingleDeviceStrategy()), ("x", "ddp")):
        *others, ours = with_verified_io(plugins, strategy)
        assert isinstance(ours, VerifiedCheckpointIO)
        assert others == ([plugins] if plugins else [])
    assert issubclass(VerifiedCheckpointIO, CheckpointIO)


def test_a_checkpoint_has_to_fit(tmp_path: Path) -> None:
    path, held = tmp_path / "a.ckpt", checkpoint()
    weights = held["state_dict"]
    check_fits(path, held, weights, training=False)
    check_fits(path, held, {}, training=False)  # not known before the data are
    with pytest.raises(UsageError, match="the weights alone"):
        check_fits(path, held, weights, training=True)
    for other, said in (
        ({"weight": torch.ones(11)}, r"weight is \(11,\); in the file it is \(10,\)"),
        ({**weights, "bias": torch.ones(2)}, r"bias is \(2,\); in the file it is missing"),
        ({"a": weights["weight"]}, r"a is \(10,\); in the file it is missing"),
    ):
        with pytest.raises(UsageError, match=said):
            check_fits(path, held, other, training=False)
