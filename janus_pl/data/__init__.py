"""Two-class image data, linear regression problems, and in-memory minibatches."""

from janus_pl.data.images import (
    CIFAR10Pair,
    DigitsPair,
    ImageFolderPair,
    ImagePair,
    RawPair,
    Split,
    channel_statistics,
)
from janus_pl.data.loader import Batch, InMemoryBatches
from janus_pl.data.regression import LinearProblem

__all__ = [
    "Batch",
    "CIFAR10Pair",
    "DigitsPair",
    "ImageFolderPair",
    "ImagePair",
    "InMemoryBatches",
    "LinearProblem",
    "RawPair",
    "Split",
    "channel_statistics",
]
