"""The checks of the pretended accelerator on a real one: waits, values, resuming, a CUDA graph."""

from __future__ import annotations

import signal
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from pretended import checks
from pretended.runs import Report, Request, cuda_waits, run
from pretended.test_runs_on_it import CASES, QUICKSTART, QUIET
from pretended.watch import Watch
from training.crashing import arm

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
# Other kernels in float64. Numbers that are small differences of larger ones have fewer digits.
TOLERANCE = 1e-7
COMPARED = ("train/", "val/", "rho", "margin/std", "velocity/", "effective_rank/", "stable_rank/")


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k.startswith(COMPARED)} for row in rows]


def started(args: Any, folder: Path, accelerator: str) -> Report:
    folder.mkdir()
    report = run(Request(folder, [*args, "--trainer.precision=64-true"], accelerator=accelerator))
    assert (report.code, report.error) == (0, "")
    return report


@on_cuda
@pytest.mark.parametrize("name", CASES)
def test_a_run_is_that_of_the_cpu_and_nobody_waits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    right = started(case.args, tmp_path / "cpu", "cpu")
    found = started(case.args, tmp_path / "cuda", "gpu")
    assert checks.not_numbers(found.rows) == []
    assert checks.differences(compared(found.rows), compared(right.rows), TOLERANCE) == []
    assert checks.waits_within_steps(found.watch) == []
    layers = len([key for key in right.rows[0] if key.startswith("rank/")]) or 6
    # PyTorch's warnings do not tell a solver from another wait.
    most = {name: checks.most_waits(name, layers) for name in found.watch.looks}
    waits = checks.waits_of_looks(found.watch)
    assert {k: n for k, n in waits.items() if n > most[k]} == {}


@on_cuda
def test_stopped_by_sigterm_and_resumed_it_is_the_same_run(tmp_path: Path) -> None:
    args = [*QUICKSTART, *QUIET, "--trainer.max_epochs=3", "--trainer.deterministic=true"]
    cut = tmp_path / "cut"
    cut.mkdir()
    right = started(args, tmp_path / "whole", "gpu")
    args = [*args, "--trainer.precision=64-true"]
    stopped = run(Request(cut, args, before=partial(arm, "term:5"), accelerator="gpu"))
    assert stopped.code == 128 + signal.SIGTERM
    resumed = run(Request(cut, [*args, "--ckpt_path=last"], accelerator="gpu"))
    assert (resumed.code, resumed.error) == (0, "")
    assert resumed.rows == right.rows


class Capture(Callback):
    """Captures a training step into a CUDA graph once the run is warm, and takes it once.

    Attributes:
        moved: Whether the captured step changed the weights; None before it is taken.
    """

    WARM = 3

    def __init__(self) -> None:
        self.moved: bool | None = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx != self.WARM:
            return
        held = batch._replace(x=batch.x.clone(), y=batch.y.clone())
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            pl_module.training_step(held, batch_idx)
        before = [p.detach().clone() for p in pl_module.parameters()]
        graph.replay()
        now = [p.detach() for p in pl_module.parameters()]
        self.moved = not all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
        assert all(bool(p.isfinite().all()) for p in now)


@on_cuda
def test_a_step_can_be_captured(small_task: Any, small_loader: Any, fit: Any) -> None:
    capture = Capture()
    fit(small_task(), small_loader(n=64), 1, [capture], accelerator="gpu", devices=1)
    assert capture.moved is True


def test_a_warning_of_a_wait_is_noted_and_others_are_not() -> None:
    watch = Watch()
    with cuda_waits(watch, mode=lambda name: None):
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        with pytest.raises(UserWarning, match="another"):  # as the tests' own filters say
            warnings.warn("another", stacklevel=1)
    assert [wait.why for wait in watch.waits] == ["wait"]
    assert watch.waits[0].place.startswith("tests/gpu/test_runs_on_cuda.py:")
