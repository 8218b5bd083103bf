"""Whole runs on the pretended device: the CPU's numbers, no wait in a step, one wait a look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from pretended import checks
from pretended.runs import Report, Request, run

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
SMALL = ("--model.hidden=7", "--model.channels=[3,4,5,4]", "--data.num_train=20")
QUICKSTART = ("fit", "--config=quickstart.yaml", *SMALL, "--trainer.check_val_every_n_epoch=1")
PLAIN_SGD = ("--model.optimizer=torch.optim.SGD", "--model.optimizer.momentum=0")
EPOCHS = 2
# Looks at every epoch, each callback that no default config has.
OTHERS = {
    "RankBound": {"window": 2},
    "UpdateSplit": {"every_n_epochs": 1},
    "EquilibriumResidual": {"every_n_epochs": 1},
    "GradientNoise": {"every_n_epochs": 1, "batches": 2, "gram": 2, "hessian_samples": 8},
    "NeuralCollapse": {"every_n_epochs": 1},
    "Sharpness": {"every_n_epochs": 1, "samples": 8, "products": 4},
    "NoiseTime": {"every_n_epochs": 4, "window": 8, "samples": 8},
    "LossEvents": {"every_n_epochs": 1, "threshold": 0.9},
    "LayerRotation": {"every_n_epochs": 1},
    "LayerVelocity": {"every_n_epochs": 1, "full_every_n_epochs": 1},
}


class Case(NamedTuple):
    """A command that runs on the CPU and on the device.

    Attributes:
        args: The command line.
        epochs: How many epochs it trains.
        looks: The callbacks that look.
        operations: The most operations of a step; None: not counted.
    """

    args: tuple[str, ...]
    epochs: int
    looks: tuple[str, ...]
    operations: int | None = None


def callbacks(**options: dict[str, object]) -> str:
    listed = [{"class_path": f"callbacks.{k}", "init_args": v} for k, v in options.items()]
    return "--trainer.callbacks=" + json.dumps(listed)


def normalized(name: str, *more: str) -> Case:
    args = (*QUICKSTART, *QUIET, f"--model.normalization={name}", *more)
    return Case((*args, f"--trainer.max_epochs={EPOCHS}"), EPOCHS, DEFAULT)


DEFAULT = ("LayerRank", "LayerVelocity", "MarginHistogram")
RESNET = (
    *("fit", "--config=low_rank/resnet18.yaml", *QUIET, "--data=janus_pl.data.DigitsPair"),
    *("--data.num_train=6", "--data.batch_size=3", "--data.micro_batch_size=3"),
    *("--trainer.max_epochs=1", "--trainer.limit_val_batches=0"),
)
CASES = {
    "quickstart": Case(
        (*QUICKSTART, f"--trainer.max_epochs={EPOCHS}"),
        EPOCHS,
        DEFAULT,
        checks.OPERATIONS["default"],
    ),
    "all callbacks": Case(
        (*QUICKSTART, *QUIET, *PLAIN_SGD, "--trainer.max_epochs=4", callbacks(**OTHERS)),
        4,
        tuple(OTHERS),
        checks.OPERATIONS["all"],
    ),
    "per_layer": normalized("per_layer"),
    "lagrange": normalized("lagrange"),
    "none": normalized("none"),
    "GD in micro-batches": normalized(
        "weight_norm", "--data.batch_size=full", "--data.micro_batch_size=8"
    ),
    "ResNet-18": Case(RESNET, 1, DEFAULT),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_that_of_the_cpu_and_nobody_waits(
    name: str, library: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    right = started(case, tmp_path / "cpu", None)
    found = started(case, tmp_path / "device", library)
    assert len(found.rows) == case.epochs + 1
    assert checks.not_numbers(found.rows) == [], "unset memory is NaN"
    assert checks.differences(found.rows, right.rows, 1e-12) == []
    watch = found.watch
    assert set(watch.looks) >= {*case.looks}
    assert checks.waits_within_steps(watch) == []
    waits = checks.waits_of_looks(watch)
    assert {k: n for k, n in waits.items() if n > checks.WAITS.get(k, 1)} == {}
    solvers = checks.solvers_of_looks(watch)
    layers = len([key for key in right.rows[0] if key.startswith("rank/")]) or 6
    allowed = checks.SOLVERS | dict.fromkeys(checks.PER_LAYER, layers)
    assert {k: n for k, n in solvers.items() if n > allowed.get(k, 0)} == {}
    assert checks.waits_of_borders(watch) <= checks.BORDER * (case.epochs + 1)
    steps = [step.total() for step in watch.steps]
    assert min(steps) > 0, "the device has trained"
    if case.operations is not None:
        assert max(steps) <= case.operations, watch.steps[-1]


def started(case: Case, folder: Path, library: Path | None) -> Report:
    folder.mkdir()
    report = run(Request(folder, [*case.args, "--trainer.precision=64-true"], library))
    assert report.error == ""
    assert report.code == 0
    return report
