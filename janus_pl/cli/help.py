"""Texts of `python -m janus_pl --help` and of the trainer's subcommands."""

from __future__ import annotations

from inspect import cleandoc
from textwrap import fill

from janus_pl.errors import Exit
from janus_pl.version import __version__

PROGRAM = "python -m janus_pl"
EXIT_CODES = f"Exit codes: {', '.join(f'{code} {code.meaning}' for code in Exit)}."
_CLASSES = (
    "`--model.help` and `--data.help` list the options of the classes in use, "
    "`--model.help CLASS` those of another."
)
# Subcommands that go through LightningCLI: their arguments in short, and a description.
TRAINING = {
    "fit": (
        "[--config FILE]... [--OPTION VALUE]...",
        "Train. After every epoch a row of what the callbacks have seen goes to W&B and to "
        "RUN_DIR/PROJECT/ID. Of files and options the later ones win; `--print_config` shows what "
        f"they come to. {_CLASSES}",
    ),
    "validate": (
        "--config RUN/config.yaml --ckpt_path FILE",
        "The error and the loss of a checkpoint on the validation split, which is the test split.",
    ),
    "test": (
        "--config RUN/config.yaml --ckpt_path FILE",
        "The error and the loss of a checkpoint on the test split.",
    ),
    "predict": (
        "--config RUN/config.yaml --ckpt_path FILE",
        "The margin of every sample at a checkpoint, as a CSV file in the run's folder.",
    ),
}
# The options that people use, at the top of the help of `fit`.
USED = {
    "--config FILE": "an experiment; of several the later ones win",
    "--name NAME": "of the run; default as sgd-B128-lam0.001-seed0",
    "--project PROJECT": "runs that belong together",
    "--seed_everything SEED": "of the initial weights, the subset and the order",
    "--ckpt_path last": "go on with this config's interrupted run",
    "--run_dir DIR": "where runs lie",
    "--data CLASS": "as janus_pl.data.ImageFolderPair, --data.root DIR",
    "--data.num_train N": "a balanced subset of the training samples",
    "--data.batch_size B": "samples a step; full is GD",
    "--data.micro_batch_size N": "samples that go through the network at a time",
    "--model CLASS": "such as janus_pl.LinearRegressor",
    "--model.loss LOSS": "square, logistic, exponential, cross_entropy",
    "--model.learning_rate ETA": "at the start",
    "--model.schedule NAME": "cosine, constant, inverse_sqrt, ...",
    "--model.weight_decay LAMBDA": "the paper's lambda",
    "--model.normalization NAME": "weight_norm, per_layer, lagrange, none",
    "--trainer.max_epochs N": "length of the run",
    "--trainer.accelerator NAME": "cpu, gpu, mps, auto",
    "--trainer.devices N": "with --trainer.strategy ddp: several processes",
    "--trainer.callbacks+=CLASS": "one more, such as janus_pl.callbacks.Sharpness",
}
HELP = cleandoc(
    f"""
    usage: {PROGRAM} SUBCOMMAND [ARGUMENTS]

    SGD against GD: train, and look at margins, velocities and ranks.

    train:
      fit --config FILE      one run; `fit --config quickstart.yaml`: a minute
      sweep FILE             many runs: a grid or random search, as in W&B

    look at a checkpoint:
      validate, test         its error and loss on the test split
      predict                the margin of every sample, as a CSV file

    look at records of runs:
      report RUN...          the paper's figures, and an interactive page
      verify RUN...          the paper's claims: supported, contradicted, undecided
      workspace              a view of the runs in the W&B UI

    `SUBCOMMAND --help` says more; `--version` says the version.
    """
)
HELP = f"{HELP}\n\n{fill(EXIT_CODES, 80)}"


def asked_for(args: list[str]) -> str | None:
    """Return the text that a command line without a subcommand asks for; None if for none."""
    if args[:1] in (["-h"], ["--help"]):
        return HELP
    return f"janus_pl {__version__}" if args[:1] == ["--version"] else None


def with_the_used_first(text: str) -> str:
    """Put the options that people use before all others in the help of `fit`."""
    lines = [f"  {option:<28} {meaning}" for option, meaning in USED.items()]
    used = "\n".join(["the options that people use:", *lines, ""])
    opening, line, rest = text.partition("\ndefaults:\n")
    return f"{opening}\n{used}{line}{rest}"
