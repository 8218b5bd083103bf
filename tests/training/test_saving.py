"""What a save leaves behind beside its file: descriptors, leftovers, and what is believed of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from storage import flip

from janus_pl.errors import StorageError
from janus_pl.run.files import write_atomically
from janus_pl.training import checkpoints as checkpoint_io
from janus_pl.training.checkpoints import VerifiedCheckpointIO, load_sound


def checkpoint(step: int) -> dict[str, Any]:
    weight = torch.full((10,), float(step))
    version = {"pytorch-lightning_version": "2.6.6"}
    return {"state_dict": {"weight": weight}, "global_step": step, **version}


def step_of(path: Path) -> int:
    place, loaded = load_sound(path)
    assert place == path
    return loaded["global_step"]


def refuse(*args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def opened() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_no_descriptor_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system refuses; a run saves a hundred thousand times."""
    write_atomically(tmp_path / "a", lambda file: file.write(b"one"))
    before = opened()
    write_atomically(tmp_path / "a", lambda file: file.write(b"two"), tmp_path / "b")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError):
        write_atomically(tmp_path / "a", lambda file: file.write(b"three"))
    assert opened() == before


@pytest.mark.parametrize(("code", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_is_told_from_one_that_fails(
    code: int, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    before = opened()
    if raised:
        with pytest.raises(StorageError, match="Input/output error"):
            write_atomically(tmp_path / "a", lambda file: file.write(b"one"))
    else:
        write_atomically(tmp_path / "a", lambda file: file.write(b"one"))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert opened() == before


def test_all_of_the_content_is_with_the_system_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the buffer of this process is not what fsync waits for."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    write_atomically(tmp_path / "a", lambda file: file.write(b"x" * 10))
    assert sizes[0] == 10


def test_leftovers_of_a_killed_save_are_no_hindrance(tmp_path: Path) -> None:
    """Of both its names, whatever is in them."""
    path, kept = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    path.write_bytes(b"one")
    for name in (".last.ckpt.janus-part", ".previous.ckpt.janus-part"):
        (tmp_path / name).write_bytes(b"half of something")
    write_atomically(path, lambda file: file.write(b"two"), kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"two", b"one")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_at_every_moment_of_a_save_the_last_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own name, whole; the second name never takes the first away."""
    store, path = VerifiedCheckpointIO(), tmp_path / "last.ckpt"
    store.save_checkpoint(checkpoint(1), path)
    seen: list[tuple[str, int]] = []
    for name in ("fsync", "replace", "link"):
        original = getattr(os, name)

        def call(*args: Any, _of: Any = (name, original)) -> None:
            seen.append((f"before {_of[0]}", step_of(path)))
            _of[1](*args)
            seen.append((f"after {_of[0]}", step_of(path)))

        monkeypatch.setattr(os, name, call)
    store.save_checkpoint(checkpoint(2), path)
    steps = [step for _, step in seen]
    assert steps == sorted(steps) and set(steps) == {1, 2}
    names = [name for name, _ in seen if name.startswith("before")]
    assert names == [f"before {name}" for name in ("fsync", "link", "replace", "replace", "fsync")]


def test_a_save_removes_what_killed_ones_have_left(tmp_path: Path) -> None:
    left = tmp_path / ".epoch=3.ckpt.janus-part"
    left.write_bytes(b"half")
    VerifiedCheckpointIO().save_checkpoint(checkpoint(1), tmp_path / "last.ckpt")
    assert not left.exists()


def test_only_the_last_one_has_a_previous_one(tmp_path: Path) -> None:
    store = VerifiedCheckpointIO()
    for step in (1, 2):
        store.save_checkpoint(checkpoint(step), tmp_path / "best.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]


def test_what_this_process_has_written_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = VerifiedCheckpointIO(), tmp_path / "last.ckpt"
    store.save_checkpoint(checkpoint(1), path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_io, "_verify", refuse)
        store.save_checkpoint(checkpoint(2), path)
    assert step_of(tmp_path / "previous.ckpt") == 1


def test_a_save_that_failed_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before it is damaged, and must not become the previous one."""
    store, path = VerifiedCheckpointIO(), tmp_path / "last.ckpt"
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), path)
    flip(path, 700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageError):
            store.save_checkpoint(checkpoint(3), path)
    store.save_checkpoint(checkpoint(4), path)
    assert step_of(path) == 4
    assert step_of(tmp_path / "previous.ckpt") == 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
def test_of_several_the_newest_is_taken_whatever_their_names(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    for name, step in zip("abc", order, strict=True):
        VerifiedCheckpointIO().save_checkpoint(checkpoint(step), tmp_path / f"{name}.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.warns(UserWarning, match="of step 3"):
        place, loaded = load_sound(tmp_path / "last.ckpt")
    assert place.stem == "abc"[order.index(3)] and loaded["global_step"] == 3
