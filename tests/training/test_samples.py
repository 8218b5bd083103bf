"""The training set as it is looked at: the random generators are left as they were."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from janus_pl.training.samples import training_samples


class Drawn(Dataset):
    """Samples that draw from every generator when they are read."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.rand(2) + float(np.random.rand()) + random.random(), index


def trainer() -> Any:
    loader = DataLoader(Drawn(), batch_size=2, shuffle=True)
    same = SimpleNamespace(convert_input=lambda batch: batch, batch_to_device=lambda batch: batch)
    return SimpleNamespace(
        train_dataloader=loader,
        precision_plugin=same,
        strategy=same,
        lightning_module=LightningModule(),
    )


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def seed() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)


def look_at_all(of: Trainer) -> None:
    assert [len(y) for _, y in training_samples(of, chunk=3)] == [3, 3, 1]


def look_at_one(of: Trainer) -> None:
    assert next(iter(training_samples(of, chunk=3)))[1].tolist() == [0, 1, 2]


def fail_at_the_first(of: Trainer) -> None:
    with pytest.raises(KeyError):
        for _ in training_samples(of, chunk=3):
            raise KeyError


@pytest.mark.parametrize("look", [look_at_all, look_at_one, fail_at_the_first])
def test_a_look_leaves_the_generators_as_they_were(look: Any) -> None:
    seed()
    expected = draws()
    seed()
    look(trainer())
    assert draws() == expected


def test_the_samples_do_draw() -> None:
    """A control: read without `training_samples` they move every generator."""
    seed()
    expected = draws()
    seed()
    next(iter(trainer().train_dataloader))
    assert all(a != b for a, b in zip(draws(), expected, strict=True))
