"""CIFAR-10, CIFAR-100, MNIST and FashionMNIST as classes, against torchvision's own readers."""

from __future__ import annotations

import gzip
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.torchvision_files import archive_of, make_cifar10, make_cifar100, make_mnist
from torchvision import datasets
from torchvision.datasets import cifar, mnist, utils

from janus_pl.data import CIFAR10Pair, ImageClasses
from janus_pl.data.torchvision_sets import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    CIFAR100_CLASSES,
    read_idx,
)
from janus_pl.errors import UsageError

MAKERS: dict[str, Any] = {
    "CIFAR10": lambda root, patch: make_cifar10(root, patch, [*CIFAR10_CLASSES]),
    "CIFAR100": make_cifar100,
    "MNIST": make_mnist,
    "FashionMNIST": lambda root, patch: make_mnist(root, patch, "FashionMNIST"),
}


def ready(source: Any, root: Path, **options: Any) -> ImageClasses:
    data = ImageClasses(source, str(root), **{"batch_size": 4, "download": False, **options})
    data.prepare_data()
    data.setup()
    return data


def reference(pixels: np.ndarray, statistics: np.ndarray) -> np.ndarray:
    """Bytes (n, H, W, C) as they should come out, the slow way."""
    mean, std = statistics
    rows = []
    for image in pixels:
        x = (image / 255.0 - mean) / std
        rows.append((x / np.sqrt((x**2).sum())).transpose(2, 0, 1))
    return np.stack(rows)


