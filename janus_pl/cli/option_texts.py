"""Texts of the options that Lightning brings, in the help of `fit`, `validate`, `test`, `predict`.

Lightning's own texts are of its docstrings: they name other defaults, and classes in a markup that
breaks in a terminal.
"""

from __future__ import annotations

import re
import textwrap
from argparse import Action
from typing import Any

from jsonargparse import DefaultHelpFormatter

TITLES = {
    r"default config file locations": "defaults",
    r"Customize every aspect of training": "options of Lightning's Trainer",
    r"<class '.*LightningModule'>": "the model",
    r"A DataModule": "the data",
    r"Runs the|Perform one|Run inference": "the checkpoint",
}
A_CLASS = "the class_path of one of your own"
CALLBACKS = (
    "EquilibriumResidual, GradientNoise, LayerRank, LayerRotation, LayerVelocity, LossEvents,"
    " MarginCSV, MarginHistogram, NeuralCollapse, NoiseTime, ProgressBar, RankBound, RunCheckpoint,"
    " Sharpness, UpdateSplit"
)
MODELS = "janus_pl.DeepReLUClassifier, janus_pl.Classifier, janus_pl.LinearRegressor"
DATA = "CIFAR10Pair, DigitsPair, ImageFolderPair, ImageClasses or LinearProblem of janus_pl.data"
# A text without %(default)s names the default itself, or the option has none.
D = "(default: %(default)s)"
TEXTS = {
    "config": "A file of options in YAML. Of several files and options the later ones win.",
    "print_config": "Print all options with their values, and exit; with =skip_default without the"
    " defaults, with =skip_null without those that are null.",
    "seed_everything": f"Seed of the weights, the data and the order, 0 to 4294967295 {D}.",
    "name": f"Name of the run; null: as sgd-B128-lam0.001-seed0 {D}.",
    "project": "Project in W&B, and the folder RUN_DIR/PROJECT (default: janus_pl).",
    "group": f"Group of runs in W&B {D}.",
    "tags": f"Tags in W&B, as [a, b], beside those of dynamics, loss and normalization {D}.",
    "run_dir": f"Folder of runs; each run is in RUN_DIR/PROJECT/ID {D}.",
    "entity": "User or team of W&B; null: the one that W&B takes by itself.",
    "notes": f"Text about the run in W&B {D}.",
    "job_type": "Job type in W&B (default: train).",
    "log_model": f"Send the last and the best checkpoint to W&B at the end {D}.",
    "save_code": f"Send the code behind the run to W&B {D}.",
    "alerts": f"Let W&B send a message at the end of the run, and if it diverges {D}.",
    "allow_config_change": "Beside --ckpt_path last: go on with the run though its config has"
    f" changed {D}.",
    "allow_data_change": "Beside --ckpt_path: take the checkpoint though it is of other data; this"
    f" is recorded {D}.",
    "numerics": "Float32 of convolutions and products on NVIDIA GPUs: ieee, or the faster tf32"
    f" {D}.",
    "trainer": "A file with options of the Trainer.",
    "trainer.accelerator": f"Device: cpu, gpu, mps or auto {D}.",
    "trainer.strategy": f"auto, or ddp for several processes {D}.",
    "trainer.devices": f"Number of devices, their numbers as [0, 2], or auto for all {D}.",
    "trainer.num_nodes": f"Number of machines, started by torchrun or SLURM {D}.",
    "trainer.precision": "32-true, 64-true or bf16-mixed (default: 32-true).",
    "trainer.logger": "Loggers in place of W&B's; with a +, beside it; false: none. The run's"
    " folder is written in any case.",
    "trainer.callbacks": "Callbacks in place of those of base.yaml; with a +, beside them. Of"
    f" janus_pl.callbacks: {CALLBACKS}; of lightning.pytorch.callbacks; or {A_CLASS}.",
    "trainer.fast_dev_run": "Try a run: true takes one minibatch, N takes N minibatches; nothing is"
    f" recorded {D}.",
    "trainer.max_epochs": f"Length of the run in epochs; -1: no limit {D}.",
    "trainer.min_epochs": "Least number of epochs, if something would stop the run earlier.",
    "trainer.max_steps": f"Length of the run in steps of the optimizer; -1: no limit {D}.",
    "trainer.min_steps": "Least number of steps, if something would stop the run earlier.",
    "trainer.max_time": "Longest time, as DD:HH:MM:SS.",
    "trainer.limit_train_batches": "Minibatches of an epoch: a number as 10, or a share as 0.5"
    " (default: all).",
    "trainer.limit_val_batches": "0: no validation. Models of this package take no other number but"
    " 1.0, the whole split (default: 1.0).",
    "trainer.limit_test_batches": "1.0 with models of this package, the whole split (default:"
    " 1.0).",
    "trainer.limit_predict_batches": "Minibatches of predict: a number, or a share (default: all).",
    "trainer.overfit_batches": "Refused with data of this package: data.num_train takes a part of"
    f" the samples {D}.",
    "trainer.val_check_interval": "1.0 with models of this package: a validation is at the end of"
    " an epoch (default: 1.0).",
    "trainer.check_val_every_n_epoch": f"Epochs from one validation to the next {D}.",
    "trainer.num_sanity_val_steps": f"Minibatches of a validation before the start {D}.",
    "trainer.log_every_n_steps": f"Steps between numbers that are logged within an epoch {D}.",
    "trainer.enable_checkpointing": "false: no checkpoints; RunCheckpoint has to go, too"
    " (default: true).",
    "trainer.enable_progress_bar": "A line of progress (default: true).",
    "trainer.enable_model_summary": f"A table of the layers at the start {D}.",
    "trainer.accumulate_grad_batches": "1 with models of this package: data.micro_batch_size bounds"
    f" the memory {D}.",
    "trainer.gradient_clip_val": "Refused with models of this package: no gradient is changed"
    f" {D}.",
    "trainer.gradient_clip_algorithm": "norm or value, beside gradient_clip_val (default: norm).",
    "trainer.deterministic": "true: only operations that give the same bits each time; warn: say"
    " which do not (default: false).",
    "trainer.benchmark": "true: let cuDNN try its algorithms and take the fastest (default:"
    " false).",
    "trainer.inference_mode": "Validate and test under torch.inference_mode; false: under"
    f" torch.no_grad {D}.",
    "trainer.use_distributed_sampler": "Share somebody else's loader out among processes; data of"
    f" this package do it by themselves {D}.",
    "trainer.profiler": "simple, advanced or pytorch: where the time goes.",
    "trainer.detect_anomaly": f"Name the operation of a backward pass that gives NaN; slow {D}.",
    "trainer.barebones": "Refused: a run without a record shows nothing.",
    "trainer.plugins": "Plugins of Lightning, by class_path.",
    "trainer.sync_batchnorm": "Share batch normalization's means among processes; of somebody"
    f" else's module alone {D}.",
    "trainer.reload_dataloaders_every_n_epochs": "Make the loader anew after so many epochs; 0:"
    f" never {D}.",
    "trainer.default_root_dir": "Folder for files of others' callbacks (default: that of the run).",
    "trainer.enable_autolog_hparams": f"Let other loggers have the model's options {D}.",
    "trainer.model_registry": "Refused: checkpoints are files of the run.",
    "model": f"Class of the model: {MODELS}, or {A_CLASS}; its options are --model.NAME, see"
    " --model.help (default: janus_pl.DeepReLUClassifier).",
    "data": f"Class of the data: {DATA}, or {A_CLASS}; its options are --data.NAME, see"
    " --data.help (default: janus_pl.data.CIFAR10Pair).",
    "ckpt_path": "A checkpoint's file, a run's folder, or its id; fit also takes last, which goes"
    " on with this config's interrupted run.",
    "weights_only": "true: a checkpoint is tensors and plain containers, which run no code"
    " (default: true).",
    "verbose": f"Print what was measured {D}.",
    "return_predictions": "Of no use on the command line.",
}


