"""Two-class image data, whatever their source: subset, standardization, minibatches.

Every image is standardized channel by channel and then scaled to L2 norm 1 over its C*H*W entries
(an image that is zero after standardization is refused). The first class is coded -1, the second
+1: with outputs (f_0, f_1) the scalar output is (f_1 - f_0)/2. There is no augmentation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.data.fingerprint import DataFacts, fingerprint
from janus_pl.data.image_checks import refuse_zero, warn_of_equal_images
from janus_pl.data.loader import (
    Batch,
    BatchSize,
    InMemoryBatches,
    Order,
    check_batch_fits,
    check_batch_options,
)
from janus_pl.errors import UsageError, is_integer

EVAL_CHUNK = 500
OF_BATCHES = ("batch_size", "micro_batch_size", "order")  # options that no sample depends on
PLAIN = (bool, int, float, str, list, tuple, Path, type(None))


class Split(NamedTuple):
    """Images (n, H, W, C) as float32 in [0, 1], and labels (n,) that are -1 or +1.

    Attributes:
        images: The images.
        labels: Their labels.
        pixels: The decoded bytes (n, H, W, C) behind the images, which the fingerprint is of; if
            they are None, it is of the images.
        files: The file of each image, relative to the data's folder; None if there are no files.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.float32]
    pixels: NDArray[np.uint8] | None = None
    files: Sequence[str] | None = None


class RawPair(NamedTuple):
    """What a data set's reader hands over.

    Attributes:
        class_names: The class coded -1, then the class coded +1.
        train: The training split.
        test: The test split.
        mean: The mean of each channel, (C,).
        std: The standard deviation of each channel, (C,).
        source: The absolute path of the data, or their origin in words.
        found: The number of files by split, if the data are files.
    """

    class_names: tuple[str, str]
    train: Split
    test: Split
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    source: str | None = None
    found: Mapping[str, int] | None = None


class ImagePair(LightningDataModule, ABC):
    """Two classes of images, in memory, on the training device.

    After `setup`: `train_x` (N, C, H, W) and `test_x`, float32 in channels_last memory;
    `train_y` (N,) and `test_y`, -1 or +1; `class_names`, the first of them coded -1; `image_size`;
    `facts`, which the record of a run holds; `files`, the file of each sample by split, if any.
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
    facts: DataFacts
    files: Mapping[str, Sequence[str]]
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
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.num_train = num_train
        self.order = order
        self.seed = seed
        self._check_options()
        self._loaded: dict[str, Any] | None = None  # the options that the samples are of
        self._train_loader: InMemoryBatches | None = None
        self._batched: tuple[Any, ...] = ()  # the options that the loader is of

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
        """Read, standardize and scale the data, whatever the stage; again if an option changed.

        Raises:
            UsageError: batch_size or num_train asks for more samples than there are, or an image is
                zero after standardization.
        """
        self._check_options()
        if self._loaded is not None and self._loaded == self._of_samples():
            check_batch_fits(self.batch_size, self.micro_batch_size, self.num_train_samples)
            return
        raw = self.read()
        train = raw.train
        keep = np.arange(len(train.labels))
        if self.num_train is not None:
            keep = balanced_subset(train.labels, self.num_train, self.seed)
            train = train._replace(images=train.images[keep], labels=train.labels[keep])
        check_batch_fits(self.batch_size, self.micro_batch_size, len(train.labels))
        # Before `_to_tensors`, which works in the memory of the images.
        self.facts = facts_of_pair(raw, keep)
        self.files = _files(raw, keep)
        warn_of_equal_images(raw, keep)
        self.class_names = raw.class_names
        self.image_size = raw.train.images.shape[1]
        self.train_x, self.train_y = _to_tensors(train, raw.mean, raw.std)
        self.test_x, self.test_y = _to_tensors(raw.test, raw.mean, raw.std)
        refuse_zero({"train": self.train_x, "test": self.test_x}, self.files)
        self._loaded, self._train_loader = self._of_samples(), None

    def train_dataloader(self) -> InMemoryBatches:
        """The minibatches; made once for the same options, so that one loader counts the epochs."""
        self._move_to_device()
        options = self.batch_size, self.micro_batch_size, self.order, self.seed
        if self._train_loader is None or self._batched != options:
            self._batched = options
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

    def _check_options(self) -> None:
        """Refuse options out of their range; they may have been set since the last fit."""
        check_batch_options(self.batch_size, self.micro_batch_size, self.order, self.seed)
        if self.num_train is not None:
            if not is_integer(self.num_train, least=2):
                allowed = "an integer from 2 up, or null for all"
                raise UsageError("data.num_train", self.num_train, allowed)
            check_batch_fits(self.batch_size, self.micro_batch_size, self.num_train)

    def _of_samples(self) -> dict[str, Any]:
        """Return the values that decide the samples, a subclass's options among them."""
        public = {k: copy(v) for k, v in vars(self).items() if not k.startswith("_")}
        others = {*OF_BATCHES} if self.num_train is not None else {*OF_BATCHES, "seed"}
        return {k: v for k, v in public.items() if isinstance(v, PLAIN) and k not in others}

    @torch.inference_mode(False)  # `test` may come first, and training could not take its tensors
    def _move_to_device(self) -> None:
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self.train_y.device == device:
            return
        self.train_x, self.train_y = self.train_x.to(device), self.train_y.to(device)
        self.test_x, self.test_y = self.test_x.to(device), self.test_y.to(device)
        self._train_loader = None


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


