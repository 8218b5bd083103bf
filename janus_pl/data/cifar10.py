"""Two classes of CIFAR-10."""

from __future__ import annotations

from typing import Any, final

from janus_pl.data.images import ImagePair
from janus_pl.data.source import class_indices
from janus_pl.data.splits import RawImages, paired
from janus_pl.data.torchvision_sets import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    TorchvisionSet,
)
from janus_pl.errors import UsageError

__all__ = ["CIFAR10_CLASSES", "CIFAR10_MEAN", "CIFAR10_STD", "CIFAR10Pair"]

# A default of None, not of this pair, in the signature: a command line that changes the data's
# class keeps the arguments of the old one, and class names do not travel.
CIFAR10_PAIR = (1, 2)  # automobile, bird
WAYS = (
    "--data janus_pl.data.ImageFolderPair --data.root DIR for a folder of images, or "
    "--data janus_pl.data.DigitsPair"
)


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
        classes = CIFAR10_PAIR if classes is None else classes
        first, second = class_indices(classes, CIFAR10_CLASSES, most=2)
        self.classes = first, second
        self.download = download

    def prepare_data(self) -> None:
        """Download CIFAR-10 where there is nothing of it, and check what is there."""
        self._source().prepare()

    def read(self) -> RawImages:
        return paired(self._source().read())

    def _source(self) -> TorchvisionSet:
        return TorchvisionSet("CIFAR10", self.root, self.classes, self.download, WAYS)