class PlainHelp(DefaultHelpFormatter):
    """The formatter of the help, with the texts and titles of this file."""

    def start_section(self, heading: str | None) -> None:
        """Begin a section of the help under a title of ours."""
        found = (title for pattern, title in TITLES.items() if re.match(pattern, heading or ""))
        super().start_section(next(found, heading))

    def add_text(self, text: str | None) -> None:
        """Add a paragraph; the one about the default config in a sentence."""
        if found := re.match(r"\['(.*?)'\], Note: default values below are", text or ""):
            text = f"Those below are of {found[1]}, and of the classes."
        super().add_text(text)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # A path or an option is not broken at its hyphens.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        options: dict[str, Any] = {"initial_indent": indent, "subsequent_indent": indent}
        options |= {"break_on_hyphens": False, "break_long_words": False}
        return textwrap.fill(" ".join(text.split()), width, **options)

    def _get_help_string(self, action: Action) -> str:
        text = TEXTS.get(action.dest)
        if any(option.endswith(".help") for option in action.option_strings):
            return "Show the options of a class, and exit."
        return super()._get_help_string(action) if text is None else text

    def _expand_help(self, action: Action) -> str:
        """Return the text of an option, with true and false as a user types them."""
        text = super()._expand_help(action)
        return re.sub(r"(?<=default: )(True|False)(?=\))", lambda found: found[1].lower(), text)
