"""The loss that a network descends, for looks at its curvature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from janus_pl.deep.losses import Loss
from janus_pl.observables.edge import coupled_decay, edge_of
from janus_pl.observables.sharpness import is_curved
from janus_pl.training.descended import Descended
from janus_pl.training.ranks import Ranks
from janus_pl.training.samples import training_samples
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
        partial(training_samples, trainer),
        drawn,
        partial(edge_of, optimizer, trained),
        ranks,
    )


def check_curved(losses: Loss, name: str) -> None:
    """Refuse a loss whose second derivative in the outputs is missing, or 0 wherever it is tried.

    Args:
        losses: The loss of each sample.
        name: Its name.

    Raises:
        NotOffered: It is such a loss, as the hinge loss is.
    """
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(64, 2, generator=generator, dtype=torch.float64)
    y = torch.where(torch.arange(64) % 2 > 0, 1.0, -1.0).to(outputs)
    if not is_curved(lambda at: losses(at, y), outputs):
        raise NotOffered(f"model.loss: {name} has no second derivative in the outputs")
