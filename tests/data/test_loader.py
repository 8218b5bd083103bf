"""In-memory batches: what an epoch visits, in which order, and what is copied."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from janus_pl.data.loader import (
    Batch,
    InMemoryBatches,
    check_batch_fits,
    check_batch_options,
)
from janus_pl.errors import UsageError

N = 23


def images(n: int = N) -> Tensor:
    """Images (n, 3, 4, 5) with entries that are all different, in plain NCHW memory."""
    return torch.arange(n * 60, dtype=torch.float32).view(n, 3, 4, 5)


def loader(batch_size: Any = 8, n: int = N, **options: Any) -> InMemoryBatches:
    """Batches whose y is the index of the sample."""
    return InMemoryBatches(images(n), torch.arange(n, dtype=torch.float32), batch_size, **options)


def visited(batches: InMemoryBatches) -> list[int]:
    return [int(i) for batch in batches for i in batch.y]


def global_states() -> list[bytes]:
    states = (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy())
    return [pickle.dumps(state) for state in states]


# --- the order of an epoch ---------------------------------------------------------------------


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first, again = loader(seed=3), loader(seed=3)
    torch.manual_seed(1)
    order = visited(first)
    torch.manual_seed(2)
    assert visited(again) == order
    again.set_epoch(1)
    assert visited(again) != order
    assert visited(loader(seed=4)) != order
    again.set_epoch(0)
    assert visited(again) == order


def test_seeds_that_agree_in_32_bits_differ() -> None:
    assert visited(loader(seed=5)) != visited(loader(seed=5 + 2**32))


def test_order_does_not_depend_on_batch_size() -> None:
    assert visited(loader(4)) == visited(loader(9))


def test_batches_follow_indices() -> None:
    for order in ("shuffle", "sequential", "with_replacement"):
        for batch_size in (8, N, "full"):
            batches = loader(batch_size, order=order)
            batches.set_epoch(2)
            index = batches.indices(2)
            assert index.dtype == torch.int64 and index.shape == (N,)
            assert visited(batches) == index.tolist()
            assert torch.equal(torch.cat([batch.x for batch in batches]), images()[index])


def test_epoch_is_read_at_the_first_batch() -> None:
    batches = loader()
    iterator = iter(batches)
    batches.set_epoch(6)
    order = [int(i) for batch in iterator for i in batch.y]
    assert order == batches.indices(6).tolist()
    assert order != batches.indices(0).tolist()


def test_sampler_is_what_lightning_sets_the_epoch_on() -> None:
    batches = loader()
    batches.sampler.set_epoch(7)
    assert batches.epoch == 7
    assert batches.batch_sampler is None


def test_global_random_state_is_untouched() -> None:
    before = global_states()
    batches = loader(order="with_replacement")
    visited(batches), visited(loader()), batches.indices(4)
    assert global_states() == before
    random.random(), np.random.rand(), torch.rand(1)
    assert all(now != then for now, then in zip(global_states(), before, strict=True))


# --- what an epoch visits ----------------------------------------------------------------------


@given(n=st.integers(1, 40), data=st.data(), epoch=st.integers(0, 5))
def test_every_sample_once(n: int, data: st.DataObject, epoch: int) -> None:
    batch_size = data.draw(st.one_of(st.just("full"), st.integers(1, n)))
    order = data.draw(st.sampled_from(["shuffle", "sequential"]))
    batches = loader(batch_size, n, order=order)
    batches.set_epoch(epoch)
    assert sorted(visited(batches)) == list(range(n))
    sizes = [len(batch.y) for batch in batches]
    assert len(sizes) == len(batches)
    assert set(sizes[:-1]) <= {batches.batch_size} and 0 < sizes[-1] <= batches.batch_size


def test_batch_count_of_the_paper() -> None:
    batches = InMemoryBatches(torch.zeros(10_000, 1), torch.zeros(10_000), 128)
    assert len(batches) == 79
    assert [len(batch.y) for batch in batches] == [128] * 78 + [16]


def test_sequential_is_data_order() -> None:
    assert visited(loader(order="sequential")) == list(range(N))
    assert visited(loader(order="shuffle")) != list(range(N))


def test_with_replacement_draws_n_with_repeats() -> None:
    batches = loader(order="with_replacement")
    order = visited(batches)
    assert len(order) == N and len(set(order)) < N
    assert [len(batch.y) for batch in batches] == [8, 8, 7]
    counts = torch.zeros(N)
    epochs = 4000
    for epoch in range(epochs):
        counts += torch.bincount(batches.indices(epoch), minlength=N)
    # Each count is binomial with mean and variance close to `epochs`: 6 sigma.
    assert (counts - epochs).abs().max() < 6 * epochs**0.5
    # Unlike permutations, whose counts have no spread at all.
    assert counts.std() > 0.3 * epochs**0.5


# --- memory ------------------------------------------------------------------------------------


def address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("batch_size", "order"),
    [
        ("full", "shuffle"),
        ("full", "with_replacement"),
        (N, "shuffle"),
        (N, "sequential"),
    ],
)
def test_the_whole_set_is_no_copy(batch_size: Any, order: Any) -> None:
    batches = loader(batch_size, order=order)
    assert batches.whole
    (batch,) = batches
    assert batch.x.data_ptr() == batches.x.data_ptr()
    assert batch.y.data_ptr() == batches.y.data_ptr()
    assert torch.equal(batch.x, images())


@pytest.mark.parametrize(("batch_size", "order"), [(8, "shuffle"), (N, "with_replacement")])
def test_a_gathered_batch_is_a_copy(batch_size: Any, order: Any) -> None:
    batches = loader(batch_size, order=order)
    assert not batches.whole
    assert all(address(batch.x) != address(batches.x) for batch in batches)


@pytest.mark.parametrize("order", ["shuffle", "sequential", "with_replacement"])
@pytest.mark.parametrize("batch_size", [8, N, "full"])
def test_batches_are_channels_last(batch_size: Any, order: Any) -> None:
    for batch in loader(batch_size, order=order):
        assert batch.x.shape[1:] == (3, 4, 5)
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        for x, _ in batch.split():
            assert x.is_contiguous(memory_format=torch.channels_last)
    assert not images().is_contiguous(memory_format=torch.channels_last)


def test_channels_last_input_is_stored_without_copy() -> None:
    x = images().contiguous(memory_format=torch.channels_last)
    y = torch.zeros(N)
    assert address(InMemoryBatches(x, y, 8).x) == address(x)
    plain = images()
    assert address(InMemoryBatches(plain, y, 8).x) != address(plain)


def test_features_are_stored_as_they_are() -> None:
    x, y = torch.randn(N, 6), torch.randn(N, 2)
    batches = InMemoryBatches(x, y, 8)
    assert batches.x is x
    for batch, index in zip(batches, torch.split(batches.indices(0), 8), strict=True):
        assert torch.equal(batch.x, x[index]) and torch.equal(batch.y, y[index])
    (whole,) = InMemoryBatches(x, y, "full")
    assert whole.x.data_ptr() == x.data_ptr()


def test_in_order_yields_views_of_every_sample_once() -> None:
    batches = loader()
    chunks = list(batches.in_order(10))
    assert [len(y) for _, y in chunks] == [10, 10, 3]
    assert torch.equal(torch.cat([x for x, _ in chunks]), images())
    assert torch.equal(torch.cat([y for _, y in chunks]), batches.y)
    assert all(address(x) == address(batches.x) for x, _ in chunks)


# --- micro-batches -----------------------------------------------------------------------------


@given(n=st.integers(1, 50), micro=st.integers(1, 60))
def test_split_covers_the_batch(n: int, micro: int) -> None:
    batch = Batch(torch.arange(n * 2.0).view(n, 2), torch.arange(n), micro)
    parts = list(batch.split())
    assert torch.equal(torch.cat([x for x, _ in parts]), batch.x)
    assert torch.equal(torch.cat([y for _, y in parts]), batch.y)
    sizes = [len(y) for _, y in parts]
    assert set(sizes[:-1]) <= {micro} and 0 < sizes[-1] <= micro
    assert all(len(x) == len(y) and address(x) == address(batch.x) for x, y in parts)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "expected"),
    [(128, None, 128), (300, None, 250), ("full", None, 250), ("full", 7, 7), (128, 128, 128)],
)
def test_micro_batch_size(batch_size: Any, micro_batch_size: Any, expected: int) -> None:
    batches = InMemoryBatches(torch.zeros(600, 1), torch.zeros(600), batch_size, micro_batch_size)
    assert {batch.micro_batch_size for batch in batches} == {expected}


# --- options -----------------------------------------------------------------------------------

GOOD = {"batch_size": 8, "micro_batch_size": None, "order": "shuffle", "seed": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": "full"},
        {"micro_batch_size": 8},
        {"batch_size": "full", "micro_batch_size": 1000},
        {"order": "with_replacement", "seed": 2**70},
    ],
)
def test_good_options_pass(options: dict[str, Any]) -> None:
    check_batch_options(**{**GOOD, **options})


@pytest.mark.parametrize(
    ("field", "value", "others"),
    [
        ("batch_size", 0, {}),
        ("batch_size", -3, {}),
        ("batch_size", 2.0, {}),
        ("batch_size", True, {}),
        ("batch_size", None, {}),
        ("batch_size", "whole", {}),
        ("batch_size", "two\nlines", {}),
        ("micro_batch_size", 0, {}),
        ("micro_batch_size", -1, {}),
        ("micro_batch_size", 9, {}),
        ("micro_batch_size", True, {}),
        ("micro_batch_size", 1.5, {"batch_size": "full"}),
        ("micro_batch_size", "full", {}),
        ("order", "random", {}),
        ("order", None, {}),
        ("seed", -1, {}),
        ("seed", True, {}),
        ("seed", 0.0, {}),
        ("seed", None, {}),
    ],
)
def test_bad_options(field: str, value: object, others: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        check_batch_options(**{**GOOD, **others, field: value})
    assert str(caught.value).startswith(f"data.{field}: got {value!r}, allowed: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        loader(**{**GOOD, **others, field: value})


def test_batch_size_against_n() -> None:
    check_batch_fits(N, None, N)
    check_batch_fits("full", N, N)
    with pytest.raises(UsageError, match=r"^data\.batch_size: got 24, allowed: .* 1 to 23 .*full"):
        check_batch_fits(N + 1, None, N)
    with pytest.raises(UsageError, match=r"^data\.micro_batch_size: got 24, allowed: .* 1 to 23 "):
        check_batch_fits("full", N + 1, N)
    with pytest.raises(UsageError, match=r"^data\.batch_size: "):
        loader(N + 1)


@pytest.mark.parametrize(("rows", "labels"), [(3, 4), (0, 0)])
def test_lengths_must_agree(rows: int, labels: int) -> None:
    with pytest.raises(ValueError, match=f"hold {rows} and {labels} samples"):
        InMemoryBatches(torch.zeros(rows, 2), torch.zeros(labels), "full")
