"""K classes of images: values, labels, subsets, options, and what Lightning sees of them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule
from PIL import Image

from janus_pl.data import DigitsPair, ImageClasses, ImageFolderPair, ImagePair, Images
from janus_pl.data.splits import RawImages, Split, balanced_subset
from janus_pl.errors import UsageError

COUNTS = {"train": {"cat": 5, "dog": 4, "eel": 7}, "test": {"cat": 2, "dog": 3, "eel": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of noise, 6 x 6."""
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        for name, count in classes.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def ready(source: Any = "digits", *args: Any, **options: Any) -> ImageClasses:
    data = ImageClasses(source, *map(str, args), **{"batch_size": 2, **options})
    data.prepare_data()
    data.setup()
    return data


# Values


def test_a_folder_has_a_class_for_each_of_its_folders(folder: Path) -> None:
    data = ready("folder", folder, image_size=6)
    assert data.class_names == ("cat", "dog", "eel") and data.num_classes == 3
    assert data.train_y.dtype == torch.int64
    assert data.train_y.tolist() == [0] * 5 + [1] * 4 + [2] * 7
    assert data.test_y.tolist() == [0] * 2 + [1] * 3 + [2]
    assert data.files["test"][-1] == "test/eel/0.png"
    names = [
        f"{split}/{c}/{i}.png" for split in ("train",) for c in COUNTS[split] for i in range(9)
    ]
    images = [Image.open(folder / name) for name in names if (folder / name).exists()]
    pixels = np.stack([np.asarray(image) for image in images]) / 255.0
    x = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    x = x / np.sqrt((x**2).sum((1, 2, 3)))[:, None, None, None]
    np.testing.assert_allclose(data.train_x.numpy(), x.transpose(0, 3, 1, 2), atol=1e-6)
    assert (data.facts.dim, data.facts.outputs) == (108, 1)
    assert data.facts.samples["train"] == COUNTS["train"]


def test_classes_are_numbered_as_they_are_given(folder: Path) -> None:
    data = ready("folder", folder, image_size=6, classes=["eel", "cat"])
    assert data.class_names == ("eel", "cat")
    assert data.train_y.tolist() == [0] * 7 + [1] * 5
    (folder / "train" / "dog").rename(folder / "train" / "7")
    (folder / "test" / "dog").rename(folder / "test" / "7")
    assert ready("folder", folder, image_size=6, classes=["eel", 7]).class_names == ("eel", "7")


def test_two_classes_are_those_of_the_pair(folder: Path) -> None:
    options: dict[str, Any] = {"image_size": 7, "num_train": 7, "seed": 3, "batch_size": 3}
    pair = ImageFolderPair(str(folder), ("eel", "dog"), **options)
    pair.setup()
    data = ready("folder", folder, classes=["eel", "dog"], **options)
    assert torch.equal(data.train_x, pair.train_x) and torch.equal(data.test_x, pair.test_x)
    assert torch.equal(2 * data.train_y - 1, pair.train_y.long())
    assert torch.equal(2 * data.test_y - 1, pair.test_y.long())
    assert data.files == pair.files
    seen, of_pair = list(data.train_dataloader()), list(pair.train_dataloader())
    assert all(torch.equal(a.x, b.x) for a, b in zip(seen, of_pair, strict=True))
    assert data.facts.classes == {"eel": 0, "dog": 1}
    assert data.facts.sha256 != pair.facts.sha256  # other labels are other data


def test_real_images_are_those_of_the_pair(real_images: Path) -> None:
    options: dict[str, Any] = {"num_train": 101, "seed": 5, "batch_size": 10}
    pair = ImageFolderPair(str(real_images), **options)
    pair.setup()
    data = ready("folder", real_images, **options)
    assert torch.equal(data.train_x, pair.train_x) and torch.equal(data.test_x, pair.test_x)
    assert torch.equal(2 * data.train_y - 1, pair.train_y.long())


@pytest.mark.parametrize("classes", [[3, 8], [8, 3], ["0", 9]])
def test_two_digits_are_those_of_the_pair(classes: list[Any]) -> None:
    pair = DigitsPair(tuple(map(int, classes)))
    pair.setup()
    data = ready(classes=classes)
    assert torch.equal(data.train_x, pair.train_x) and torch.equal(data.test_x, pair.test_x)
    assert torch.equal(2 * data.train_y - 1, pair.train_y.long())


