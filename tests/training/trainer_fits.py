"""The cheapest fits of each kind of module, and what a probe sees of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils.data import DataLoader
from training import foreign

from janus_pl import DeepReLUClassifier, LinearRegressor
from janus_pl.callbacks import LayerVelocity
from janus_pl.data import InMemoryBatches, LinearProblem

SMALL: dict[str, Any] = {"strides": (2, 1, 1, 1), "channels": (3, 4, 5, 4), "hidden": 7}
STEPS = {"deep": 3, "linear": 6, "foreign": 5}  # in an epoch
EPOCHS = 3
FIXED: dict[str, Any] = {
    "max_epochs": EPOCHS,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}
# A command line of each kind.
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
PLAIN += ["--trainer.accelerator=cpu", "--trainer.max_epochs=3"]
TINY = ["--model.channels=[2,3,4,4]", "--model.hidden=8", "--data.num_train=20"]
OTHERS = ["--model=training.foreign.Classifier", "--data=training.foreign.Samples"]
LINES = {
    "deep": ["fit", "--config=quickstart.yaml", *TINY, "--data.batch_size=8", *PLAIN],
    "linear": ["fit", "--config=linear/a2.yaml", "--data.num_train=8", *PLAIN],
    "foreign": ["fit", *OTHERS, *PLAIN],
}


class Images(LightningDataModule):
    """Twenty random images in batches of eight; six held out, in batches of two, by class."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def train_dataloader(self) -> InMemoryBatches:
        self.asked += 1
        return _images(20, 8)

    def val_dataloader(self) -> InMemoryBatches:
        return _images(6, 2, order="sequential")

    test_dataloader = predict_dataloader = val_dataloader


def _images(n: int, batch_size: int, **options: Any) -> InMemoryBatches:
    x = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    y = torch.where(torch.arange(n) < n // 2, -1.0, 1.0)
    return InMemoryBatches(
        x / x.flatten(1).norm(dim=1)[:, None, None, None], y, batch_size, **options
    )


class Problem(LinearProblem):  # type: ignore[misc]
    """Six samples that count how often their plan is asked for."""

    def __init__(self) -> None:
        super().__init__(num_train=6, dim=4, outputs=2)
        self.asked = 0

    def train_dataloader(self) -> Any:
        self.asked += 1
        return super().train_dataloader()


class Samples(foreign.Samples):
    """Somebody else's samples, with all splits."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def train_dataloader(self) -> DataLoader:
        self.asked += 1
        return super().train_dataloader()

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, batch_size=5)

    test_dataloader = predict_dataloader = val_dataloader


class Classifier(foreign.Classifier):
    """Somebody else's module, with all steps and a metric of each step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("step/loss", loss, on_step=True, on_epoch=False)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("own/test", self(batch[0]).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])


class Keeps(Logger):
    """A logger that keeps what it is handed."""

    name, version = "keeps", 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: list[dict[str, float]] = []
        self.graphs = 0

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append(dict(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        self.graphs += 1


class Two(SingleDeviceStrategy):
    """One of two processes, as far as a trainer can tell."""

    strategy_name = "two"

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.world_size = 2


class Halts(Callback):
    """Asks for the end after each epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


class Probe(Callback):
    """Notes what is in force while a fit runs."""

    def __init__(self) -> None:
        self.batches: list[list[Tensor]] = []  # by epoch
        self.steps = 0
        self.flags: dict[str, Any] = {}
        self.seen = {"sanity": 0, "val": 0, "test": 0, "predict": 0}
        self.validated: list[int] = []  # steps before each validation
        self.inference: set[bool] = set()
        self.gradients: list[Tensor] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.flags = {
            "anomaly": torch.is_anomaly_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
            "benchmark": torch.backends.cudnn.benchmark,
            "autocast": False,
            "device": pl_module.device.type,
        }
        for part in pl_module.modules():
            if isinstance(part, torch.nn.Linear):
                part.register_forward_pre_hook(self._note_autocast)
        trainer.optimizers[0].register_step_post_hook(self._take_gradients)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.batches.append([])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if isinstance(batch[0], Tensor):
            self.batches[-1].append(batch[0].clone())
        self.steps += 1

    def _note_autocast(self, *_: Any) -> None:
        self.flags["autocast"] = self.flags["autocast"] or torch.is_autocast_enabled("cpu")

    def _take_gradients(self, optimizer: Any, *_: Any) -> None:
        found = [p.grad for group in optimizer.param_groups for p in group["params"]]
        if all(g is not None for g in found):
            self.gradients.append(torch.cat([g.flatten().clone() for g in found]))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(trainer.global_step)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        self._count("sanity" if trainer.sanity_checking else "val")

    def on_test_batch_start(self, *_: Any) -> None:
        self._count("test")

    def on_predict_batch_start(self, *_: Any) -> None:
        self._count("predict")

    def _count(self, what: str) -> None:
        self.seen[what] += 1
        self.inference.add(torch.is_inference_mode_enabled())


class Seen(NamedTuple):
    """A fit after its end.

    Attributes:
        kind: deep, linear or foreign.
        trainer: The trainer.
        module: The module.
        data: The data module.
        probe: The probe.
        rows: The rows of the record as they were written.
        plain: The rows of the same fit without the option.
        folder: The option `default_root_dir`.
    """

    kind: str
    trainer: Any
    module: Any
    data: Any
    probe: Probe
    rows: list[dict[str, Any]]
    plain: list[dict[str, Any]]
    folder: Path


def make(kind: str) -> tuple[Any, Any]:
    """Return a new module and its data."""
    torch.manual_seed(0)
    if kind == "deep":
        return DeepReLUClassifier(**SMALL, image_size=16, schedule="constant"), Images()
    if kind == "linear":
        return LinearRegressor(learning_rate=0.01), Problem()
    return Classifier(), Samples()


def trainer_of(folder: Path, options: dict[str, Any], probe: Probe) -> Trainer:
    """Return a trainer with options; one whose value is ... is left to Lightning."""
    given = {**FIXED, "default_root_dir": folder, **options}
    callbacks = given.get("callbacks") or []
    more = callbacks if isinstance(callbacks, list) else [callbacks]
    given["callbacks"] = [LayerVelocity(1), probe, *more]
    return Trainer(**{name: value for name, value in given.items() if value is not ...})


def shown(value: Any) -> str:
    """Return a value as a command line gives it."""
    return value if isinstance(value, str) else json.dumps(value)
