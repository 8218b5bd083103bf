"""Images of two classes or more, linear regression problems, and in-memory minibatches."""

from janus_pl.data.cifar10 import CIFAR10Pair
from janus_pl.data.digits import DigitsPair
from janus_pl.data.fingerprint import DataFacts, fingerprint
from janus_pl.data.image_classes import ImageClasses
from janus_pl.data.image_folder import ImageFolderPair
from janus_pl.data.images import ImagePair, Images
from janus_pl.data.loader import Batch, InMemoryBatches
from janus_pl.data.regression import LinearProblem
from janus_pl.data.splits import RawImages, RawPair, Split
from janus_pl.data.standard import ByteImages, channel_statistics

__all__ = [
    "Batch",
    "ByteImages",
    "CIFAR10Pair",
    "DataFacts",
    "DigitsPair",
    "ImageClasses",
    "ImageFolderPair",
    "ImagePair",
    "Images",
    "InMemoryBatches",
    "LinearProblem",
    "RawImages",
    "RawPair",
    "Split",
    "channel_statistics",
    "fingerprint",
]
