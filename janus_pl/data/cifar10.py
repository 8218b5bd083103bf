"""Two classes of CIFAR-10."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, final

import numpy as np

from janus_pl.data.boundary import refused
from janus_pl.data.cifar10_files import FOLDER, fetch, wrong_files
from janus_pl.data.images import (
    ImagePair,
    RawPair,
    Split,
    check_two_classes,
    from_bytes,
    signs,
)
from janus_pl.errors import UsageError

# fmt: off
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
# fmt: on
# A default of None, not of this pair, in the signature: a command line that changes the data's
# class keeps the arguments of the old one, and class names do not travel.
CIFAR10_PAIR = (1, 2)  # automobile, bird
# Mean and standard deviation of each channel over all pixels of the 50,000 training images of
# CIFAR-10 (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009), scaled
# to [0, 1]: 0.49139968 0.48215841 0.44653091 and 0.24703223 0.24348513 0.26158784, rounded.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


@final
class CIFAR10Pair(ImagePair):
    """Two classes of CIFAR-10: 5,000 training and 1,000 test images each, of shape (3, 32, 32).

    Standardized with the usual channel means and standard deviations of CIFAR-10, then scaled to
    unit norm.

    Args:
        root: Folder that holds, or will hold, `cifar-10-batches-py`; may start with ~.
        classes: The class coded -1, then the class coded +1, by index 0 to 9 or by name. Not set:
            1 and 2, automobile and bird, as in the paper.
        download: Fetch the data (170 MB) where they are missing.
        **options: Those of `ImagePair`.

    Raises:
        UsageError: An option is out of its range, or the data are missing and cannot be fetched.
    """

    def __init__(
        self,
        root: str = "data",
        classes: tuple[int | str, int | str] | None = None,
        download: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not isinstance(root, str):
            raise UsageError("data.root", root, "a folder")
        self.root = root
        self.classes = _cifar10_indices(CIFAR10_PAIR if classes is None else classes)
        self.download = download

    def prepare_data(self) -> None:
        """Download CIFAR-10 where there is nothing of it, and check what is there."""
        with self._one_line():
            if self.download:
                fetch(Path(os.path.expanduser(self.root)))
            self._check()

    def read(self) -> RawPair:
        first, second = self.classes
        with self._one_line():
            self._check()
            train, test = self._split(train=True), self._split(train=False)
        return RawPair(
            (CIFAR10_CLASSES[first], CIFAR10_CLASSES[second]),
            train,
            test,
            np.array(CIFAR10_MEAN),
            np.array(CIFAR10_STD),
            os.path.abspath(os.path.expanduser(self.root)),
        )

    def _split(self, train: bool) -> Split:
        from torchvision.datasets import CIFAR10

        dataset = CIFAR10(os.path.expanduser(self.root), train=train, download=False)
        targets = np.array(dataset.targets)
        picked = np.isin(targets, self.classes)
        pixels = dataset.data[picked]
        return Split(from_bytes(pixels), signs(targets[picked] == self.classes[1]), pixels)

    def _check(self) -> None:
        """Refuse files that are missing or not those of CIFAR-10: they are never overwritten."""
        folder = Path(os.path.expanduser(self.root)) / FOLDER
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        wrong = wrong_files(folder)
        if wrong:
            listed = ", ".join(wrong)
            allowed = f"a folder whose {FOLDER} is that of CIFAR-10; not so: {listed}"
            raise UsageError("data.root", self.root, f"{allowed}; moved away, it is fetched anew")

    def _one_line(self) -> AbstractContextManager[None]:
        allowed = f"a folder that holds {FOLDER}, or a network to fetch it"
        ways = "--data janus_pl.data.ImageFolderPair --data.root DIR for a folder of images, or"
        other = f"without one: {ways} --data janus_pl.data.DigitsPair"
        return refused("data.root", self.root, f"{allowed}; {other}")


def _cifar10_indices(classes: tuple[int | str, int | str]) -> tuple[int, int]:
    known = ", ".join(CIFAR10_CLASSES)
    allowed = f"two different classes by name ({known}) or by index (0 to 9)"
    check_two_classes(classes, allowed)
    known_values = CIFAR10_CLASSES + tuple(range(10))
    if any(isinstance(c, bool) or c not in known_values for c in classes):
        raise UsageError("data.classes", classes, allowed)
    first, second = (known_values.index(c) % 10 for c in classes)
    if first == second:  # a name and its index
        raise UsageError("data.classes", classes, allowed)
    return first, second
