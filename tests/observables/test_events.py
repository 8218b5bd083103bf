"""Spikes of synthetic losses, against a plain reading of the whole series."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from janus_pl.observables.events import Event, Events, RankLost


def spikes_of(losses: list[float], threshold: float) -> list[Event]:
    """Read the whole series at once: runs above the threshold after it was first reached."""
    above = [not loss <= threshold for loss in losses]
    if all(above):
        return []
    start = above.index(False)
    found, i = [], start
    while i < len(losses):
        if not above[i]:
            i += 1
            continue
        j = i
        while j < len(losses) and above[j]:
            j += 1
        run = losses[i:j]
        peak = math.nan if any(map(math.isnan, run)) else max(run)
        found.append(Event(i + 1, j + 1 if j < len(losses) else None, peak))
        i = j
    return found


def read(losses: list[float], threshold: float) -> list[Event]:
    events = Events(threshold)
    for epoch, loss in enumerate(losses, 1):
        events.add(epoch, loss)
    return events.found


@pytest.mark.parametrize("seed", range(20))
def test_random_series(seed: int) -> None:
    draw = random.Random(seed)
    losses = [draw.choice([0.01, 0.05, 0.2, 0.7, 3.0]) for _ in range(draw.randint(1, 40))]
    assert read(losses, 0.05) == spikes_of(losses, 0.05)


def test_the_descent_is_no_spike_and_a_spike_may_last() -> None:
    assert read([1.0, 0.5, 0.04, 0.03], 0.05) == []
    assert read([1.0, 0.04, 0.3, 0.5], 0.05) == [Event(3, None, 0.5)]


def test_a_loss_at_the_threshold_is_not_above() -> None:
    assert read([0.05, 0.05, math.nextafter(0.05, 1.0), 0.05], 0.05) == [
        Event(3, 4, math.nextafter(0.05, 1.0))
    ]


def test_a_loss_that_is_not_finite_is_a_spike() -> None:
    begin, end, peak = vars(read([0.01, math.nan, 0.01], 0.05)[0]).values()
    assert (begin, end) == (2, 3) and math.isnan(peak)
    assert read([0.01, math.inf, 0.01], 0.05) == [Event(2, 3, math.inf)]


def test_rank_lost_sums_to_the_whole_change() -> None:
    draw = random.Random(0)
    looks = [({k: draw.uniform(1, 100) for k in ("a", "b")}, draw.random() < 0.5) for _ in range(9)]
    lost = RankLost()
    for ranks, spiked in looks:
        lost.add(ranks, spiked)
    for k in ("a", "b"):
        whole = looks[0][0][k] - looks[-1][0][k]
        assert lost.within[k] + lost.between[k] == pytest.approx(whole)
        steps = itertools.pairwise(looks)
        spiked_steps = [a[0][k] - b[0][k] for a, b in steps if b[1]]
        assert lost.within[k] == pytest.approx(sum(spiked_steps))
