"""The training set as callbacks and tasks read it: every sample once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, IterableDataset

from janus_pl.data.loader import InMemoryBatches
from janus_pl.training.lightning import batch_on_device
from janus_pl.training.subject import Subject

EVALUATION_CHUNK = 500


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
        for pair in loader.in_order(chunk):
            yield trainer.precision_plugin.convert_input(pair)
        return
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        loader = DataLoader(loader.dataset, batch_size=chunk, collate_fn=loader.collate_fn)
    module = trainer.lightning_module
    with _generators_kept():
        for batch in loader:
            batch = batch_on_device(trainer, batch)
            yield module.minibatch(batch)[:2] if isinstance(module, Subject) else batch


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Put the random generators back also if the block is left early, unlike `isolate_rng`."""
    with ExitStack() as stack:
        kept = isolate_rng()
        kept.__enter__()
        stack.callback(kept.__exit__, None, None, None)
        yield
