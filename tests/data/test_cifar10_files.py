"""CIFAR-10 is fetched once, whole, and never over files that are there."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import LIMIT
from torchvision.datasets import cifar, utils

from janus_pl.data import CIFAR10Pair
from janus_pl.data.cifar10 import CIFAR10_CLASSES
from janus_pl.errors import UsageError

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
FOLDER = "cifar-10-batches-py"


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 with checksums of its own, as an archive and unpacked."""
    base = tmp_path / "made" / FOLDER
    base.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in BATCHES:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        labels = np.repeat(np.arange(10), 2).tolist()
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}))
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in base.iterdir()}
    archive = tmp_path / "made" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, FOLDER)
    kind = cifar.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name in BATCHES[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return base


Network = Callable[[bytes | Exception], list[str]]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network that answers with bytes or fails, and the list of what was asked of it."""

    def plan(answer: bytes | Exception) -> list[str]:
        asked: list[str] = []

        def retrieve(url: str, file: str, **_: Any) -> None:
            asked.append(url)
            if isinstance(answer, Exception):
                raise answer
            Path(file).write_bytes(answer)

        monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
        monkeypatch.setattr(utils, "_urlretrieve", retrieve)
        return asked

    return plan


def content(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        CIFAR10Pair(str(root), batch_size=1, **options).prepare_data()
    assert "\n" not in str(caught.value) and caught.value.field == "data.root"
    return str(caught.value)


def archive_of(batches: Path) -> bytes:
    return (batches.parent / "cifar-10-python.tar.gz").read_bytes()


def test_what_is_missing_is_fetched_and_nothing_else_stays(
    batches: Path, network: Network, tmp_path: Path
) -> None:
    asked = network(archive_of(batches))
    root = tmp_path / "deep" / "data"
    for _ in range(2):
        CIFAR10Pair(str(root), batch_size=1).prepare_data()
    assert len(asked) == 1
    assert content(root) == {f"{FOLDER}/{k}": v for k, v in content(batches).items()}
    data = CIFAR10Pair(str(root), batch_size=1, download=False)
    data.setup()
    assert data.num_train_samples == 20


@pytest.mark.parametrize("download", [True, False])
def test_an_altered_batch_is_never_overwritten(
    batches: Path, network: Network, download: bool
) -> None:
    asked = network(archive_of(batches))
    root = batches.parent
    (batches / "data_batch_3").write_bytes(b"the user's own")
    (batches / "data_batch_4").unlink()
    before = content(root)
    message = refusal(root, download=download)
    assert "data_batch_3 (another checksum), data_batch_4 (missing); moved away" in message
    assert content(root) == before and not asked
    with pytest.raises(UsageError, match="another checksum"):
        CIFAR10Pair(str(root), batch_size=1).setup()


def test_an_archive_that_lies_there_needs_no_network(batches: Path, network: Network) -> None:
    asked = network(urllib.error.URLError("no network"))
    expected = content(batches)
    shutil.rmtree(batches)
    CIFAR10Pair(str(batches.parent), batch_size=1).prepare_data()
    assert content(batches) == expected and not asked


def test_a_wrong_checksum_without_network_says_so(batches: Path, network: Network) -> None:
    network(urllib.error.URLError("no network"))
    shutil.rmtree(batches)
    archive = batches.parent / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-5])
    before = content(batches.parent)
    message = refusal(batches.parent)
    assert f"{archive} has another checksum; " in message and "no network" in message
    assert content(batches.parent) == before


@pytest.mark.parametrize("answer", [b"", b"<html>", OSError(28, "No space left on device")])
def test_a_download_that_fails_leaves_nothing(
    answer: Any, batches: Path, network: Network, tmp_path: Path
) -> None:
    network(answer)
    root = tmp_path / "new" / "data"
    refusal(root)
    assert not root.parent.exists()
    root.mkdir(parents=True)
    (root / "mine").write_text("mine")
    refusal(root)
    assert content(root) == {"mine": b"mine"}


def test_two_that_fetch_at_once_fetch_once(
    batches: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first is at it, and waits: locks are of open files."""
    root, archive = tmp_path / "data", archive_of(batches)
    asked = network(archive)
    began, waits, locked = threading.Event(), threading.Event(), []
    retrieve, flock = utils._urlretrieve, janus_flock()

    def slow(url: str, file: str, **options: Any) -> None:
        began.set()
        assert waits.wait(LIMIT)
        retrieve(url, file, **options)

    def counted(file: Any, kind: int) -> None:
        locked.append(kind)
        if len(locked) == 2:
            waits.set()
        flock(file, kind)

    monkeypatch.setattr(utils, "_urlretrieve", slow)
    monkeypatch.setattr("janus_pl.data.fetching.fcntl.flock", counted)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            CIFAR10Pair(str(root), batch_size=1).prepare_data()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert began.wait(LIMIT)
    threads[1].start()
    for thread in threads:
        thread.join(LIMIT)
    assert not failed and len(asked) == 1 and len(locked) == 2
    assert content(root) == {f"{FOLDER}/{k}": v for k, v in content(batches).items()}


def janus_flock() -> Callable[[Any, int], None]:
    import fcntl

    return fcntl.flock


def test_files_that_somebody_puts_there_meanwhile_stay(
    batches: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, archive = tmp_path / "data", archive_of(batches)
    network(archive)

    def intrude(url: str, file: str, **_: Any) -> None:
        (root / FOLDER).mkdir()
        (root / FOLDER / "data_batch_1").write_bytes(b"mine")
        Path(file).write_bytes(archive)

    monkeypatch.setattr(utils, "_urlretrieve", intrude)
    refusal(root)
    assert content(root) == {f"{FOLDER}/data_batch_1": b"mine"}


def test_a_file_system_without_locks_is_no_obstacle(
    batches: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    network(archive_of(batches))
    monkeypatch.setattr("janus_pl.data.fetching.fcntl.flock", refuse)
    CIFAR10Pair(str(tmp_path / "data"), batch_size=1).prepare_data()
    assert os.listdir(tmp_path / "data") == [FOLDER]


def test_no_mutated_batch_is_read(batches: Path) -> None:
    """Three hundred files with a byte, a piece or the end changed: each is named."""
    rng = np.random.default_rng(0)
    names = [*BATCHES, "batches.meta"]
    data = CIFAR10Pair(str(batches.parent), batch_size=1, download=False)
    data.read()
    for k in range(300):
        file = batches / names[k % 7]
        held = file.read_bytes()
        changed = bytearray(held)
        place = int(rng.integers(len(held)))
        if k % 3 == 0:
            changed[place] ^= int(rng.integers(1, 256))
        elif k % 3 == 1:
            del changed[place:]
        else:
            changed[place:place] = rng.bytes(9)
        file.write_bytes(changed)
        with pytest.raises(UsageError, match=rf"^data\.root: got .*not so: {file.name} \(another"):
            data.read()
        file.write_bytes(held)
