"""The training set as callbacks and tasks read it: every sample once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from janus_pl.data.loader import InMemoryBatches
from janus_pl.training.clock import steps_of
from janus_pl.training.generators import kept_generators
from janus_pl.training.lightning import batch_on_device
from janus_pl.training.subject import NotOffered, Subject

EVALUATION_CHUNK = 500
STREAM = "its training set is a stream, of which each sample is seen once"


def training_samples(trainer: Trainer, chunk: int = EVALUATION_CHUNK) -> Iterator[Any]:
    """Yield batches of the training set, every sample once, in data order if it is known.

    Those of a task of ours are pairs (x, y).

    After the pass, and after one that is broken off, the random generators are in the state that
    they had before it, so training goes on bitwise as if nobody had looked.

    Args:
        trainer: The trainer of the run.
        chunk: The most samples in a batch.
    """
    loader: Any = trainer.train_dataloader
    if isinstance(loader, InMemoryBatches):
        yield from _converted(trainer, loader.in_order(chunk))
        return
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        loader = DataLoader(loader.dataset, batch_size=chunk, collate_fn=loader.collate_fn)
    yield from _as_in_a_step(trainer, loader)


def training_pairs(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the training set in batches (x, y), every sample once.

    Raises:
        NotOffered: It is a stream, or its batches are not pairs of tensors.
    """
    if is_stream(trainer):
        raise NotOffered(STREAM)
    for batch in training_samples(trainer):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise NotOffered("its batches are not pairs (x, y)")
        x, y = batch
        if not isinstance(x, Tensor) or not isinstance(y, Tensor) or len(x) != len(y):
            raise NotOffered("its batches are not a tensor of samples and one of their labels")
        yield x, y


def is_stream(trainer: Trainer) -> bool:
    """Tell whether a pass over the training set would not end."""
    loader: Any = trainer.train_dataloader
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return not isinstance(loader.dataset, Sized)
    return not isinstance(loader, Sized)


def chosen_samples(trainer: Trainer, count: int) -> list[Any]:
    """Return batches of at most `count` samples of the training set, as `training_samples` does.

    They are drawn without replacement by a fixed seed, so they depend on N and `count` alone.

    Args:
        trainer: The trainer of the run.
        count: The most samples; if there are no more, it is all of them.

    Raises:
        NotOffered: The loader has no samples with indices.
    """
    loader: Any = trainer.train_dataloader
    if isinstance(loader, InMemoryBatches):
        index = torch.from_numpy(drawn(loader.num_samples, count))
        return [*_converted(trainer, loader.chosen(index, EVALUATION_CHUNK))]
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise NotOffered("its samples cannot be chosen, for its loader has no indices of them")
    taken = drawn(len(loader.dataset), count).tolist()  # type: ignore[arg-type]
    some: Subset[Any] = Subset(loader.dataset, taken)
    few = DataLoader(some, batch_size=EVALUATION_CHUNK, collate_fn=loader.collate_fn)
    return [*_as_in_a_step(trainer, few)]


def noisy_samples(trainer: Trainer) -> Tensor | None:
    """Return which training labels the data module has replaced by others, (N,), in data order.

    It says so by an attribute `noisy`. None if it has replaced none, or does not say.
    """
    loader: Any = trainer.train_dataloader
    found = getattr(getattr(trainer, "datamodule", None), "noisy", None)
    if not isinstance(found, Tensor) or found.dtype != torch.bool:
        return None
    if isinstance(loader, InMemoryBatches):
        count = loader.num_samples
    elif isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        count = len(loader.dataset)  # type: ignore[arg-type]
    else:
        return None
    return found if len(found) == count else None


def steps_per_epoch(trainer: Trainer) -> int:
    """Return the optimizer steps in an epoch.

    Raises:
        NotOffered: It is a stream.
    """
    if (steps := steps_of(trainer)) is None:
        raise NotOffered("its epochs have no known number of steps")
    return steps


def drawn(total: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` of the indices 0 to `total` - 1, ascending, drawn by a fixed seed.

    >>> drawn(3, 5).tolist()
    [0, 1, 2]
    """
    return np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False))


def _converted(trainer: Trainer, pairs: Iterable[Any]) -> Iterator[Any]:
    for pair in pairs:
        yield trainer.precision_plugin.convert_input(pair)


def _as_in_a_step(trainer: Trainer, loader: Iterable[Any]) -> Iterator[Any]:
    """Yield a loader's batches as a training step gets them; random generators are put back."""
    module = trainer.lightning_module
    with kept_generators(module.device):
        for batch in loader:
            batch = batch_on_device(trainer, batch)
            yield module.minibatch(batch)[:2] if isinstance(module, Subject) else batch
