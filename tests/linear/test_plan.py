"""Which epochs are recorded and looked at, and the pieces between: against plain definitions."""

from __future__ import annotations

import math

import pytest

from janus_pl.linear.plan import Piece, Plan, log_spaced, tenths

TOTALS = [1, 2, 3, 9, 10, 11, 99, 100, 101, 1000, 4321]


@pytest.mark.parametrize("per_decade", [1, 2, 5, 50])
@pytest.mark.parametrize("total", TOTALS)
def test_epochs_are_the_rounded_powers_up_to_the_end_and_the_end(
    total: int, per_decade: int
) -> None:
    powers = {round(10 ** (k / per_decade)) for k in range(6 * per_decade)}
    assert log_spaced(total, per_decade) == sorted({p for p in powers if p <= total} | {total})


def test_a_longer_run_has_the_epochs_of_a_shorter_one() -> None:
    for shorter in TOTALS:
        for longer in TOTALS[TOTALS.index(shorter) :]:
            assert set(log_spaced(shorter, 5)) - {shorter} <= set(log_spaced(longer, 5))
    assert 99 not in log_spaced(100, 5) and log_spaced(99, 5)[-1] == 99


def test_small_numbers_are_all_there_and_a_decade_has_so_many() -> None:
    epochs = log_spaced(10_000, 50)
    assert epochs[:20] == list(range(1, 21))
    assert sum(1000 < epoch <= 10_000 for epoch in epochs) == 50
    assert log_spaced(1000, 1) == [1, 10, 100, 1000]


@pytest.mark.parametrize(
    ("total", "borders"),
    [(1, []), (2, [1, 1]), (9, [7, 8]), (10, [8, 9]), (15, [12, 13]), (100, [80, 90])],
)
def test_the_last_tenths_begin_where_they_are_whole(total: int, borders: list[int]) -> None:
    assert tenths(total) == borders


def plan_of(total: int = 100, **options: int | list[int]) -> Plan:
    defaults = {"records": [1, 2, 5, 30, 60], "looks": [1, 10], "size": 4, "stretch": 1000}
    return Plan(total, **{**defaults, **options})


def test_looks_tenths_and_the_end_are_recorded_as_well() -> None:
    assert plan_of().records == [1, 2, 5, 10, 30, 60, 80, 90, 100]
    assert plan_of(total=61).records == [1, 2, 5, 10, 30, 48, 54, 60, 61]
    assert plan_of().looks == [1, 10, 100]


@pytest.mark.parametrize("stretch", [1, 3, 19, 20, 24, 29, 30, 39, 40, 70, 90, 1000])
def test_a_long_stretch_gets_looks_at_its_records(stretch: int) -> None:
    plan = plan_of(stretch=stretch)
    looks: list[int] = []
    for i, record in enumerate(plan.records):
        last = looks[-1] if looks else 0
        following = plan.records[i + 1] if i + 1 < len(plan.records) else math.inf
        if record in (1, 10, 100) or following - last > stretch:
            looks.append(record)
    assert plan.looks == looks
    # No stretch is longer than asked for, but between two neighbours among the records.
    for before, look in zip([0, *looks], looks, strict=False):
        between = [record for record in plan.records if before < record < look]
        assert look - before <= stretch or not between


def test_a_stretch_that_just_fits_needs_no_further_look() -> None:
    assert plan_of(stretch=90).looks == [1, 10, 100]
    assert plan_of(stretch=89).looks == [1, 10, 90, 100]
    assert plan_of(stretch=49).looks == [1, 10, 30, 60, 100]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 100])
def test_pieces_cover_every_epoch_once_and_stop_at_records_and_looks(size: int) -> None:
    plan = plan_of(size=size)
    covered: list[int] = []
    stops = []
    for _ in plan.looks:
        look = plan.look
        for piece in plan:
            assert piece.first == plan.done and 0 < piece.last - piece.first <= size
            covered += range(piece.first, piece.last)
            assert piece.last <= plan.record  # never across a record
            full = piece.last - piece.first == size
            assert full or piece.last == plan.record
            if piece.last == plan.record:
                stops.append(piece.last)
            plan.done = piece.last
        assert plan.done == look
    assert plan.done == plan.total
    assert covered == list(range(100))
    assert stops == plan.records
    assert list(plan) == []


def test_what_is_next_is_above_what_is_done() -> None:
    plan = plan_of()
    seen = []
    for done in (0, 1, 4, 5, 10, 59, 60, 99, 100, 120):
        plan.done = done
        seen.append((plan.record, plan.look))
    assert seen == [
        *[(1, 1), (2, 10), (5, 10), (10, 10), (30, 100)],
        *[(60, 100), (80, 100), (100, 100), (100, 100), (100, 100)],
    ]


def test_a_plan_goes_on_from_an_epoch_within_a_piece() -> None:
    plan = plan_of(size=4)
    plan.done = 12
    assert list(plan)[:6] == [
        *[Piece(12, 16), Piece(16, 20), Piece(20, 24), Piece(24, 28), Piece(28, 30)],
        Piece(30, 34),
    ]
    assert [piece.last for piece in plan][-1] == plan.look == 100