def facts_of_pair(raw: RawPair, keep: NDArray[np.int64]) -> DataFacts:
    """Return the facts of a pair: both splits as read, and the training samples in use.

    Args:
        raw: The pair.
        keep: The indices of the training samples in use, ascending.
    """
    splits = {"train": raw.train, "test": raw.test}
    pixels = {f"{k}_x": s.images if s.pixels is None else s.pixels for k, s in splits.items()}
    labels = {f"{k}_y": s.labels.astype(np.int8) for k, s in splits.items()}
    # Six digits: the sums behind the statistics may round differently on another machine.
    statistics = [[float(f"{value:.6g}") for value in each] for each in (raw.mean, raw.std)]
    pool = fingerprint(statistics=statistics, **pixels, **labels)
    all_in_use = len(keep) == len(raw.train.labels)
    used = {"train": raw.train.labels[keep], "test": raw.test.labels}
    height, width, channels = raw.train.images.shape[1:]
    classes = dict(zip(raw.class_names, (-1, 1), strict=True))
    return DataFacts(
        sha256=pool if all_in_use else fingerprint(pool=pool, keep=keep),
        pool=pool,
        samples={
            split: {name: int((y == sign).sum()) for name, sign in classes.items()}
            for split, y in used.items()
        },
        found=raw.found or {split: len(s.labels) for split, s in splits.items()},
        unit="images" if raw.found is None else "files",
        dim=channels * height * width,
        outputs=1,
        shape=(channels, height, width),
        classes=classes,
        source=raw.source,
    )


def _files(raw: RawPair, keep: NDArray[np.int64]) -> dict[str, Sequence[str]]:
    files: dict[str, Sequence[str]] = {}
    if raw.train.files is not None:
        files["train"] = [raw.train.files[k] for k in keep]
    if raw.test.files is not None:
        files["test"] = raw.test.files
    return files


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


def signs(second: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(second, 1, -1).astype(np.float32)


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    images = pixels.astype(np.float32, order="C")
    images /= 255
    return images


def check_two_classes(classes: Any, allowed: str) -> None:
    pair = isinstance(classes, tuple | list) and len(classes) == 2
    if not pair or classes[0] == classes[1]:
        raise UsageError("data.classes", classes, allowed)
