"""The same objects fitted again: nothing of an earlier fit is left, however that one ended.

The second fit is compared with that of new objects with the same weights: rows, weights, states.
And of one fit, every number of an epoch is of that epoch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lockstep import Lanes, LaneStrategy
from training.test_going_on import Poison, SaveAt, Stop, observers, plain_sgd, same

from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerVelocity, MarginHistogram, RankBound, UpdateSplit
from janus_pl.data import LinearProblem
from janus_pl.deep.losses import LOSSES
from janus_pl.errors import DivergenceError, TheoremError
from janus_pl.run.rows import plain_row
from janus_pl.training.resume import ExactResume

Rows = list[dict[str, Any]]


def patient() -> EarlyStopping:
    """Never stops, and holds the row of an epoch back until the next one begins."""
    return EarlyStopping("train/loss_running", patience=100, verbose=False)


def looking() -> list[Callback]:
    """All that look, but for UpdateSplit, of which a test of its own knows more."""
    return [callback for callback in observers() if not isinstance(callback, UpdateSplit)]


class Start(Callback):
    """What a checkpoint would hold of an epoch before the first step."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        epoch, row = pl_module._epoch, pl_module.row.state()
        self.held = {"forwards": [*epoch.forwards], "eta_t": epoch.eta_t, "row": row}


class Lives:
    """What a fit of a classifier may leave behind."""

    def __init__(self, fit: Any, small_task: Any, small_loader: Any, tmp_path: Path) -> None:
        self.fit, self.task, self.loader, self.folder = fit, small_task, small_loader, tmp_path

    def whole(self, task: Any, looks: list[Callback]) -> None:
        self.fit(task, self.loader(), 2, looks)

    def descent(self, task: Any, looks: list[Callback]) -> None:
        self.fit(task, self.loader(batch_size="full"), 2, looks)

    def broken_off(self, task: Any, looks: list[Callback]) -> None:
        save = SaveAt(4, self.folder / "a.ckpt")
        with pytest.raises(Stop):
            self.fit(task, self.loader(), 5, [*looks, patient(), save], enable_checkpointing=True)

    def before_its_row(self, task: Any, looks: list[Callback]) -> None:
        """At the end of an epoch whose row waits for the next one."""
        save = SaveAt(6, self.folder / "a.ckpt")
        with pytest.raises(Stop):
            self.fit(task, self.loader(), 5, [*looks, patient(), save], enable_checkpointing=True)
        assert task.row.waits

    def resumed(self, task: Any, looks: list[Callback]) -> None:
        """And broken off again in the same epoch."""
        self.broken_off(task, looks)
        path, save = self.folder / "a.ckpt", SaveAt(5, self.folder / "b.ckpt")
        options = {"enable_checkpointing": True, "ckpt_path": path}
        with pytest.raises(Stop):
            self.fit(task, self.loader(), 5, [*looks, patient(), save], **options)

    def diverged(self, task: Any, looks: list[Callback]) -> None:
        with pytest.raises(DivergenceError):
            self.fit(task, self.loader(), 5, [*looks, Poison(4)])

    def one_of_two(self, task: Any, looks: list[Callback]) -> None:
        """A rank of two."""
        lanes = Lanes(2)

        def train(rank: int) -> None:
            mine = (task, looks) if rank == 0 else (self.task(), looking())
            self.fit(mine[0], self.loader(), 1, mine[1], strategy=LaneStrategy(lanes, rank))

        lanes.run(train)
        assert not task.splits_epochs


LIVES = [name for name in vars(Lives) if not name.startswith("_")]


@pytest.fixture
def lives(fit: Any, small_task: Any, small_loader: Any, tmp_path: Path) -> Lives:
    return Lives(fit, small_task, small_loader, tmp_path)


def weights(task: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in task.parameters()]


SECOND = [("looks", life) for life in LIVES]
AFTER_ERRORS = ("broken_off", "before_its_row", "resumed", "diverged")
SECOND += [("tail bound", life) for life in ("whole", "descent", *AFTER_ERRORS)]


