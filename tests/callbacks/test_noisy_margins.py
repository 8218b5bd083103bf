"""Margins of samples whose label is replaced by another, beside those of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from janus_pl import Classifier
from janus_pl.callbacks import MarginHistogram
from janus_pl.data import ImageClasses
from janus_pl.deep import MLP


def trained(noise: float, rows: list[dict[str, Any]], bias: bool = False) -> tuple[Any, Any]:
    torch.manual_seed(0)
    task = Classifier(MLP(3072, 10, depth=2, width=12, bias=bias, init_scale=0.3))
    data = ImageClasses("digits", label_noise=noise, num_train=200, batch_size=20)
    trainer = Trainer(
        **{"max_epochs": 2, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"},
        **{"enable_model_summary": False, "enable_checkpointing": False},
        callbacks=[MarginHistogram(1)],
    )
    trainer.fit(task, datamodule=data)
    return task, data


@pytest.mark.parametrize("bias", [False, True])
def test_they_are_those_of_numpy(bias: bool, rows: list[dict[str, Any]]) -> None:
    task, data = trained(0.2, rows, bias)
    with torch.no_grad():
        f = task(data.train_x[:]).double().numpy()
    y, unit = data.train_y.numpy(), 1.0 if bias else float(task.scale())
    own = f[np.arange(len(y)), y]
    f[np.arange(len(y)), y] = -np.inf
    margins = (own - f.max(1)) / 2 / unit
    noisy = data.noisy.numpy()
    assert noisy.sum() == 40
    kind = "margin_raw" if bias else "margin"
    for name, part in (("clean", margins[~noisy]), ("noisy", margins[noisy])):
        assert rows[-1][f"{kind}/{name}/mean"] == pytest.approx(part.mean(), rel=1e-4)
        assert rows[-1][f"{kind}/{name}/std"] == pytest.approx(part.std(), rel=1e-4)
        assert rows[-1][f"{kind}/{name}/min"] == pytest.approx(part.min(), rel=1e-4)
    assert rows[-1][f"{kind}/mean"] == pytest.approx(margins.mean(), rel=1e-4)


def test_without_noise_there_are_none(rows: list[dict[str, Any]]) -> None:
    trained(0.0, rows)
    assert "margin/mean" in rows[-1]
    assert not [key for key in rows[-1] if "noisy" in key or "clean" in key]