def test_ten_digits_are_all_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    data = ready()
    assert data.class_names == tuple("0123456789")
    assert len(data.train_y) + len(data.test_y) == len(targets) == 1797
    for k in range(10):
        count = int((targets == k).sum())
        assert int((data.train_y == k).sum() + (data.test_y == k).sum()) == count
        assert abs(int((data.test_y == k).sum()) - count / 5) < 1
    # Each image is found by its direction among the enlarged originals of its label.
    large = np.repeat(np.repeat(images.reshape(-1, 8, 8), 4, 1), 4, 2)
    gray = large[targets == 6].reshape(-1, 1024)
    gray = gray - gray.mean(1, keepdims=True)
    x = data.train_x[data.train_y == 6][:, 0].flatten(1).double().numpy()
    x = x - x.mean(1, keepdims=True)
    cosines = x @ gray.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(gray, axis=1))
    assert cosines.max(axis=1).min() > 0.9


# Subsets


@pytest.mark.parametrize("num_train", [10, 11, 19, 20, 57])
def test_a_subset_has_as_many_of_each_class(num_train: int) -> None:
    data = ready(num_train=num_train, seed=2)
    counts = Counter(data.train_y.tolist())
    expected = [num_train // 10 + (k < num_train % 10) for k in range(10)]
    assert [counts[k] for k in range(10)] == expected
    assert data.facts.samples["train"] == {str(k): n for k, n in enumerate(expected)}
    assert data.facts.pool == ready().facts.pool != data.facts.sha256


def test_subsets_nest_and_follow_the_seed() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [9, 8, 12, 9, 9]))
    kept = [{*balanced_subset(labels, n, 1, range(5)).tolist()} for n in range(5, 42)]
    assert all(small < large for small, large in pairwise(kept))
    assert {*balanced_subset(labels, 7, 2, range(5)).tolist()} != kept[2]
    assert len(kept[-1]) == 41  # 8 of the second class: 5 * 8 + 1
    with pytest.raises(UsageError, match=r"num_train: got 42, .* from 5 to 41 .*8 samples"):
        balanced_subset(labels, 42, 1, range(5))


# Refusals


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"source": "cifar"}, "data.source: got 'cifar', allowed: folder, digits, CIFAR10"),
        ({"label_noise": 1.0}, "data.label_noise: got 1.0, allowed: a number from 0 to below 1"),
        ({"label_noise": -0.1}, "data.label_noise: got -0.1"),
        ({"label_noise": float("nan")}, "data.label_noise: got nan"),
        ({"label_noise": True}, "data.label_noise: got True"),
        ({"num_train": 9}, "data.num_train: got 9, allowed: an integer from 10 up"),
        ({"num_train": 2, "classes": [1, 2, 3]}, "data.num_train: got 2, allowed: an integer from"),
        ({"num_train": 99, "source": "CIFAR100"}, "data.num_train: got 99"),
        ({"classes": [3]}, "data.classes: got [3], allowed: two or more different classes"),
        ({"classes": [3, "3"]}, "data.classes: got [3, '3']"),
        ({"classes": [3, 10]}, "data.classes: got [3, 10]"),
        ({"classes": [3, True]}, "data.classes: got [3, True]"),
        ({"classes": "38"}, "data.classes: got '38'"),
        ({"source": "CIFAR10", "classes": ["bird", "cow"]}, "data.classes: got ['bird', 'cow']"),
        ({"source": "CIFAR100", "classes": [0, 100]}, "data.classes: got [0, 100]"),
        ({"source": "folder"}, "data.root: got None, allowed: a folder"),
        ({"source": "folder", "root": "x", "classes": ["a"]}, "data.classes: got ['a']"),
        ({"source": "folder", "root": "x", "image_size": 0}, "data.image_size: got 0"),
        ({"source": "folder", "root": "x", "download": False}, "data.download: got False, allowed"),
        ({"root": "x"}, "data.root: got 'x', allowed: null for data.source digits"),
        ({"image_size": 8}, "data.image_size: got 8, allowed: null for data.source digits"),
        ({"source": "MNIST", "image_size": 28}, "data.image_size: got 28"),
        ({"download": True}, "data.download: got True"),
        ({"source": "MNIST", "root": 3}, "data.root: got 3"),
        ({"batch_size": 0}, "data.batch_size: got 0"),
        ({"seed": -1}, "data.seed: got -1"),
    ],
)
def test_options_fail_before_data_are_read(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        ImageClasses(**options)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_options_that_the_data_decide_fail_in_one_line(folder: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"num_train": 2}, r"^data\.num_train: got 2, allowed: an integer from 3 to 13 "),
        ({"num_train": 14}, r"^data\.num_train: got 14, .* 3 to 13 .* smallest has 4 samples"),
        ({"batch_size": 17}, r"^data\.batch_size: got 17, allowed: an integer from 1 to 16"),
        ({"label_noise": 0.01}, r"^data\.label_noise: got 0\.01, .* one of 16 samples"),
        ({"classes": ["cat", "cow"]}, r"^data\.classes: .* two or more of the folders .*dog, eel"),
    ]
    for options, line in cases:
        with pytest.raises(UsageError, match=line):
            ready("folder", folder, image_size=6, **options)


