"""Two-class image data and in-memory minibatches."""

from janus_pl.data.images import CIFAR10Pair, DigitsPair, ImageFolderPair, ImagePair
from janus_pl.data.loader import Batch, InMemoryBatches

__all__ = [
    "Batch",
    "CIFAR10Pair",
    "DigitsPair",
    "ImageFolderPair",
    "ImagePair",
    "InMemoryBatches",
]