def theirs(source: str, root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (n, H, W, 3) and labels, by torchvision's reader."""
    found = getattr(datasets, source)(root, train=train)
    pixels, targets = np.asarray(found.data), np.asarray(found.targets)
    return (pixels if pixels.ndim == 4 else np.stack([pixels] * 3, axis=-1)), targets


@pytest.mark.parametrize("source", MAKERS)
def test_pixels_and_labels_are_those_of_torchvisions_reader(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS[source](tmp_path, monkeypatch)
    data = ready(source, tmp_path)
    pixels, targets = theirs(source, tmp_path, train=True)
    test_pixels, test_targets = theirs(source, tmp_path, train=False)
    statistics = np.stack([(pixels / 255.0).mean((0, 1, 2)), (pixels / 255.0).std((0, 1, 2))])
    if source == "CIFAR10":
        statistics = np.array([CIFAR10_MEAN, CIFAR10_STD])
    np.testing.assert_allclose(data.train_x.numpy(), reference(pixels, statistics), atol=1e-6)
    np.testing.assert_allclose(data.test_x.numpy(), reference(test_pixels, statistics), atol=1e-6)
    assert data.train_y.dtype == torch.int64
    assert data.train_y.tolist() == targets.tolist()
    assert data.test_y.tolist() == test_targets.tolist()
    assert data.num_classes == len(data.class_names) == (100 if source == "CIFAR100" else 10)
    assert data.facts.classes == {name: k for k, name in enumerate(data.class_names)}
    assert data.facts.source == str(tmp_path) and data.facts.found["train"] == len(targets)


def test_chosen_classes_are_numbered_as_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar100(tmp_path, monkeypatch)
    data = ready("CIFAR100", tmp_path, classes=[70, "apple", 99])
    _, targets = theirs("CIFAR100", tmp_path, train=True)
    kept = [t for t in targets.tolist() if t in (70, 0, 99)]
    assert data.train_y.tolist() == [{70: 0, 0: 1, 99: 2}[t] for t in kept]
    assert data.class_names == (CIFAR100_CLASSES[70], "apple", CIFAR100_CLASSES[99])


def test_the_names_of_a_hundred_classes_are_different_and_in_order() -> None:
    assert len({*CIFAR100_CLASSES}) == 100
    assert sorted(CIFAR100_CLASSES) == [*CIFAR100_CLASSES]


def test_statistics_are_of_all_classes_whatever_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of CIFAR-10 are, so an image looks the same among any classes."""
    make_mnist(tmp_path, monkeypatch)
    whole, part = ready("MNIST", tmp_path), ready("MNIST", tmp_path, classes=[4, 7])
    assert torch.equal(part.train_x[part.train_y == 1], whole.train_x[whole.train_y == 7])


def test_two_classes_of_cifar_are_those_of_the_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cifar10(tmp_path, monkeypatch, [*CIFAR10_CLASSES])
    pair = CIFAR10Pair(str(tmp_path), ("frog", 1), num_train=13, batch_size=4, download=False)
    pair.setup()
    data = ready("CIFAR10", tmp_path, classes=["frog", 1], num_train=13)
    assert torch.equal(data.train_x, pair.train_x) and torch.equal(data.test_x, pair.test_x)
    assert torch.equal(2 * data.train_y - 1, pair.train_y.long())
    assert data.class_names == pair.class_names == ("frog", "automobile")


@pytest.mark.parametrize("source", MAKERS)
def test_an_altered_file_is_named_and_stays(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = MAKERS[source](tmp_path, monkeypatch)
    checked = {"CIFAR10": "data_batch_3", "CIFAR100": "train"}
    file = base / checked.get(source, "train-images-idx3-ubyte.gz")
    file.write_bytes(file.read_bytes() + b"0")
    before = file.read_bytes()
    for action in ("prepare_data", "setup"):
        with pytest.raises(UsageError) as caught:
            getattr(ImageClasses(source, str(tmp_path), batch_size=1), action)()
        message = str(caught.value)
        assert message.startswith("data.root: got ") and "\n" not in message
        assert f"{file.name} (another checksum)" in message
    assert file.read_bytes() == before


@pytest.mark.parametrize("source", MAKERS)
def test_without_the_data_and_a_network_there_is_one_line(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no\nnetwork")

    monkeypatch.setattr(utils, "_get_redirect_url", fail)
    monkeypatch.setattr(utils, "_urlretrieve", fail)
    root = tmp_path / "new" / "data"
    with pytest.raises(UsageError) as caught:
        ImageClasses(source, str(root)).prepare_data()
    message = str(caught.value)
    assert message.startswith("data.root: got ") and "\n" not in message
    assert "--data.source folder --data.root DIR" in message and "no network" in message
    assert not root.parent.exists()
    with pytest.raises(UsageError, match="is no folder"):
        ImageClasses(source, str(root), download=False).prepare_data()


@pytest.mark.parametrize("source", ["MNIST", "FashionMNIST", "CIFAR100"])
def test_what_is_missing_is_fetched_whole(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = MAKERS[source](tmp_path / "made", monkeypatch)
    packed = source == "CIFAR100"
    whole = archive_of(base, cifar.CIFAR100, monkeypatch) if packed else b""
    asked: list[str] = []

    def retrieve(url: str, file: str, **_: Any) -> None:
        asked.append(url)
        if source == "MNIST" and len(asked) == 1:
            raise urllib.error.URLError("the first mirror is away")
        Path(file).write_bytes(whole or (base / url.rpartition("/")[2]).read_bytes())

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    root = tmp_path / "data"
    for _ in range(2):
        data = ready(source, root, download=True)
    assert len(asked) == {"MNIST": 5, "FashionMNIST": 4, "CIFAR100": 1}[source]
    assert [file.name for file in root.iterdir()] == ["cifar-100-python" if packed else source]
    assert torch.equal(data.train_x, ready(source, tmp_path / "made").train_x)


def test_labels_outside_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_mnist(tmp_path, monkeypatch, most_label=10)
    with pytest.raises(UsageError, match=r"^data\.root: got .* of 0 to 9; .* the largest 10$"):
        ready("MNIST", tmp_path)


def test_idx_is_read_as_torchvision_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_mnist(tmp_path, monkeypatch)
    for file in raw.glob("*.gz"):
        expected = mnist.read_sn3_pascalvincent_tensor(str(file.with_suffix("")))
        assert np.array_equal(read_idx(file), expected.numpy())
    bad = tmp_path / "bad.gz"
    for content in (
        b"",
        b"\0\0\x09\x01\0\0\0\1\0",
        b"\0\0\x08\x03\0\0\0\1",
        b"\0\0\x08\1\0\0\0\5ab",
    ):
        bad.write_bytes(gzip.compress(content))
        with pytest.raises(ValueError):
            read_idx(bad)
