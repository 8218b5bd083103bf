"""Two of the handwritten digits that scikit-learn ships."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from janus_pl.data.images import (
    ImagePair,
    RawPair,
    Split,
    channel_statistics,
    check_two_classes,
    signs,
)
from janus_pl.errors import UsageError, is_integer

DIGITS_PAIR = (3, 8)
DIGITS_SIZE = 32
DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2


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
        check_two_classes(classes, allowed)
        if not all(is_integer(digit, 0, 9) for digit in classes):
            raise UsageError("data.classes", classes, allowed)
        self.classes = classes[0], classes[1]

    def prepare_data(self) -> None:
        """Nothing to do: the images come with scikit-learn."""

    def read(self) -> RawPair:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, targets = load_digits(return_X_y=True)
        picked = np.isin(targets, self.classes)
        images, labels = _enlarge(images[picked]), signs(targets[picked] == self.classes[1])
        train, test = train_test_split(
            np.arange(len(labels)),
            test_size=DIGITS_TEST_SHARE,
            stratify=labels,
            random_state=DIGITS_SPLIT_SEED,
        )
        train, test = np.sort(train), np.sort(test)
        mean, std = channel_statistics(images[train])
        return RawPair(
            (str(self.classes[0]), str(self.classes[1])),
            Split(images[train], labels[train]),
            Split(images[test], labels[test]),
            mean,
            std,
            "the digits of scikit-learn",
        )


def _enlarge(digits: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows (n, 64) of gray values 0 to 16 as images (n, 32, 32, 3) in [0, 1]."""
    gray = torch.from_numpy(digits).float().view(-1, 1, 8, 8) / 16
    size = (DIGITS_SIZE, DIGITS_SIZE)
    large = torch.nn.functional.interpolate(gray, size, mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()
