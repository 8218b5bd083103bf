"""Arguments of the trainer beside the table: other tasks, loaders, anomalies, scalers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from training.trainer_fits import LINES, Probe, Samples, make, trainer_of

from janus_pl.cli.main import main
from janus_pl.data import DigitsPair
from janus_pl.deep.held_out import HoldsOut
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.run import logger
from janus_pl.training import options


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    yield
    logger.finish()


@pytest.fixture(scope="module", autouse=True)
def enabled_afterwards() -> Iterator[None]:
    yield
    wandb.teardown()


# Other tasks than a fit


@pytest.mark.parametrize("task", ["validate", "test"])
def test_a_part_of_a_split_is_refused_by_itself_too(task: str, tmp_path: Path) -> None:
    name = f"limit_{'val' if task == 'validate' else 'test'}_batches"
    module, data = make("deep")
    probe = Probe()
    trainer = trainer_of(tmp_path, {name: 1}, probe)
    with pytest.raises(UsageError, match=rf"^trainer.{name}: got 1, allowed: 1.0.*\Z"):
        getattr(trainer, task)(module, datamodule=data)
    assert probe.seen["val"] == probe.seen["test"] == 0


@pytest.mark.parametrize("task", ["validate", "test"])
def test_a_part_of_a_split_is_refused_on_the_command_line(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = f"limit_{'val' if task == 'validate' else 'test'}_batches"
    assert main([task, *LINES["deep"][1:], f"--trainer.{name}=1"]) == 2
    (said,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert said.startswith(f"error: trainer.{name}: got 1, allowed: 1.0")
    assert [*tmp_path.iterdir()] == []


def test_a_part_of_a_sorted_split_has_another_error(tmp_path: Path, rows: Any) -> None:
    """The negative control: without the check the number is wrong, under the key of the split."""
    errors = []
    for part in (1.0, 1):
        rows.clear()
        module, data = make("deep")
        trainer = trainer_of(tmp_path, {"limit_val_batches": part}, Probe())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(options, "_of_splits", lambda _: iter(()))
            trainer.fit(module, datamodule=data)
        errors.append(rows[-1]["val/error"])
    assert errors[0] != errors[1]


def small() -> tuple[Any, DigitsPair]:
    torch.manual_seed(0)
    from janus_pl import DeepReLUClassifier

    tiny = {"strides": (2, 2, 2, 2), "channels": (2, 3, 4, 4), "hidden": 8}
    return DeepReLUClassifier(**tiny, schedule="constant"), DigitsPair(num_train=40, batch_size=16)


SEQUENCES = [
    ("fit", "test", "fit"),
    ("test", "fit"),
    ("predict", "fit"),
    ("fit", "validate", "fit"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tasks", SEQUENCES, ids="-".join)
def test_a_fit_after_other_tasks_is_a_fit(
    tasks: tuple[str, ...], rows: Any, tmp_path: Path
) -> None:
    found = []
    for done in (tasks, tuple(task for task in tasks if task == "fit")):
        module, data = small()
        for task in done:
            rows.clear()
            getattr(trainer_of(tmp_path, {"max_epochs": 2}, Probe()), task)(module, datamodule=data)
        found.append([dict(row) for row in rows])
    assert found[0] == found[1]
    assert [row["epoch"] for row in found[0]] == [0, 1, 2]


class Breaks(Callback):
    """Breaks off a test after its first batch."""

    def on_test_batch_end(self, *_: Any) -> None:
        raise KeyError("broken off")


@pytest.mark.filterwarnings("ignore")
def test_a_fit_after_a_test_that_was_broken_off(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it adds to inference tensors, or its first validation holds half a test."""
    found = []
    for broken in (True, False):
        rows.clear()
        module, data = make("deep")
        if broken:
            with pytest.raises(KeyError):
                trainer_of(tmp_path, {"callbacks": Breaks()}, Probe()).test(module, datamodule=data)
        trainer_of(tmp_path, {}, Probe()).fit(module, datamodule=data)
        found.append([dict(row) for row in rows])
    assert found[0] == found[1]
    monkeypatch.setattr(HoldsOut, "setup", lambda self, stage: None)  # the negative control
    module, data = make("deep")
    with pytest.raises(KeyError):
        trainer_of(tmp_path, {"callbacks": Breaks()}, Probe()).test(module, datamodule=data)
    assert float(module.held_out.loss.weight) > 0, "batches of the test are left"


# Loaders


class OfOurs(Samples):
    """Our minibatches for somebody else's module: they shuffle by themselves."""

    def train_dataloader(self) -> Any:
        from janus_pl.data import InMemoryBatches

        x, y = self.samples.tensors
        return InMemoryBatches(x, y, 4)


class OwnBatches(Samples):
    """A batch sampler that shuffles, which Lightning takes for one in data order."""

    def train_dataloader(self) -> DataLoader:
        batches = BatchSampler(RandomSampler(self.samples), 4, False)
        return DataLoader(self.samples, batch_sampler=batches)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", [OfOurs, OwnBatches])
