"""The loss that an optimizer of the trainer descends."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from lightning.pytorch import Trainer
from torch import Tensor

from janus_pl.observables.edge import coupled_decay, edge_of
from janus_pl.training.descended import Descended
from janus_pl.training.ranks import Ranks
from janus_pl.training.samples import training_pairs
from janus_pl.training.subject import NotOffered


def descended_by(
    trainer: Trainer,
    trained: Sequence[Tensor],
    losses: Callable[[Tensor, Tensor], Tensor],
    ranks: Ranks,
) -> Descended:
    """Return the loss that the trainer's optimizer descends.

    Args:
        trainer: The trainer, in a fit.
        trained: The trained parameters.
        losses: The loss of each sample.
        ranks: The processes of the run.
    """

    def drawn() -> tuple[int, bool]:
        loader = trainer.train_dataloader
        size = getattr(loader, "batch_size", None)
        if size is None:
            raise NotOffered("the size of its minibatches is not known")
        replacement = getattr(loader, "order", None) == "with_replacement"
        return size, replacement and not getattr(loader, "whole", False)

    optimizer = trainer.optimizers[0]
    return Descended(
        trained,
        losses,
        partial(coupled_decay, optimizer, trained),
        partial(training_pairs, trainer),
        drawn,
        partial(edge_of, optimizer, trained),
        ranks,
    )


def curved(product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a product with a Hessian that raises NotOffered if there is no second derivative."""

    def tried(u: Tensor) -> Tensor:
        try:
            return product(u)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:200]
            if not re.search("derivative|differentiate", why):
                raise
            raise NotOffered(f"its loss has no second derivative ({why})") from error

    return tried
