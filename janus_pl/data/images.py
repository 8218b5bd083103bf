"""Images of K classes, whatever their source: subset, standardization, minibatches.

Every image is standardized channel by channel and then scaled to L2 norm 1 over its C*H*W entries
(an image that is zero after standardization is refused). There is no augmentation. Labels are 0 to
K - 1. In an `ImagePair` the first class is coded -1, the second +1: with outputs (f_0, f_1) the
scalar output is (f_1 - f_0)/2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.data.fingerprint import DataFacts
from janus_pl.data.image_checks import refuse_zero, warn_of_equal_images
from janus_pl.data.loader import (
    Batch,
    BatchSize,
    InMemoryBatches,
    Order,
    check_batch_fits,
    check_batch_options,
)
from janus_pl.data.splits import (
    PAIR,
    Noise,
    RawImages,
    balanced_subset,
    check_labels,
    facts_of,
    files_of,
)
from janus_pl.data.standard import FLOAT_LIMIT, ByteImages, standardized
from janus_pl.errors import UsageError, is_integer

EVAL_CHUNK = 500
# What no sample depends on: options of batches, and the trainer, which comes after the first setup.
OF_BATCHES = ("batch_size", "micro_batch_size", "order", "trainer")
PLAIN = (bool, int, float, str, list, tuple, Path, type(None))


class Images(LightningDataModule, ABC):
    """Classes of images, in memory, on the training device.

    After `setup`: `train_x` (N, C, H, W) and `test_x`, float32 in channels_last memory; `train_y`
    (N,) and `test_y`; `class_names` in the order of their labels, `num_classes`; `image_size`;
    `facts` for the record; `files`, the file of each sample by split, if any; `noisy` (N,), which
    labels are replaced, or None. The validation set is the test set, which is only watched.

    Images of more than 1 GiB as float32 are held as bytes (`ByteImages`) and become float32 a
    minibatch at a time, bit for bit the same; not for GD, whose minibatch is all images.

    Args:
        batch_size: Samples in a minibatch, 1 to N, or "full" for gradient descent.
        micro_batch_size: Samples that go through the network at a time, which bounds the memory;
            the gradient is the same. Not set: the batch size, at most 250.
        num_train: Train on this many samples, as many of each class (of a remainder r, the first r
            classes get one more), chosen by the seed alone; a larger subset holds the smaller one.
            Not set: all of them.
        order: "shuffle" (a new permutation every epoch), "sequential" (data order) or
            "with_replacement" (N independent draws an epoch).
        seed: Decides the subset and the order of every epoch; an integer >= 0.
            Not set: 0, on the command line that of `seed_everything`.

    Raises:
        UsageError: An option is out of its range.
    """

    class_names: tuple[str, ...]
    image_size: int
    facts: DataFacts
    files: Mapping[str, Sequence[str]]
    noisy: Tensor | None = None
    train_x: Any  # Tensor | ByteImages
    train_y: Tensor
    test_x: Any
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
    def read(self) -> RawImages:
        """Read both splits: images of three channels, all of one height and width."""

    @property
    def num_classes(self) -> int:
        """K; known after `setup`."""
        return len(self.class_names)

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
        codes = self._codes(len(raw.class_names))
        check_labels(raw, codes)
        train, keep = raw.train, np.arange(len(raw.train.labels))
        if self.num_train is not None:
            keep = balanced_subset(train.labels, self.num_train, self.seed, codes)
            train = train._replace(images=train.images[keep], labels=train.labels[keep])
        check_batch_fits(self.batch_size, self.micro_batch_size, len(train.labels))
        noise = self._noise(train.labels, len(codes))
        # Before `standardized`, which works in the memory of the images.
        self.facts = facts_of(raw, keep, codes, noise)
        self.files = files_of(raw, keep)
        warn_of_equal_images(raw, keep)
        self.class_names = raw.class_names
        self.image_size = raw.train.images.shape[1]
        as_bytes = self._stays_bytes(train.images, raw.test.images)
        self.train_x = standardized(train.images, raw.mean, raw.std, as_bytes)
        self.test_x = standardized(raw.test.images, raw.mean, raw.std, as_bytes)
        self.train_y = torch.from_numpy(train.labels if noise is None else noise.labels)
        self.test_y = torch.from_numpy(raw.test.labels)
        self.noisy = None if noise is None else torch.from_numpy(noise.noisy)
        refuse_zero({"train": self.train_x, "test": self.test_x}, self.files)
        self._loaded, self._train_loader = self._of_samples(), None

    def train_dataloader(self) -> InMemoryBatches:
        """Return the minibatches; equal options give the same loader, which counts the epochs."""
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
        """Return the test split in data order, 500 samples at a time."""
        return self.test_dataloader()

    def test_dataloader(self) -> InMemoryBatches:
        """Return the test split in data order, 500 samples at a time."""
        self._move_to_device()
        return _in_data_order(self.test_x, self.test_y)

    def predict_dataloader(self) -> list[InMemoryBatches]:
        """Return the training samples in use and the test split, each in data order."""
        self._move_to_device()
        return [_in_data_order(self.train_x, self.train_y), self.test_dataloader()]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Return the batch itself if it is on the device; that saves host time each step."""
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

    def _codes(self, count: int) -> tuple[int, ...]:
        """Return the labels of the classes, in order."""
        return tuple(range(count))

    def _noise(self, labels: NDArray[Any], count: int) -> Noise | None:
        """Return the labels to train on if some are replaced."""
        return None

    @property
    def _draws(self) -> bool:
        """Whether the seed decides samples or labels."""
        return self.num_train is not None

    def _stays_bytes(self, *splits: NDArray[Any]) -> bool:
        """Decide whether images stay bytes, and say so if they do."""
        entries, count = sum(each.size for each in splits), len(splits[0])
        replaced = self.order == "with_replacement"
        whole = self.batch_size == "full" or (self.batch_size == count and not replaced)
        if splits[0].dtype != np.uint8 or whole or 4 * entries <= FLOAT_LIMIT:
            return False
        sizes = f"{4 * entries / 2**30:.3g} GiB as float32, {entries / 2**30:.3g} as bytes"
        rank_zero_info(f"data: the images take {sizes}, and become float32 by the minibatch")
        return True

    def _of_samples(self) -> dict[str, Any]:
        """Return the values that decide the samples, a subclass's options among them."""
        public = {k: copy(v) for k, v in vars(self).items() if not k.startswith("_")}
        others = {*OF_BATCHES} if self._draws else {*OF_BATCHES, "seed"}
        return {k: v for k, v in public.items() if isinstance(v, PLAIN) and k not in others}

    @torch.inference_mode(False)  # `test` may come first, and training could not take its tensors
    def _move_to_device(self) -> None:
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self.train_y.device == device:
            return
        self.train_x, self.train_y = self.train_x.to(device), self.train_y.to(device)
        self.test_x, self.test_y = self.test_x.to(device), self.test_y.to(device)
        self.noisy = None if self.noisy is None else self.noisy.to(device)
        self._train_loader = None


class ImagePair(Images):
    """Two classes of images, in memory, on the training device; labels are -1 and +1.

    The first of `class_names` is coded -1. `Images` says what there is after `setup`, and what the
    options are.
    """

    class_names: tuple[str, str]

    def _codes(self, count: int) -> tuple[int, ...]:
        return PAIR


def _in_data_order(x: Tensor | ByteImages, y: Tensor) -> InMemoryBatches:
    return InMemoryBatches(x, y, batch_size=min(EVAL_CHUNK, len(y)), order="sequential")
