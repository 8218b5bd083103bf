"""Files of a run, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from janus_pl.errors import StorageError, UsageError

PART = ".janus-part"  # ends the name of a file that is being written


def check_folder(field: str, path: str | Path) -> None:
    """Refuse a place for files that is no folder, or in which none can be made.

    Raises:
        UsageError: It is not a folder to write to.
    """
    if not str(path).strip():
        raise UsageError(field, str(path), "a folder")
    folder = Path(path).expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        allowed = f"a folder; {str(existing)!r} is none to write to"
        raise UsageError(field, str(path), allowed)


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], keep: Path | None = None
) -> None:
    """Write a file in one step: an older file stays until the new one is complete.

    The content goes to a temporary file in the same folder, hence on the same device. Once it is on
    the disk, the temporary file takes the name of the file. If a process is killed at any moment,
    it leaves the old file or the new one, and perhaps the temporary one. The next write of the same
    file replaces the temporary one.

    Args:
        path: The file; its folder is made if there is none.
        write: Writes the content to an open binary file.
        keep: A second name, in the same folder, under which the replaced file stays.

    Raises:
        StorageError: The system refuses, for lack of space or otherwise. The old file stays, unless
            only the last step failed, which writes the folder to the disk.
    """
    part = _part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None:
                _keep_as(path, keep)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error says more
                part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        note = "; the one before it is kept" if os.path.exists(path) else ""
        raise StorageError(path, error, note) from error


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an .npz file; an older file stays until the new one is complete.

    Raises:
        StorageError: The file cannot be written.
    """
    named = {k: np.asarray(v) for k, v in arrays.items()}
    write_atomically(path, lambda file: np.savez(file, **named))  # type: ignore[arg-type]


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder that nobody else writes to."""
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):  # the next write reports the error
            part.unlink()


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse a folder on a disk with less room than is needed.

    Args:
        folder: The folder, which need not exist yet.
        needed: Bytes that are needed, at least 1.
        what: What needs them.

    Raises:
        StorageError: Less is free; the message has both numbers.
    """
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    disk = shutil.disk_usage(place)
    if disk.total and disk.free < max(needed, 1):  # some network file systems have no numbers
        free, least = (f"{size / 2**20:.3g} MiB" for size in (disk.free, needed))
        reason = f"{os.strerror(errno.ENOSPC)}, {free} is free and {what} takes at least {least}"
        raise StorageError(place, OSError(errno.ENOSPC, reason))


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{PART}")


def _keep_as(path: Path, name: Path) -> None:
    """Give a file a second name besides its first."""
    part = _part_of(name)
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:  # not every file system has hard links
        shutil.copyfile(path, part)
    os.replace(part, name)
    part.unlink(missing_ok=True)  # if both were one file already, replace does nothing


def _sync_folder(folder: Path) -> None:
    """Write a folder to the disk; a new name in it is there only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def settle(folder: Path, patience: float = 10.0) -> None:
    """Wait until W&B's process has closed its file of a run; `wandb.finish` may return before that.

    Linux lists the open files of a process; elsewhere there is nothing to wait for.

    Args:
        folder: The folder with the file, or one above it.
        patience: The most seconds to wait, against a run that is still under way.
    """
    until = time.monotonic() + patience
    while _is_open(str(folder.resolve())) and time.monotonic() < until:
        time.sleep(0.005)


def _is_open(folder: str) -> bool:
    for name in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # a process that has just ended
            if name.read_text().strip() == "wandb-core":
                links = (os.readlink(fd) for fd in name.parent.glob("fd/*"))
                if any(link.startswith(folder) and link.endswith(".wandb") for link in links):
                    return True
    return False
