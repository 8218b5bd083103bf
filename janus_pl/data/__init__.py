"""Two-class image data, linear regression problems, and in-memory minibatches."""

from janus_pl.data.cifar10 import CIFAR10Pair
from janus_pl.data.digits import DigitsPair
from janus_pl.data.fingerprint import DataFacts, fingerprint
from janus_pl.data.image_folder import ImageFolderPair
from janus_pl.data.images import ImagePair, RawPair, Split, channel_statistics
from janus_pl.data.loader import Batch, InMemoryBatches
from janus_pl.data.regression import LinearProblem

__all__ = [
    "Batch",
    "CIFAR10Pair",
    "DataFacts",
    "DigitsPair",
    "ImageFolderPair",
    "ImagePair",
    "InMemoryBatches",
    "LinearProblem",
    "RawPair",
    "Split",
    "channel_statistics",
    "fingerprint",
]
