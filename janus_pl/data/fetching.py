"""The files of data sets that torchvision knows: fetched once, whole, never over what is there."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TIMEOUT = 10.0  # seconds that a silent connection is waited for


class Collection:
    """A data set of torchvision: its folder and the files in it.

    CIFAR's folder is unpacked from an archive. MNIST's files are compressed one by one, and are
    used as they come, because their checksums are of the compressed ones.

    Args:
        name: `CIFAR10`, `CIFAR100`, `MNIST` or `FashionMNIST`.

    Attributes:
        kind: The class of torchvision.
        folder: The folder below the root, moved to its place as a whole.
        files: The folder of the files below the root.
        lock: The file that those who fetch at once wait for.
    """

    def __init__(self, name: str) -> None:
        from torchvision import datasets

        self.name = name
        self.kind: Any = getattr(datasets, name)
        self.packed = hasattr(self.kind, "tgz_md5")
        self.folder = self.kind.base_folder if self.packed else name
        self.files = Path(self.folder) if self.packed else Path(name, "raw")
        self.lock = f".{name.lower()}.lock"

    @property
    def sums(self) -> list[tuple[str, str]]:
        """Every file with its checksum."""
        if not self.packed:
            return [*self.kind.resources]
        meta = self.kind.meta["filename"], self.kind.meta["md5"]
        return [*map(tuple, self.kind.train_list), *map(tuple, self.kind.test_list), meta]

    def fetch(self, root: Path) -> None:
        """Download into a root that has no folder of it, or an empty one.

        The data are made whole in a temporary folder beside, compared with their checksums, and
        moved to their place in one step. Processes that fetch at once wait for the first. An
        archive that lies in the root is unpacked without a network, if its checksum is right.

        Raises:
            Exception: The network, the archive or the disk is not as it has to be. What has been
                made is removed.
        """
        if self._is_there(root):
            return
        made = _make(root)
        try:
            with _alone(root / self.lock):
                if not self._is_there(root):
                    self._fetch(root)
        finally:
            for folder in made:  # stays, unless it is empty
                with suppress(OSError):
                    folder.rmdir()

    def wrong_files(self, root: Path) -> list[str]:
        """Return the files that are missing or have another checksum, with which of it."""
        from torchvision.datasets import cifar

        wrong = []
        for name, md5 in self.sums:
            file = root / self.files / name
            if not file.is_file():
                wrong.append(f"{name} (missing)")
            elif not cifar.check_integrity(str(file), md5):
                wrong.append(f"{name} (another checksum)")
        return wrong

    def _is_there(self, root: Path) -> bool:
        place = root / self.folder
        return os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir()))

    def _fetch(self, root: Path) -> None:
        beside = Path(tempfile.mkdtemp(prefix=f".{self.name.lower()}-", dir=root))
        try:
            with _socket_timeout(TIMEOUT):
                if self.packed:
                    self._unpack(root, beside)
                else:
                    self._collect(beside / self.files)
            wrong = self.wrong_files(beside)
            if wrong:
                raise RuntimeError(f"the archive is not that of {self.name}: {', '.join(wrong)}")
            # Fails where somebody has put files meanwhile.
            os.rename(beside / self.folder, root / self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _unpack(self, root: Path, beside: Path) -> None:
        """Unpack the archive that lies in the root, or else the one that is downloaded."""
        from torchvision.datasets import utils

        kind = self.kind
        own = root / kind.filename
        if own.is_file() and utils.check_integrity(str(own), kind.tgz_md5):
            utils.extract_archive(str(own), str(beside))
            return
        try:
            utils.download_and_extract_archive(
                kind.url, str(beside), filename=kind.filename, md5=kind.tgz_md5
            )
        except Exception as error:
            if own.is_file():
                raise RuntimeError(f"{own} has another checksum; {error}") from error
            raise

    def _collect(self, folder: Path) -> None:
        """Download each file from the first mirror that has it."""
        from torchvision.datasets import utils

        for name, md5 in self.sums:
            failed: Exception | None = None
            for mirror in self.kind.mirrors:
                try:
                    utils.download_url(f"{mirror}{name}", str(folder), name, md5)
                    break
                except Exception as error:
                    failed = error
            else:
                raise failed or RuntimeError(f"{name} has no mirror")


def _make(root: Path) -> list[Path]:
    """Make a folder and return the folders that this made, the deepest first."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for other processes that fetch; go on without a lock on a file system that has none."""
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
    """Give URLs that torchvision opens a time-out; torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
