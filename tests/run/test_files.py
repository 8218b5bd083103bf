"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import LIMIT
from storage import REFUSED, fill, read_only, small_disk

from janus_pl.errors import StorageError
from janus_pl.run.files import remove_leftovers, save_arrays, settle, write_atomically


def write(path: Path, content: bytes, keep: Path | None = None) -> None:
    write_atomically(path, lambda file: file.write(content), keep)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_write_replaces_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write(path, b"one")
    write(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == {"file"}


def test_content_is_on_the_disk_before_it_has_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the content, replace, fsync of the folder; all in the folder of the file."""
    path = tmp_path / "file"
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def spy_sync(descriptor: int) -> None:
        steps.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def spy_replace(source: Any, target: Any) -> None:
        assert Path(source).parent == Path(target).parent == tmp_path
        steps.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write(path, b"one")
    content, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert steps == [("sync", content), ("replace", content), ("sync", folder)]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_what_the_system_refuses_leaves_the_old_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call != "write":
        monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError) as caught:
        write_atomically(path, refuse if call == "write" else lambda file: file.write(b"new"))
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device; the one before it is kept"
    )
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_an_exception_of_the_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", fail)
    assert names(tmp_path) == set()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(StorageError, match=r"folder/file: cannot be written: (File exists|Not a)"):
        write(tmp_path / "folder" / "file", b"one")


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        write(disk / "file", b"old")
        filler = fill(disk)
        with pytest.raises(StorageError, match="No space left on device; the one before"):
            write(disk / "file", bytes(20_000))
        assert (disk / "file").read_bytes() == b"old"
        assert names(disk) == {"file", "filler"}
        filler.unlink()
        write(disk / "file", b"new")
        assert (disk / "file").read_bytes() == b"new"


def test_a_read_only_folder(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")
    with read_only(tmp_path):
        with pytest.raises(StorageError, match=f"{REFUSED}; the one before"):
            write(tmp_path / "file", b"new")
        with pytest.raises(StorageError, match=rf"other: cannot be written: {REFUSED}$"):
            write(tmp_path / "other", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_the_replaced_file_stays_under_another_name(tmp_path: Path) -> None:
    path, kept = tmp_path / "file", tmp_path / "kept"
    for content in (b"one", b"two", b"three"):
        write(path, content, kept if path.exists() else None)
    assert (path.read_bytes(), kept.read_bytes()) == (b"three", b"two")
    assert names(tmp_path) == {"file", "kept"}


def test_both_names_may_be_one_file_after_a_kill(tmp_path: Path) -> None:
    """Killed between the second name and the replacement: `rename` then does nothing."""
    path, kept = tmp_path / "file", tmp_path / "kept"
    write(path, b"one")
    os.link(path, kept)
    write(path, b"two", kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"two", b"one")
    assert names(tmp_path) == {"file", "kept"}


def test_without_hard_links_the_replaced_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "file", tmp_path / "kept"

    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    write(path, b"one")
    write(path, b"two", kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"two", b"one")
    assert names(tmp_path) == {"file", "kept"}


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.janus-part", ".last.ckpt.janus-part", ".hidden", "a.janus-part", "last.ckpt"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {".hidden", "a.janus-part", "last.ckpt"}


# numpy 2.0 leaves the archive that cannot be written to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*ZipFile:pytest.PytestUnraisableExceptionWarning"
)
def test_arrays_are_written_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "final.npz"
    save_arrays(path, W=np.ones(3), epochs=4)
    with np.load(path) as arrays:
        assert arrays["W"].tolist() == [1, 1, 1]
        assert arrays["epochs"] == 4
    with small_disk(tmp_path / "disk", "64k") as disk:
        save_arrays(disk / "final.npz", W=np.ones(3))
        with pytest.raises(StorageError, match=r"final.npz: cannot be written: No space"):
            save_arrays(disk / "final.npz", W=np.ones(30_000))
        with np.load(disk / "final.npz") as arrays:
            assert arrays["W"].tolist() == [1, 1, 1]


def test_settling_waits_for_the_program_that_has_the_record_open(tmp_path: Path) -> None:
    """A program of W&B's name that holds the file for as long as it is told."""
    name = tmp_path / "wandb-core"
    name.symlink_to("/bin/cat")
    record = tmp_path / "wandb" / "run-abc.wandb"
    record.parent.mkdir()
    with record.open("wb") as file:
        holder = subprocess.Popen([name], stdin=subprocess.PIPE, stdout=file)
    settled = threading.Event()

    def wait() -> None:
        settle(tmp_path)
        settled.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        settle(tmp_path / "elsewhere")  # nothing of it is open
        settle(tmp_path, patience=0.0)  # and nobody waits for ever
        assert not settled.is_set()
    finally:
        holder.communicate()
    waiting.join(LIMIT)
    assert settled.is_set()
