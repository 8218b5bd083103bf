"""Images that stay bytes are, bit for bit, those in memory as float32."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data.torchvision_files import make_cifar10
from PIL import Image
from torch import Tensor

import janus_pl.data.images
from janus_pl.data import ByteImages, ImageClasses, ImageFolderPair, InMemoryBatches
from janus_pl.data.standard import channel_statistics, from_bytes, standardized, unit_norm_
from janus_pl.data.torchvision_sets import CIFAR10_CLASSES
from janus_pl.errors import UsageError


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_cifar10(tmp_path, monkeypatch, [*CIFAR10_CLASSES])
    return tmp_path


def lower(monkeypatch: pytest.MonkeyPatch, limit: int = 0) -> None:
    monkeypatch.setattr(janus_pl.data.images, "FLOAT_LIMIT", limit)


def classes(root: Path, **options: Any) -> ImageClasses:
    data = ImageClasses("CIFAR10", str(root), **{"batch_size": 7, **options})
    data.setup()
    return data


def both(monkeypatch: pytest.MonkeyPatch, root: Path, **options: Any) -> list[ImageClasses]:
    """The same data as float32 and as bytes."""
    plain = classes(root, **options)
    lower(monkeypatch)
    held = classes(root, **options)
    assert isinstance(plain.train_x, Tensor) and isinstance(held.train_x, ByteImages)
    return [plain, held]


def bits(x: Tensor) -> bytes:
    return x.permute(0, 2, 3, 1).contiguous().numpy().tobytes()


def same(pairs: Any, others: Any) -> bool:
    found = list(zip(pairs, others, strict=True))
    assert found
    return all(
        bits(x) == bits(held) and torch.equal(y, of_held) and x.stride() == held.stride()
        for (x, y), (held, of_held) in found
    )


@pytest.mark.parametrize("order", ["shuffle", "sequential", "with_replacement"])
def test_every_batch_is_the_same(order: str, cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, held = both(monkeypatch, cifar, order=order, num_train=50, label_noise=0.1)
    for epoch in (0, 3):
        loaders = [data.train_dataloader() for data in (plain, held)]
        for loader in loaders:
            loader.set_epoch(epoch)
        a, b = ([batch[:2] for batch in loader] for loader in loaders)
        assert same(a, b) and len(a) == 8
        loaders[1].load_state_dict({"epoch": epoch, "position": 5})
        assert same(a[5:], [batch[:2] for batch in loaders[1]])
    assert same(*(loader.in_order(11) for loader in loaders))
    index = torch.tensor([4, 0, 0, 49, 17])
    assert same(*(loader.chosen(index, 2) for loader in loaders))
    for name in ("test_dataloader", "val_dataloader"):
        assert same(*([x[:2] for x in getattr(data, name)()] for data in (plain, held)))
    of_training = [[x[:2] for x in data.predict_dataloader()[0]] for data in (plain, held)]
    assert same(*of_training)
    assert plain.facts == held.facts
    assert bits(plain.train_x) == bits(held.train_x[:])


def test_one_changed_byte_is_seen(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, held = both(monkeypatch, cifar)
    held.train_x.pixels[3, 1, 2, 0] ^= 1
    assert bits(plain.train_x[:3]) == bits(held.train_x[:3])
    assert bits(plain.train_x) != bits(held.train_x[:])


@pytest.mark.parametrize("threads", [1, 2])
def test_neither_size_nor_threads_matter(threads: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1203, 8, 9, 3), dtype=np.uint8)
    mean, std = channel_statistics(pixels)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        floats = standardized(from_bytes(pixels), mean, std)  # all at once
        x, held = standardized(pixels, mean, std), standardized(pixels, mean, std, as_bytes=True)
        assert bits(floats) == bits(x) == bits(held[:])
        assert bits(held[700:701]) == bits(x[700:701])
        assert held.shape == x.shape and len(held) == 1203
    finally:
        torch.set_num_threads(before)


def test_the_bytes_are_held_once_and_it_is_said(
    cifar: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = (200 + 40) * 3072 * 4
    with caplog.at_level(logging.INFO):
        lower(monkeypatch, size)
        assert isinstance(classes(cifar).train_x, Tensor)
        assert not [r for r in caplog.records if "as bytes" in r.getMessage()]
        lower(monkeypatch, size - 1)
        data = classes(cifar)
    said = [r.getMessage() for r in caplog.records if "as bytes" in r.getMessage()]
    assert said == [
        f"data: the images take {size / 2**30:.3g} GiB as float32, {size / 2**32:.3g} as bytes, and"
        " become float32 by the minibatch"
    ]
    loader = data.train_dataloader()
    assert loader.x is data.train_x and loader.x.pixels.dtype == torch.uint8


@pytest.mark.parametrize("batch", ["full", 50])
def test_of_gradient_descent_all_images_are_a_minibatch(
    batch: Any, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower(monkeypatch)
    data = classes(cifar, num_train=50, batch_size=batch)
    assert isinstance(data.train_x, Tensor)
    drawn = classes(cifar, num_train=50, batch_size=50, order="with_replacement")
    assert isinstance(drawn.train_x, ByteImages)
    # A batch size that becomes that of all later on has the same numbers.
    other = classes(cifar, num_train=50, batch_size=4)
    other.batch_size = batch
    other.setup()
    (whole,) = other.train_dataloader()
    assert bits(whole.x) == bits(data.train_x) and other.train_dataloader().whole


def test_a_pair_of_real_images_is_the_same(
    real_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"num_train": 600, "batch_size": 100}
    plain = ImageFolderPair(str(real_images), **options)
    plain.setup()
    lower(monkeypatch)
    held = ImageFolderPair(str(real_images), **options)
    held.setup()
    assert isinstance(held.test_x, ByteImages)
    assert bits(plain.train_x) == bits(held.train_x[:])
    assert bits(plain.test_x) == bits(held.test_x[:])
    assert same(*([b[:2] for b in data.train_dataloader()] for data in (plain, held)))


def test_bytes_follow_to_another_device(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch)
    data = classes(cifar, label_noise=0.2)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))  # type: ignore[assignment]
    batch = next(iter(data.val_dataloader()))
    assert batch.x.device.type == batch.y.device.type == "meta"
    assert batch.x.shape == (40, 3, 32, 32)
    assert data.train_x.device.type == data.noisy.device.type == "meta"


def test_zero_images_are_refused_as_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                values = [90, 110] if i else [100, 100]  # their mean is 100
                pixels = np.repeat(np.array([values], np.uint8)[..., None], 3, axis=-1)
                Image.fromarray(np.repeat(pixels, 2, axis=0)).save(
                    tmp_path / split / name / f"{i}.png"
                )
    for limit in (2**30, 0):
        lower(monkeypatch, limit)
        data = ImageFolderPair(str(tmp_path), image_size=2, batch_size=2)
        with (
            pytest.warns(UserWarning, match="equal images"),
            pytest.raises(UsageError, match=r"^data: got '4 of 8 images'.*'train/a/0.png'"),
        ):
            data.setup()


def test_statistics_of_bytes_are_those_of_floats() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1300, 5, 4, 3), dtype=np.uint8)
    pixels[..., 1] = 77
    mean, std = channel_statistics(pixels)
    plain = pixels / 255.0
    np.testing.assert_allclose(mean, plain.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std[[0, 2]], plain[..., [0, 2]].std((0, 1, 2)), rtol=1e-7)
    assert std[1] == 1.0
    other = channel_statistics(from_bytes(pixels))
    np.testing.assert_allclose([mean, std], other, rtol=1e-12)


def test_a_loader_of_bytes_has_the_checks_of_others() -> None:
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    held = standardized(pixels, np.full(3, 0.5), np.ones(3), as_bytes=True)
    assert [len(batch.y) for batch in InMemoryBatches(held, torch.zeros(4), 3)] == [3, 1]
    with pytest.raises(ValueError, match="4 and 3 samples"):
        InMemoryBatches(held, torch.zeros(3), 2)
    assert torch.allclose(unit_norm_(torch.ones(1, 2, 2, 3)) * -1, held[:1].permute(0, 2, 3, 1))