@pytest.mark.parametrize(("what", "life"), SECOND)
def test_a_second_fit_of_a_classifier_and_its_callbacks_is_a_first_one(
    what: str, life: str, lives: Lives, fit: Any, small_task: Any, small_loader: Any, rows: Rows
) -> None:
    bound = what == "tail bound"
    options = {"optimizer": plain_sgd, "weight_decay": 0.3} if bound else {}
    make: Callable[[], list[Callback]] = (lambda: [RankBound(window=4)]) if bound else looking
    used, looks = small_task(**options), make()
    getattr(lives, life)(used, looks)
    fresh = small_task(**options)
    fresh.load_state_dict(used.state_dict())
    ends: list[tuple[Rows, list[torch.Tensor], list[Any], float]] = []
    held_out = small_loader(n=6, batch_size=4, order="sequential")
    for task, callbacks in ((used, looks), (fresh, make())):
        rows.clear()
        start = Start()
        used_now = [*callbacks, patient(), start]
        loader = small_loader(n=12, batch_size=5)
        fit(task, loader, 3, used_now, held_out)
        assert task.splits_epochs
        assert start.held["forwards"] == [] and start.held["eta_t"] == 0
        states = [start.held, *(callback.state_dict() for callback in callbacks)]
        ends.append(([plain_row(row) for row in rows], weights(task), states, task._epoch.eta_t))
    again, first = ends
    assert [row["epoch"] for row in again[0]] == [0, 1, 2, 3]
    for one, other in zip(again[0], first[0], strict=True):
        assert one.keys() == other.keys()
        assert [key for key in one if not same(one[key], other[key])] == []
    assert same(again[1], first[1])
    assert same(again[2], first[2])
    assert again[3] == first[3]


def test_the_first_row_of_a_second_fit_has_no_shares(
    fit: Any, small_task: Any, small_loader: Any, rows: Rows
) -> None:
    split = UpdateSplit(1)
    for _ in range(2):
        rows.clear()
        fit(small_task(), small_loader(), 1, [split])
        assert [any(key.startswith("update/") for key in row) for row in rows] == [False, True]


