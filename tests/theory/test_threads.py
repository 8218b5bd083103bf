"""How many threads PyTorch has for a matrix, and after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from janus_pl.linear.landscape import Landscape
from janus_pl.theory.stability import stability_limit
from janus_pl.theory.threads import SMALL, threads_for


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (SMALL, 1), (SMALL + 1, 3)])
def test_small_matrices_have_one_thread_and_an_error_leaves_no_trace(
    size: int, threads: int
) -> None:
    with pytest.raises(KeyError), threads_for(size):
        assert torch.get_num_threads() == threads
        raise KeyError
    assert torch.get_num_threads() == 3


def test_the_limit_and_the_rows_of_a_small_problem_are_calculated_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    for name in ("eigvalsh", "svdvals"):
        asked = getattr(torch.linalg, name)

        def noted(*args: object, asked: object = asked, **options: object) -> object:
            seen.append(torch.get_num_threads())
            return asked(*args, **options)  # type: ignore[operator]

        monkeypatch.setattr(torch.linalg, name, noted)
    x = torch.eye(4, dtype=torch.float64)
    assert stability_limit(x, 1, 0.1, "sequential") > 0
    landscape = Landscape(x[None], x[None], x[None], torch.ones(1), 4)
    seen_before = len(seen)
    landscape.measure(x[None], torch.zeros(1))
    assert len(seen) > seen_before > 0 and {*seen} == {1}


def test_the_logarithms_of_a_piece_are_calculated_by_one_to_the_bits_of_three(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from janus_pl.data import LinearProblem  # with Lightning, which the other tests do without
    from janus_pl.linear.replicas import LinearTraining

    seen: list[int] = []
    asked = torch.Tensor.log

    def noted(self: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return asked(self)

    def decay_of(epochs: int) -> torch.Tensor:
        data = LinearProblem(num_train=3, dim=4, outputs=2)
        data.setup()
        w = torch.from_numpy(data.w0())
        training = LinearTraining(data, [0.01], [0.05], "inverse_sqrt", "paper", epochs, 50, 5, w)
        while training.plan.done < training.plan.total:
            for piece in training.plan:
                training.run(piece)
        return training.log_decay

    monkeypatch.setattr(torch.Tensor, "log", noted)
    by_one = decay_of(3000)
    assert {*seen} == {1} and torch.get_num_threads() == 3
    monkeypatch.setattr("janus_pl.linear.replicas.threads_for", lambda size: nullcontext())
    assert torch.equal(decay_of(3000), by_one)
    assert {*seen} == {1, 3}
