"""A table of the callbacks that Lightning ships, for our two tasks and for somebody else's module.

A row makes a callback and says what is to be seen after a fit of three epochs. A kind of module
under `refused` is refused by a line with these words.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.spike import TrainingSpikeException
from lightning.pytorch import Callback, LightningModule, callbacks
from lightning.pytorch.callbacks import BaseFinetuning, BasePredictionWriter, Checkpoint, Timer
from torch import Tensor, nn

MONITORS = {"deep": "train/loss_running", "linear": "train/loss", "foreign": "own/loss"}
KINDS = tuple(MONITORS)


class Backed(LightningModule):
    """Three classes, a backbone and a head, AdamW."""

    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.lr = lr
        self.backbone = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.head = nn.Linear(5, 3)
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.factor * nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("own/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("own/val", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self(batch[0])[:, 0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], self.lr)


class Run(NamedTuple):
    """A fit that has ended: its parts, rows, what it printed, and the error that ended it."""

    kind: str
    trainer: Any
    module: Any
    data: dict[str, Any]
    callback: Any
    rows: list[dict[str, Any]]
    printed: str
    folder: Path
    error: BaseException | None

    def logged(self, key: str) -> list[float]:
        """The values that reached a logger under a key which contains these letters."""
        with open(Path(self.trainer.logger.log_dir) / "metrics.csv") as file:
            found = [value for row in csv.DictReader(file) for k, value in row.items() if key in k]
        return [float(value) for value in found if value]

    @property
    def epochs(self) -> list[float]:
        return [row["epoch"] for row in self.rows]

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.trainer.optimizers[0].param_groups]


class Hears(Callback):
    """Notes the epochs whose ends it hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.heard.append(trainer.current_epoch)


class Keeper(Hears, Checkpoint):
    """A checkpoint of somebody else's."""


class Bar(Hears, callbacks.ProgressBar):
    """A progress bar of somebody else's."""


class Frozen(BaseFinetuning):
    """Freezes the first part of a module."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        """Thaw nothing."""


class Writer(BasePredictionWriter):
    """Keeps predictions."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.kept: list[Tensor] = []

    def write_on_batch_end(self, trainer: Any, pl_module: Any, prediction: Any, *_: Any) -> None:
        self.kept.append(prediction)


class Late(Timer):
    """A timer whose time is over after some steps of the trainer; no clock decides."""

    def __init__(self, last: int) -> None:
        super().__init__({"days": 1})
        self.steps, self.last = 0, last

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.steps = trainer.global_step
        super().on_train_batch_end(trainer, *args, **kwargs)

    def time_elapsed(self, stage: Any = "train") -> float:
        return 90_000.0 if self.steps >= self.last else 0.0


class Breaks(Callback):
    """Breaks the run off in its second epoch."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise ArithmeticError("broken off")


class Spikes(Callback):
    """Multiplies the loss by a thousand from the fourth minibatch on."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.factor = 1000.0 if batch_idx == 3 else 1.0


def hears(run: Run) -> bool:
    return run.callback.heard == [0, 1, 2]


def predicts(run: Run) -> bool:
    if run.kind == "linear":
        returned = run.trainer.predict(run.module, datamodule=run.data["datamodule"])
    else:
        loader = run.data["val_dataloaders"]
        returned = run.trainer.predict(run.module, loader)
    kept = run.callback.kept
    return len(kept) > 0 and torch.equal(torch.cat(kept), torch.cat(returned))


def stops(run: Run) -> bool:
    return run.epochs == [0, 1, 2] and run.trainer.should_stop


def ends_early(run: Run) -> bool:
    epoch = {"deep": 4 / 3, "linear": 2, "foreign": 4 / 5}[run.kind]  # of 3
    return run.trainer.global_step == run.callback.last and run.epochs[-1] == epoch


