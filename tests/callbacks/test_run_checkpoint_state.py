"""The best and the last of a run that goes on: what is remembered, and what is saved again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint

from janus_pl.callbacks import RunCheckpoint
from janus_pl.training.resume import ExactResume

KEEP = {"enable_checkpointing": True}
VALUES = (4.0, 3.0, 5.0, 2.0, 6.0, 2.5, 7.0)  # of the epochs, one step each


class Stop(Exception):
    """The end of a part."""


class Say(Callback):
    """A number of every epoch, in one tensor that is written over."""

    def __init__(self) -> None:
        self.value = torch.zeros(())

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.value.fill_(VALUES[trainer.current_epoch])
        trainer.callback_metrics["x"] = self.value


class StopAfter(Checkpoint):
    """Comes after all others, and breaks a run off at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            raise Stop


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and step of every checkpoint, as they are saved."""
    seen: list[tuple[str, int]] = []
    save = Trainer.save_checkpoint

    def spy(trainer: Trainer, path: Any, *args: Any) -> None:
        seen.append((Path(path).stem, trainer.global_step))
        save(trainer, path, *args)

    monkeypatch.setattr(Trainer, "save_checkpoint", spy)
    return seen


@pytest.fixture
def train(fit: Any, small_task: Any, small_loader: Any, tmp_path: Path) -> Callable[..., Any]:
    """A part of a run in a folder, and its RunCheckpoint."""

    def run(
        folder: str, epochs: int = 7, end: int = 0, goes_on: bool = False, **options: Any
    ) -> Any:
        keep = options.pop("keep", None) or RunCheckpoint(1, monitor="x")
        path = tmp_path / folder / "checkpoints" / "last.ckpt"
        ckpt_path = options.pop("ckpt_path", path if goes_on else None)
        callbacks = [Say(), keep, ExactResume(goes_on), StopAfter(end)]
        where = {"default_root_dir": tmp_path / folder, "ckpt_path": ckpt_path}
        task = small_task(learning_rate=1e-3, init_seed=options.pop("init_seed", 0))
        try:
            fit(
                task, small_loader(batch_size="full"), epochs, callbacks, **KEEP, **where, **options
            )
        except Stop:
            assert end
        return keep

    return run


def state_of(tmp_path: Path, folder: str, name: str) -> dict[str, Any]:
    path = tmp_path / folder / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, weights_only=True)


def remembered(state: dict[str, Any]) -> dict[str, Any]:
    """A state without the folder that it lies in."""
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    kept = {k: v for k, v in state.items() if k not in ("dirpath", "best_k_models")}
    kept |= {k: Path(state[k]).name for k in names}
    return kept | {"best": {Path(k).name: v for k, v in state["best_k_models"].items()}}


@pytest.mark.parametrize("ends", [(1,), (2, 3), (4,), (3, 4, 5), (6,)])
def test_in_parts_it_remembers_and_saves_what_the_whole_run_does(
    ends: tuple[int, ...], train: Any, saved: Any, tmp_path: Path
) -> None:
    whole = train("whole")
    right = list(saved)
    saved.clear()
    for number, end in enumerate([*ends, 0]):
        parts = train("parts", end=end, goes_on=number > 0)
    assert remembered(parts.state_dict()) == remembered(whole.state_dict())
    assert float(parts.best_model_score) == 2.0
    assert float(parts.current_score) == 2.0, "of the newest best one"
    assert saved == right
    for name, step in (("best", 4), ("last", 7)):
        one, other = (state_of(tmp_path, folder, name) for folder in ("parts", "whole"))
        assert one["global_step"] == other["global_step"] == step
        kept = [state["callbacks"]["RunCheckpoint"] for state in (one, other)]
        assert remembered(kept[0]) == remembered(kept[1])


def test_the_last_one_knows_the_best_of_its_own_epoch(train: Any, tmp_path: Path) -> None:
    """So that a run that goes on from it does not take a worse one for the best."""
    train("a", end=4)
    kept = state_of(tmp_path, "a", "last")["callbacks"]["RunCheckpoint"]
    assert float(kept["best_model_score"]) == 2.0
    assert [float(score) for score in kept["best_k_models"].values()] == [2.0]


def test_a_score_does_not_move_with_the_number_that_it_was(train: Any) -> None:
    """The number is one tensor that every epoch writes over."""
    keep = train("a", end=6)
    assert float(keep.best_model_score) == 2.0
    assert float(keep.current_score) == 2.0


def test_a_run_that_goes_on_after_its_last_step_has_that_one_saved(
    train: Any, saved: Any, tmp_path: Path
) -> None:
    train("a", epochs=4)
    assert saved[-1] == ("last", 4)
    before = (tmp_path / "a" / "checkpoints" / "last.ckpt").read_bytes()
    saved.clear()
    keep = train("a", epochs=4, goes_on=True)
    assert saved == []
    assert (tmp_path / "a" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert float(keep.best_model_score) == 2.0


def test_what_was_saved_elsewhere_is_saved_here(train: Any, saved: Any, tmp_path: Path) -> None:
    """Another run goes on from the end of the first one, in a folder of its own."""
    train("a", epochs=4)
    saved.clear()
    path = tmp_path / "a" / "checkpoints" / "last.ckpt"
    keep = train("b", epochs=5, ckpt_path=path)
    assert saved == [("best", 5), ("last", 5)]
    assert float(keep.best_model_score) == 6.0, "the best of its own folder"


def test_that_a_start_was_saved_is_forgotten_by_the_next_fit(train: Any, tmp_path: Path) -> None:
    train("a", epochs=3)
    keep = train("a", epochs=4, goes_on=True)
    assert keep._starts_saved
    path = tmp_path / "bare.ckpt"
    bare = state_of(tmp_path, "a", "last")
    del bare["callbacks"]["RunCheckpoint"]
    torch.save(bare, path)
    train("a", epochs=5, ckpt_path=path, keep=keep)
    assert not keep._starts_saved


def test_a_second_fit_with_the_same_callback_saves_its_own_last(train: Any, tmp_path: Path) -> None:
    keep = RunCheckpoint(10, monitor="x")
    train("a", epochs=3, keep=keep)
    first = state_of(tmp_path, "a", "last")["state_dict"]
    train("a", epochs=3, keep=keep, init_seed=5)
    second = state_of(tmp_path, "a", "last")["state_dict"]
    assert not all(torch.equal(first[k], second[k]) for k in first)
