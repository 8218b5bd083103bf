"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from janus_pl.data.images import ImagePair
from janus_pl.data.source import Source, check_classes, labels_of
from janus_pl.data.splits import RawImages, Split, paired
from janus_pl.data.standard import channel_statistics
from janus_pl.errors import UsageError, is_integer

DIGITS = tuple(map(str, range(10)))
DIGITS_PAIR = (3, 8)
DIGITS_SIZE = 32
DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2


class Digits(Source):
    """Digits of scikit-learn, split in a fixed way that depends on the classes alone.

    Args:
        classes: The digits, in the order of their labels.
    """

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = classes

    def prepare(self) -> None:
        """Do nothing: the images come with scikit-learn."""

    def read(self) -> RawImages:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, targets = load_digits(return_X_y=True)
        picked = np.isin(targets, self.classes)
        images, labels = _enlarge(images[picked]), labels_of(targets[picked], self.classes)
        train, test = train_test_split(
            np.arange(len(labels)),
            test_size=DIGITS_TEST_SHARE,
            stratify=labels,
            random_state=DIGITS_SPLIT_SEED,
        )
        train, test = np.sort(train), np.sort(test)
        mean, std = channel_statistics(images[train])
        return RawImages(
            tuple(map(str, self.classes)),
            Split(images[train], labels[train]),
            Split(images[test], labels[test]),
            mean,
            std,
            "the digits of scikit-learn",
        )


@final
class DigitsPair(ImagePair):
    """Two of the handwritten digits that scikit-learn ships: no download, about 290 + 70 images.

    The 8x8 gray images are resized bilinearly to (3, 32, 32), the channels being equal. A fixed,
    stratified fifth is the test split, whatever the `seed`. Standardized with the channel mean and
    standard deviation of the whole training split, then scaled to unit norm.

    Args:
        classes: The digit coded -1, then the digit coded +1. Not set: 3 and 8.
        **options: Those of `ImagePair`.

    Raises:
        UsageError: An option is out of its range.
    """

    def __init__(self, classes: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        classes = DIGITS_PAIR if classes is None else classes
        allowed = "two different digits from 0 to 9"
        check_classes(classes, allowed, 2)
        if not all(is_integer(digit, 0, 9) for digit in classes):
            raise UsageError("data.classes", classes, allowed)
        self.classes = classes[0], classes[1]

    def prepare_data(self) -> None:
        """Do nothing: the images come with scikit-learn."""

    def read(self) -> RawImages:
        return paired(Digits(self.classes).read())


def _enlarge(digits: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn rows (n, 64) of gray values 0 to 16 into images (n, 32, 32, 3) in [0, 1]."""
    gray = torch.from_numpy(digits).float().view(-1, 1, 8, 8) / 16
    size = (DIGITS_SIZE, DIGITS_SIZE)
    large = torch.nn.functional.interpolate(gray, size, mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()
