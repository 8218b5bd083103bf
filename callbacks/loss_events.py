"""Spikes of the training loss, and the rank that layers lose within and between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from janus_pl.callbacks._observer import LayerObserver
from janus_pl.errors import check_number
from janus_pl.observables.events import THRESHOLD, Event, Events, RankLost
from janus_pl.observables.rank import effective_rank, singular_values
from janus_pl.run.rows import Value
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import subject_of


class LossEvents(LayerObserver):
    r"""Logs spikes of the running loss, and the effective rank lost within and between them.

    A spike is a longest run of epochs whose `train/loss_running` is above the threshold, once it
    has been at or below it: the descent from the start does not count.

        event/count                  the spikes that have begun so far
        event/begin, end, peak       of the spike that ends with this epoch: its first epoch, the
                                     first epoch after it, and its largest running loss
        event/rank_within/<layer>    the effective rank lost so far over the intervals of two looks
                                     that hold an epoch of a spike; negative where it recovers
        event/rank_between/<layer>   the same over all other intervals

    It looks when it is due, and whenever a spike ends. A look before each spike would be needed to
    tell the spike from the epochs just before it: a small `every_n_epochs` comes close.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        threshold: The threshold, above 0, in units of the loss; the square loss of a network whose
            outputs are 0 is 1.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.
    """

    keys = (
        *("event/count", "event/begin", "event/end", "event/peak"),
        *("event/rank_within/LAYER", "event/rank_between/LAYER"),
    )

    def __init__(
        self,
        every_n_epochs: int = 10,
        threshold: float = THRESHOLD,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_number("callbacks.LossEvents.threshold", threshold, above=0)
        self.threshold = threshold
        self._clear()

    def _clear(self) -> None:
        self._events, self._lost = Events(self.threshold), RankLost()
        self._spiked = False  # since the last look
        self._ended: Event | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.every_n_epochs or self.refused:
            return
        subject = subject_of(trainer, pl_module)
        epoch, lasted = subject.completed(), self._events.lasts
        try:
            self._events.add(epoch, float(subject.running_loss()))
        except NotOffered as reason:
            self.refuse(subject, reason)
            return
        self._spiked = self._spiked or self._events.lasts
        ends = lasted and not self._events.lasts
        self._ended = self._events.found[-1] if ends else None
        if ends or self.is_due(epoch) or is_last_epoch(trainer):
            self._look(trainer, pl_module, epoch)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        spectra = {k: singular_values(V) for k, V in subject.directions().items() if self.takes(k)}
        ranks = torch.stack([effective_rank(sigma) for sigma in spectra.values()]).tolist()
        self._lost.add(dict(zip(spectra, ranks, strict=True)), self._spiked)
        self._spiked = False
        values = {
            "event/count": float(len(self._events.found)),
            **{f"event/rank_within/{k}": lost for k, lost in self._lost.within.items()},
            **{f"event/rank_between/{k}": lost for k, lost in self._lost.between.items()},
        }
        if self._ended is not None:
            ended = vars(self._ended).items()
            values |= {f"event/{name}": float(value) for name, value in ended}
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        found = [(event.begin, event.end, event.peak) for event in self._events.found]
        own = {"events": found, "settled": self._events.settled, "spiked": self._spiked}
        return super().state_dict() | own | {"lost": self._lost.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._events.found = [Event(*given) for given in state_dict["events"]]
        self._events.settled, self._spiked = state_dict["settled"], state_dict["spiked"]
        self._lost.load(state_dict["lost"])
