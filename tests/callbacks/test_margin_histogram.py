"""Margins of any classifier's outputs, and of what size their histogram is."""

from __future__ import annotations

import logging
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import MarginHistogram
from janus_pl.training.any_module import AnyModule
from janus_pl.training.epoch_rows import EpochRows
from janus_pl.training.subject import NotOffered

N = 13
OUTPUTS = np.random.default_rng(0).standard_normal((N, 5)) * np.arange(1, 6)


class Given(LightningModule):
    """A module whose outputs are its inputs; in training mode it drops some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Dropout(0.5), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


def trainer_of(x: Any, y: Any, batch_size: int = 4) -> Any:
    data = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    strategy = SimpleNamespace(batch_to_device=lambda batch: batch)
    return SimpleNamespace(
        train_dataloader=DataLoader(data, batch_size),
        precision_plugin=Precision(),
        strategy=strategy,
        callbacks=[],
        loggers=[],
        optimizers=[],
        world_size=1,
        lightning_module=LightningModule(),  # whose hooks for batches are asked
    )


def margins_of(x: Any, y: Any) -> list[float]:
    return AnyModule(trainer_of(x, y), Given()).margins().tolist()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_of_several_outputs_it_is_half_the_lead_over_the_best_of_the_others(classes: int) -> None:
    outputs = OUTPUTS[:, :classes]
    y = np.random.default_rng(1).integers(classes, size=N)
    assert len(set(y.tolist())) == classes
    expected = []
    for f, label in zip(outputs, y, strict=True):
        others = [value for k, value in enumerate(f) if k != label]
        expected.append((f[label] - max(others)) / 2)
    assert margins_of(outputs, y) == pytest.approx(expected, rel=1e-14)
    assert min(expected) < 0 < max(expected)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("labels", [(-1.0, 1.0), (0.0, 1.0), (0, 1), (-1, 1)])
def test_of_one_output_it_is_signed_by_the_label(labels: Any, shape: Any) -> None:
    f = OUTPUTS[:, 0].reshape(shape)
    second = np.random.default_rng(2).integers(2, size=N).astype(bool)
    y = np.where(second, labels[1], labels[0])
    assert 3 < second.sum() < N - 3
    expected = [value if up else -value for value, up in zip(OUTPUTS[:, 0], second, strict=True)]
    assert margins_of(f, y) == expected


@pytest.mark.parametrize("label", [0, 1, -1])
def test_a_single_class_has_margins_too(label: int) -> None:
    expected = OUTPUTS[:, 0] * (-1 if label < 1 else 1)
    assert margins_of(OUTPUTS[:, :1], np.full(N, label)) == expected.tolist()


@pytest.mark.parametrize(
    ("outputs", "y", "message"),
    [
        (OUTPUTS[:, :1], np.arange(N) % 3 - 1, "neither 0 and 1 nor -1 and"),
        (OUTPUTS[:, :1], np.full(N, 2), "neither 0 and 1 nor -1 and"),
        (OUTPUTS[:, :3], np.arange(N) % 4, "not class indices"),
        (OUTPUTS[:, :3], np.arange(N) % 3 - 1, "not class indices"),
        (OUTPUTS[:, :3], np.arange(N) % 3 / 1.0, "not class indices"),
        (OUTPUTS[:, :3], np.eye(N, 3, dtype=int), "not class indices"),
    ],
)
def test_other_labels_are_refused(outputs: Any, y: Any, message: str) -> None:
    with pytest.raises(NotOffered, match=message):
        margins_of(outputs, y)
    assert len(margins_of(OUTPUTS[:, :3], np.arange(N) % 3)) == N  # the control


def test_every_sample_is_seen_once_in_evaluation_and_each_mode_is_put_back() -> None:
    module = Given()
    module.part[0].eval()
    modes = [m.training for m in module.modules()]
    assert modes == [True, True, False, True]
    subject = AnyModule(trainer_of(OUTPUTS, np.arange(N) % 5), module)
    assert len(subject.margins()) == N
    assert [m.training for m in module.modules()] == modes
    module.part[0].train()  # half of the outputs would be zero
    again = subject.margins()
    assert torch.equal(again, subject.margins())
    assert again[1] == pytest.approx((OUTPUTS[1, 1] - np.delete(OUTPUTS[1], 1).max()) / 2)
    assert [m.training for m in module.modules()] == [True, True, True, True]


@pytest.mark.parametrize("bins", [1, 5, 512])
def test_the_row_holds_statistics_and_a_histogram_of_so_many_bins(bins: int) -> None:
    y = np.arange(N) % 5
    margins = np.array(margins_of(OUTPUTS, y))
    trainer = trainer_of(OUTPUTS, y)
    subject = AnyModule(trainer, Given())
    subject.start()
    assert subject.margin == "raw"
    row: dict[str, Any] = dict(MarginHistogram(bins=bins).observe(trainer, subject))
    # Not divided by a scale, and so not under the keys of normalized margins.
    assert set(row) == {f"margin_raw/{key}" for key in ("mean", "std", "min", "hist")}
    assert row["margin_raw/mean"] == pytest.approx(margins.mean(), rel=1e-14)
    std = np.sqrt(((margins - margins.mean()) ** 2).mean())
    assert row["margin_raw/std"] == pytest.approx(std, rel=1e-12)
    assert row["margin_raw/min"] == margins.min() != margins[0]
    counts, edges = row["margin_raw/hist"]
    assert len(counts) == bins and counts.sum() == N
    expected = np.linspace(margins.min(), margins.max(), bins + 1)
    assert edges.tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    # Bins are closed below, and the last one above as well.
    counted = [((margins >= a) & (margins < b)).sum() for a, b in pairwise(edges)]
    counted[-1] += 1
    assert counts.tolist() == counted


def test_margins_that_are_not_finite_are_no_row() -> None:
    outputs = OUTPUTS.copy()
    outputs[3, 2] = np.inf
    y = np.full(N, 2)
    trainer = trainer_of(outputs, y)
    assert MarginHistogram().observe(trainer, AnyModule(trainer, Given())) == {}


def test_what_is_refused_is_said_once_in_a_fit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    callback, module = MarginHistogram(1), Given()
    asked: list[int] = []

    class Asked(AnyModule):
        def margins(self) -> Tensor:
            asked.append(1)
            return super().margins()

    for fits in (1, 2):
        trainer = trainer_of(OUTPUTS, np.full(N, 7))
        rows = EpochRows()
        rows.subject = Asked(trainer, module)
        trainer.callbacks.append(rows)
        callback.setup(trainer, module, "fit")
        for epoch in range(3):
            callback._look(trainer, module, epoch)
        assert rows.subject.row.values == {}
        said = [r.getMessage() for r in caplog.records if "MarginHistogram" in r.getMessage()]
        assert len(said) == len(asked) == fits, "and then it does not ask again"
        assert said[-1].startswith("MarginHistogram records nothing of Given: its labels are not")
