r"""The contract between a task, which owns the mathematics, and the callbacks, which look at it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, IterableDataset

from janus_pl.data.loader import InMemoryBatches
from janus_pl.runtime.record import Histogram, Table, Value, pend_objects, write_row

EVALUATION_CHUNK = 500

__all__ = [
    "Histogram",
    "JanusTask",
    "Table",
    "TrainingPass",
    "Value",
    "is_last_epoch",
    "record",
    "training_samples",
    "write_row",
]


class TrainingPass(NamedTuple):
    """The whole training set seen by one set of weights.

    Attributes:
        margins: fbar_n = y_n f_W(x_n)/rho of all N samples in data order, shape (N,).
        loss: the mean of the loss over all N samples, without weight decay; shape ().
        error: the share of samples whose margin is not positive; shape ().
        common_mode: the mean of m_n^2, m = (f_0 + f_1)/2 the part of two outputs that no margin
            sees; shape ().
        rho: the scale, the product of the Frobenius norms; shape ().
        rho_learned: the learned scalar alone; shape ().
        step: the number of optimizer steps behind these weights. Full-batch GD measures in its
            training forward, so before the update: one less than the steps taken.
    """

    margins: Tensor
    loss: Tensor
    error: Tensor
    common_mode: Tensor
    rho: Tensor
    rho_learned: Tensor
    step: int


class JanusTask(LightningModule, ABC):
    """One experiment of the paper; what callbacks may ask of it, and the row of its record.

    V_k is the weight of layer k as a matrix (out, in * kh * kw), divided by its Frobenius norm;
    layers come in depth order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.row: dict[str, Value] = {}

    @abstractmethod
    def directions(self) -> dict[str, Tensor]:
        """V_k by layer: unit Frobenius norm, shape (out, in * kh * kw), detached."""

    @abstractmethod
    def scale(self) -> Tensor:
        """rho: the product of the Frobenius norms of all effective weights; shape (), positive."""

    @abstractmethod
    def velocities(self) -> dict[str, Tensor]:
        r"""V_k dot of the last minibatch (Eq. 15), from the gradients that its backward pass left.

        Shapes as `directions`. The loss's part alone: weight decay moves no V_k.
        """

    @abstractmethod
    def velocity_norms(self) -> Tensor:
        """Frobenius norms of `velocities`, shape (L,), without forming them."""

    @abstractmethod
    def full_velocity_norms(self) -> Tensor:
        """The same for the gradient over the whole training set at the weights as they are."""

    @abstractmethod
    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        """y_n f_W(x_n), the margins in the outputs' own units; shape (B,)."""

    @abstractmethod
    def training_pass(self) -> TrainingPass:
        """Margins, loss and error over the whole training set, computed once for each step."""

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        """Raise a UsageError for options that do not go together, before anything has started."""

    @torch.no_grad()
    def margins(self, batch: Sequence[Any]) -> Tensor:
        """fbar_n = y_n f_W(x_n)/rho of a batch (x, y, ...); shape (B,)."""
        x, y = batch[:2]
        with parametrize.cached():
            return self.output_margins(self(x), y) / self.scale()

    def write_row(self, values: Mapping[str, Value]) -> None:
        """Complete the row with values and the three x axes, write it, and start the next one."""
        row = {**self.row, **values}
        self.row = {}
        write_row(self.trainer, row)

    def announce(self, values: Mapping[str, Value]) -> None:
        """Let checkpoints and early stopping monitor the numbers of this row.

        A number that is not of every epoch keeps its last value between two looks, as Lightning's
        own metrics do: monitor one of every epoch, such as `train/loss_running`.
        """
        row = {**self.row, **values}
        numbers = {k: torch.tensor(v) for k, v in row.items() if isinstance(v, int | float)}
        self.trainer.callback_metrics.update(numbers)


def record(trainer: Trainer, module: LightningModule, values: Mapping[str, Value]) -> None:
    """Add values to the row of this epoch, whatever the module.

    A JanusTask collects its own row. Any other module logs through Lightning, whose epoch-end
    metrics make the row; objects wait for it in W&B's pending row.
    """
    if isinstance(module, JanusTask):
        module.row.update(values)
        return
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
    module.log_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()})
    pend_objects(trainer, values)


def is_last_epoch(trainer: Trainer) -> bool:
    """Whether the epoch that just ended is the last one, as far as can be known now."""
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    ended = 0 < epochs <= trainer.current_epoch + 1 or 0 < steps <= trainer.global_step
    return ended or trainer.should_stop


def training_samples(trainer: Trainer, chunk: int = EVALUATION_CHUNK) -> Iterator[Any]:
    """Batches of the training set for looking at, every sample once, in data order where known.

    The state of the random generators is as before when the pass has ended: training goes on
    bitwise as if nobody had looked.
    """
    loader: Any = trainer.train_dataloader
    if isinstance(loader, InMemoryBatches):
        for pair in loader.in_order(chunk):
            yield trainer.precision_plugin.convert_input(pair)
        return
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        loader = DataLoader(loader.dataset, batch_size=chunk, collate_fn=loader.collate_fn)
    with isolate_rng():
        for batch in loader:
            batch = trainer.precision_plugin.convert_input(batch)
            yield trainer.strategy.batch_to_device(batch)
