"""Every option, changed at a checkpoint: the live value is the config's, or it is refused."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import wandb
from PIL import Image
from training import classifier_table as any_table
from training import restoring_table as table
from training.restoring_table import Probe, Row

from janus_pl import Classifier, DeepReLUClassifier, LinearRegressor
from janus_pl.cli.main import main
from janus_pl.data import CIFAR10Pair, DigitsPair, ImageClasses, ImageFolderPair, LinearProblem
from janus_pl.deep import MLP, ResNet18
from janus_pl.run import logger
from janus_pl.training.restoring import Restoring

KEEP = {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}}
PROBE = {"class_path": "training.restoring_table.Probe"}
COMMON = [
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    f"--trainer.callbacks={json.dumps([PROBE, KEEP])}",
]
TINY = ["--model.channels=[2,3,4,4]", "--model.hidden=8", "--trainer.max_epochs=2"]
NETWORK = [*TINY, "--trainer.check_val_every_n_epoch=9", "--model.optimizer.init_args.fused=false"]
DIGITS = ["fit", "--config=quickstart.yaml", *NETWORK, "--data.num_train=100", *COMMON]
DIGITS += ["--data.batch_size=32", "--model.schedule=cosine", "--model.weight_decay=4e-3"]
IMAGES = ["fit", "--data=janus_pl.data.ImageFolderPair", "--data.root=images", *NETWORK, *COMMON]
IMAGES += ["--data.image_size=16", "--model.image_size=16", "--data.batch_size=4"]
LINE = ["fit", "--config=linear/a2.yaml", "--trainer.max_epochs=10", *COMMON]
LINE += ["--model.learning_rate=0.03", "--data.num_train=8", "--data.dim=9", "--data.outputs=3"]
LINE += ["--model.schedule=inverse_sqrt", "--data.batch_size=2"]
SCHEDULER = "--model.schedule=torch.optim.lr_scheduler."
STEPS = [f"{SCHEDULER}StepLR", "--model.schedule.init_args.step_size=1"]
STEPS += ["--model.schedule.init_args.gamma=0.5"]
ANNEALING = [f"{SCHEDULER}CosineAnnealingLR", "--model.schedule.init_args.T_max=4"]
TEN = ["fit", "--config=low_rank/digits.yaml", "--data.num_train=100", "--data.batch_size=32"]
TEN += ["--model.network.width=8", "--model.network.depth=3", "--trainer.max_epochs=2", *COMMON]
TEN += ["--trainer.check_val_every_n_epoch=9", "--model.learning_rate=0.03"]
TEN += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.init_args.momentum=0.9"]
TEN += ["--model.schedule=cosine", "--model.weight_decay=4e-3", "--data.source=digits"]
NORMED = [*TEN, "--model.normalization=weight_norm"]
BATCH_NORM = [*TEN, "--model.network.batch_norm=true", "--model.network.bias=true"]
RESNET = ["fit", "--config=low_rank/resnet18.yaml", "--data=janus_pl.data.DigitsPair", *COMMON]
RESNET += ["--data.num_train=4", "--data.batch_size=4", "--data.micro_batch_size=4"]
RESNET += ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=9"]
# The command line of each run, and the rows that change it.
RUNS: dict[str, tuple[list[str], list[Row]]] = {
    "network": (DIGITS, [*table.MODEL, *table.DATA, *table.SGD]),
    "Adam": ([*DIGITS, "--model.optimizer=torch.optim.Adam"], table.ADAM),
    "StepLR": ([*DIGITS, *STEPS], table.STEPS),
    "CosineAnnealingLR": ([*DIGITS, *ANNEALING], table.ANNEALING),
    "growing": ([*DIGITS, "--model.schedule=growing"], table.GROWING),
    "folder": (IMAGES, table.FOLDER),
    "linear": (LINE, [*table.LINEAR, *table.PROBLEM]),
    "GD": ([*LINE, "--data.batch_size=full"], table.GD),
    "any network": (NORMED, [*any_table.MODEL, *any_table.MLP, *any_table.DATA]),
    "batch norm": (BATCH_NORM, any_table.BATCH_NORM),
    "ResNet-18": (RESNET, any_table.RESNET),
}
CASES = [(run, row) for run, (_, rows) in RUNS.items() for row in rows]
NAMES = [f"{run}-{row.option}={row.value}" for run, row in CASES]


class Made(NamedTuple):
    """The folder to work in, and the run there that was broken off."""

    home: Path
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """A folder for each command line with its run, as it was before its last checkpoint."""
    homes: dict[str, Path] = {}

    def make(run: str) -> Path:
        if run not in homes:
            home = homes[run] = tmp_path_factory.mktemp("run")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(home)
                patch.setattr(sys, "argv", ["janus_pl"])
                patch.setenv("WANDB_MODE", "disabled")
                _write_images(home)
                assert main(RUNS[run][0]) == 0
                logger.finish()
            (folder,) = home.glob("runs/*/*")
            (folder / "outcome.json").unlink()
            checkpoints = folder / "checkpoints"
            (checkpoints / "previous.ckpt").replace(checkpoints / "last.ckpt")
        return homes[run]

    yield make


def _write_images(home: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            folder = home / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    shutil.copytree(home / "images", home / "elsewhere")
    np.savez(home / "other.npz", X=rng.normal(size=(9, 8)), Y=rng.normal(size=(3, 8)))


@pytest.fixture(scope="module", autouse=True)
def enabled_afterwards() -> Iterator[None]:
    """W&B keeps the mode that it was first started with: the next module's tests have another."""
    yield
    wandb.teardown()


