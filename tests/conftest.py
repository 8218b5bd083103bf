"""Shared fixtures: offline W&B, one thread, the real images, a small problem."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from hypothesis import HealthCheck, settings
from lightning.pytorch import Trainer
from record_reader import Rows, read_rows

import janus_pl.regressor
import janus_pl.runtime.divergence
import janus_pl.task
from janus_pl import DeepReLUClassifier
from janus_pl.data import InMemoryBatches

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"strides": (2, 1, 1, 1), "channels": (3, 4, 5, 4), "hidden": 7, "image_size": 16}

# The same examples every time, and no clock decides.
settings.register_profile(
    "ours",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No account, no network, and no run left open for the next test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    torch.set_num_threads(1)
    yield
    wandb.finish()


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real CIFAR-10 images: JANUS_DATA, or ../shared beside the repository."""
    places = [os.environ.get("JANUS_DATA"), ROOT.parent / "shared" / "data" / "cifar10-pair"]
    for place in filter(None, places):
        if (Path(place) / "train").is_dir():
            return Path(place)
    pytest.skip("real images are neither at JANUS_DATA nor in ../shared/data/cifar10-pair")


@pytest.fixture
def small_task() -> Callable[..., DeepReLUClassifier]:
    """A classifier of about 300 weights on 16 x 16 images."""

    def make(**options: Any) -> DeepReLUClassifier:
        torch.manual_seed(options.pop("init_seed", 0))
        return DeepReLUClassifier(**{**SMALL, "schedule": "constant", **options})

    return make


@pytest.fixture
def small_loader() -> Callable[..., InMemoryBatches]:
    """Random images of unit norm with random labels."""

    def make(n: int = 20, batch_size: Any = 8, dtype: Any = torch.float32, **o: Any) -> Any:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64)
        x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
        y = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        return InMemoryBatches(x.to(dtype), y.to(dtype), batch_size, **o)

    return make


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Trainer]:
    """A real fit with nothing but what the test asks for."""

    def run(
        task: Any,
        loader: Any,
        epochs: int = 2,
        callbacks: Any = (),
        val_loader: Any = None,
        **options: Any,
    ) -> Trainer:
        checkpoint = options.pop("ckpt_path", None)
        trainer = Trainer(
            **{
                "max_epochs": epochs,
                "accelerator": "cpu",
                "logger": False,
                "callbacks": list(callbacks),
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": False,
                "default_root_dir": tmp_path,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 0 if val_loader is None else 1.0,
                **options,
            }
        )
        trainer.fit(task, loader, val_loader, ckpt_path=checkpoint)
        return trainer

    return run


@pytest.fixture
def rows_of() -> Callable[[Path], Rows]:
    """The history rows of the only W&B run below a folder."""
    return read_rows


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows of the record as they are written, instead of writing them."""
    written: list[dict[str, Any]] = []
    keep = lambda trainer, row: written.append(dict(row))  # noqa: E731
    monkeypatch.setattr(janus_pl.task, "write_row", keep)
    monkeypatch.setattr(janus_pl.regressor, "write_row", keep)
    monkeypatch.setattr(janus_pl.runtime.divergence, "write_row", keep)
    return written
