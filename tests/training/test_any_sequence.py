"""After any sequence of fits, trials and changes each row is of the weights of its checkpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
)
from lightning.pytorch.loggers import CSVLogger
from training.callbacks_table import Backed
from training.foreign import Samples
from training.one_set import HOOKS, Changes, Tries, loaders, looks, weights_of, wrong

import janus_pl.training.row
from janus_pl.callbacks import LayerRank
from janus_pl.errors import UsageError
from janus_pl.training.held import HeldWeights

WAYS = ("data", "assigned", "in place", "state")


class Fit(NamedTuple):
    """A fit with a callback that changes weights in a hook, with trials, with early stopping."""

    hook: str | None = None
    way: str = "data"
    tries: bool = False
    stops: bool = False
    epochs: int = 2


class Keeps(Checkpoint):
    """Saves a checkpoint of every row, the first one too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / "0.ckpt")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch + 1}.ckpt")


def trainer_of(folder: Path, callbacks: Any, epochs: int, keeps: bool = True) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=[*callbacks, Keeps(folder)] if keeps else callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=keeps,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


class Life:
    """A task, its data, and the rows of its fits beside the weights of their checkpoints."""

    def __init__(self, make: Any, small_loader: Any, size: Any, patch: pytest.MonkeyPatch) -> None:
        self.make = lambda: make(weight_decay=0.01, init_scale=0.3).double()
        self.task = self.make()
        self.train, self.val = loaders(small_loader, size)
        self.rows: list[dict[str, Any]] = []
        self.pairs: list[Any] = []
        keep = lambda trainer, row: self.rows.append(dict(row))  # noqa: E731
        patch.setattr(janus_pl.training.row, "write_row", keep)

    def go(self, step: Fit | str, folder: Path) -> None:
        if isinstance(step, Fit):
            self.fit(step, folder)
        elif step == "validate":
            trainer_of(folder, looks(), 1, False).validate(self.task, self.val, verbose=False)
        elif step == "load":
            self.task.load_state_dict(self.make().state_dict())
        else:
            self.tune(folder)

    def fit(self, step: Fit, folder: Path) -> None:
        given = [
            *looks(),
            *([Changes(step.hook, step.way)] if step.hook else []),
            *([Tries()] if step.tries else []),
            *([EarlyStopping("train/loss_running", 1e9, 1, False)] if step.stops else []),
        ]
        self.rows.clear()
        trainer_of(folder, given, step.epochs).fit(self.task, self.train, self.val)
        assert [row["epoch"] for row in self.rows] == [*range(step.epochs + 1)]
        for row in self.rows:
            file = torch.load(folder / f"{row['epoch']}.ckpt", weights_only=True)
            saved = self.make()
            saved.load_state_dict(file["state_dict"])
            self.pairs.append((row, weights_of(saved)))

    def tune(self, folder: Path) -> None:
        """A tuner is refused, and leaves everything as it was."""
        held = HeldWeights(self.task)
        given = [*looks(), LearningRateFinder(num_training_steps=4)]
        with pytest.raises(UsageError, match="LearningRateFinder"):
            trainer_of(folder, given, 2, False).fit(self.task, self.train, self.val)
        assert held.unchanged()

    def wrong(self) -> list[str]:
        return wrong(self.pairs, self.train, self.val)


FITS = st.builds(
    Fit,
    hook=st.sampled_from((None, *HOOKS)),
    way=st.sampled_from(WAYS),
    tries=st.booleans(),
    stops=st.booleans(),
    epochs=st.integers(1, 2),
)
STEPS = st.lists(FITS | st.sampled_from(["validate", "load", "tune"]), min_size=1, max_size=4)
ANY = settings(max_examples=25, suppress_health_check=[*HealthCheck])


@pytest.mark.filterwarnings("ignore:.*left out. a callback changed the weights")
@pytest.mark.parametrize("size", [8, "full"], ids=["SGD", "GD"])
@ANY
@given(steps=STEPS)
def test_each_row_is_of_the_weights_of_its_checkpoint(
    size: Any, small_task: Any, small_loader: Any, steps: list[Fit | str]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
        life = Life(small_task, small_loader, size, patch)
        for number, step in enumerate([*steps, Fit()]):
            folder = Path(home, str(number))
            folder.mkdir()
            life.go(step, folder)
        assert life.wrong() == []


@pytest.mark.parametrize("size", [8, "full"], ids=["SGD", "GD"])
def test_a_pass_that_is_kept_too_long_is_noticed(
    size: Any,
    small_task: Any,
    small_loader: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The fault of before: numbers of other weights at the same step."""
    monkeypatch.setattr(HeldWeights, "unchanged", lambda held: True)
    life = Life(small_task, small_loader, size, monkeypatch)
    life.go(Fit(tries=True), tmp_path)
    assert len(life.wrong()) >= 4


@pytest.mark.filterwarnings("ignore")  # Lightning's of tuners
@pytest.mark.parametrize("tuner", ["rate", "size", None])
@pytest.mark.parametrize("hook", [None, "on_train_epoch_end", "on_train_batch_end"])
def test_rows_of_somebody_elses_module_are_of_their_checkpoints_after_a_tuner(
    hook: str | None, tuner: str | None, rows: Any, tmp_path: Path
) -> None:
    class Turns(Changes):
        @torch.no_grad()
        def change(self, trainer: Any, module: Any, *_: Any) -> None:
            module.backbone[0].weight[0] *= 1.5

    tuners: dict[str | None, Any] = {
        "rate": lambda: [LearningRateFinder(num_training_steps=30, early_stop_threshold=None)],
        "size": lambda: [BatchSizeFinder(steps_per_trial=1, init_val=5, max_trials=1)],
        None: list,
    }
    torch.manual_seed(0)
    module, data = Backed(), Samples()
    for number in range(2):
        folder = tmp_path / str(number)
        changes = [Turns(hook, "data")] if hook else []
        given = [LayerRank(1), *changes, *tuners[tuner]()]
        rows.clear()
        trainer_of(folder, given, 2).fit(module, datamodule=data)
        assert [row["epoch"] for row in rows] == [0, 1, 2]
        for row in rows:
            state = torch.load(folder / f"{row['epoch']}.ckpt", weights_only=True)["state_dict"]
            for layer, key in (("backbone_0", "backbone.0.weight"), ("head", "head.weight")):
                sigma = torch.linalg.svdvals(state[key].double())
                expected = float(sigma.square().sum() / sigma[0] ** 2)
                assert row[f"stable_rank/{layer}"] == pytest.approx(expected, rel=1e-6)
        trainer_of(folder, [LayerRank(1)], 1, False).validate(module, datamodule=data)
