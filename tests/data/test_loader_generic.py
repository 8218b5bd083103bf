"""Minibatches shared by processes, and an epoch that goes on where it was broken off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from janus_pl.data.loader import Batch, InMemoryBatches

N, SIZE = 11, 4  # minibatches of 4, 4 and 3
ORDERS = ("shuffle", "sequential", "with_replacement")


def loader_of(order: Any = "shuffle", batch_size: Any = SIZE, **options: Any) -> InMemoryBatches:
    x = torch.arange(2.0 * N).view(N, 2)
    return InMemoryBatches(x, torch.arange(100.0, 100 + N), batch_size, order=order, **options)


def samples(batches: Any) -> list[list[int]]:
    """The numbers of the samples of every batch, which x and y have to agree on."""
    found = []
    for batch in batches:
        numbers = (batch.y - 100).long()
        assert torch.equal(batch.x, torch.stack((2.0 * numbers, 2.0 * numbers + 1), 1))
        found.append(numbers.tolist())
    return found


@pytest.mark.parametrize("micro", [1, 2, 3, 50])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 13])
def test_processes_share_the_samples_of_a_batch_one_by_one(ranks: int, micro: int) -> None:
    x = torch.arange(3.0 * N).view(N, 3)
    batch = Batch(x, x[:, 0].clone(), micro)
    seen: list[Tensor] = []
    for rank in range(ranks):
        parts = list(batch.split(rank, ranks))
        own = torch.cat([part for part, _ in parts])
        assert torch.equal(own, x[list(range(rank, N, ranks))])
        assert torch.equal(torch.cat([y for _, y in parts]), own[:, 0])
        assert [len(y) for _, y in parts[:-1]] == [micro] * (len(parts) - 1)
        assert len(parts[-1][1]) <= micro
        assert len(parts) == max(1, -(-len(own) // micro))  # one of none, where there is no sample
        seen.append(own)
    assert sorted(torch.cat(seen)[:, 0].tolist()) == x[:, 0].tolist()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_an_epoch_goes_on_where_it_was_broken_off(order: Any, taken: int) -> None:
    whole = loader_of(order, seed=6)
    whole.set_epoch(2)
    expected = samples(whole)
    assert [len(batch) for batch in expected] == [4, 4, 3]

    first = loader_of(order, seed=6)
    first.set_epoch(2)
    iterator = iter(first)
    begun = [next(iterator) for _ in range(taken)]
    assert samples(begun) == expected[:taken]
    assert first.state_dict() == {"epoch": 2, "position": taken}

    second = loader_of(order, seed=6)
    second.load_state_dict(first.state_dict())
    second.set_epoch(2)
    assert samples(second) == expected[taken:]
    assert second.state_dict() == {"epoch": 2, "position": 3}
    assert samples(second) == expected, "only the first pass goes on"


@pytest.mark.parametrize("order", ORDERS)
def test_another_epoch_begins_at_its_first_batch(order: Any) -> None:
    loader = loader_of(order, seed=6)
    loader.load_state_dict({"epoch": 2, "position": 2})
    loader.set_epoch(3)
    other = loader_of(order, seed=6)
    other.set_epoch(3)
    assert samples(loader) == samples(other)
    # Nor does it go on later, when its epoch comes round.
    loader.set_epoch(2)
    assert len(samples(loader)) == 3


@pytest.mark.parametrize("order", ORDERS)
def test_batches_are_the_indices_of_numpy_in_turn(order: Any) -> None:
    loader = loader_of(order, seed=6)
    for epoch in (0, 1, 7):
        rng = np.random.default_rng((6, epoch))
        draws: dict[str, Callable[[], Any]] = {
            "shuffle": partial(rng.permutation, N),
            "sequential": partial(np.arange, N),
            "with_replacement": partial(rng.integers, N, size=N),
        }
        expected = draws[order]()
        loader.set_epoch(epoch)
        assert loader.indices(epoch).tolist() == expected.tolist()
        assert samples(loader) == [expected[i : i + 4].tolist() for i in (0, 4, 8)]
    assert len(loader) == 3


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("batch_size", "every"), [("full", True), (N, None), (N - 1, False)])
def test_a_batch_of_all_draws_is_the_whole_set_unless_they_repeat(
    order: Any, batch_size: Any, every: bool | None
) -> None:
    loader = loader_of(order, batch_size)
    assert loader.whole == (order != "with_replacement" if every is None else every)
    if loader.whole:
        assert samples(loader) == [list(range(N))]
    assert loader.batch_size == (N if batch_size == "full" else batch_size)


@pytest.mark.parametrize(
    ("n", "batch_size", "micro"),
    [(249, "full", 249), (250, "full", 250), (251, "full", 250), (900, 251, 250), (900, 4, 4)],
)
def test_micro_batches_are_the_batch_or_250_samples(n: int, batch_size: Any, micro: int) -> None:
    loader = InMemoryBatches(torch.zeros(n, 1), torch.zeros(n), batch_size)
    assert loader.micro_batch_size == micro