def test_a_folder_of_one_class_is_refused(folder: Path) -> None:
    for name in ("dog", "eel"):
        (folder / "train" / name).rename(folder / f"{name} away")
    with pytest.raises(UsageError, match=r"^data\.classes: got None, allowed: the names of two or"):
        ready("folder", folder)


def test_a_class_without_test_images_is_refused(folder: Path) -> None:
    (folder / "test" / "eel" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"^data\.root: .*test/eel' holds none$"):
        ready("folder", folder)


class Own(Images):
    """A reader of the user's with labels to choose."""

    def __init__(self, labels: list[int]) -> None:
        super().__init__(batch_size=2)
        self.labels = labels

    def prepare_data(self) -> None:
        """Nothing to do."""

    def read(self) -> RawImages:
        x = np.random.default_rng(0).random((len(self.labels), 2, 2, 3), dtype=np.float32)
        split = Split(x, np.array(self.labels))
        test = Split(1 - x, np.array(self.labels))
        return RawImages(("a", "b", "c"), split, test, np.zeros(3), np.ones(3))


class OwnPair(Own, ImagePair):
    """The same, of two classes."""

    def read(self) -> RawImages:
        return super().read()._replace(class_names=("a", "b"))


def test_labels_of_no_class_are_refused() -> None:
    Own([0, 1, 2, 0]).setup()
    with pytest.raises(UsageError, match=r"^data: got 'labels -1, 3', allowed: labels 0 to 2, "):
        Own([0, 1, 3, -1]).setup()
    OwnPair([-1, 1]).setup()
    with pytest.raises(UsageError, match=r"^data: got 'labels 0', allowed: labels -1 and \+1"):
        OwnPair([0, 1]).setup()


# Options that change, and the command line


CHANGES = [("label_noise", 0.2), ("classes", [1, 2, 5]), ("num_train", 40), ("seed", 3)]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_an_option_that_changes_is_as_of_a_new_module(name: str, value: Any) -> None:
    start: dict[str, Any] = {"classes": [1, 2, 3], "label_noise": 0.1, "num_train": 30}
    data, new = ready(**start), ready(**{**start, name: value})
    before = data.facts
    setattr(data, name, value)
    data.setup()
    assert data.facts == new.facts != before
    assert torch.equal(data.train_x, new.train_x) and torch.equal(data.train_y, new.train_y)
    assert torch.equal(data.noisy, new.noisy)


def test_nothing_is_read_again_if_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(label_noise=0.1)
    monkeypatch.setattr(ImageClasses, "read", None)
    data.setup("test")
    data.label_noise = 2
    with pytest.raises(UsageError, match=r"^data\.label_noise: got 2"):
        data.setup()


def test_options_on_the_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    given = ["--data.source=CIFAR10", "--data.classes=[3, bird]", "--data.label_noise=0.25"]
    given += ["--data.batch_size=full", "--data.num_train=10", "--data.root=~/data"]
    config = parser.parse_args(["--data=janus_pl.data.ImageClasses", *given])
    data = parser.instantiate(config).data
    assert (data.source, data.classes, data.root) == ("CIFAR10", [3, "bird"], "~/data")
    assert (data.label_noise, data.batch_size, data.num_train) == (0.25, "full", 10)
