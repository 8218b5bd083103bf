"""The files of CIFAR-10: fetched once, whole, and never over files that are there."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = "cifar-10-batches-py"
LOCK = ".cifar-10.lock"
TIMEOUT = 10.0  # seconds that a silent connection is waited for


def fetch(root: Path) -> None:
    """Download CIFAR-10 into a root that has no folder of it, or an empty one.

    The archive is unpacked in a temporary folder beside, compared with its checksums, and moved to
    its place in one step. Processes that fetch at once wait for the first. An archive that lies in
    the root is unpacked without a network, if its checksum is right.

    Raises:
        Exception: The network, the archive or the disk is not as it has to be. What has been made
            is removed.
    """
    if _is_there(root):
        return
    made = _make(root)
    try:
        with _alone(root):
            if not _is_there(root):
                _fetch(root)
    finally:
        for folder in made:  # stays, unless it is empty
            with suppress(OSError):
                folder.rmdir()


def wrong_files(folder: Path) -> list[str]:
    """Return the files of CIFAR-10 that are missing or have another checksum, with which of it."""
    from torchvision.datasets import cifar

    kind = cifar.CIFAR10
    sums = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    wrong = []
    for name, md5 in sums:
        if not (folder / name).is_file():
            wrong.append(f"{name} (missing)")
        elif not cifar.check_integrity(str(folder / name), md5):
            wrong.append(f"{name} (another checksum)")
    return wrong


def _is_there(root: Path) -> bool:
    place = root / FOLDER
    return os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir()))


def _make(root: Path) -> list[Path]:
    """Make a folder and return the folders that this made, the deepest first."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    return missing


def _fetch(root: Path) -> None:
    from torchvision.datasets import cifar, utils

    kind = cifar.CIFAR10
    own = root / kind.filename
    sound = own.is_file() and utils.check_integrity(str(own), kind.tgz_md5)
    beside = Path(tempfile.mkdtemp(prefix=".cifar-10-", dir=root))
    try:
        if sound:
            utils.extract_archive(str(own), str(beside))
        else:
            try:
                with _socket_timeout(TIMEOUT):
                    utils.download_and_extract_archive(
                        kind.url, str(beside), filename=kind.filename, md5=kind.tgz_md5
                    )
            except Exception as error:
                if own.is_file():
                    raise RuntimeError(f"{own} has another checksum; {error}") from error
                raise
        wrong = wrong_files(beside / FOLDER)
        if wrong:
            raise RuntimeError(f"the archive is not that of CIFAR-10: {', '.join(wrong)}")
        os.rename(beside / FOLDER, root / FOLDER)  # fails where somebody has put files meanwhile
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait for other processes that fetch; go on without a lock on a file system that has none."""
    path = root / LOCK
    with path.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Who waits for this file, and who makes a new one, may both fetch then: the move
            # decides, and the second finds the files in place.
            path.unlink(missing_ok=True)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its URLs without a time-out; this gives them one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
