"""Small data sets in the formats of torchvision, with checksums of their own."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import cifar, mnist

PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
HUNDRED = [f"class {k:02}" for k in range(100)]


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def make_cifar10(root: Path, patch: pytest.MonkeyPatch, names: list[str]) -> Path:
    """Five batches of 40 training images and 40 test images of noise."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(1)
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name in batches:
        data = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
        labels = rng.permutation(np.repeat(np.arange(10), 4)).tolist()
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    _take_sums(cifar.CIFAR10, base, batches[:5], batches[5:], "batches.meta", patch)
    return base


def make_cifar100(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """300 training images and 100 test images of noise."""
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    rng = np.random.default_rng(2)
    for name, each in (("train", 3), ("test", 1)):
        labels = rng.permutation(np.repeat(np.arange(100), each))
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        coarse = (labels // 5).tolist()
        held = {"data": data, "fine_labels": labels.tolist(), "coarse_labels": coarse}
        (base / name).write_bytes(pickle.dumps(held))
    (base / "meta").write_bytes(pickle.dumps({"fine_label_names": HUNDRED}))
    _take_sums(cifar.CIFAR100, base, ["train"], ["test"], "meta", patch)
    return base


def make_mnist(
    root: Path, patch: pytest.MonkeyPatch, name: str = "MNIST", most_label: int = 9
) -> Path:
    """Gray images of noise, compressed and not: 50 to train on and 20 to test on, 28 x 28."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(3)
    sums = []
    for k, part in enumerate(PARTS):
        count = (50, 20)[k // 2]
        if k % 2:
            labels = rng.permutation(np.resize(np.arange(10), count)).astype(np.uint8)
            labels[-1] = most_label
            data = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big") + labels.tobytes()
        else:
            pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            head = np.array([0x803, count, 28, 28], ">i4").tobytes()
            data = head + pixels.tobytes()
        file = raw / f"{part}-ubyte.gz"
        file.write_bytes(gzip.compress(data, mtime=0))
        (raw / f"{part}-ubyte").write_bytes(data)
        sums.append((file.name, md5(file)))
    patch.setattr(getattr(mnist, name), "resources", sums)
    return raw


def archive_of(base: Path, kind: type[cifar.CIFAR10], patch: pytest.MonkeyPatch) -> bytes:
    """The folder as the archive that torchvision downloads."""
    archive = base.parent / "whole.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, base.name)
    patch.setattr(kind, "tgz_md5", md5(archive))
    content = archive.read_bytes()
    archive.unlink()
    return content


def _take_sums(
    kind: type[cifar.CIFAR10],
    base: Path,
    train: list[str],
    test: list[str],
    meta: str,
    patch: pytest.MonkeyPatch,
) -> None:
    patch.setattr(kind, "train_list", [[name, md5(base / name)] for name in train])
    patch.setattr(kind, "test_list", [[name, md5(base / name)] for name in test])
    patch.setattr(kind, "meta", {**kind.meta, "md5": md5(base / meta)})
