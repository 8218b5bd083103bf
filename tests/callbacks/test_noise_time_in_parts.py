"""A window that a checkpoint cuts: the run that goes on has the numbers of the whole one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from callbacks_of_time import of_noise
from linear.test_regressor_state import SaveAt
from training.test_going_on import Case, Stop, run, same  # noqa: F401

from janus_pl import LinearRegressor
from janus_pl.callbacks import NoiseTime
from janus_pl.data import LinearProblem
from janus_pl.training.resume import ExactResume

Rows = list[dict[str, Any]]


class Forgetful(NoiseTime):
    """The control: the sums that a checkpoint brings are lost."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"windows": {}})


class Anew(NoiseTime):
    """Another control: a window that goes on begins anew at the checkpoint."""

    def on_train_start(self, *given: Any) -> None:
        for window in self._windows.values():
            for one in window.values():
                state = one.state()
                one.load(state | {name: 0 * state[name] for name in ("sum", "weighted", "squares")})
        super().on_train_start(*given)


@pytest.mark.parametrize("batch_size", [8, "full"])
@pytest.mark.parametrize("ends", [(4,), (5, 8), (9,)], ids=str)
def test_cut_within_a_window_it_is_the_same(
    ends: Sequence[int],
    batch_size: Any,
    run: Any,  # noqa: F811
) -> None:
    """Windows of 8 steps: 2 to 9, 10 to 18, 14 to 21 of SGD; 3 to 10 and 13 to 20 of GD."""
    every, epochs = (3, 7) if batch_size == 8 else (10, 20)
    options = {"fit": {"epochs": epochs}, "loader": {"batch_size": batch_size}}
    case = Case(lambda: [NoiseTime(every, window=8)], **options)
    whole, parts = run(case), run(case, ends)
    assert sum(map(bool, map(of_noise, whole.rows))) == len({every, 2 * every, epochs})
    assert same(parts.rows, whole.rows)
    assert same(parts.states, whole.states)


@pytest.mark.parametrize("kind", [Forgetful, Anew])
def test_without_the_sums_of_the_checkpoint_it_is_not(kind: Any, run: Any) -> None:  # noqa: F811
    whole, parts = (run(Case(lambda: [kind(3, window=8)]), ends) for ends in ((), (5,)))
    assert not same(of_noise(parts.rows[3]), of_noise(whole.rows[3]))
    assert same(of_noise(parts.rows[5]), of_noise(whole.rows[5])), "a later window is whole"


@pytest.mark.parametrize("end", [10, 25, 40])
@pytest.mark.parametrize("batch_size", ["full", 2])
def test_linear_regression_in_parts(
    end: int, batch_size: Any, fit: Any, rows: Rows, tmp_path: Path
) -> None:
    """Checkpoints come at looks, of which a window of many epochs of GD holds some."""
    found = []
    for ends in ((None,), (end, None)):
        rows.clear()
        path = None
        for stop in ends:
            task = LinearRegressor(0.05, schedule="cosine", looks_per_decade=10)
            data = LinearProblem(num_train=7, dim=9, outputs=3, batch_size=batch_size)
            calls = [
                NoiseTime(25, window=24),
                ExactResume(goes_on=path is not None),
                SaveAt(stop, tmp_path / "cut.ckpt"),
            ]
            try:
                fit(task, data, 60, calls, enable_checkpointing=True, ckpt_path=path)
            except Stop:
                path = tmp_path / "cut.ckpt"
        found.append(([dict(row) for row in rows], task.weight.detach().clone()))
    (whole, weight), (parts, other) = found
    assert torch.equal(weight, other)
    looks = [row["epoch"] for row in whole if of_noise(row)]
    assert looks == [25, 50, 60]
    assert same([of_noise(row) for row in parts], [of_noise(row) for row in whole])
