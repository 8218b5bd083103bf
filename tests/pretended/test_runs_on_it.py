"""Whole runs on the pretended device: the CPU's numbers, no wait in a step, one wait a look."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from pretended import checks
from pretended.runs import Report, Request, run
from training.crashing import arm

from janus_pl.errors import Exit

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


LINEAR = ("fit", "--config=linear/a2.yaml", *QUIET, "--model.learning_rate=0.01")


def test_linear_regression_in_batches_is_the_compiled_one(library: Path, tmp_path: Path) -> None:
    args = (*LINEAR, "--trainer.max_epochs=20", "--data.order=shuffle")
    right = started(Case(args, 20, ()), tmp_path / "cpu", None)
    found = started(Case(args, 20, ()), tmp_path / "device", library)
    assert len(found.rows) == len(right.rows) > 5
    assert checks.not_numbers(found.rows) == []
    assert checks.differences(found.rows, right.rows, 1e-9) == [], "two engines, to their rounding"
    waits = checks.waits_within_steps(found.watch)
    assert len(waits) <= checks.LINEAR_WAITS * len(found.watch.steps), waits
    assert sum(step.total() for step in found.watch.steps) > 20 * 10 * 4, "ten steps an epoch"


def test_stopped_by_sigterm_and_resumed_it_is_the_same_run(library: Path, tmp_path: Path) -> None:
    args = [*QUICKSTART, *QUIET, "--trainer.max_epochs=3"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    right = run(Request(whole, args, library))
    stopped = run(Request(cut, args, library, before=partial(arm, "term:5")))
    assert (right.code, stopped.code) == (0, 128 + signal.SIGTERM)
    assert len(stopped.rows) < len(right.rows)
    resumed = run(Request(cut, [*args, "--ckpt_path=last"], library))
    assert (resumed.code, resumed.error) == (0, "")
    assert resumed.rows == right.rows
    assert checks.waits_within_steps(resumed.watch) == []


@pytest.mark.parametrize("name", ["quickstart", "all callbacks"])
def test_a_device_without_float64_has_the_numbers_too(
    name: str, library: Path, tmp_path: Path
) -> None:
    reports = []
    for place, folder in ((None, tmp_path / "cpu"), (library, tmp_path / "device")):
        folder.mkdir()
        reports.append(run(Request(folder, CASES[name].args, place, float64=False)))
        assert (reports[-1].code, reports[-1].error) == (0, "")
    right, found = reports
    assert checks.not_numbers(found.rows) == []
    assert checks.differences(found.rows, right.rows, 1e-6) == []


def test_linear_regression_without_float64_is_refused_in_one_line(
    library: Path, tmp_path: Path
) -> None:
    report = run(Request(tmp_path, [*LINEAR, "--trainer.max_epochs=2"], library, float64=False))
    assert (report.code, report.rows) == (Exit.USAGE, [])
    (line,) = [x for x in report.said.splitlines() if x.startswith("error:")]
    assert "pretended has no float64" in line
