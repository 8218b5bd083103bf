"""Two-class image data: CIFAR-10, a folder of images, or the digits that scikit-learn ships.

Every image is standardized channel by channel and then scaled to L2 norm 1 over its C*H*W entries
(an image that is zero after standardization stays zero). The first class is coded -1, the second
+1: with outputs (f_0, f_1) the scalar output is (f_1 - f_0)/2. There is no augmentation.
"""

from __future__ import annotations

import http.client
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.data.loader import (
    Batch,
    BatchSize,
    InMemoryBatches,
    Order,
    check_batch_fits,
    check_batch_options,
    is_integer,
)
from janus_pl.errors import UsageError
from janus_pl.limits import check_memory

EVAL_CHUNK = 500

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
DOWNLOAD_TIMEOUT = 10.0  # seconds that a silent connection is waited for

DIGITS_PAIR = (3, 8)
DIGITS_SIZE = 32
DIGITS_SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
ClassFiles = tuple[list[Path], list[Path]]


class Split(NamedTuple):
    """Images (n, H, W, C) as float32 in [0, 1], and labels (n,) that are -1 or +1."""

    images: NDArray[np.float32]
    labels: NDArray[np.float32]


class RawPair(NamedTuple):
    """What a data set's reader hands over; mean and std are per channel, of shape (C,)."""

    class_names: tuple[str, str]
    train: Split
    test: Split
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


