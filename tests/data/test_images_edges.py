"""Image data at the ends of their ranges: one image, one pixel, the first and the last digit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.data import DigitsPair, ImageFolderPair
from janus_pl.data.cifar10 import CIFAR10_MEAN, CIFAR10_STD
from janus_pl.data.splits import balanced_subset
from janus_pl.data.standard import channel_statistics, unit_norm_
from janus_pl.errors import UsageError


@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (6, 2, 3, 3), (3, 7)])
def test_every_image_gets_unit_norm_whatever_their_number(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) * 40
    expected = np.stack([image / np.sqrt((image**2).sum()) for image in x])
    np.testing.assert_allclose(unit_norm_(torch.from_numpy(x.copy())).numpy(), expected, rtol=1e-13)


def test_what_rounding_leaves_of_a_constant_image_is_zero() -> None:
    """Up to 1e-6 an entry; an image just above that is an image."""
    sizes = np.array([0.5e-6, 0.99e-6, 1.01e-6, 1e-3])
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (4, 6, 5, 3))
    x = unit_norm_(torch.from_numpy(signs * sizes[:, None, None, None]))
    assert x.flatten(1).norm(dim=1).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-12)


def test_a_channel_is_constant_below_a_millionth() -> None:
    rng = np.random.default_rng(2)
    noise = rng.choice([-1.0, 1.0], (400, 5, 5))
    noise -= noise.mean()
    noise /= noise.std()
    deviations = (0.9e-6, 1.1e-6, 0.2)
    images = np.stack([0.01 * (k + 1) + s * noise for k, s in enumerate(deviations)], axis=-1)
    mean, std = channel_statistics(images)
    assert mean.tolist() == pytest.approx([0.01, 0.02, 0.03], rel=1e-9)
    assert std.tolist() == pytest.approx([1.0, 1.1e-6, 0.2], rel=1e-6)


@pytest.mark.parametrize(("first", "second"), [(5, 9), (9, 5), (6, 6), (1, 3)])
def test_half_of_each_class_and_one_more_of_the_first(first: int, second: int) -> None:
    labels = np.random.default_rng(3).permutation([-1.0] * first + [1.0] * second)
    limit = min(2 * first, 2 * second + 1)
    for count in range(2, limit + 1):
        keep = balanced_subset(labels.astype(np.float32), count, seed=4)
        assert sorted(set(keep.tolist())) == keep.tolist()
        assert (labels[keep] == -1).sum() == count - count // 2
        assert (labels[keep] == 1).sum() == count // 2
    with pytest.raises(UsageError, match=f"data.num_train: got {limit + 1}"):
        balanced_subset(labels.astype(np.float32), limit + 1, seed=4)


@pytest.mark.parametrize("classes", [(0, 9), (9, 0), (7, 2)])
def test_digits_are_scaled_signed_and_split_by_class(classes: tuple[int, int]) -> None:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    data = DigitsPair(classes)
    raw = data.read()
    assert raw.class_names == tuple(map(str, classes))
    counts = [(targets == digit).sum() for digit in classes]
    found = [[(split.labels == sign).sum() for sign in (-1, 1)] for split in (raw.train, raw.test)]
    assert np.sum(found, axis=0).tolist() == counts
    for own, whole in zip(found[1], counts, strict=True):  # a fifth of each class is the test
        assert abs(own - whole / 5) < 1
    # A bilinear enlargement by four keeps each image's mean, gray values being of 16.
    for sign, digit in zip((-1, 1), classes, strict=True):
        both = [split.images[split.labels == sign] for split in (raw.train, raw.test)]
        means = np.sort(np.concatenate(both).mean((1, 2, 3)))
        expected = np.sort(pixels[targets == digit].mean(1)) / 16
        np.testing.assert_allclose(means, expected, rtol=0.15)
        assert means.mean() == pytest.approx(expected.mean(), rel=0.02)
    plain = raw.train.images.astype(np.float64)
    np.testing.assert_allclose(raw.mean, plain.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(raw.std, plain.std((0, 1, 2)), rtol=1e-6)
    assert plain.min() >= 0 and plain.max() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("classes", [(-1, 3), (3, 10), (3, 3), (True, 3), (3, 8.0)])
def test_other_digits_are_refused(classes: Any) -> None:
    with pytest.raises(UsageError, match=r"data\.classes: got"):
        DigitsPair(classes)


def test_an_image_has_at_least_one_pixel() -> None:
    assert ImageFolderPair("somewhere", image_size=1).image_size == 1
    for size in (0, -1, 2.0, True):
        with pytest.raises(UsageError, match=f"data.image_size: got {size}"):
            ImageFolderPair("somewhere", image_size=size)


def test_the_statistics_of_cifar_are_those_of_its_training_images_red_green_blue() -> None:
    means, stds = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
    assert tuple(round(value, 4) for value in means) == CIFAR10_MEAN
    assert tuple(round(value, 4) for value in stds) == CIFAR10_STD


def test_a_subset_is_that_of_the_recorded_runs() -> None:
    """The stream of draws apart from the epochs' orders, class by class: a subset is for ever."""
    labels = np.random.default_rng(5).permutation([-1.0] * 9 + [1.0] * 8).astype(np.float32)
    rng = np.random.default_rng(np.random.SeedSequence(4, spawn_key=(0,)))
    first = rng.permutation(np.flatnonzero(labels < 0))
    second = rng.permutation(np.flatnonzero(labels > 0))
    expected = sorted([*first[:4], *second[:3]])
    assert balanced_subset(labels, 7, seed=4).tolist() == expected
    assert balanced_subset(labels, 7, seed=5).tolist() != expected


def test_loaders_follow_the_data_to_another_device() -> None:
    data = DigitsPair(batch_size=7, num_train=20)
    data.setup()
    first = data.train_dataloader()
    assert first.device.type == "cpu" and data.train_dataloader() is first
    elsewhere = SimpleNamespace(root_device=torch.device("meta"))
    data.trainer = SimpleNamespace(strategy=elsewhere)  # type: ignore[assignment]
    loaders = [data.train_dataloader(), data.val_dataloader(), *data.predict_dataloader()]
    assert [loader.device.type for loader in loaders] == ["meta"] * 4
    assert [loader.x.device.type for loader in loaders] == ["meta"] * 4
    assert data.train_dataloader() is loaders[0] and len(loaders[0]) == 3
