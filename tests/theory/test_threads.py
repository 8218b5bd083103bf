"""How many threads PyTorch has for a matrix, and after it."""

from __future__ import annotations

from collections.abc import Iterator

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