def keeps_the_best(run: Run) -> bool:
    monitor = MONITORS[run.kind]
    values = [row[monitor] for row in run.rows[1:]]
    saved = torch.load(run.callback.best_model_path, weights_only=False)
    best = saved["epoch"] + 1
    score = float(run.callback.best_model_score)
    return abs(score - min(values)) < 1e-6 and values[best - 1] == min(values)


def saves_when_broken_off(run: Run) -> bool:
    saved = torch.load(run.folder / "broken.ckpt", weights_only=False)
    return isinstance(run.error, ArithmeticError) and saved["global_step"] > 0


def takes_the_rate(run: Run) -> bool:
    return run.module.lr != 0.02 and set(run.rates) == {run.module.lr}


def takes_the_size(run: Run) -> bool:
    described = json.loads((Path(run.trainer.logger.log_dir) / "description.json").read_text())
    sizes = run.trainer.train_dataloader.batch_size, described["batch_size"]
    return run.data["datamodule"].batch_size == 5 and sizes == (5, 5)


def follows_the_rate(run: Run) -> bool:
    names = [key for key in run.rows[1] if key.startswith("lr-")]  # by group of the optimizer
    rows = [[row[name] for name in names] for row in run.rows[1:]]
    return len(names) > 0 and rows == [run.rates] * 3


def freezes(run: Run) -> bool:
    torch.manual_seed(0)
    before = Backed()
    frozen = torch.equal(run.module.backbone[0].weight, before.backbone[0].weight)
    return frozen and not torch.equal(run.module.head.weight, before.head.weight)


def thaws(run: Run) -> bool:
    rows = {row["epoch"]: row for row in run.rows}
    names = ("stable_rank/backbone_0", "stable_rank/head")
    backbone, head = ([rows[epoch][name] for epoch in range(4)] for name in names)
    still = backbone[0] == backbone[1] == backbone[2] != backbone[3]
    return still and len(set(head)) == 4 and len(run.rates) == 2


def finds_the_spike(run: Run) -> bool:
    left = json.loads((run.folder / "skip.json").read_text())
    return isinstance(run.error, TrainingSpikeException) and left == [2, 3]


def prints(*words: str) -> Callable[[Run], bool]:
    return lambda run: all(word in run.printed for word in words)


def logs(key: str) -> Callable[[Run], bool]:
    return lambda run: len(run.logged(key)) > 0


class Row(NamedTuple):
    """A callback of Lightning.

    Attributes:
        make: Makes it, for a kind of module and a folder.
        seen: Tells whether its effect is seen; None if it is refused everywhere.
        refused: By kind of module, words of the line.
        options: What `init_args` hold on the command line; None if `make` knows.
        beside: Another callback of the fit.
        class_path: Where it is not `lightning.pytorch.callbacks.NAME`.
    """

    make: Callable[[str, Path], Callback]
    seen: Callable[[Run], bool] | None = None
    refused: dict[str, str] = {}  # noqa: RUF012
    options: dict[str, Any] = {}  # noqa: RUF012
    beside: Callable[[], Callback] | None = None
    class_path: str = ""


def ours(words: str) -> dict[str, str]:
    return {"deep": words, "linear": words}


def all_kinds(words: str) -> dict[str, str]:
    return dict.fromkeys(KINDS, words)


