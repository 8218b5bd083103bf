"""What is to be seen of an argument of `Trainer` after a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.plugins import TorchCheckpointIO
from training.trainer_fits import STEPS, Seen

Effect = Callable[[Seen], None]


def same(seen: Seen) -> None:
    """The rows are those without the option, number by number."""
    assert [{**row} for row in seen.rows] == seen.plain


def epochs(*expected: float) -> Effect:
    def check(seen: Seen) -> None:
        assert [row["epoch"] for row in seen.rows] == list(expected)

    return check


def ends_at(step: int) -> Effect:
    """The run takes so many steps, and its last row is of the last."""

    def check(seen: Seen) -> None:
        assert seen.trainer.global_step == step == seen.rows[-1]["trainer/global_step"]
        assert seen.rows[-1]["epoch"] == step / STEPS[seen.kind]

    return check


def flag(name: str, expected: Any) -> Effect:
    def check(seen: Seen) -> None:
        assert seen.probe.flags[name] == expected
        assert len(seen.rows) == len(seen.plain)

    return check


def saw(what: str, count: int) -> Effect:
    def check(seen: Seen) -> None:
        assert seen.probe.seen[what] == count

    return check


def has(kind: type, there: bool) -> Effect:
    def check(seen: Seen) -> None:
        assert any(isinstance(c, kind) for c in seen.trainer.callbacks) == there
        same(seen)

    return check


def both(*effects: Effect) -> Effect:
    def check(seen: Seen) -> None:
        for effect in effects:
            effect(seen)

    return check


def validated(*steps: int, on_rows: tuple[float, ...]) -> Effect:
    """Validations after these steps; `own/val` on the rows of these epochs alone."""

    def check(seen: Seen) -> None:
        assert seen.probe.validated == list(steps)
        assert [row["epoch"] for row in seen.rows if "own/val" in row] == list(on_rows)
        kept = [m for m in seen.trainer.logger.metrics if "own/val" in m]
        assert len(kept) >= len(steps), "within an epoch it is a row of the logger alone"

    return check


def stops_early(seen: Seen) -> None:
    """The clock ran out: fewer epochs, and the last row is of the last step."""
    assert seen.rows[0]["epoch"] == 0
    assert 0 < seen.rows[-1]["epoch"] < seen.plain[-1]["epoch"]
    if seen.kind != "linear":
        assert seen.rows[-1]["trainer/global_step"] == seen.trainer.global_step


def whole_rows_of_val(seen: Seen) -> None:
    assert [row["epoch"] for row in seen.rows if "val/loss" in row] == [2]
    kept = [{k: v for k, v in row.items() if not k.startswith("val/")} for row in seen.plain]
    assert [{k: v for k, v in r.items() if not k.startswith("val/")} for r in seen.rows] == kept


def no_val(seen: Seen) -> None:
    assert seen.probe.seen["val"] == 0
    assert not any(key.startswith("val/") for row in seen.rows for key in row)
    assert [row["epoch"] for row in seen.rows] == [row["epoch"] for row in seen.plain]


def try_run(count: int) -> Effect:
    """So many batches, and no number of a split that was not seen whole."""

    def check(seen: Seen) -> None:
        taken = count if seen.kind != "linear" else STEPS["linear"]
        assert seen.rows[-1]["trainer/global_step"] == taken
        assert not any(key.startswith("val/") for row in seen.rows for key in row)

    return check


def same_batches(seen: Seen) -> None:
    first, *others = seen.probe.batches
    assert len(first) == 1 and len(others) == 2
    assert all(torch.equal(other[0], first[0]) for other in others)


def other_batches(seen: Seen) -> None:
    """The negative control: a limit alone takes other batches in each epoch."""
    first, *others = seen.probe.batches
    assert len(first) == 1
    assert not any(torch.equal(other[0], first[0]) for other in others)


def clipped(norm: float | None = None, value: float | None = None) -> Effect:
    def check(seen: Seen) -> None:
        assert len(seen.probe.gradients) == 15
        if norm is not None:
            assert all(abs(float(g.norm()) - norm) < 1e-3 * norm for g in seen.probe.gradients)
        if value is not None:
            assert all(g.abs().max() == torch.tensor(value) for g in seen.probe.gradients)

    return check


def checkpoints(there: bool) -> Effect:
    def check(seen: Seen) -> None:
        assert bool([*seen.folder.rglob("*.ckpt")]) == there
        assert seen.trainer.default_root_dir == str(seen.folder)
        assert len(seen.rows) == len(seen.plain)

    return check


def in_double(seen: Seen) -> None:
    assert {p.dtype for p in seen.module.parameters()} == {torch.float64}
    assert len(seen.rows) == len(seen.plain)


def asked_for_data(count: int) -> Effect:
    def check(seen: Seen) -> None:
        assert seen.data.asked == count
        assert len(seen.rows) == len(seen.plain)

    return check


def inference(expected: bool) -> Effect:
    def check(seen: Seen) -> None:
        # Within a fit Lightning validates without it, whatever the option.
        assert (True in seen.probe.inference) == expected

    return check


def profiled(seen: Seen) -> None:
    assert seen.trainer.profiler.recorded_durations["run_training_epoch"]
    same(seen)


def has_strategy(kind: type) -> Effect:
    def check(seen: Seen) -> None:
        assert isinstance(seen.trainer.strategy, kind)
        assert [row["epoch"] for row in seen.rows] == [row["epoch"] for row in seen.plain]

    return check


def steps_logged(count: int) -> Effect:
    def check(seen: Seen) -> None:
        kept = [m for m in seen.trainer.logger.metrics if "step/loss" in m]
        assert len(kept) == count

    return check


def graphs(count: int) -> Effect:
    def check(seen: Seen) -> None:
        assert seen.trainer.logger.graphs == count

    return check


def recorded(seen: Seen) -> None:
    """The folder of the run holds a row of each epoch."""
    (file,) = seen.folder.rglob("rows.jsonl")
    assert len(file.read_text().splitlines()) == len(seen.plain)


def of_loggers(*kinds: type) -> Effect:
    def check(seen: Seen) -> None:
        assert [type(each) for each in seen.trainer.loggers] == list(kinds)

    return check


def uses_io(seen: Seen) -> None:
    assert type(seen.trainer.strategy.checkpoint_io) is TorchCheckpointIO
    assert [*seen.folder.rglob("*.ckpt")]


def has_timer(seen: Seen) -> None:
    assert any(isinstance(c, Timer) for c in seen.trainer.callbacks)
    same(seen)


def ends_after(batches: int) -> Effect:
    """So many batches in each of three epochs."""

    def check(seen: Seen) -> None:
        assert [row["trainer/global_step"] for row in seen.rows] == [k * batches for k in range(4)]

    return check


def steps(count: int) -> Effect:
    def check(seen: Seen) -> None:
        assert seen.trainer.global_step == count
        assert len(seen.rows) == len(seen.plain)

    return check


def in_other_folder(seen: Seen) -> None:
    assert [*(seen.folder / "other").rglob("*.ckpt")] == [*seen.folder.rglob("*.ckpt")] != []
