"""A table of each argument of `Trainer`: supported with an effect to be seen, or refused.

A row names an argument, a value, the kinds of modules that it is for, and the check of the effect
of the value. A row without one is refused in one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.plugins import MixedPrecision, TorchCheckpointIO, TorchSyncBatchNorm
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from training import trainer_effects as see
from training.trainer_effects import Effect, same
from training.trainer_fits import Halts, Keeps, Two

from janus_pl.run.logger import RunLogger

D, L, F = "deep", "linear", "foreign"
OURS, ALL = (D, L), (D, L, F)


class Row(NamedTuple):
    """An argument, its value, and what is to be seen; refused without an effect.

    Attributes:
        name: The argument.
        value: Its value; a function of a folder makes it anew for each fit.
        kinds: The kinds of modules.
        effect: Checks what the value does.
        more: Other arguments of the trainer.
        then: A task after the fit: validate, test or predict.
        says: A part of the refusal.
        line: The arguments of a command line, of a refusal; not set: the argument and its value.
        where: "both", "script" or "line": where the refusal is to be seen.
    """

    name: str
    value: Any
    kinds: tuple[str, ...] = ALL
    effect: Effect | None = None
    more: dict[str, Any] = {}  # noqa: RUF012
    then: str | None = None
    says: str = ""
    line: str | None = None
    where: str = "both"


def keeps(folder: Path) -> Keeps:
    return Keeps(folder / "kept")


def scaled(_: Path) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))


KEPT = {"logger": keeps}
SAVES = {"enable_checkpointing": True}
HALTS = {"callbacks": lambda _: Halts()}
NAMES = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
BARE = dict.fromkeys((*NAMES, "num_sanity_val_steps", "log_every_n_steps"), ...)
PLUGIN = "--trainer.plugins=[{class_path: lightning.pytorch.plugins."
SCALER = PLUGIN + "MixedPrecision, init_args: {precision: 16-mixed, device: cpu}}]"
NORMS = PLUGIN + "TorchSyncBatchNorm}]"
LOGGER = "--trainer.logger=lightning.pytorch.loggers."
FROM_0 = (0, 1, 2, 3)
ROWS = [
    # Where
    Row("accelerator", "cpu", effect=see.flag("device", "cpu")),
    Row("accelerator", "tpu", says="torch_xla"),
    Row("strategy", "auto", effect=see.has_strategy(SingleDeviceStrategy)),
    Row("strategy", "ddp", effect=see.has_strategy(DDPStrategy), more={"devices": 1}),
    Row("strategy", "ddp_spawn", says="auto or ddp", where="line"),
    Row("strategy", "fsdp", says="GPU"),
    Row("strategy", "deepspeed", says="DeepSpeed"),
    Row("devices", 1, effect=same),
    Row("devices", 2, (L,), says="1 process", more={"strategy": lambda _: Two(), "devices": ...}),
    Row("num_nodes", 1, effect=same),
    Row("num_nodes", 0, says="num_nodes"),
    Row("precision", "32-true", effect=same),
    Row("precision", "64-true", (D, F), see.in_double),
    Row("precision", "64-true", (L,), same),
    Row("precision", "bf16-mixed", (D, F), see.flag("autocast", True)),
    Row("precision", "bf16-mixed", (L,), same),
    Row("precision", "16-mixed", says="32-true, 64-true or bf16-mixed", where="line"),
    Row("precision", "16-true", says="float32 weights"),
    Row("precision", "bf16-true", says="float32 weights"),
    Row("precision", "transformer-engine", says="transformer_engine", where="script"),
    Row("precision", "transformer-engine", says="float32 weights", where="line"),
    Row("plugins", lambda _: [LightningEnvironment()], effect=same),
    Row("plugins", lambda _: [TorchCheckpointIO()], effect=see.uses_io, more=SAVES),
    Row("plugins", scaled, says="gradient scaler", line=SCALER),
    Row("plugins", lambda _: [TorchSyncBatchNorm()], OURS, says="no batch norm", line=NORMS),
    Row("sync_batchnorm", False, effect=same),
    Row("sync_batchnorm", True, OURS, says="no batch normalization"),
    Row("sync_batchnorm", True, (F,), same),
    Row("use_distributed_sampler", False, effect=same),
    Row("deterministic", True, effect=see.flag("deterministic", True)),
    Row("deterministic", "warn", effect=see.flag("warns", True)),
    Row("benchmark", True, effect=see.flag("benchmark", True)),
    # How long
    Row("max_epochs", 2, effect=see.epochs(0, 1, 2)),
    Row("max_epochs", -1, (D, F), see.ends_at(4), {"max_steps": 4}),
    Row("max_epochs", -1, (L,), says="from 1 up"),
    Row("max_epochs", 0, says="from 1 up"),
    Row("min_epochs", 2, (D, F), see.epochs(0, 1, 2), HALTS),
    Row("min_epochs", 2, (L,), says="trainer.max_epochs decides"),
    Row("min_epochs", 4, says="at most max_epochs: 3"),
    Row("min_epochs", -1, says="from 0 up"),
    Row("max_steps", 4, (D, F), see.ends_at(4)),
    Row("max_steps", 4, (L,), says="trainer.max_epochs decides"),
    Row("max_steps", 0, says="from 1 up"),
    Row("min_steps", 6, (D,), see.ends_at(6), HALTS),
    Row("min_steps", 6, (F,), see.ends_at(6), HALTS),
    Row("min_steps", 6, (L,), says="trainer.max_epochs decides"),
    Row("min_steps", -1, says="from 0 up"),
    Row("max_time", {"hours": 9}, effect=see.has_timer),
    Row("max_time", "00:00:00:00", says="a time above 0"),
    Row("fast_dev_run", True, effect=see.try_run(1)),
    Row("fast_dev_run", 2, effect=see.try_run(2)),
    Row("fast_dev_run", -1, says="fast_dev_run"),
    Row("limit_train_batches", 2, (D, F), see.ends_after(2)),
    Row("limit_train_batches", 0.7, (D,), see.ends_after(2)),
    Row("limit_train_batches", 2, (L,), says="trainer.max_epochs decides"),
    Row("limit_train_batches", 0, says="above 0"),
    Row("limit_train_batches", 1, (F,), see.other_batches),
    Row("overfit_batches", 1, (F,), see.same_batches),
    Row("overfit_batches", 1, OURS, says="data.num_train"),
    Row("overfit_batches", 0.5, OURS, says="data.num_train"),
    Row("barebones", True, says="false", more=BARE),
    # Held-out data
    Row("limit_val_batches", 1.0, effect=same),
    Row("limit_val_batches", 0, effect=see.no_val),
    Row("limit_val_batches", 1, OURS, says="a part of a split"),
    Row("limit_val_batches", 0.5, OURS, says="a part of a split"),
    Row("limit_val_batches", 1, (F,), see.saw("val", 3)),
    Row("limit_test_batches", 1.0, (D,), see.saw("test", 3), then="test"),
    Row("limit_test_batches", 1.0, (L,), same),
    Row("limit_test_batches", 1, OURS, says="a part of a split"),
    Row("limit_test_batches", 1, (F,), see.saw("test", 1), then="test"),
    Row("limit_predict_batches", 1, effect=see.saw("predict", 1), then="predict"),
    Row("limit_predict_batches", 0.7, (D,), see.saw("predict", 2), then="predict"),
    Row("val_check_interval", 1.0, effect=same),
    Row("val_check_interval", 0.5, OURS, says="a row is an epoch"),
    Row("val_check_interval", 1, OURS, says="a row is an epoch"),
    Row("val_check_interval", 2, (F,), see.validated(2, 4, 7, 9, 12, 14, on_rows=()), KEPT),
    Row("val_check_interval", 1.0, (F,), see.validated(5, 10, 15, on_rows=(1, 2, 3)), KEPT),
    Row("check_val_every_n_epoch", 2, (D,), see.whole_rows_of_val),
    Row("check_val_every_n_epoch", 2, (L,), same),
    Row("check_val_every_n_epoch", 2, (F,), see.validated(10, on_rows=(2,)), KEPT),
    Row("check_val_every_n_epoch", 0, says="from 1 up"),
    Row("num_sanity_val_steps", 2, (D, F), see.both(see.saw("sanity", 2), same)),
    Row("num_sanity_val_steps", -1, (D,), see.both(see.saw("sanity", 3), same)),
    Row("num_sanity_val_steps", 2, (L,), same),
    Row("num_sanity_val_steps", -2, says="from -1 up"),
    Row("inference_mode", True, (D, F), see.inference(True), then="validate"),
    Row("inference_mode", False, (D, F), see.inference(False), then="validate"),
    Row("inference_mode", True, (L,), see.inference(True), then="predict"),
    Row("inference_mode", False, (L,), see.inference(False), then="predict"),
    Row("reload_dataloaders_every_n_epochs", 1, effect=see.asked_for_data(3)),
    Row("reload_dataloaders_every_n_epochs", 0, effect=see.asked_for_data(1)),
    Row("reload_dataloaders_every_n_epochs", -1, says="int >= 0"),
    # Steps
    Row("accumulate_grad_batches", 2, (F,), see.steps(9)),
    Row("accumulate_grad_batches", 2, OURS, says="manual optimization"),
    Row("accumulate_grad_batches", 0, (F,), says="from 1 up"),
    Row("gradient_clip_val", 1e-3, (F,), see.clipped(norm=1e-3)),
    Row("gradient_clip_val", 1e-3, OURS, says="manual optimization"),
    Row("gradient_clip_val", 0.0, effect=same),
    Row("gradient_clip_val", -1.0, says="from 0 up"),
    Row(
        "gradient_clip_algorithm",
        "value",
        (F,),
        see.clipped(value=1e-3),
        {"gradient_clip_val": 1e-3},
    ),
    Row("gradient_clip_algorithm", "value", says="without a gradient_clip_val"),
    Row("detect_anomaly", True, (D, F), see.both(see.flag("anomaly", True), same)),
    Row("detect_anomaly", True, (L,), says="without a backward pass"),
    # What is kept and shown
    Row("logger", False, effect=see.both(see.of_loggers(), same)),
    Row("logger", True, effect=see.both(see.of_loggers(CSVLogger), see.recorded)),
    Row("logger", lambda f: CSVLogger(f), effect=see.both(see.of_loggers(CSVLogger), see.recorded)),
    Row(
        "logger",
        lambda f: RunLogger(run_dir=f),
        effect=see.both(see.of_loggers(RunLogger), see.recorded),
    ),
    Row(
        "logger",
        lambda f: WandbLogger(save_dir=f),
        effect=see.both(see.of_loggers(WandbLogger), see.recorded),
    ),
    Row("logger", lambda f: [keeps(f), CSVLogger(f)], effect=see.recorded),
    Row(
        "logger",
        "",
        says="tensorboard",
        line=LOGGER + "TensorBoardLogger --trainer.logger.save_dir=x",
        where="line",
    ),
    Row("logger", "", says="mlflow", line=LOGGER + "MLFlowLogger", where="line"),
    Row("logger", "", says="comet", line=LOGGER + "CometLogger", where="line"),
    Row("logger", "", says="Logger", line=LOGGER + "LitLogger", where="line"),
    Row("logger", "", says="Logger", line=LOGGER + "NeptuneLogger", where="line"),
    Row("callbacks", lambda _: Halts(), effect=see.epochs(0, 1)),
    Row("callbacks", lambda _: [Halts()], effect=see.epochs(0, 1)),
    Row("callbacks", "", says="Callback", line="--trainer.callbacks=torch.nn.Linear", where="line"),
    Row("log_every_n_steps", 5, OURS, same),
    Row("log_every_n_steps", 5, (F,), see.steps_logged(3), KEPT),
    Row("log_every_n_steps", 1, (F,), see.steps_logged(15), KEPT),
    Row("log_every_n_steps", -1, says="from 0 up"),
    Row("enable_checkpointing", True, effect=see.checkpoints(True)),
    Row("enable_checkpointing", False, effect=see.checkpoints(False)),
    Row("default_root_dir", lambda f: f / "other", effect=see.in_other_folder, more=SAVES),
    Row("enable_progress_bar", True, effect=see.has(ProgressBar, True)),
    Row("enable_progress_bar", False, effect=see.has(ProgressBar, False)),
    Row("enable_model_summary", True, effect=see.has(ModelSummary, True)),
    Row("enable_model_summary", False, effect=see.has(ModelSummary, False)),
    Row("enable_autolog_hparams", True, effect=see.graphs(1), more=KEPT),
    Row("enable_autolog_hparams", False, effect=see.graphs(0), more=KEPT),
    Row("profiler", "simple", effect=see.profiled),
    Row("profiler", lambda _: SimpleProfiler(), effect=see.profiled),
    Row("profiler", "xla", says="torch_xla"),
    Row("profiler", "none", says="simple"),
    Row("model_registry", "models", says="files of the run"),
]