@pytest.fixture
def made(
    kept: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Made]:
    def copy(run: str) -> Made:
        home = Path(shutil.copytree(kept(run), tmp_path / "home"))
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["janus_pl"])
        monkeypatch.setenv("WANDB_MODE", "disabled")
        (folder,) = home.glob("runs/*/*")
        return Made(home, folder)

    return copy


def near(a: Any, b: Any) -> bool:
    """Equal, floats to rounding, all the way down."""
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(near, a, b))
    return math.isclose(a, b, rel_tol=1e-12) if isinstance(a, float) else bool(a == b)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but for the lock of the run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def go_on(made: Made, run: str, row: Row, way: str) -> int:
    """Change an option at the checkpoint."""
    Probe.seen.clear()
    args = [*RUNS[run][0], f"--{row.option}={row.value}"]
    args += ["--allow_data_change"] if row.other_data else []
    if way == "last":
        return main([*args, "--ckpt_path=last", "--allow_config_change"])
    return main([*args, f"--ckpt_path={made.checkpoint}", "--run_dir=new"])


def _warned(of_data: bool) -> Any:
    """A warning of other data is expected, or none."""
    return pytest.warns(UserWarning, match="--allow_data_change") if of_data else nullcontext()


def check(made: Made, run: str, row: Row, way: str, capsys: pytest.CaptureFixture) -> None:
    before = content(made.home)
    with _warned(row.other_data):
        code = go_on(made, run, row, way)
    if row.live is None:
        (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
        assert code == 2
        assert (row.says or row.option.rpartition(".")[2]) in line
        assert Probe.seen == [], "no step was taken"
        assert content(made.home) == before, "nothing was made or written"
        return
    assert code == 0
    assert near(row.live(Probe.seen[-1]), row.expected), row


@pytest.mark.parametrize("way", ["file", "last"])
@pytest.mark.parametrize(("run", "row"), CASES, ids=NAMES)
def test_an_option_is_in_force_or_refused(
    run: str, row: Row, way: str, made: Any, capsys: pytest.CaptureFixture
) -> None:
    check(made(run), run, row, way, capsys)


# What an optimizer's checkpoint would bring back if nobody set the options of the config.
RESTORED = [
    (run, row)
    for run, row in CASES
    if row.live is not None
    and row.option.startswith(("model.optimizer.", "model.schedule.", "model.weight", "model.le"))
    and run not in ("linear", "GD")
    and row.option != f"{table.SCHEDULE}T_max"
]


@pytest.mark.parametrize("run", ["network", "Adam", "StepLR"])
def test_with_the_contract_off_the_table_fails(
    run: str, made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The negative control: Lightning alone, whose checkpoint wins over the config."""
    monkeypatch.setattr(Restoring, "put", lambda *_: None)
    monkeypatch.setattr(Restoring, "check", lambda *_: None)
    here = made(run)
    for row in (row for name, row in RESTORED if name == run):
        with pytest.raises(AssertionError, match=r"near|grad_scale"):
            check(here, run, row, "file", capsys)
        shutil.rmtree(here.home / "new")


def test_with_the_setting_off_the_check_refuses_the_first_step(
    made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Restoring, "put", lambda *_: None)
    here = made("network")
    row = Row("model.weight_decay", "0.5")
    assert go_on(here, "network", row, "file") == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert line == "error: SGD.weight_decay: got 0.004, allowed: 0.5, as the config has it"
    assert Probe.seen == []
    assert not list((here.home / "new").glob("*/*"))


# A new option cannot be forgotten

GIVEN = {"self", "params", "lr", "optimizer", "last_epoch", "options"}
# Whether files may be fetched changes no run whose files are there.
FREE = {"data.download"}
SIGNATURES: list[tuple[str, type, list[Row]]] = [
    ("model.", DeepReLUClassifier, table.MODEL),
    ("model.", LinearRegressor, [*table.LINEAR, *table.GD]),
    ("data.", DigitsPair, table.DATA),
    ("data.", DigitsPair.__mro__[1], table.DATA),
    ("data.", ImageFolderPair, table.FOLDER),
    ("data.", CIFAR10Pair, table.FOLDER),
    ("data.", LinearProblem, table.PROBLEM),
    ("model.", Classifier, any_table.MODEL),
    (any_table.NETWORK, MLP, any_table.MLP),
    (any_table.NETWORK, ResNet18, any_table.RESNET),
    ("data.", ImageClasses, any_table.DATA),
    (table.OPTIMIZER, torch.optim.SGD, table.SGD),
    (table.OPTIMIZER, torch.optim.Adam, table.ADAM),
    (table.SCHEDULE, torch.optim.lr_scheduler.StepLR, table.STEPS),
    (table.SCHEDULE, torch.optim.lr_scheduler.CosineAnnealingLR, table.ANNEALING),
]


def missing(prefix: str, kind: type, rows: list[Row]) -> set[str]:
    """The options of a class that are in no row."""
    names = inspect.signature(kind).parameters.keys() - GIVEN
    return {f"{prefix}{name}" for name in names} - {row.option for row in rows} - FREE


@pytest.mark.parametrize(("prefix", "kind", "rows"), SIGNATURES)
def test_every_option_is_in_the_table(prefix: str, kind: type, rows: list[Row]) -> None:
    assert missing(prefix, kind, rows) == set()


def test_a_new_option_would_be_missed() -> None:
    """The negative control."""

    class New(DeepReLUClassifier):
        def __init__(self, loss: str = "square", new: int = 1) -> None:
            super().__init__(loss)

    assert missing("model.", New, table.MODEL) == {"model.new"}