class ImagePair(LightningDataModule, ABC):
    """Two classes of images, in memory, on the training device.

    After `setup`: `train_x` (N, C, H, W) and `test_x`, float32 in channels_last memory;
    `train_y` (N,) and `test_y`, -1 or +1; `class_names`, the first of them coded -1; `image_size`.
    The validation set is the test set: nothing is selected on it, it is only watched.

    Args:
        batch_size: Samples in a minibatch, 1 to N, or "full" for gradient descent.
        micro_batch_size: Samples that go through the network at a time, which bounds the memory;
            the gradient is the same. Not set: the batch size, at most 250.
        num_train: Train on this many samples, half of each class (an odd number gives the first
            class one more), chosen by the seed alone; a larger subset holds the smaller one.
            Not set: all of them.
        order: "shuffle" (a new permutation every epoch), "sequential" (data order) or
            "with_replacement" (N independent draws an epoch).
        seed: Decides the subset and the order of every epoch; an integer >= 0.
            Not set: 0, on the command line that of `seed_everything`.

    Raises:
        UsageError: An option is out of its range.
    """

    class_names: tuple[str, str]
    image_size: int
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    def __init__(
        self,
        batch_size: BatchSize = 128,
        micro_batch_size: int | None = None,
        num_train: int | None = None,
        order: Order = "shuffle",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        seed = 0 if seed is None else seed
        check_batch_options(batch_size, micro_batch_size, order, seed)
        if num_train is not None:
            if not is_integer(num_train, at_least=2):
                raise UsageError("data.num_train", num_train, "an integer >= 2, or null for all")
            check_batch_fits(batch_size, micro_batch_size, num_train)
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.num_train = num_train
        self.order = order
        self.seed = seed
        self._loaded = False
        self._train_loader: InMemoryBatches | None = None

    @abstractmethod
    def prepare_data(self) -> None:
        """Download what is missing, or check that the data are there; keeps nothing in memory."""

    @abstractmethod
    def read(self) -> RawPair:
        """Read both splits: images of three channels, all of one height and width."""

    @property
    def num_train_samples(self) -> int:
        """N, the number of training samples in use; known after `setup`."""
        return len(self.train_y)

    def setup(self, stage: str = "fit") -> None:
        """Read, standardize and scale the data, once, whatever the stage.

        Raises:
            UsageError: batch_size or num_train asks for more samples than there are.
        """
        if self._loaded:
            return
        raw = self.read()
        train = raw.train
        if self.num_train is not None:
            keep = balanced_subset(train.labels, self.num_train, self.seed)
            train = Split(train.images[keep], train.labels[keep])
        check_batch_fits(self.batch_size, self.micro_batch_size, len(train.labels))
        self.class_names = raw.class_names
        self.image_size = raw.train.images.shape[1]
        self.train_x, self.train_y = _to_tensors(train, raw.mean, raw.std)
        self.test_x, self.test_y = _to_tensors(raw.test, raw.mean, raw.std)
        self._loaded = True

    def train_dataloader(self) -> InMemoryBatches:
        """The minibatches; made once, so that the epoch count belongs to one loader."""
        self._move_to_device()
        if self._train_loader is None:
            self._train_loader = InMemoryBatches(
                self.train_x,
                self.train_y,
                self.batch_size,
                self.micro_batch_size,
                self.order,
                self.seed,
            )
        return self._train_loader

    def val_dataloader(self) -> InMemoryBatches:
        """The test split in data order, 500 samples at a time."""
        return self.test_dataloader()

    def test_dataloader(self) -> InMemoryBatches:
        """The test split in data order, 500 samples at a time."""
        self._move_to_device()
        return _in_data_order(self.test_x, self.test_y)

    def predict_dataloader(self) -> list[InMemoryBatches]:
        """The training samples in use and the test split, each in data order."""
        self._move_to_device()
        return [_in_data_order(self.train_x, self.train_y), self.test_dataloader()]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch itself where it is on the device already, which saves host time each step."""
        if isinstance(batch, Batch) and batch.x.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _move_to_device(self) -> None:
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self.train_y.device == device:
            return
        self.train_x, self.train_y = self.train_x.to(device), self.train_y.to(device)
        self.test_x, self.test_y = self.test_x.to(device), self.test_y.to(device)
        self._train_loader = None


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
        """Download CIFAR-10 where it is missing."""
        self._dataset(train=False, download=self.download)

    def read(self) -> RawPair:
        first, second = self.classes
        return RawPair(
            (CIFAR10_CLASSES[first], CIFAR10_CLASSES[second]),
            self._split(train=True),
            self._split(train=False),
            np.array(CIFAR10_MEAN),
            np.array(CIFAR10_STD),
        )

    def _split(self, train: bool) -> Split:
        dataset = self._dataset(train, download=False)
        targets = np.array(dataset.targets)
        picked = np.isin(targets, self.classes)
        return Split(_from_bytes(dataset.data[picked]), _signs(targets[picked] == self.classes[1]))

    def _dataset(self, train: bool, download: bool) -> Any:
        from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

        root = os.path.expanduser(self.root)
        existed = os.path.exists(root)
        try:
            with _socket_timeout(DOWNLOAD_TIMEOUT):
                return CIFAR10(root, train=train, download=download)
        # URLError and time-outs are OSErrors; torchvision reports bad files as RuntimeErrors.
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            if not existed:  # torchvision makes the folder before it looks for the network
                with suppress(OSError):
                    os.rmdir(root)
            raise UsageError(
                "data.root",
                self.root,
                "a folder that holds cifar-10-batches-py, or a network to fetch it "
                f"({_one_line(error)}); without one, point --data janus_pl.data.ImageFolderPair "
                "--data.root DIR at a folder of images, or use --data janus_pl.data.DigitsPair",
            ) from error


@final
class ImageFolderPair(ImagePair):
    """Two classes of images from ROOT/train/CLASS and ROOT/test/CLASS (.jpg, .jpeg, .png).

    Images are read as RGB and, where their size differs, resized bilinearly to a square. They are
    standardized with the channel means and standard deviations of the whole training split of the
    two classes (also where `num_train` uses a part of it), then scaled to unit norm. Data order is
    the files of the first class by name, then those of the second.

    Args:
        root: Folder that holds train/ and test/; may start with ~.
        classes: Names of the folder coded -1, then of the folder coded +1. Not set: train/ holds
            exactly two folders, taken in alphabetical order.
        image_size: Height and width in pixels.
        **options: Those of `ImagePair`.

    Raises:
        UsageError: An option is out of its range, or a folder or image cannot be used.
    """

    def __init__(
        self,
        root: str,
        classes: tuple[str, str] | None = None,
        image_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if classes is not None:
            allowed = "the names of two different folders of train/, or null where it holds two"
            _check_two_classes(classes, allowed)
            if not all(isinstance(name, str) for name in classes):
                raise UsageError("data.classes", classes, allowed)
        if not is_integer(image_size, at_least=1):
            raise UsageError("data.image_size", image_size, "an integer >= 1")
        self.root = root
        self.classes = classes
        self.image_size = image_size

    def prepare_data(self) -> None:
        """Check that the folders are there and hold images."""
        self._files()

    def read(self) -> RawPair:
        names, train_files, test_files = self._files()
        train = self._split(train_files)
        mean, std = channel_statistics(train.images)
        return RawPair(names, train, self._split(test_files), mean, std)

    def _split(self, files: ClassFiles) -> Split:
        first, second = files
        pixels = self._decode(first + second)
        return Split(_from_bytes(pixels), _signs(np.arange(len(pixels)) >= len(first)))

    def _decode(self, files: list[Path]) -> NDArray[np.uint8]:
        entries = len(files) * self.image_size**2 * 3
        check_memory("data.image_size", self.image_size, 5 * entries)  # as bytes and as float32
        pixels = np.empty((len(files), self.image_size, self.image_size, 3), np.uint8)

        def decode(i: int) -> None:
            try:
                pixels[i] = _decode_image(files[i], self.image_size)
            except Exception as error:  # decoders raise all sorts of errors on broken files
                allowed = f"a folder of readable images; {_quoted(files[i])} is none"
                raise UsageError(
                    "data.root", self.root, f"{allowed} ({_one_line(error)})"
                ) from error

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(decode, range(len(files))):
                pass
        return pixels

    def _files(self) -> tuple[tuple[str, str], ClassFiles, ClassFiles]:
        """The class names, and the image files of both classes in train/ and in test/."""
        root = Path(os.path.expanduser(self.root))
        for folder in (root, root / "train", root / "test"):
            if not folder.is_dir():
                allowed = f"a folder that holds train/ and test/; {_quoted(folder)} is no folder"
                raise UsageError("data.root", self.root, allowed)
        first, second = self._class_names(root / "train")
        train = self._images(root / "train" / first), self._images(root / "train" / second)
        test = self._images(root / "test" / first), self._images(root / "test" / second)
        return (first, second), train, test

    def _class_names(self, train: Path) -> tuple[str, str]:
        known = sorted(p.name for p in train.iterdir() if p.is_dir() and p.name[0] != ".")
        names = known if self.classes is None else self.classes
        if len(names) != 2 or not set(names) <= set(known):
            listed = ", ".join(known) or "none"
            allowed = f"the names of two of the folders in {_quoted(train)} ({listed})"
            raise UsageError("data.classes", self.classes, allowed)
        return names[0], names[1]

    def _images(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            allowed = f"a folder whose train/ and test/ hold both classes; {_quoted(folder)} is no"
            raise UsageError("data.root", self.root, f"{allowed} folder")
        names = (e.name for e in os.scandir(folder) if e.name[0] != "." and e.is_file())
        files = [folder / name for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES)]
        if not files:
            kinds = ", ".join(IMAGE_SUFFIXES)
            allowed = f"a folder of images ({kinds}); {_quoted(folder)} holds none"
            raise UsageError("data.root", self.root, allowed)
        return files


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
        _check_two_classes(classes, allowed)
        if not all(is_integer(digit, at_least=0) and digit <= 9 for digit in classes):
            raise UsageError("data.classes", classes, allowed)
        self.classes = classes[0], classes[1]

    def prepare_data(self) -> None:
        """Nothing to do: the images come with scikit-learn."""

    def read(self) -> RawPair:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

        images, targets = load_digits(return_X_y=True)
        picked = np.isin(targets, self.classes)
        images, labels = _enlarge(images[picked]), _signs(targets[picked] == self.classes[1])
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
        )


def balanced_subset(labels: NDArray[np.float32], num_train: int, seed: int) -> NDArray[np.int64]:
    """Indices, ascending, of a subset with half of its samples in each class.

    Depends on (labels, seed, num_train) alone; a larger subset holds the smaller one.

    Args:
        labels: -1 or +1, (n,).
        num_train: Size of the subset; an odd one gives class -1 one more.
        seed: Integer >= 0.

    Raises:
        UsageError: There are too few samples, naming data.num_train.
    """
    # The spawn key sets this stream apart from those of the epochs' orders.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    first, second = (rng.permutation(np.flatnonzero(labels == sign)) for sign in (-1, 1))
    limit = min(2 * len(first), 2 * len(second) + 1)
    if num_train > limit:
        allowed = (
            f"an integer from 2 to {limit} (half of each class; there are {len(first)} samples "
            f"of the first and {len(second)} of the second), or null for all"
        )
        raise UsageError("data.num_train", num_train, allowed)
    half = num_train // 2
    return np.sort(np.concatenate([first[: num_train - half], second[:half]]))


def channel_statistics(
    images: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation over the pixels of all images (n, H, W, C), each of shape (C,).

    The deviation of a constant channel is given as 1, so that one can divide by it.
    """
    channels = [images[..., c] for c in range(images.shape[-1])]
    mean = np.array([channel.mean(dtype=np.float64) for channel in channels])
    std = np.array([channel.std(dtype=np.float64) for channel in channels])
    return mean, np.where(std > 1e-6, std, 1.0)


def unit_norm_(x: Tensor) -> Tensor:
    """Scale every image (n, ...), in place, to L2 norm 1 over its entries; zero stays zero."""
    norms = x.flatten(1).norm(dim=1)
    # Rounding in the mean may leave about 1e-7 per entry where the exact value is zero.
    tiny = 1e-6 * x[0].numel() ** 0.5
    scale = torch.where(norms > tiny, 1 / norms, torch.zeros_like(norms))
    return x.mul_(scale.view(-1, *[1] * (x.dim() - 1)))


def _to_tensors(
    split: Split, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    """Standardized images of unit norm, (n, C, H, W) in channels_last memory, and labels (n,).

    Works in the memory of `split`, since whole data sets pass through here.
    """
    shift = torch.from_numpy(mean.astype(np.float32))
    scale = torch.from_numpy(std.astype(np.float32))
    x = unit_norm_(torch.from_numpy(split.images).sub_(shift).div_(scale))
    return x.permute(0, 3, 1, 2), torch.from_numpy(split.labels)


def _in_data_order(x: Tensor, y: Tensor) -> InMemoryBatches:
    return InMemoryBatches(x, y, batch_size=min(EVAL_CHUNK, len(y)), order="sequential")


def _signs(second: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(second, 1, -1).astype(np.float32)


def _from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    images = pixels.astype(np.float32, order="C")
    images /= 255
    return images


def _enlarge(digits: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows (n, 64) of gray values 0 to 16 as images (n, 32, 32, 3) in [0, 1]."""
    gray = torch.from_numpy(digits).float().view(-1, 1, 8, 8) / 16
    size = (DIGITS_SIZE, DIGITS_SIZE)
    large = torch.nn.functional.interpolate(gray, size, mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()


def _decode_image(file: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(file) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _check_two_classes(classes: Any, allowed: str) -> None:
    pair = isinstance(classes, tuple | list) and len(classes) == 2
    if not pair or classes[0] == classes[1]:
        raise UsageError("data.classes", classes, allowed)


def _cifar10_indices(classes: tuple[int | str, int | str]) -> tuple[int, int]:
    known = ", ".join(CIFAR10_CLASSES)
    allowed = f"two different classes by name ({known}) or by index (0 to 9)"
    _check_two_classes(classes, allowed)
    known_values = CIFAR10_CLASSES + tuple(range(10))
    if any(isinstance(c, bool) or c not in known_values for c in classes):
        raise UsageError("data.classes", classes, allowed)
    first, second = (known_values.index(c) % 10 for c in classes)
    if first == second:  # a name and its index
        raise UsageError("data.classes", classes, allowed)
    return first, second


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its URLs without a time-out; this gives them one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _quoted(path: Path) -> str:
    return repr(str(path))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
