"""The losses of a network that have second derivatives."""

from __future__ import annotations

import torch

from janus_pl.deep.losses import Loss
from janus_pl.observables.sharpness import is_curved
from janus_pl.training.subject import NotOffered


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
