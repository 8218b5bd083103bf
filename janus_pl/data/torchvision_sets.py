"""Data sets that torchvision knows by name, as sources of images of several classes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janus_pl.data.boundary import refused
from janus_pl.data.fetching import Collection
from janus_pl.data.source import Source, class_indices, labels_of
from janus_pl.data.splits import RawImages, Split
from janus_pl.data.standard import channel_statistics
from janus_pl.errors import UsageError

# fmt: off
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)
# fmt: on
# The names of the classes in the order of their indices.
NAMES: dict[str, Sequence[str]] = {
    "CIFAR10": CIFAR10_CLASSES,
    "CIFAR100": CIFAR100_CLASSES,
    "MNIST": tuple(map(str, range(10))),
    "FashionMNIST": FASHION_CLASSES,
}
# Mean and standard deviation of each channel over all pixels of the 50,000 training images of
# CIFAR-10 (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009), scaled
# to [0, 1]: 0.49139968 0.48215841 0.44653091 and 0.24703223 0.24348513 0.26158784, rounded.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
DIGITS_OF_IDX = 0x800  # what a file of bytes in the format IDX begins with, with its dimensions


class TorchvisionSet(Source):
    """A data set of torchvision in a folder.

    Args:
        name: `CIFAR10`, `CIFAR100`, `MNIST` or `FashionMNIST`.
        root: The folder; may start with ~.
        classes: The classes by index or name, in the order of their labels; None for all.
        download: Whether data that are missing are fetched.
        ways: How to go without a network, for the message.
    """

    def __init__(
        self, name: str, root: str, classes: Sequence[str | int] | None, download: bool, ways: str
    ) -> None:
        self.name, self.root, self.classes = name, root, classes
        self.download, self.ways = download, ways

    @cached_property
    def _collection(self) -> Collection:
        return Collection(self.name)

    @property
    def _folder(self) -> Path:
        return Path(os.path.expanduser(self.root))

    def prepare(self) -> None:
        """Download the data where there is nothing of them, and check what is there."""
        with self._one_line():
            if self.download:
                self._collection.fetch(self._folder)
            self._check()

    def read(self) -> RawImages:
        with self._one_line():
            self._check()
            chosen = class_indices(self.classes, NAMES[self.name])
            pixels, targets = self._images(train=True)
            if self.name == "CIFAR10":
                mean, std = np.array(CIFAR10_MEAN), np.array(CIFAR10_STD)
            else:
                mean, std = channel_statistics(pixels)
            train = _split(pixels, targets, chosen)
            test = _split(*self._images(train=False), chosen)
        if pixels.shape[-1] == 1:
            mean, std = mean.repeat(3), std.repeat(3)
        class_names = tuple(NAMES[self.name][k] for k in chosen)
        return RawImages(class_names, train, test, mean, std, os.path.abspath(self._folder))

    def _images(self, train: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the bytes (n, H, W, C) and the targets (n,)."""
        if self._collection.packed:
            dataset = self._collection.kind(str(self._folder), train=train, download=False)
            pixels, targets = dataset.data, np.array(dataset.targets)
        else:
            files = [self._folder / self._collection.files / n for n, _ in self._collection.sums]
            pixels, targets = map(read_idx, files[:2] if train else files[2:])
            pixels, targets = pixels[..., None], targets.astype(np.int64)
        last = len(NAMES[self.name]) - 1
        if len(pixels) != len(targets) or targets.max() > last:
            allowed = f"as many images as labels, of 0 to {last}"
            found = f"{len(pixels)} images and {len(targets)} labels, the largest {targets.max()}"
            raise UsageError("data.root", self.root, f"{allowed}; it holds {found}")
        return pixels, targets

    def _check(self) -> None:
        """Refuse files that are missing or not those of the data set: they stay as they are."""
        collection = self._collection
        if not (folder := self._folder / collection.files).is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        if wrong := collection.wrong_files(self._folder):
            name = "CIFAR-10" if self.name == "CIFAR10" else self.name
            allowed = f"a folder whose {collection.files} is that of {name}; not so: "
            allowed += ", ".join(wrong)
            raise UsageError("data.root", self.root, f"{allowed}; moved away, it is fetched anew")

    def _one_line(self) -> AbstractContextManager[None]:
        allowed = f"a folder that holds {self._collection.files}, or a network to fetch it"
        return refused("data.root", self.root, f"{allowed}; without one: {self.ways}")


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Return the bytes of a compressed file in the format IDX, in the shape that it names.

    Raises:
        ValueError: It is no such file.
    """
    data = gzip.decompress(file.read_bytes())
    dims = int.from_bytes(data[:4], "big") - DIGITS_OF_IDX
    if dims not in (1, 3) or len(data) < 4 * (dims + 1):
        raise ValueError(f"{file.name} is no file of bytes in the format IDX")
    shape = tuple(np.frombuffer(data, ">i4", dims, 4).tolist())
    values: Any = np.frombuffer(data, np.uint8, offset=4 * (dims + 1))
    return values.reshape(shape)


def _split(pixels: NDArray[np.uint8], targets: NDArray[np.int64], classes: Sequence[int]) -> Split:
    """Return the samples of the classes, in the order of the files; gray becomes three channels."""
    picked = np.isin(targets, classes)
    found = pixels if picked.all() else pixels[picked]
    found = np.ascontiguousarray(found if found.shape[-1] == 3 else found.repeat(3, axis=-1))
    return Split(found, labels_of(targets[picked], classes), found)