@pytest.mark.parametrize("error", [False, True])
def test_hooks_of_a_fit_are_gone_after_it(
    error: bool, fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    """And every part of the module is in the mode that it was in."""
    task = small_task(optimizer=plain_sgd)
    looks = [RankBound(), *observers()]
    save = SaveAt(2 if error else None, tmp_path / "a.ckpt")
    for _ in range(2):
        with pytest.raises(Stop) if error else nullcontext():
            fit(task, small_loader(), 1, [*looks, save], enable_checkpointing=True)
        assert all(module.training for module in task.modules())
        assert [m for m in task.modules() if m._forward_hooks or m._forward_pre_hooks] == []


def test_a_breach_of_an_earlier_fit_is_not_one_of_the_next(
    fit: Any, small_task: Any, small_loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = RankBound()
    options = {"optimizer": plain_sgd, "normalization": "none", "init_scale": 0.8}
    loader = small_loader(n=3, batch_size=1)
    with monkeypatch.context() as patch:
        patch.setattr("janus_pl.deep.answers.decay_of", lambda *_: ("coupled", 250.0))
        with pytest.raises(TheoremError):
            fit(small_task(learning_rate=0.003, **options), loader, 1, [bound])
    fit(small_task(learning_rate=0.003, **options), loader, 2, [bound])


def test_a_breach_is_still_one_when_the_run_goes_on_and_the_first_one_is_told(
    fit: Any, small_task: Any, small_loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was found at the end of an epoch, saved, and the process was killed."""
    options = {"optimizer": plain_sgd, "normalization": "none", "init_scale": 0.8}
    make = lambda: small_task(learning_rate=0.003, **options)  # noqa: E731
    loader = small_loader(n=3, batch_size=1)
    save = SaveAt(3, tmp_path / "a.ckpt")
    bound = RankBound()
    with monkeypatch.context() as patch:
        patch.setattr("janus_pl.deep.answers.decay_of", lambda *_: ("coupled", 250.0))
        with pytest.raises(Stop):
            fit(make(), loader, 4, [bound, save], enable_checkpointing=True)
    again = RankBound()
    with pytest.raises(TheoremError, match=r"broken in \w+ at step 3") as caught:
        fit(make(), loader, 4, [again], ckpt_path=tmp_path / "a.ckpt")
    first = bound._broken
    assert str(caught.value) == first
    # The breach that came first keeps its place, whatever comes after it.
    bound._broken = "the first one"
    with monkeypatch.context() as patch:
        patch.setattr("janus_pl.deep.answers.decay_of", lambda *_: ("coupled", 250.0))
        trainer: Any = type("T", (), {"global_step": 9, "world_size": 1, "global_rank": 0})()
        module: Any = type("M", (), {"device": torch.device("cpu")})()
        bound.observe(trainer, module)
    assert bound._broken == "the first one"


# Every number of an epoch is of that epoch


class Steps(Callback):
    """What every step of every epoch says, by itself."""

    def __init__(self) -> None:
        self.norms: dict[int, list[Any]] = {}
        self.buffers: dict[str, dict[str, torch.Tensor]] = {}
        self.shares: dict[int, list[Any]] = {}
        self.losses: dict[int, list[float]] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        losses = LOSSES[module.loss_name](module(batch.x), batch.y).detach()
        self.losses.setdefault(trainer.current_epoch + 1, []).extend(losses.tolist())

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        epoch = trainer.current_epoch + 1
        self.norms.setdefault(epoch, []).append(module.velocity_norms().tolist())
        decay, momentum = (optimizer.param_groups[0][k] for k in ("weight_decay", "momentum"))
        assert (decay, momentum) == (1e-3, 0.9)
        learned, columns = module.parametrization, []
        for (layer, p), own in zip(learned.weights.items(), learned.gradient_parts(), strict=True):
            # Each part's momentum by itself; together they are the optimizer's.
            parts = own | {"decay": decay * p.detach()}
            before = self.buffers.get(layer)
            if before is not None:
                parts = {name: momentum * before[name] + part for name, part in parts.items()}
            self.buffers[layer] = parts
            columns.append([float(parts[k].norm()) for k in ("gradient", "decay", "projection")])
        sizes = np.array(columns).T
        self.shares.setdefault(epoch, []).append(sizes / sizes.sum(0))


def test_means_are_over_the_steps_of_their_own_epoch(
    fit: Any, small_task: Any, small_loader: Any, rows: Rows
) -> None:
    """Also where not every epoch is looked at."""
    task, steps = small_task(init_scale=0.8, learning_rate=0.003).double(), Steps()
    looks = [LayerVelocity(), UpdateSplit(2)]
    fit(task, small_loader(dtype=torch.float64), 5, [steps, *looks])
    layers = list(task.directions())
    for row in rows[1:]:
        epoch = row["epoch"]
        assert len(steps.norms[epoch]) == 3
        norms = np.mean(steps.norms[epoch], axis=0)
        assert [row[f"velocity/{k}"] for k in layers] == pytest.approx(norms, rel=1e-12)
        assert row["train/loss_running"] == pytest.approx(np.mean(steps.losses[epoch]), rel=1e-12)
        assert (f"update/decay/{layers[0]}" in row) == (epoch in (1, 2, 4, 5))
        for part, shares in zip(
            ("gradient", "decay", "projection"), np.mean(steps.shares[epoch], axis=0), strict=True
        ):
            if epoch != 3:
                found = [row[f"update/{part}/{k}"] for k in layers]
                assert found == pytest.approx(shares, rel=1e-12)
    first, last = (np.mean(steps.norms[epoch], axis=0) for epoch in (1, 5))
    assert not np.allclose(first, last, rtol=1e-3), "epochs that say something else"


@pytest.mark.parametrize("sanity", [0, 1, -1])
def test_held_out_numbers_are_of_the_epochs_weights_and_all_of_the_split(
    sanity: int, fit: Any, small_task: Any, small_loader: Any, rows: Rows
) -> None:
    """A sanity check before training leaves nothing in them."""
    held_out = small_loader(n=7, batch_size=3, order="sequential", dtype=torch.float64)
    expected: list[tuple[float, float]] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            if not trainer.sanity_checking:
                outputs = module(held_out.x)
                losses = LOSSES["square"](outputs, held_out.y)
                margins = module.output_margins(outputs, held_out.y)
                expected.append((float(losses.mean()), float((margins <= 0).double().mean())))

    task = small_task(init_scale=0.8, learning_rate=0.003).double()
    options = {"val_loader": held_out, "num_sanity_val_steps": sanity}
    fit(task, small_loader(dtype=torch.float64), 3, [Look()], **options)
    assert "val/loss" not in rows[0]
    found = [(row["val/loss"], row["val/error"]) for row in rows[1:]]
    # The means are kept in float32.
    assert found == [pytest.approx(pair, rel=1e-6) for pair in expected]
    assert len({loss for loss, _ in found}) == 3


# What a checkpoint has is a copy


def test_what_a_checkpoint_has_does_not_move_when_the_run_goes_on(
    fit: Any, small_task: Any, small_loader: Any
) -> None:
    """Some plugins write a checkpoint later, while training goes on."""
    kept: list[tuple[dict[str, Any], str]] = []

    def shown(checkpoint: dict[str, Any]) -> str:
        parts = {k: checkpoint[k] for k in ("row", "eta_t", "callbacks", "exact_resume")}
        return repr(parts) + repr([len(forward[0]) for forward in checkpoint["forwards"]])

    class Keep(Checkpoint):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint()
            kept.append((checkpoint, shown(checkpoint)))

    looks = [*observers(), patient(), ExactResume(), Keep()]
    fit(small_task(), small_loader(), 3, looks, enable_checkpointing=True)
    assert len(kept) == 9
    assert [shown(checkpoint) for checkpoint, _ in kept] == [before for _, before in kept]


# Linear regression

SMALL = {"num_train": 7, "dim": 9, "outputs": 3}


class StopAt(Callback):
    """Stops the run at a look, or breaks it off after a piece."""

    def __init__(self, looks: int = 0, piece: int = 0) -> None:
        self.looks, self.piece = looks, piece

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.looks -= 1
        trainer.should_stop |= self.looks == 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if self.piece and pl_module.completed() >= self.piece:
            raise Stop


def linear_lives(fit: Any, folder: Path) -> dict[str, Callable[[Any, list[Callback]], None]]:
    """What a fit of a regressor may leave behind."""
    data = LinearProblem(**SMALL, order="shuffle", seed=4)
    path = folder / "linear.ckpt"

    def stopped(module: Any, looks: list[Callback]) -> None:
        fit(module, data, 60, [*looks, StopAt(looks=6)]).save_checkpoint(path)

    def broken_off(module: Any, looks: list[Callback]) -> None:
        with pytest.raises(Stop):
            fit(module, data, 60, [*looks, patient_of("train/loss"), StopAt(piece=29)])

    def before_its_row(module: Any, looks: list[Callback]) -> None:
        """At a look whose row waits for the next stretch."""

        class End(Checkpoint):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                if pl_module.completed() > 9:
                    raise Stop

        extra = [patient_of("train/loss"), End()]
        with pytest.raises(Stop):
            fit(module, data, 60, [*looks, *extra], enable_checkpointing=True)
        assert module.row.waits

    def resumed(module: Any, looks: list[Callback]) -> None:
        stopped(module, looks)
        fit(module, data, 60, looks, ckpt_path=path)

    def predicted(module: Any, looks: list[Callback]) -> None:
        trainer = fit(module, data, 10, looks)
        trainer.predict(module, datamodule=data, ckpt_path=None)
        assert trainer.max_epochs == 10

    return {
        "whole": lambda module, looks: fit(module, data, 30, looks) and None,
        "stopped": stopped,
        "broken off": broken_off,
        "before its row": before_its_row,
        "resumed": resumed,
        "predicted": predicted,
    }


LINEAR_LIVES = ["whole", "stopped", "broken off", "before its row", "resumed", "predicted"]


def patient_of(monitor: str) -> EarlyStopping:
    return EarlyStopping(monitor, patience=10_000, verbose=False)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("life", LINEAR_LIVES)
def test_a_second_fit_of_a_regressor_and_its_callbacks_is_a_first_one(
    life: str, early: bool, fit: Any, rows: Rows, tmp_path: Path
) -> None:
    def make() -> list[Callback]:
        return [MarginHistogram(2), LayerVelocity(2, full_every_n_epochs=3)]

    options: dict[str, Any] = {"learning_rate": 0.05, "weight_decay": [0.01, 0.1]}
    used, looks = LinearRegressor(**options), make()
    linear_lives(fit, tmp_path)[life](used, looks)
    ends = []
    for module, callbacks in ((used, looks), (LinearRegressor(**options), make())):
        rows.clear()
        extra = [patient_of("train/loss")] if early else []
        trainer = fit(module, LinearProblem(**SMALL, seed=8), 40, [*callbacks, *extra])
        assert trainer.max_epochs == 40
        states = [callback.state_dict() for callback in callbacks]
        ends.append(([plain_row(row) for row in rows], weights(module), states))
    again, first = ends
    assert [row["epoch"] for row in again[0]] == [row["epoch"] for row in first[0]]
    for one, other in zip(again[0], first[0], strict=True):
        assert one.keys() == other.keys()
        assert [key for key in one if not same(one[key], other[key])] == []
    assert "replicas" in again[0][-1] and "replicas" not in again[0][-2]
    assert same(again[1], first[1])
    assert same(again[2], first[2])


@pytest.mark.parametrize("error", [False, True])
def test_a_trainer_keeps_its_length(error: bool, tmp_path: Path) -> None:
    """A notebook goes on with the trainer that it has interrupted."""
    trainer = Trainer(
        max_epochs=20,
        accelerator="cpu",
        logger=False,
        callbacks=[StopAt(piece=9 if error else 0)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(Stop) if error else nullcontext():
        trainer.fit(LinearRegressor(learning_rate=0.05), datamodule=LinearProblem(**SMALL))
    assert trainer.max_epochs == 20


def test_another_trainer_that_predicts_keeps_its_own_length(fit: Any, tmp_path: Path) -> None:
    module, data = LinearRegressor(learning_rate=0.05), LinearProblem(**SMALL)
    fit(module, data, 20)
    other = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    other.predict(module, datamodule=data)
    assert other.max_epochs == 3
