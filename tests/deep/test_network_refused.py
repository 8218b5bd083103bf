"""A network that refuses the samples, by whatever error, is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models import VisionTransformer

from janus_pl import Classifier
from janus_pl.data import InMemoryBatches
from janus_pl.errors import UsageError


def vit(size: int) -> VisionTransformer:
    return VisionTransformer(size, 4, 1, 1, 8, 8, num_classes=3)


def test_a_vision_transformer_of_another_image_size(fit: Any, rows: Any) -> None:
    loader = InMemoryBatches(torch.randn(6, 3, 8, 8), torch.arange(6) % 3, 3)
    with pytest.raises(UsageError) as caught:
        fit(Classifier(vit(12)), loader, 1)
    assert str(caught.value) == (
        "model.network: got 'VisionTransformer', allowed: a network that takes samples of shape"
        " (3, 8, 8) (Wrong image height! Expected 12 but got 8!)"
    )
    assert not rows
    fit(Classifier(vit(8)), loader, 1)
    assert rows, "control: with the size of the images it trains"
