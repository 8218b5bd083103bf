r"""The contract between a task, which owns the mathematics, and the callbacks, which look at it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, IterableDataset

from janus_pl.data.loader import InMemoryBatches
from janus_pl.nn.normalization import Parametrization
from janus_pl.runtime.ranks import Ranks
from janus_pl.runtime.record import (
    Histogram,
    Table,
    Value,
    pend_objects,
    plain_row,
    row_of,
    write_row,
)

EVALUATION_CHUNK = 500

__all__ = [
    "Histogram",
    "JanusTask",
    "Ranks",
    "Table",
    "Value",
    "completed_epochs",
    "epochs_of",
    "is_last_epoch",
    "record",
    "training_samples",
    "write_row",
]


class JanusTask(LightningModule, ABC):
    """One experiment of the paper; what callbacks may ask of it, and the row of its record.

    V_k is the weight of layer k as a matrix (out, in * kh * kw), divided by its Frobenius norm;
    layers come in depth order.

    Attributes:
        row: what the row to come holds so far.
        progress: the numbers of the last row that was completed.
        parametrization: what is learned of a network, where the task trains one by Lightning's own
            steps; else None.
        splits_epochs: whether a checkpoint within an epoch of the trainer holds all that the rest
            of it needs; where not, a run is stopped at an epoch's end only.
        ranks: the processes that share the samples.
        planned: the length of the run in the units of `completed`, where a progress bar had better
            show the whole run than an epoch; else None.
    """

    parametrization: Parametrization | None = None
    splits_epochs: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.ranks = Ranks()
        self.row: dict[str, Value] = {}
        self.progress: dict[str, float] = {}
        self.planned: int | None = None
        self._axes: Mapping[str, float] | None = None

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

    def velocities_of(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        """V_k dot of the mean loss over a batch (x, y, ...) at the weights as they are.

        Neither the weights nor the gradients of the last backward pass change. Several processes
        share the work: all of them have to ask, with the same batch.

        Raises:
            NotImplementedError: the task does not offer it.
        """
        raise NotImplementedError

    def equilibrium(self) -> dict[str, Tensor]:
        """How far the scale is from rest over the whole training set: values by name, ().

        Empty where the task has no scale of its own.
        """
        return {}

    @abstractmethod
    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        """y_n f_W(x_n), the margins in the outputs' own units; shape (B,)."""

    @abstractmethod
    def training_margins(self) -> Tensor:
        """fbar_n = y_n f_W(x_n)/rho of all N training samples in data order, shape (N,)."""

    @abstractmethod
    def completed(self) -> int:
        """Completed epochs, what callbacks count by. In a single pass over a stream: steps."""

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        """Raise a UsageError for options that do not go together, before anything has started."""

    @torch.no_grad()
    def margins(self, batch: Sequence[Any]) -> Tensor:
        """fbar_n = y_n f_W(x_n)/rho of a batch (x, y, ...); shape (B,)."""
        x, y = batch[:2]
        with parametrize.cached():
            return self.output_margins(self(x), y) / self.scale()

    def complete_row(self, axes: Mapping[str, float]) -> None:
        """The row lacks nothing but late looks: let checkpoints and early stopping monitor it.

        A number that is not of every epoch keeps its last value between two looks, as Lightning's
        own metrics do: monitor one of every epoch, such as `train/loss_running`.

        Args:
            axes: `epoch`, `trainer/global_step` and `eta_t`.
        """
        self._axes = axes
        row = {**self.row, **axes}
        self.progress = {k: float(v) for k, v in row.items() if isinstance(v, int | float)}
        numbers = torch.tensor([*self.progress.values()], dtype=torch.float64)
        self.trainer.callback_metrics.update(zip(self.progress, numbers.unbind(), strict=True))

    @property
    def row_waits(self) -> bool:
        """Whether there is a row that is complete and not written."""
        return self._axes is not None

    def write_row(self) -> None:
        """Write the row that is complete, if there is one, and start the next."""
        if self._axes is not None:
            row, self.row = {**self.row, **self._axes}, {}
            self._axes = None
            write_row(self.trainer, row)

    def forget_rows(self) -> None:
        """What an earlier fit of this object left is of other data or other weights."""
        self.row, self._axes = {}, None

    def row_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the row that waits, in plain values."""
        return {"row": plain_row(self.row), "axes": self._axes and dict(self._axes)}

    def load_row_state(self, state: Mapping[str, Any]) -> None:
        """The row that waited, or had begun, at a checkpoint."""
        self.row, self._axes = row_of(state["row"]), state["axes"]


def record(trainer: Trainer, module: LightningModule, values: Mapping[str, Value]) -> None:
    """Add values to the row of this epoch, whatever the module.

    A JanusTask collects its own row. Any other module logs through Lightning, whose epoch-end
    metrics make the row; objects wait for it in W&B's pending row.
    """
    if isinstance(module, JanusTask):
        module.row.update(values)
        return
    numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()}
    module.log_dict(tensors, sync_dist=trainer.world_size > 1)
    pend_objects(trainer, values)


def epochs_of(trainer: Trainer) -> int:
    """Epochs completed by the trainer's count, in every hook from the end of one on."""
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]


def completed_epochs(trainer: Trainer, module: LightningModule) -> int:
    """The epochs that have been completed, the one that just ended among them."""
    if isinstance(module, JanusTask):
        return module.completed()
    return epochs_of(trainer)


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