def test_a_loader_that_cannot_overfit_is_refused(data: type, tmp_path: Path) -> None:
    module, _ = make("foreign")
    probe = Probe()
    with pytest.raises(UsageError, match=r"^trainer.overfit_batches: got 1, allowed: 0.0.*\Z"):
        trainer_of(tmp_path, {"overfit_batches": 1}, probe).fit(module, datamodule=data())
    assert probe.steps == 0
    trainer_of(tmp_path, {"max_epochs": 1}, probe).fit(module, datamodule=data())
    assert probe.steps == 5


def test_overfitting_on_data_of_ours_is_refused_for_any_module(tmp_path: Path) -> None:
    module, _ = make("foreign")
    data = DigitsPair(num_train=40, batch_size=16)
    with pytest.raises(UsageError, match=r"^trainer.overfit_batches: got 1, .*data.num_train.*\Z"):
        trainer_of(tmp_path, {"overfit_batches": 1}, Probe()).fit(module, datamodule=data)


# Anomalies


class Poison(Callback):
    """Makes an image of the second step NaN."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == 1:
            batch.x[0] = torch.nan


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("detects", [True, False])
def test_a_divergence_is_one_with_anomaly_detection_too(
    detects: bool, tmp_path: Path, rows: Any
) -> None:
    module, data = make("deep")
    options = {"detect_anomaly": detects, "callbacks": Poison()}
    with pytest.raises(DivergenceError, match=r"loss .*not finite at epoch 1, step 2,.*of step 1"):
        trainer_of(tmp_path, options, Probe()).fit(module, datamodule=data)
    assert rows[-1]["diverged"] and rows[-1]["diverged/step"] == 2
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.filterwarnings("ignore")
def test_a_divergence_is_one_line_with_anomaly_detection(capsys: pytest.CaptureFixture) -> None:
    args = [*LINES["deep"], "--trainer.detect_anomaly=true", "--model.learning_rate=1e30"]
    assert main(args) == 3
    said = capsys.readouterr().err
    (line,) = (x for x in said.splitlines() if x.startswith("error:"))
    assert "not finite at epoch" in line
    assert "Traceback (most recent call last)" not in said


def test_other_errors_of_a_backward_pass_are_errors(tmp_path: Path) -> None:
    module, data = make("deep")
    module.losses = lambda outputs, y: outputs.detach().sum(1)  # nothing to differentiate
    with pytest.raises(RuntimeError, match="does not require grad"):
        trainer_of(tmp_path, {"detect_anomaly": True}, Probe()).fit(module, datamodule=data)


# Scalers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options_of_sgd", "scale", "error"),
    [({"fused": True}, 2.0**16, TypeError), ({}, 2.0**126, DivergenceError)],
    ids=["a fused optimizer fails", "an ordinary overflow looks like a divergence"],
)
def test_what_a_scaler_of_gradients_would_do(
    options_of_sgd: Any, scale: float, error: type[Exception], tmp_path: Path
) -> None:
    """The negative control of the refusal."""
    module, data = make("deep")
    module.make_optimizer = lambda params, lr: torch.optim.SGD(params, lr, **options_of_sgd)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
    trainer = trainer_of(tmp_path, {"plugins": [plugin]}, Probe())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "check_precision", lambda *_: None)
        with pytest.raises(error):
            trainer.fit(module, datamodule=data)


@pytest.mark.parametrize("precision", [None, "32", 32, "64-true", "bf16-mixed"])
def test_precisions_that_are_kept(precision: Any) -> None:
    options.check_precision(precision)


@pytest.mark.parametrize("precision", ["16", 16, "16-mixed", "bf16-true", "fp8", ""])
def test_all_others_are_refused(precision: Any) -> None:
    with pytest.raises(UsageError, match=r"^trainer.precision: got .*\Z"):
        options.check_precision(precision)


# Packages

MISSING = """
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

class Watches(Callback):
    def __init__(self):
        import nowhere_to_be_found

class Writes(CSVLogger):
    def __init__(self):
        import nowhere_to_be_found
"""
LISTED = "[{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: x}},"
LISTED += " {class_path: of_tests.Writes}]"


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("callbacks", "of_tests.Watches", "Watches"),
        ("callbacks+", "of_tests.Watches", "Watches"),
        ("logger", "of_tests.Writes", "Writes"),
        ("logger", LISTED, "Writes"),
    ],
)
def test_a_class_without_its_package_is_one_line(
    option: str, value: str, named: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "of_tests.py").write_text(MISSING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "of_tests", raising=False)
    assert main([*LINES["deep"], f"--trainer.{option}={value}"]) == 2
    (said,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert said.startswith(f"error: trainer.{option.rstrip('+')}: got 'of_tests.{named}'")
    assert "nowhere_to_be_found" in said
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [
        "of_tests.py"
    ]


def test_trainer_is_of_lightning() -> None:
    """The table is of this class's arguments."""
    assert Trainer.__module__.startswith("lightning.pytorch")
