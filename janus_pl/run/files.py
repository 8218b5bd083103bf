"""Files of a run: whole, or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from janus_pl.errors import StorageError

PART = ".janus-part"  # of a file that is being written


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], keep: Path | None = None
) -> None:
    """Write a file; the one that was there before stays until the new one is complete.

    The content goes to a temporary file in the same folder, and so on the same device; only when it
    is on the disk does it take the name of the file, in one step. A process that is killed at any
    moment leaves the old file or the new one, and perhaps the temporary one, which the next write
    of the same file replaces.

    Args:
        path: the file; its folder is made where there is none.
        write: writes the content to a file that is open for it.
        keep: a second name, in the same folder, under which the file that is replaced stays.

    Raises:
        StorageError: the system refuses, for want of room or otherwise; nothing has changed.
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
            with contextlib.suppress(OSError):  # what went wrong before says more
                part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        note = "; the one before it is kept" if os.path.exists(path) else ""
        raise StorageError(path, error, note) from error


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an .npz; a file that was there before stays until the new one is complete.

    Raises:
        StorageError: the file cannot be written.
    """
    named = {k: np.asarray(v) for k, v in arrays.items()}
    write_atomically(path, lambda file: np.savez(file, **named))  # type: ignore[arg-type]


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder nobody else writes to."""
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):  # the write to come will say so
            part.unlink()


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{PART}")


def _keep_as(path: Path, name: Path) -> None:
    """Give a file a second name, and leave it the first."""
    part = _part_of(name)
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:  # not every file system has hard links
        shutil.copyfile(path, part)
    os.replace(part, name)
    part.unlink(missing_ok=True)  # where both were one file already, replace does nothing


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(descriptor)
