"""The figures of singular values and of spikes: every line against the records, and why not."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.drawn import Picture, pictures
from report.generic import EPOCHS, STEP, measured, network, regression

from janus_pl.observables.events import THRESHOLD, Event
from janus_pl.records.run import Look, Run
from janus_pl.report.figures.events import lost_of, spikes_of
from janus_pl.report.figures.pair import pair_of
from janus_pl.report.figures.series import Unavailable
from janus_pl.report.figures.spectra import DASHED

SIZES = {"conv1": 3, "fc1": 20, "fc2": 1}
KEYS = ("spectra", "events")
LOSSES = [np.nan, 0.9, 0.1, 0.3, 0.2]  # at epochs 0, 1, 3, 4, 9: a spike above 0.15 from 4 on
TALL = (0, 1, 2, 3, 4, 5, 6, 7)
SPIKED = [np.nan, 0.5, 0.04, 0.3, 0.7, 0.05, 0.01, 0.06]  # above 0.05: 3 to 5, and 7


def seen(run: Run, sizes: Mapping[str, int] = SIZES) -> Run:
    """The run with a look at each row; no two values are equal."""
    draw = np.random.default_rng(len(run.name) + 7 * run.description.whole)
    looks = []
    for epoch, step, eta_t in run.rows[["epoch", STEP, "eta_t"]].to_numpy():
        sigma = {k: np.sort(draw.uniform(1e-5, 1, n))[::-1] for k, n in sizes.items()}
        looks.append(Look(epoch, step, eta_t, sigma))
    return replace(run, spectra=looks)


def with_callbacks(run: Run, **options: Mapping[str, Any]) -> Run:
    given = [
        {"class_path": f"janus_pl.callbacks.{k}", "init_args": dict(v)} for k, v in options.items()
    ]
    trainer = {**run.config["trainer"], "callbacks": given}
    return replace(run, config={**run.config, "trainer": trainer})


def made(batch: int | str = 32, **options: Any) -> Run:
    losses = {"train/loss_running": LOSSES}
    run = seen(network(1e-3, batch, columns=losses, **options))
    return with_callbacks(run, LayerRank={"tolerance": 3e-3}, LossEvents={"threshold": 0.15})


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [made(), made("full"), seen(network(5e-3)), seen(network(1e-3, 16, seed=1))]


@pytest.fixture(scope="module")
def drawn(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    return pictures(runs, tmp_path_factory.mktemp("drawn"), KEYS)


def value(look: Look, layer: str, index: int) -> float:
    return float(look.sigma[layer][index])


@pytest.mark.parametrize("x", ["epoch", "eta_t", "step"])
def test_every_singular_value_is_a_line_and_in_the_csv(
    x: str, runs: list[Run], tmp_path: Path
) -> None:
    found = pictures(runs[:2], tmp_path, ["spectra"], x)["spectra"]
    assert [panel.title for panel in found.panels] == [
        *("conv1, SGD", "conv1, GD", "fc1, SGD", "fc1, GD")
    ]
    for run in runs[:2]:
        times = [getattr(look, x) for look in run.spectra]
        for layer in ("conv1", "fc1"):
            panel = found.named(f"{layer}, {run.dynamics}")
            assert panel.yscale == "log"
            solid = [line for line in panel.lines if line.dashes == "-"]
            assert len(solid) == SIZES[layer]
            for i, line in enumerate(solid):
                values = [value(look, layer, i) for look in run.spectra]
                np.testing.assert_array_equal(line.x, times)
                np.testing.assert_array_equal(line.y, values)
                key = f"singular_value_{i + 1}/{layer}"
                wanted = {"kind": "run", "id": run.id, "key": key}
                assert found.column("value", **wanted).tolist() == pytest.approx(values, rel=1e-15)
                assert found.column("x", **wanted).tolist() == pytest.approx(times, rel=1e-15)


def test_the_first_spectrum_is_dashed_and_the_tolerance_is_that_of_the_config(
    runs: list[Run], drawn: dict[str, Picture]
) -> None:
    for layer, size in (("conv1", 3), ("fc1", 20)):
        panel = drawn["spectra"].named(f"{layer}, SGD")
        levels = [line for line in panel.lines if line.dashes != "-"]
        start = [value(runs[0].spectra[0], layer, i) for i in range(size)]
        heights = [line.y[0] for line in levels]
        assert all(line.y[0] == line.y[1] and line.x.tolist() == [0, 9] for line in levels)
        assert heights[-1] == 3e-3
        assert len(heights) - 1 == min(size, DASHED)
        assert set(heights[:-1]) <= set(start), "levels of the first look, and of no other"
        assert {heights[0], heights[-2]} == {start[0], start[-1]}
    (entry,) = [e for e in drawn["spectra"].legend if e.label == "tolerance of the rank"]
    assert entry.dashes != "-"
    assert "only singular value is 1: fc2" in drawn["spectra"].caption


def test_a_run_that_has_no_tolerance_in_its_config_shows_none(tmp_path: Path) -> None:
    found = pictures([seen(network())], tmp_path, ["spectra"])["spectra"]
    assert "tolerance" not in str([entry.label for entry in found.legend])
    assert [panel.title for panel in found.panels] == ["conv1, SGD", "fc1, SGD"]
    assert max(len(panel.lines) for panel in found.panels) == 20 + DASHED


def test_no_more_layers_than_can_be_read(tmp_path: Path) -> None:
    sizes = {f"l{k}": 2 for k in range(30)}
    alone = pictures([seen(network(), sizes)], tmp_path / "a", ["spectra"])["spectra"]
    both = [seen(network(batch=batch), sizes) for batch in (32, "full")]
    pair = pictures(both, tmp_path / "b", ["spectra"])["spectra"]
    for found, shown in ((alone, 12), (pair, 16)):
        titles = [panel.title for panel in found.panels]
        assert len(titles) == shown
        assert titles[0].startswith("l0,") and titles[-1].startswith("l29,")
        assert f"{shown // (1 + (found is pair))} of 30 layers have a panel" in found.caption


def test_a_layer_that_some_looks_lack_is_drawn_where_it_was_seen(tmp_path: Path) -> None:
    run = seen(network())
    looks = [*run.spectra]
    looks[2] = looks[2]._replace(sigma={"fc1": looks[2].sigma["fc1"]})  # conv1 was not finite
    run = replace(run, spectra=looks)
    panel = pictures([run], tmp_path, ["spectra"])["spectra"].named("conv1, SGD")
    assert panel.lines[0].x.tolist() == [0, 1, 4, 9]


def test_values_that_are_rounding_are_not_drawn_but_written(tmp_path: Path) -> None:
    run = seen(network())
    looks = [
        look._replace(sigma={"fc1": np.array([1.0, 1e-9 * (i == 3) + 0.5 * (i < 3)])})
        for i, look in enumerate(run.spectra)
    ]
    found = pictures([replace(run, spectra=looks)], tmp_path, ["spectra"])["spectra"]
    (panel,) = found.panels
    np.testing.assert_array_equal(panel.lines[1].y, [0.5, 0.5, 0.5, np.nan, np.nan])
    assert found.column("value", key="singular_value_2/fc1").tolist()[3:] == [1e-9, 0.0]


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([], "no run with spectra.jsonl"),
        ([network()], "no spectra.jsonl in square-B32-lam0.001-seed0"),
        ([seen(network(), {"fc2": 1})], "each layer has one singular value, which is 1"),
    ],
    ids=["no run", "without", "one value"],
)
def test_why_there_are_no_histories(runs: list[Run], why: str, tmp_path: Path) -> None:
    assert pictures(runs, tmp_path, ["spectra"])["spectra"].missing == why


# The two runs


def names(runs: Sequence[Run]) -> list[str]:
    return [run.name.removeprefix("square-") for run in runs]


def always(run: Run) -> bool:
    return True


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ([network(), network(batch="full")], ["B32-lam0.001-seed0", "Bfull-lam0.001-seed0"]),
        ([network(batch="full"), network(5e-3)], ["B32-lam0.005-seed0"]),  # another lambda
        (
            [network(5e-3), network(1e-3), network(1e-3, "full")],
            ["B32-lam0.001-seed0", "Bfull-lam0.001-seed0"],
        ),
        (
            [network(lam, b, seed) for lam in (0.0, 1e-3) for b in (32, "full") for seed in (1, 0)],
            ["B32-lam0.001-seed0", "Bfull-lam0.001-seed0"],
        ),
        (
            [network(seed=0), network(seed=1), network(batch="full", seed=1)],
            ["B32-lam0.001-seed1", "Bfull-lam0.001-seed1"],
        ),
        ([regression(), network()], ["B32-lam0.001-seed0"]),
        (
            [network(), network(batch="full", epochs=(0, 1)), network(batch="full", epochs=TALL)],
            ["B32-lam0.001-seed0", "Bfull-lam0.001-seed0"],
        ),
        ([network(), network(batch="full", model={"learning_rate": 0.2})], ["B32-lam0.001-seed0"]),
    ],
    ids=[
        "pair",
        "lambda",
        "pair first",
        "largest lambda",
        "same seed",
        "network",
        "length",
        "rate",
    ],
)
def test_which_two_runs_stand_side_by_side(runs: list[Run], shown: list[str]) -> None:
    found, left_out = pair_of(runs, always, "anything")
    assert names(found) == shown
    assert len(found) + len(left_out) == len(runs)
    with pytest.raises(Unavailable, match="no anything in"):
        pair_of(runs, lambda run: False, "anything")


def test_that_other_seeds_are_left_out_is_said(tmp_path: Path) -> None:
    one, two = seen(network(seed=0)), seen(network(seed=1))
    note = "One run of each is shown; others differ in seeds or batch size alone."
    assert note in pictures([one, two], tmp_path / "a", ["spectra"])["spectra"].caption
    other = seen(network(5e-3))
    assert note not in pictures([one, other], tmp_path / "b", ["spectra"])["spectra"].caption


def test_runs_of_unequal_length_stand_beside_each_other_and_that_is_said(tmp_path: Path) -> None:
    """GD takes one step where SGD takes N/B, so that of equal steps has more epochs."""
    sgd, short = network(), network(batch="full", epochs=(0, 1))
    long = replace(network(batch="full", epochs=TALL), id="long")
    assert [run.id for run in pair_of([sgd, short, long], always, "")[0]] == [sgd.id, "long"]
    equal = replace(network(batch="full"), id="equal")
    assert [run.id for run in pair_of([sgd, long, equal], always, "")[0]] == [sgd.id, "equal"]
    said = pictures([seen(sgd), seen(long)], tmp_path, ["spectra"])["spectra"].caption
    assert "They differ in length, too: 9 and 7 epochs." in said


# Spikes


def spiked(**columns: Any) -> Run:
    return network(epochs=TALL, columns={"train/loss_running": SPIKED, **columns})


def lost_by_hand(run: Run, layer: str, spikes: Sequence[range]) -> tuple[float, float]:
    """Over the rows with a rank, epoch by epoch."""
    ranks = run.rows[["epoch", f"effective_rank/{layer}"]].dropna().to_numpy()
    sums = {True: 0.0, False: 0.0}
    for (a, before), (b, now) in itertools.pairwise(ranks):
        within = any(epoch in spike for spike in spikes for epoch in range(int(a) + 1, int(b) + 1))
        sums[within] += before - now
    return sums[True], sums[False]


@pytest.mark.parametrize("looked", [TALL, (0, 1, 2, 4, 7), (0, 4, 6, 7), (0, 2, 5, 6)], ids=str)
def test_spikes_and_lost_ranks_without_the_callback(looked: Sequence[int]) -> None:
    run = spiked()
    ranks = [k for k in run.rows if k.startswith("effective_rank")]
    rows = run.rows.copy()
    rows.loc[~rows["epoch"].isin(looked), ranks] = np.nan
    run = replace(run, rows=rows)
    spikes = spikes_of(run)
    assert spikes.threshold == THRESHOLD == 0.05
    assert spikes.events == [Event(3, 5, 0.7), Event(7, None, 0.06)]
    lost = lost_of(run, spikes)
    for layer in ("conv1", "fc2"):
        within, between = lost_by_hand(run, layer, [range(3, 5), range(7, 99)])
        assert lost.within.get(layer, 0.0) == pytest.approx(within, abs=1e-12)
        assert lost.between.get(layer, 0.0) == pytest.approx(between, abs=1e-12)


def test_what_was_recorded_is_taken(tmp_path: Path) -> None:
    """The config of a script has no threshold; its rows have its spikes, by whatever threshold."""
    none = [np.nan] * 5
    run = spiked(
        **{
            "event/count": [0, *none, 1, np.nan],
            "event/begin": [*none, np.nan, 4, np.nan],
            "event/end": [*none, np.nan, 6, np.nan],
            "event/peak": [*none, np.nan, 0.7, np.nan],
            "event/rank_within/fc1": [np.nan, 1.0, *none, 31.5],
            "event/rank_between/fc1": [np.nan, 2.0, *none, -0.5],
        }
    )
    assert spikes_of(run) == ([Event(4, 6, 0.7)], None)
    lost = lost_of(run, spikes_of(run))
    assert (lost.within, lost.between) == ({"fc1": 31.5}, {"fc1": -0.5})
    found = pictures([run], tmp_path, ["events"])["events"]
    assert "1 spike as recorded; rank lost within / between: fc1 31.50 / -0.50." in found.caption
    assert [line.dashes for line in found.panels[0].lines] == ["-"], "no line of a threshold"
    config = with_callbacks(run, LossEvents={"threshold": 0.4})
    assert spikes_of(config) == ([Event(4, 5, 0.7)], 0.4)


def test_losses_spikes_and_ranks_are_drawn_and_written(
    runs: list[Run], drawn: dict[str, Picture]
) -> None:
    found = drawn["events"]
    assert [panel.title for panel in found.panels[:2]] == [
        "SGD, B = 32, λ = 1e-3",
        "GD, B = N, λ = 1e-3",
    ]
    layers = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
    for k, run in enumerate(runs[:2]):
        above, below = found.panels[k], found.panels[2 + k]
        loss, threshold = above.lines
        np.testing.assert_array_equal(loss.x, EPOCHS[1:])
        np.testing.assert_array_equal(loss.y, LOSSES[1:])
        assert threshold.y[0] == threshold.y[1] == 0.15 and threshold.dashes == "--"
        for panel in (above, below):
            assert [(box.low, box.high) for box in panel.boxes] == [(4, 9)], "it lasts at the end"
        assert len(below.lines) == len(layers)
        for layer, line in zip(layers, below.lines, strict=True):
            np.testing.assert_array_equal(line.y, run.rows[f"effective_rank/{layer}"])
            lost = lost_by_hand(run, layer, [range(4, 99)])
            for kind, expected in zip(("within", "between"), lost, strict=True):
                key = f"event/rank_{kind}/{layer}"
                (written,) = found.column("value", id=run.id, key=key)
                assert written == pytest.approx(expected)
            assert f"{layer} {lost[0]:.2f} / {lost[1]:.2f}" in found.caption
        (row,) = found.written(id=run.id, key="event/peak")
        assert (float(row["x"]), row["x_end"], float(row["value"])) == (4, "", 0.3)
    assert above.yscale == "log"
    assert found.caption.count("1 spike above 0.15") == 2


def test_shades_follow_the_axis(tmp_path: Path) -> None:
    run = spiked()
    for x in ("epoch", STEP, "eta_t"):
        found = pictures([run], tmp_path, ["events"], x)["events"]
        at = dict(zip(run.rows["epoch"], run.rows[x], strict=True))
        boxes = [(box.low, box.high) for box in found.panels[0].boxes]
        assert boxes == [pytest.approx((at[3], at[5])), pytest.approx((at[7], at[7]))]


def test_a_run_that_settled_without_a_spike_and_one_without_ranks(tmp_path: Path) -> None:
    calm = spiked(**{"train/loss_running": [np.nan, *np.linspace(0.9, 0.01, 7)]})
    assert "no spikes above 0.05" in pictures([calm], tmp_path / "a", ["events"])["events"].caption
    ranks = {k: None for k in calm.rows if k.startswith("effective_rank")}
    found = pictures([spiked(**ranks)], tmp_path / "b", ["events"])["events"]
    assert found.missing is None
    assert found.panels[1].texts == ["no effective rank to show"]
    assert "rank lost within / between:" not in found.caption


@pytest.mark.parametrize("runs", [[], [network()], [regression()]], ids=["no", "network", "linear"])
def test_without_a_running_loss_there_is_no_figure(runs: list[Run], tmp_path: Path) -> None:
    missing = pictures(runs, tmp_path, ["events"])["events"].missing
    assert missing is not None and "train/loss_running" in missing


def test_a_run_with_a_spike_comes_before_one_without_and_a_dead_one_last(tmp_path: Path) -> None:
    calm = {"train/loss_running": [np.nan, *np.linspace(0.9, 0.01, 7)]}
    first = network(seed=0, epochs=TALL, columns=calm)
    second = network(seed=1, epochs=TALL, columns={"train/loss_running": SPIKED})
    left = {"train/loss": 1.0, "rho": [1.0, *[1e-9] * 7]}
    dead = network(5e-3, epochs=TALL, columns={"train/loss_running": SPIKED, **left})
    found = pictures([first, second, dead], tmp_path, ["events"])["events"]
    assert {row["id"] for row in found.rows} == {second.id}
    assert "one with a spike is taken first" in found.caption
    found = pictures([first, dead], tmp_path, ["events"])["events"]
    assert {row["id"] for row in found.rows} == {first.id}
    found = pictures([dead], tmp_path, ["events"])["events"]
    assert {row["id"] for row in found.rows} == {dead.id}


def test_somebody_elses_run_is_shown_by_what_it_measurably_was(tmp_path: Path) -> None:
    run = measured(spiked(), optimizer="AdamW", kind="module", margin="raw")
    found = pictures([seen(run)], tmp_path, KEYS)
    assert found["events"].panels[0].title.startswith("AdamW, B = 32")
    assert found["spectra"].panels[0].title == "conv1, AdamW"
