"""Shared fixtures: offline W&B, one thread, the real images, a small problem.

Heavy packages are imported where they are used: importing Lightning takes 5 s, and a test of a
pure function needs none of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from signal import default_int_handler
from typing import TYPE_CHECKING, Any

import numpy.testing  # noqa: F401  numpy 2.0 starts `lscpu` here, which no light test may
import pytest
from hypothesis import HealthCheck, settings
from record_reader import Rows, read_rows
from weight import is_heavy

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

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


def pytest_configure() -> None:
    """Let signals act as in a terminal, of which `nohup` ignores some, and keep W&B quiet.

    W&B keeps the environment of its first start in a process, which may be in a module's fixture.
    """
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    for signum, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, default_int_handler)):
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make check` leaves out."""
    for item in items:
        if is_heavy(item):
            item.add_marker("heavy")


@pytest.fixture(autouse=True)
def light_stays_light(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is taken for light, and starts a process or a fit all the same, fails."""
    if request.node.get_closest_marker("heavy") or not hasattr(request.node, "function"):
        return

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a light test started a process or a fit: name its starter in weight.py")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(os, "fork", refuse)
    if sys.modules.get("lightning.pytorch"):
        monkeypatch.setattr(sys.modules["lightning.pytorch"].Trainer, "fit", refuse)


def list_packages_once() -> None:
    """Let W&B read the metadata of all installed packages once in a process, and not at each run.

    No test installs a package into its own process.
    """
    import wandb.util

    installed = wandb.util.working_set
    if not hasattr(installed, "__wrapped__"):
        kept = cache(lambda: tuple(installed()))
        into: Any = wandb.util
        into.working_set = wraps(installed)(lambda: kept())


@pytest.fixture(autouse=True)
def quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No account, no network, and no run left open for the next test."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    if sys.modules.get("torch"):
        import torch

        torch.set_num_threads(1)
    if sys.modules.get("wandb"):
        list_packages_once()
    yield
    if sys.modules.get("wandb"):  # a test may forbid its import
        import wandb

        wandb.finish()
        if os.environ.get("WANDB_MODE") != "offline":
            wandb.teardown()  # else the next test would start with what this one has set


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
    import torch

    from janus_pl import DeepReLUClassifier

    def make(**options: Any) -> DeepReLUClassifier:
        torch.manual_seed(options.pop("init_seed", 0))
        return DeepReLUClassifier(**{**SMALL, "schedule": "constant", **options})

    return make


@pytest.fixture
def small_loader() -> Callable[..., InMemoryBatches]:
    """Random images of unit norm with random labels."""
    import torch

    from janus_pl.data import InMemoryBatches

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
    from lightning.pytorch import Trainer

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
    import janus_pl.training.row

    written: list[dict[str, Any]] = []
    keep = lambda trainer, row: written.append(dict(row))  # noqa: E731
    monkeypatch.setattr(janus_pl.training.row, "write_row", keep)
    return written