C: Any = callbacks
AVERAGE = all_kinds("no average of weights")
FROZEN = ours("every layer is trained")
ROWS: dict[str, Row] = {
    "BackboneFinetuning": Row(
        lambda kind, folder: C.BackboneFinetuning(2, lambda epoch: 1.0), thaws, FROZEN
    ),
    "BaseFinetuning": Row(
        lambda kind, folder: Frozen(),
        freezes,
        FROZEN,
        class_path="training.callbacks_table.Frozen",
    ),
    "BasePredictionWriter": Row(lambda kind, folder: Writer(), predicts),
    "BatchSizeFinder": Row(
        lambda kind, folder: C.BatchSizeFinder(steps_per_trial=1, init_val=5, max_trials=1),
        takes_the_size,
        ours("data.batch_size"),
    ),
    "Callback": Row(lambda kind, folder: Hears(), hears),
    "Checkpoint": Row(lambda kind, folder: Keeper(), hears),
    "DeviceStatsMonitor": Row(
        lambda kind, folder: C.DeviceStatsMonitor(cpu_stats=True), logs("cpu_percent")
    ),
    "EarlyStopping": Row(
        lambda kind, folder: C.EarlyStopping(MONITORS[kind], 1e9, 1, verbose=False), stops
    ),
    "EMAWeightAveraging": Row(lambda kind, folder: C.EMAWeightAveraging(), refused=AVERAGE),
    "GradientAccumulationScheduler": Row(
        lambda kind, folder: C.GradientAccumulationScheduler({0: 2}),
        refused=all_kinds("one batch size for the whole run"),
        options={"scheduling": {"0": 2}},
    ),
    "LambdaCallback": Row(
        lambda kind, folder: C.LambdaCallback(on_fit_end=lambda t, m: print("it has ended")),
        prints("it has ended"),
    ),
    "LearningRateFinder": Row(
        lambda kind, folder: C.LearningRateFinder(num_training_steps=30, early_stop_threshold=None),
        takes_the_rate,
        ours("model.learning_rate"),
    ),
    "LearningRateMonitor": Row(
        lambda kind, folder: C.LearningRateMonitor("epoch"),
        follows_the_rate,
        {"linear": "learning_rate"},
    ),
    "ModelCheckpoint": Row(
        lambda kind, folder: C.ModelCheckpoint(folder / "kept", monitor=MONITORS[kind]),
        keeps_the_best,
    ),
    "ModelPruning": Row(
        lambda kind, folder: C.ModelPruning("l1_unstructured"),
        refused=all_kinds("no pruning"),
        options={"pruning_fn": "l1_unstructured"},
    ),
    "ModelSummary": Row(lambda kind, folder: C.ModelSummary(), prints("Trainable params")),
    "OnExceptionCheckpoint": Row(
        lambda kind, folder: C.OnExceptionCheckpoint(folder, "broken"),
        saves_when_broken_off,
        beside=Breaks,
    ),
    "ProgressBar": Row(lambda kind, folder: Bar(), hears),
    "RichModelSummary": Row(lambda kind, folder: C.RichModelSummary(), prints("Trainable params")),
    "RichProgressBar": Row(lambda kind, folder: C.RichProgressBar(), prints("Epoch 2")),
    "SpikeDetection": Row(
        lambda kind, folder: C.SpikeDetection(
            warmup=2, window=2, exclude_batches_path=str(folder / "skip.json")
        ),
        finds_the_spike,
        ours("model.on_divergence"),
        beside=Spikes,
    ),
    "StochasticWeightAveraging": Row(
        lambda kind, folder: C.StochasticWeightAveraging(0.1),
        refused=AVERAGE,
        options={"swa_lrs": 0.1},
    ),
    "ThroughputMonitor": Row(
        lambda kind, folder: C.ThroughputMonitor(lambda batch: len(batch[0]), window_size=2),
        logs("batches_per_sec"),
        {"linear": "a stretch of many steps"},
        options={"batch_size_fn": "builtins.len"},
    ),
    "Timer": Row(lambda kind, folder: Late(2 if kind == "linear" else 4), ends_early),
    "TQDMProgressBar": Row(lambda kind, folder: C.TQDMProgressBar(), prints("Epoch 2")),
    "WeightAveraging": Row(lambda kind, folder: C.WeightAveraging(), refused=AVERAGE),
}
CASES = [(name, kind) for name in ROWS for kind in KINDS]
SUPPORTED = [(name, kind) for name, kind in CASES if kind not in ROWS[name].refused]
REFUSED = [(name, kind) for name, kind in CASES if kind in ROWS[name].refused]
