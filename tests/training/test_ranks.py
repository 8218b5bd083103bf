"""Shares of samples, sums over processes and samples put together, on ranks in lockstep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lockstep import Lanes
from torch import Tensor

from janus_pl.training.ranks import Ranks, backward_alone


def ranks_of(rank: int, size: int) -> Ranks:
    """On the second of two nodes, so that the rank within a node is another number."""
    trainer: Any = SimpleNamespace(global_rank=rank, world_size=size, local_rank=0, node_rank=rank)
    return Ranks(trainer)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
def test_samples_go_round_and_none_twice(count: int, size: int) -> None:
    samples = torch.arange(2 * count).reshape(count, 2)
    shares = [ranks_of(rank, size).own(samples) for rank in range(size)]
    for rank, share in enumerate(shares):
        assert share[:, 0].tolist() == [2 * n for n in range(count) if n % size == rank]
        assert share.shape[1:] == (2,)
    assert sum(len(share) for share in shares) == count


def test_a_share_is_a_view() -> None:
    samples = torch.arange(7.0)
    for size in (1, 3):
        share = ranks_of(0, size).own(samples)
        assert share.data_ptr() == samples.data_ptr()


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_what_all_found_for_their_shares_is_in_the_samples_order(count: int, size: int) -> None:
    samples = torch.rand(count, 3, dtype=torch.float64)
    lanes = Lanes(size)

    def gather(rank: int) -> Tensor:
        ranks = ranks_of(rank, size)
        return ranks.gather(ranks.own(samples) * 2, count)

    for whole in lanes.run(gather):
        assert torch.equal(whole, samples * 2)  # exact: a number plus zeros
    assert [call.what for call in lanes.calls[0]] == [("all_reduce", (count, 3), "float64")]


@pytest.mark.parametrize("size", [2, 3])
def test_every_tensor_becomes_its_sum_in_place_by_one_collective(size: int) -> None:
    lanes = Lanes(size)
    shapes: list[tuple[int, ...]] = [(2, 3), (), (4,), (0,), (1, 1, 2)]

    def add(rank: int) -> list[Tensor]:
        tensors = [torch.full(shape, float(rank + 1 + 10 * k)) for k, shape in enumerate(shapes)]
        tensors[0] = tensors[0].t().contiguous().t()  # another layout in memory
        given = list(tensors)
        assert ranks_of(rank, size).add_up(tensors) is None
        assert all(a is b for a, b in zip(given, tensors, strict=True))
        return tensors

    total = sum(range(1, size + 1))
    for tensors in lanes.run(add):
        for k, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
            assert tensor.shape == shape
            assert tensor.flatten().tolist() == [total + 10 * k * size] * tensor.numel()
    assert [len(calls) for calls in lanes.calls] == [1] * size


def test_the_sum_of_gradients_has_no_graph() -> None:
    lanes = Lanes(2)

    def add(rank: int) -> bool:
        weight = torch.ones(2, requires_grad=True)
        found = weight * 3
        ranks_of(rank, 2).add_up([found])
        return found.grad_fn is not None and found.tolist() == [6.0, 6.0]

    assert lanes.run(add) == [True, True]


def test_alone_nothing_is_called_and_nothing_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Tensor) -> None:
        raise AssertionError("a process alone pays nothing")

    monkeypatch.setattr(torch.distributed, "all_reduce", refuse)
    monkeypatch.setattr(torch, "cat", refuse)
    for ranks in (Ranks(), ranks_of(0, 1)):
        assert (ranks.rank, ranks.size) == (0, 1)
        samples = torch.arange(5.0)
        assert ranks.own(samples) is samples
        assert ranks.gather(samples, 5) is samples
        ranks.add_up([samples])
        assert samples.tolist() == [0, 1, 2, 3, 4]


def test_a_backward_pass_alone_is_not_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP's own switch is held while the block lasts; one process has none."""
    seen: list[str] = []

    class Switch:
        def __enter__(self) -> None:
            seen.append("off")

        def __exit__(self, *_: object) -> None:
            seen.append("on")

    monkeypatch.setattr(DDPStrategy, "block_backward_sync", lambda self: Switch())
    with backward_alone(DDPStrategy()):
        seen.append("backward")
    assert seen == ["off", "backward", "on"]
    with backward_alone(SingleDeviceStrategy()):
        seen.append("backward")
    assert seen == ["off", "backward", "on", "backward"]
