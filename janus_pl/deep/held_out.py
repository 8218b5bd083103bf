"""Loss and error over held-out data."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from janus_pl.data.loader import Batch
from janus_pl.deep.batches import Pairs
from janus_pl.deep.losses import Loss
from janus_pl.training.held import HeldWeights
from janus_pl.training.precision import full_precision
from janus_pl.training.task import JanusTask


class HeldOut(nn.Module):
    """The loss and the error of a split, gathered batch by batch.

    Every process knows the outputs of all samples, so there is nothing to synchronize.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable", sync_on_compute=False)
        self.accuracy = BinaryAccuracy(validate_args=False, sync_on_compute=False)

    def add(self, margins: Tensor, losses: Tensor) -> None:
        """Add a batch: raw margins (n,) and losses (n,)."""
        correct = (margins > 0).int()
        self.loss.update(losses)
        self.accuracy.update(correct, torch.ones_like(correct))

    def start(self) -> None:
        """Forget all batches."""
        with torch.inference_mode(False):  # a fit after `validate` could not add to its tensors
            self.loss.reset()
            self.accuracy.reset()

    def results(self, split: str) -> dict[str, float]:
        """Return `SPLIT/loss` and `SPLIT/error`, and start anew."""
        computed = (self.loss.compute(), self.accuracy.compute())
        loss, accuracy = torch.stack(computed).tolist()  # one wait for the device
        self.start()
        return {f"{split}/loss": loss, f"{split}/error": 1 - accuracy}


class HoldsOut(JanusTask):
    """A task of images with its validation, test and prediction steps.

    Attributes:
        losses: The loss of each sample.
        image_size: Height and width of the images.
        held_out: The loss and the error of the batches of a split so far.
    """

    losses: Loss
    image_size: int

    def __init__(self) -> None:
        super().__init__()
        self.held_out = HeldOut()
        self._validated: HeldWeights | None = None
        self._pairs: Pairs | None = None

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._pairs = None
        self.held_out.start()  # an earlier pass may have been broken off

    def minibatch(self, batch: Any) -> Batch:
        """Return a batch of ours as it is, and a minibatch for a pair (x, y)."""
        if isinstance(batch, Batch):
            return batch
        if self._pairs is None:
            self._pairs = Pairs(self.image_size, next(self.parameters()).dtype)
            self.splits_epochs = False  # a DataLoader does not know where it was
        return self._pairs.batch(batch, self.ranks)

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Go on where anomaly detection breaks off, so that the guard sees what is not finite."""
        if not torch.is_anomaly_enabled():
            super().manual_backward(loss, *args, **kwargs)
            return
        try:
            super().manual_backward(loss, *args, **kwargs, retain_graph=True)
        except RuntimeError as error:
            with torch.autograd.set_detect_anomaly(False):
                super().manual_backward(loss, *args, **kwargs)
            rank_zero_warn(f"trainer.detect_anomaly: {error}")

    def outputs_of(self, x: Tensor) -> Tensor:
        """Return the outputs (n, K) of samples x (n, ...), gathered from all processes."""
        return self.ranks.gather(self(self.ranks.own(x)), len(x))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.trainer.state.fn == "fit":
            self._validated = HeldWeights(self)
        self._hold_out(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._hold_out(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        x, y, _ = self.minibatch(batch)
        with full_precision(self.device):
            margins = self.margins_of((self.ranks.own(x), self.ranks.own(y)))
        return self.ranks.gather(margins, len(y))

    def on_validation_epoch_end(self) -> None:
        self._end("val")

    def on_test_epoch_end(self) -> None:
        self._end("test")

    def _hold_out(self, batch: Any) -> None:
        x, y, _ = self.minibatch(batch)
        with full_precision(self.device):
            outputs = self.outputs_of(x)
            self.held_out.add(self.output_margins(outputs, y), self.losses(outputs, y))

    def _check_validated(self) -> None:
        """Leave `val/*` out of the row if the weights changed after the validation; say so."""
        held, self._validated = self._validated, None
        if held is not None and not self.ranks.agree(held.unchanged()):
            dropped = self.row.leave_out("val/")
            if dropped:
                rank_zero_warn(
                    f"{', '.join(dropped)} of epoch {self.completed()} left out: a callback changed"
                    " the weights after the validation, and a row is of one set of weights"
                )

    def _end(self, split: str) -> None:
        results = self.held_out.results(split)
        if self.trainer.sanity_checking or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # a few batches are not the split
        if self.trainer.state.fn == "fit":
            self.row.put(results)
            # Early stopping and checkpoints read them right after the validation.
            read = {key: torch.tensor(value) for key, value in results.items()}
            self.trainer.callback_metrics.update(read)
        else:
            self.log_dict(results, sync_dist=self.ranks.size > 1)
