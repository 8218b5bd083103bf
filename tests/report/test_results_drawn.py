"""The figures, tables and files that docs/results.md adds, from runs that were never trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from report.drawn import Entry, Picture, sketch
from report.generic import EPOCHS, LAYERS, STEP, network, regression, zero_function
from report.told import cells, tagged, told

from janus_pl.records.archive import read_archive, write_archive
from janus_pl.records.parts import Part, Skipped
from janus_pl.records.run import Run
from janus_pl.report.figures import style
from janus_pl.verify.claims import read_claims
from janus_pl.verify.judge import Verdicts, judge

MIDDLE = ("conv3", "conv4", "fc1")
WORDS = {0.0: "0", 1e-4: "1e-4", 2e-3: "2e-3"}
SGD, GD = ("#0072b2", "-"), ("#d55e00", "--")
VELOCITY = r"$\|\dot V_k\|$, mean over layers"
SPREAD = "std/mean of the margins"
RANKS = "effective rank, conv3 to fc1"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(ROOT / "docs"))
    import results
    import results_figures
    import results_tables

    yield {"results": results, "figures": results_figures, "tables": results_tables}
    sys.path.remove(str(ROOT / "docs"))


@pytest.fixture
def figures(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["figures"]


@pytest.fixture
def tables(modules: dict[str, ModuleType]) -> ModuleType:
    return modules["tables"]


def lam_of(run: Run) -> float:
    return run.config["model"]["init_args"]["weight_decay"]


def velocities(run: Run) -> np.ndarray:
    return np.exp(np.mean([np.log(run.rows[f"velocity/{k}"]) for k in LAYERS], axis=0))


def spreads(run: Run) -> np.ndarray:
    return np.asarray(run.rows["margin/std"] / run.rows["margin/mean"].abs())


def ranks(run: Run) -> np.ndarray:
    return np.mean([run.rows[f"effective_rank/{k}"] for k in MIDDLE], axis=0)


# Time courses

OF_COURSES = {
    "settled": ("two_cores_fig1", "two_cores_seeds"),
    "constant": ("two_cores_constant", "two_cores_constant_seeds"),
}


def courses(name: str) -> list[Run]:
    first, more = OF_COURSES[name]
    runs = [tagged(network(lam), first) for lam in WORDS]
    runs[1].rows["margin/mean"] *= -1
    runs += [tagged(network(2e-3, seed=1), more, "other")]
    runs += [tagged(zero_function(network(1e-2)), first), tagged(network(3e-3), "other")]
    return runs


def check_courses(found: Picture, shown: Sequence[Run]) -> None:
    colours = dict(zip(WORDS, ("#2b0a3d", "#009a86", "#f4934a"), strict=True))
    quantities: dict[str, Callable[[Run], np.ndarray]] = {
        VELOCITY: velocities,
        SPREAD: spreads,
        RANKS: ranks,
    }
    assert [panel.ylabel for panel in found.panels] == list(quantities)
    for panel, (label, quantity) in zip(found.panels, quantities.items(), strict=True):
        assert panel.xlabel == "epoch"
        assert (panel.xscale, panel.yscale) == ("linear", "linear" if label == RANKS else "log")
        skipped = 1 if label == SPREAD else 0  # at the start the mean is about 0
        assert len(panel.lines) == len(shown)
        for line, run in zip(panel.lines, shown, strict=True):
            assert (line.colour, line.dashes) == (colours[lam_of(run)], "-")
            np.testing.assert_array_equal(line.x, EPOCHS[skipped:])
            np.testing.assert_allclose(line.y, quantity(run)[skipped:])
    assert found.legend == [
        Entry(f"λ = {said}", colours[lam], "-", "None") for lam, said in WORDS.items()
    ]


@pytest.mark.parametrize("name", OF_COURSES)
def test_time_courses_of_each_run_that_is_not_zero(name: str, figures: ModuleType) -> None:
    runs = courses(name)
    drawn, found = sketch(figures.FIGURES[name], runs)
    assert drawn
    check_courses(found, runs[:4])
    other = next(key for key in OF_COURSES if key != name)
    assert sketch(figures.FIGURES[other], runs)[0] is False
    assert sketch(figures.FIGURES[name], runs[4:])[0] is False, "a zero function alone is none"


# The arms of whose.yaml, in the order of its claims: words, sweep, panel, options.
ARMS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "decay of all": ("whose_decay", 0, {}),
    "growing rate": ("whose_decay", 0, {"schedule": "growing"}),
    "norms held at 1": ("whose_held", 1, {"hold_norms": 1.0, "decay": "rho"}),
    "norms held at 0.7": ("whose_held", 1, {"hold_norms": 0.7, "decay": "rho"}),
    "none, rate 0.03": ("whose_plain", 2, {"normalization": "none", "learning_rate": 0.03}),
    "none, rate 0.01": ("whose_plain_slow", 2, {"normalization": "none", "learning_rate": 0.01}),
}


def of_arms() -> dict[str, Run]:
    counts = enumerate(ARMS.items())
    columns = {"val/error": [0.5] * 5}
    growths = zip(MIDDLE, (2.0, 4.0, 27.0), strict=True)
    rates = {f"effective_rate/{k}": [float("nan"), 3, 9, 9, 3 * to] for k, to in growths}
    return {
        words: tagged(
            network(
                2.5e-3,
                seed=seed,
                model={"schedule": "constant", **model},
                columns={**columns, "event/count": [0, 0, 1, 1, seed], **rates},
            ),
            tag,
        )
        for seed, (words, (tag, _, model)) in counts
    }


def test_ranks_of_the_arms_of_whose_over_eta_t(figures: ModuleType) -> None:
    runs = of_arms()
    emptied = tagged(zero_function(runs["growing rate"]), "whose_decay")
    shown = [*reversed(runs.values()), emptied, tagged(network(2.5e-3, seed=9), "other")]
    drawn, found = sketch(figures.whose, shown)
    assert drawn
    assert [entry.label for entry in found.legend] == [*ARMS]
    colours = {entry.label: entry.colour for entry in found.legend}
    assert len({*colours.values()}) == len(ARMS)
    for place, panel in enumerate(found.panels):
        assert (panel.xlabel, panel.ylabel) == ("ηt", "" if place else RANKS)
        own = [words for words, (_, of_panel, _) in ARMS.items() if of_panel == place]
        whole = [line for line in panel.lines if line.dashes == "-"]
        assert [line.colour for line in whole] == [colours[words] for words in own]
        for line, words in zip(whole, own, strict=True):
            np.testing.assert_array_equal(line.x, runs[words].rows["eta_t"])
            np.testing.assert_allclose(line.y, ranks(runs[words]))
        dotted = [line.colour for line in panel.lines if line.dashes == ":"]
        assert dotted == ([] if place else [colours["growing rate"]])
    assert sketch(figures.whose, courses("constant"))[0] is False


def test_the_table_of_the_arms_of_whose_counts_networks_that_are_zero(tables: ModuleType) -> None:
    runs = of_arms()
    of_growing = runs["growing rate"]
    emptied = zero_function(runs["norms held at 1"])
    rows = cells(tables.whose([emptied, *reversed(runs.values()), zero_function(of_growing)]))
    assert [row["arm"] for row in rows] == [*ARMS]
    counted = {row["arm"]: (row["seeds"], row["f = 0"]) for row in rows}
    two = ("2", "1")
    assert counted == dict.fromkeys(ARMS, ("1", "0")) | {
        "growing rate": two,
        "norms held at 1": two,
    }
    one = rows[1]
    last = {key: of_growing.rows[key].iloc[-1] for key in of_growing.rows}
    assert (one["epochs"], one["ηt"]) == ("9", f"{last['eta_t']:.0f}")
    assert one["train error"] == f"{last['train/error']:.1%}"
    assert one["spikes"] == "1.0"
    assert one["rate's growth"] == "6", "the cube root of 2 * 4 * 27"
    assert one["sigma/mu"] == f"{spreads(of_growing)[-1]:.3g}"
    assert one["‖V̇‖"] == f"{velocities(of_growing)[-1]:.3g}"
    for layer in MIDDLE:
        assert one[f"rank {layer}"] == f"{last[f'effective_rank/{layer}']:.1f}"
    (row,) = cells(tables.whose([zero_function(of_growing)]))
    assert (row["f = 0"], row["epochs"], row["rank fc1"]) == ("1", "-", "-")


def test_time_courses_at_scale_have_gd_dashed_and_grey(figures: ModuleType) -> None:
    runs = [tagged(network(lam), "scale") for lam in WORDS]
    alone = sketch(figures.scale, runs)[1]
    drawn, found = sketch(figures.scale, [*runs, tagged(network(2e-3, "full"), "scale")])
    assert drawn
    check_courses(alone, runs)
    for panel in found.panels:
        assert [line.dashes for line in panel.lines] == ["-", "-", "-", "--"]
        colours = [line.colour for line in panel.lines]
        assert len({*colours}) == 4 and colours[-1] == to_hex("0.45")
        assert [line.colour for line in alone.panels[0].lines] == colours[:-1]
    assert found.legend[:-1] == alone.legend
    entry = found.legend[-1]
    assert (entry.label, entry.colour, entry.dashes) == ("GD, λ = 2e-3", to_hex("0.45"), "--")


# Equal clocks


def clocked() -> list[Run]:
    runs = [tagged(network(lam), "two_cores_equal_steps_sgd") for lam in (1e-4, 2e-3)]
    runs += [tagged(network(lam, "full"), "two_cores_equal_steps") for lam in (1e-4, 2e-3)]
    return [*runs, tagged(network(0.0), "two_cores_fig1")]


def check_clocks(found: Picture, runs: Sequence[Run]) -> None:
    names = {"epoch": "epoch", STEP: "step", "eta_t": "accumulated learning rate ηt"}
    markers = {1e-4: "o", 2e-3: "s"}
    assert [panel.xlabel for panel in found.panels] == list(names.values())
    assert [panel.ylabel for panel in found.panels] == [RANKS, "", ""]
    for panel, clock in zip(found.panels, names, strict=True):
        assert (panel.xscale, panel.yscale) == ("symlog", "linear")
        assert len(panel.lines) == 4
        for line, run in zip(panel.lines, runs, strict=False):
            assert (line.colour, line.dashes) == (SGD if run.dynamics == "SGD" else GD)
            assert line.marker == markers[lam_of(run)]
            np.testing.assert_array_equal(line.x, run.rows[clock])
            np.testing.assert_allclose(line.y, ranks(run))
    grey = to_hex("0.3")
    assert found.legend == [
        Entry("SGD", *SGD, "None"),
        Entry("GD", *GD, "None"),
        *(Entry(f"λ = {WORDS[k]}", grey, "None", m) for k, m in markers.items()),
    ]


def test_ranks_against_each_clock(figures: ModuleType) -> None:
    runs = clocked()
    drawn, found = sketch(figures.FIGURES["equal_clocks"], runs)
    assert drawn
    check_clocks(found, runs)
    for some in (runs[:2], runs[2:4], []):
        assert sketch(figures.FIGURES["equal_clocks"], some)[0] is False


def test_a_clock_is_linear_up_to_its_first_steps(figures: ModuleType) -> None:
    scales = []
    with pytest.MonkeyPatch.context() as patch:
        original = Axes.set_xscale

        def noted(axes: Axes, value: str, **options: Any) -> None:
            scales.append((value, options["linthresh"]))
            original(axes, value, **options)

        patch.setattr(Axes, "set_xscale", noted)
        sketch(figures.FIGURES["equal_clocks"], clocked())
    assert scales == [("symlog", 1), ("symlog", 1), ("symlog", 0.1)]


# Controls by lambda

KINDS = {
    "two_cores_fig1": ("decay on all, weight normalization", "#0072b2", "o"),
    "two_cores_constant": ("the same at a constant rate", "#000000", "v"),
    "two_cores_rho": ("decay on rho alone", "#009e73", "s"),
    "two_cores_lagrange": ("Lagrange multipliers", "#cc79a7", "D"),
    "two_cores_fig5a": ("cross entropy, decay on all", "#d55e00", "^"),
}


def controlled() -> list[Run]:
    """Each kind has numbers of its own; the largest lambda of one ended as f = 0."""
    runs = [
        tagged(network(lam, seed=k), sweep)
        for k, sweep in enumerate(KINDS)
        for lam in (2e-3, 0.0, 1e-4)
    ]
    return [*runs, tagged(zero_function(network(1e-2)), "two_cores_rho")]


def check_controls(found: Picture, runs: Sequence[Run], kinds: Sequence[str]) -> None:
    quantities = {SPREAD: spreads, VELOCITY: velocities, RANKS: ranks}
    assert [panel.ylabel for panel in found.panels] == list(quantities)
    for panel, (label, quantity) in zip(found.panels, quantities.items(), strict=True):
        assert (panel.xlabel, panel.xscale) == ("λ", "symlog")
        assert panel.yscale == ("linear" if label == RANKS else "log")
        assert list(panel.ticks) == [0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
        for line, sweep in zip(panel.lines, kinds, strict=True):
            own = [r for r in runs if r.config["tags"] == [sweep] and "emptied" not in r.id]
            own = sorted(own, key=lam_of)
            assert (line.colour, line.marker) == KINDS[sweep][1:]
            np.testing.assert_array_equal(line.x, list(WORDS))
            np.testing.assert_allclose(line.y, [quantity(run)[-1] for run in own])
    assert found.legend == [Entry(KINDS[k][0], KINDS[k][1], "-", KINDS[k][2]) for k in kinds]


def test_controls_by_lambda_with_the_last_numbers(figures: ModuleType) -> None:
    runs = controlled()
    drawn, found = sketch(figures.FIGURES["controls"], runs)
    assert drawn
    check_controls(found, runs, list(KINDS))
    two = [run for run in runs if run.config["tags"][0] in ("two_cores_rho", "two_cores_fig5a")]
    drawn, found = sketch(figures.FIGURES["controls"], two)
    assert drawn
    check_controls(found, two, ["two_cores_rho", "two_cores_fig5a"])
    assert sketch(figures.FIGURES["controls"], runs[:3])[0] is False, "one kind is no control"


# Schedules of Figure A.2, and the paper's network


def scheduled() -> list[Run]:
    values = np.array([9.0, 2.0, 0.5, 0.1, 0.003])
    return [
        tagged(regression(batch, k, columns={"sigma_min": values / (k + 1)}), sweep)
        for k, sweep in enumerate(("linear-a2", "linear-a2_printed_schedule"))
        for batch in (1, "full")
    ]


def check_schedules(found: Picture, runs: Sequence[Run]) -> None:
    titles = ["shared schedule, $1/\\sqrt{t}$ for both", "as printed: GD at a constant rate"]
    assert [panel.title for panel in found.panels] == titles
    for k, panel in enumerate(found.panels):
        assert (panel.xscale, panel.yscale) == ("log", "log")
        assert (panel.xlabel, panel.ylabel) == ("epoch", r"$\sigma_{\min}(W)$")
        for line, run, look in zip(panel.lines, runs[2 * k : 2 * k + 2], (SGD, GD), strict=True):
            assert (line.colour, line.dashes) == look
            np.testing.assert_array_equal(line.x, EPOCHS[1:])
            np.testing.assert_array_equal(line.y, run.rows["sigma_min"].iloc[1:])
    assert found.legend == [Entry("SGD", *SGD, "None"), Entry("GD", *GD, "None")]


def test_both_schedules_of_figure_a2(figures: ModuleType) -> None:
    runs = scheduled()
    drawn, found = sketch(figures.FIGURES["a2_schedules"], runs)
    assert drawn is True
    check_schedules(found, runs)
    for k in range(4):
        some = [run for run in runs if run is not runs[k]]
        assert not sketch(figures.FIGURES["a2_schedules"], some)[0]


def test_the_paper_s_network_as_far_as_it_went(figures: ModuleType) -> None:
    nan = float("nan")
    runs = [
        tagged(network(1e-3, batch, columns={"train/error_running": [nan, 0.5, nan, 0.2, 0.1]}),
               "default_network")
        for batch in (32, "full")
    ]  # fmt: skip
    drawn, found = sketch(figures.FIGURES["default_network"], [*runs, network()])
    assert drawn
    assert [panel.ylabel for panel in found.panels] == ["training error", VELOCITY, RANKS]
    for panel in found.panels:
        assert (panel.xlabel, panel.xscale, panel.yscale) == ("epoch", "linear", "linear")
    for k, (run, look) in enumerate(zip(runs, (SGD, GD), strict=True)):
        error, velocity, rank = (panel.lines[k] for panel in found.panels)
        assert {(line.colour, line.dashes) for line in (error, velocity, rank)} == {look}
        assert (list(error.x), list(error.y)) == ([1, 4, 9], [0.5, 0.2, 0.1])
        np.testing.assert_allclose(velocity.y, velocities(run))
        np.testing.assert_allclose(rank.y, ranks(run))
    assert found.legend == [Entry("SGD", *SGD, "None"), Entry("GD", *GD, "None")]
    assert not sketch(figures.FIGURES["default_network"], [network()])[0]


# Negative controls

PLOT = Axes.plot


def halved(axes: Axes, x: Any, y: Any, *args: Any, **look: Any) -> Any:
    return PLOT(axes, x, np.asarray(y) / 2, *args, **look)


def arithmetic(run: Run) -> Any:
    columns = [run.rows.set_index("epoch")[f"velocity/{k}"] for k in LAYERS]
    return sum(columns) / len(columns)


def wrong_layers(run: Run, clock: str = "epoch") -> Any:
    return sum(run.rows.set_index(clock)[f"effective_rank/{k}"] for k in LAYERS[:3]) / 3


SWAPPED = {"SGD": style.DYNAMICS["GD"], "GD": style.DYNAMICS["SGD"]}
FAULTS: dict[str, tuple[str, Callable, Callable, Any, str, Any]] = {
    "half as high": ("constant", lambda: courses("constant"), check_courses, Axes, "plot", halved),
    "arithmetic means": (
        *("settled", lambda: courses("settled"), check_courses),
        *(None, "_velocities", arithmetic),
    ),
    "other layers": ("equal_clocks", clocked, check_clocks, None, "_ranks", wrong_layers),
    "SGD in GD's colour": ("equal_clocks", clocked, check_clocks, style, "DYNAMICS", SWAPPED),
    "the same of A.2": ("a2_schedules", scheduled, check_schedules, style, "DYNAMICS", SWAPPED),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, figures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    key, made, check, owner, name, replacement = FAULTS[fault]
    runs = made()
    shown = runs[:4]
    check(sketch(figures.FIGURES[key], runs)[1], shown)
    monkeypatch.setattr(owner or figures, name, replacement)
    with pytest.raises(AssertionError):
        check(sketch(figures.FIGURES[key], runs)[1], shown)


# Tables


def ended(lam: float, batch: int | str = 32, seed: int = 0, **columns: Any) -> Run:
    return network(
        lam, batch, seed, columns={"val/error": [0.5, 0.4, 0.3, 0.2, 0.1 + seed / 50], **columns}
    )


def test_the_table_of_ends_has_means_over_seeds_with_intervals(tables: ModuleType) -> None:
    gd = ended(1e-4, "full")
    pair = [ended(2e-3, seed=seed) for seed in (0, 1)]
    small = ended(0.0, diverged=[float("nan")] * 4 + [1.0])
    rows = cells(tables.ends([gd, pair[1], small, pair[0]]))
    assert [(r["dynamics"], r["lambda"], r["seeds"]) for r in rows] == [
        ("SGD", "0", "1 (1 diverged)"),
        ("SGD", "0.002", "2"),
        ("GD", "0.0001", "1"),
    ]
    two = rows[1]

    def last(key: str) -> list[float]:
        return [run.rows[key].iloc[-1] for run in pair]

    assert (two["epochs"], two["steps"]) == ("9", "63")
    assert two["train error"] == f"{np.mean(last('train/error')):.1%}"
    assert two["test error"] == "11.0%"
    assert two["mu (1e-8)"] == told([1e8 * m for m in last("margin/mean")], False, ".3g")
    assert two["sigma/mu"] == told([spreads(run)[-1] for run in pair], True, ".3g")
    assert two["‖V̇‖"] == told([velocities(run)[-1] for run in pair], True, ".3g")
    for layer in MIDDLE:
        assert two[f"rank {layer}"] == told(last(f"effective_rank/{layer}"), False, ".1f")
    assert rows[2]["sigma/mu"] == f"{spreads(gd)[-1]:.3g}"
    broken = ended(0.0, **{"margin/mean": [0.0] * 5, "train/error": [float("nan")] * 5})
    (row,) = cells(tables.ends([broken]))
    assert (row["train error"], row["sigma/mu"]) == ("-", "-")


def test_epochs_and_steps_are_whole_and_each_told_once(tables: ModuleType) -> None:
    runs = [
        ended(0.0, seed=k, **{STEP: [0, 1, 2, 3, end]})
        for k, end in enumerate((1499.6, 1500.4, 900.0))
    ]
    (row,) = cells(tables.ends(runs))
    assert (row["epochs"], row["steps"]) == ("9", "900, 1,500")


def test_the_table_of_layers_has_geometric_velocities_and_mean_ranks(tables: ModuleType) -> None:
    pair = [network(2e-3, seed=seed) for seed in (0, 1)]
    (row,) = cells(tables.layers(pair))
    for layer in LAYERS:
        norms = [run.rows[f"velocity/{layer}"].iloc[-1] for run in pair]
        ranked = [run.rows[f"effective_rank/{layer}"].iloc[-1] for run in pair]
        assert row[f"‖V̇‖ {layer}"] == f"{np.sqrt(norms[0] * norms[1]):.2g}"
        assert row[f"rank {layer}"] == f"{np.mean(ranked):.1f}"


def test_groups_come_by_dynamics_lambda_and_length(tables: ModuleType) -> None:
    runs = [
        network(1e-4, "full", epochs=(0, 5)),
        network(2e-3, epochs=(0, 7)),
        network(2e-3, epochs=(0, 3), trainer={"max_epochs": 3}),
        network(1e-4, seed=1, epochs=(0, 30)),
        network(1e-4, seed=0, epochs=(0, 30)),
    ]
    assert tables.groups(runs) == [[runs[4], runs[3]], [runs[2]], [runs[1]], [runs[0]]]
    assert tables.seeds(runs[:3]) == "3"


def test_what_the_last_fifth_still_changes(tables: ModuleType) -> None:
    """Epochs above 80% of the run against those above 60% up to 80%, each a mean."""
    epochs = range(21)
    runs = [network(1e-3, seed=seed, epochs=epochs) for seed in (0, 1)]
    runs[0].rows["margin/mean"] *= -1
    (row,) = cells(tables.settled(runs))

    def change(run: Run, key: str) -> float:
        values = np.abs(run.rows[key].to_numpy())
        return np.mean(values[17:]) / np.mean(values[13:17])

    moved = [np.prod([change(r, f"velocity/{k}") for k in LAYERS]) ** (1 / 6) for r in runs]
    assert row["‖V̇‖, last fifth/fifth before"] == told(moved, True, ".4g")
    spread = [change(r, "margin/std") / change(r, "margin/mean") for r in runs]
    assert row["sigma/mu, same"] == told(spread, True, ".4g")
    for layer in MIDDLE:
        ranked = [change(r, f"effective_rank/{layer}") for r in runs]
        assert row[f"rank {layer}, same"] == told(ranked, True, ".4g")


def test_the_table_of_lemma_1(tables: ModuleType) -> None:
    nan = float("nan")
    columns: dict[str, Any] = {}
    for k, layer in enumerate(("conv1", "fc1")):
        noise = {"variance": 0.02, "scale": 5.0, "bias": 0.3, "bias_expected": 0.7}
        for name, value in noise.items():
            columns[f"gradient_noise/{name}/{layer}"] = [9.0, 9.0, 9.0, value * (1 + k), nan]
    columns["tail_bound/ratio/fc1"] = [nan, 0.25, 0.875, 0.5, 0.125]
    run = network(layers=("conv1", "fc1"), batch=10, data={"num_train": 91}, columns=columns)
    first, second = cells(tables.lemma1([run]))
    assert [first["layer"], second["layer"]] == ["conv1", "fc1"]
    assert [r["tail/bound, largest"] for r in (first, second)] == ["vacuous", "0.875"]
    # Of one sample from the variance of a minibatch drawn without replacement.
    of_one = 0.02 * 10 * 90 / 81
    assert first["‖V̇‖ of the whole set"] == f"{np.sqrt(of_one / 5):.3g}"
    assert first["of a minibatch, about it"] == f"{np.sqrt(0.02):.3g}"
    assert first["its mean's distance from the whole set's"] == "0.3"
    assert first["what sampling leaves of that"] == "0.7"
    assert second["what sampling leaves of that"] == "1.4"


def test_the_table_of_linear_runs(tables: ModuleType) -> None:
    nan = float("nan")
    columns = {
        "train/mse_per_sample": [4, 3, 2, 1, 0.125],
        "null/norm": [nan, 8.0, 4.0, 2.0, 1.0],
        "null/norm/q05": [nan, 4, 4, 4, 0.5],
        "null/norm/q95": [nan, 9, 9, 9, 2.0],
        "sigma_min": [9, 9, 9, 9, 0.375],
        "noise/weights_last_tenth": [nan] * 4 + [0.25],
        "noise/weights_tenth_before": [nan] * 4 + [0.5],
    }
    a = tagged(regression(1, columns=columns), "linear-b", "more")
    empty = {"null/norm": [1e-12] * 5, "noise/weights_tenth_before": [0.0] * 5}
    b = tagged(regression("full", columns=empty), "linear-a")
    one, two = cells(tables.linear([a, b, network(), tagged(network(), "small", "linear-a")]))
    assert (one["sweep"], two["sweep"]) == ("`linear-a`", "`linear-b`")
    assert two == {
        "sweep": "`linear-b`",
        "run": a.name,
        "epochs": "9",
        "steps": "90",
        "mean squared error": "0.125",
        "‖W_perp‖, of its start": "0.125 [0.0625, 0.25]",
        "smallest singular value": "0.375",
        "noise, last tenth/tenth before": "0.5",
    }
    assert (one["‖W_perp‖, of its start"], one["noise, last tenth/tenth before"]) == ("empty", "-")
    above = {"null/norm": [1.01e-12, 1, 1, 1, 1.01e-12]}
    (row,) = cells(tables.linear([tagged(regression(columns=above), "linear-a")]))
    assert row["‖W_perp‖, of its start"] == "1"


def test_each_table_is_of_its_own_sweeps(tables: ModuleType) -> None:
    sweeps = {
        "sgd": ("two_cores_fig1", "two_cores_seeds"),
        "gd": ("two_cores_fig2a",),
        "gd_converged": ("two_cores_fig2b",),
        "cross_entropy": ("two_cores_fig5a",),
        "rho": ("two_cores_rho",),
        "lagrange": ("two_cores_lagrange",),
        "constant": ("two_cores_constant", "two_cores_constant_seeds"),
        "equal_steps": ("two_cores_equal_steps", "two_cores_equal_steps_sgd"),
        "small": ("small",),
        "default_network": ("default_network",),
        "scale": ("scale",),
    }
    runs = []
    lams = iter(range(1, 99))
    for name, tags in sweeps.items():
        for tag in tags:
            runs.append(
                (name, tagged(ended(1e-3 * next(lams), "full" if name == "gd" else 32), tag))
            )
    found = tables.of_runs([run for _, run in runs])
    for name in sweeps:
        own = [f"{lam_of(run):g}" for key, run in runs if key == name]
        assert [row["lambda"] for row in cells(found[name])] == own
    for name in ("settled", "layers"):
        assert [row["lambda"] for row in cells(found[name])] == ["0.001", "0.002"]
    assert found["lemma1"] == found["linear"] == "*No such runs are recorded yet.*"
    assert found["whose"] == "*No such runs are recorded yet.*"
    confirmed = [name for name in found if name.startswith("confirm_")]
    confirmed_or_gd = {found[name] for name in (*confirmed, "gd_steps")}
    assert confirmed_or_gd == {found["whose"]} and len(confirmed) == 5
    others = ["settled", "edge", "dose", "whose", "linear", "layers", "lemma1"]
    assert found["edge"] == found["whose"] and list(found) == [
        *sweeps,
        "gd_steps",
        *confirmed,
        *others,
    ]


def test_a_group_has_the_numbers_of_its_trained_networks_and_counts_the_empty_ones(
    tables: ModuleType,
) -> None:
    trained, other, empty = ended(1e-3), ended(1e-3, seed=1), zero_function(ended(1e-3, seed=2))
    (row,) = cells(tables.ends([trained, empty, other]))
    (alone,) = cells(tables.ends([trained, other]))
    assert (row.pop("seeds"), alone.pop("seeds")) == ("3, 1 f = 0", "2")
    assert row == alone
    # Control: where all are empty, the numbers are theirs.
    (row,) = cells(tables.ends([empty]))
    assert row["seeds"] == "1" and row["rank fc1"] != "-"


def test_the_edge_has_a_line_for_each_run_from_the_step_that_its_claims_begin_at(
    tables: ModuleType,
) -> None:
    epochs = (0, 100, 200, 250, 300, 400)
    losses = {"train/loss_running": [9.0, 0.001, 0.5, 0.02, 0.21, 0.4]}
    ratios = {"sharpness/ratio": [0.1, 0.2, 3.0, 0.75, 1.25, 0.5]}
    runs = [
        tagged(network(2e-3, batch, columns={**losses, **ratios}, epochs=epochs), "edge_gd")
        for batch in ("full", 32)
    ]
    gd, sgd = cells(tables.edge(runs))
    assert (gd["dynamics"], sgd["dynamics"]) == ("GD", "SGD")
    # After epoch 200 the least loss is 0.02, and 0.21 is above ten times that; before, 0.001 is.
    told = ("the loss rises in epoch", "curvature/limit before", "at most")
    assert [gd[key] for key in told] == ["300", "0.75", "1.25"]
    assert [sgd[key] for key in told] == ["200", "0.20", "3.00"]
    assert gd["lambda"] == "0.002" and gd["seed"] == "0"


def test_the_table_of_verdicts_has_a_line_for_each(tables: ModuleType) -> None:
    claims = read_claims()
    untrained = network(columns={"train/loss": [1.0] * 5})
    found = tables.of_verdicts(judge(claims, [network(), untrained]))
    head, rule, *lines = found.split("\n")
    names = ("answer", "claim", "bound", "level", "power", "source")
    assert head == f"| {' | '.join(names)} |" and rule == "|" + " --- |" * len(names)
    primary = [claim for claim in claims.claims if claim.primary]
    assert len(lines[:-2]) == len(primary) + 4
    first = "| **not testable** | noise: needs SGD and GD at lambda > 0 by seed; "
    assert lines[0].startswith(first)
    assert lines[0].endswith(f" | - | {primary[0].source} |")
    assert lines[-1] == "Left out of the claims: 1 not trained."


def test_a_verdict_has_its_power_and_a_star_if_its_runs_are_older_than_the_claims(
    tables: ModuleType,
) -> None:
    runs = [network(lam, seed=seed) for lam in (1e-3, 2e-3) for seed in range(5)]
    found = judge(read_claims(), runs)
    (verdict,) = (v for v in found.verdicts if v.claim.name == "spread")
    first = verdict.judged[0]
    assert first.retrospective
    row, legend = row_and_legend(tables, found)
    assert row[0] == "**undecided***"
    assert row[2:4] == ["above 0.1", f"{1 - first.level:.1%}"]
    assert row[4] == f"{verdict.claim.power(first.level, 5):.0%}" == f"{first.power:.0%}"
    assert legend == "* retrospective: runs are older than the claims file."
    # Control: runs that know the file have no star.
    known = replace(verdict, judged=[replace(first, retrospective=False)])
    row, legend = row_and_legend(tables, found._replace(verdicts=[known]))
    assert row[0] == "**undecided**" and not legend


def row_and_legend(tables: ModuleType, found: Verdicts) -> tuple[list[str], str]:
    """The line of a claim, and what stands below the table."""
    lines, _, legend = tables.of_some(found, "spread").partition("\n\n")
    return lines.split("\n")[2].strip("| ").split(" | "), legend


def test_figures_that_the_runs_allow_are_kept_as_pictures(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(_: Any, folder: Path, key: str) -> list[Path]:
        files = [folder / f"{key}.png", folder / f"{key}.svg"]
        for file in files:
            file.touch()
        return files

    monkeypatch.setattr(style, "save", save)
    assert figures.draw([*courses("constant"), *clocked()], tmp_path) == [
        "settled",
        "constant",
        "equal_clocks",
        "controls",
    ]
    names = {"settled", "constant", "equal_clocks", "controls"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names}


# Recording


def part(id: str, code: int | None, start: str, *tags: str, epoch: int = 0) -> Part:
    items = [{"epoch": epoch, STEP: epoch}]
    config = {"tags": list(tags)} if tags else {}
    return Part(Path(id), id, id, None, start, config, items, code)


def test_ended_runs_are_recorded_in_the_file_of_their_first_tag(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    source, target = tmp_path / "runs", tmp_path / "results"
    write_archive(
        target / "one.jsonl.xz", [part("old", 0, "1", "one"), part("kept", 0, "1", "one")]
    )
    write_archive(
        source / "new.jsonl.xz",
        [
            part("old", 143, "2", "one", epoch=1),
            part("old", 0, "3", "one", epoch=2),
            part("resumed", 0, "1", "two", "one"),
            part("resumed", 143, "2", "two", "one", epoch=1),
            part("ctrl-c", 130, "1", "two"),
            part("running", None, "1", "two"),
            part("failed", 1, "1", "three"),
            part("untagged", 5, "1"),
            part("tagged", 0, "1", "four", "one"),
        ],
    )
    modules["results"].record([str(source)], target)
    found = {
        path.name: [(one.id, one.start) for one in read_archive(path)]
        for path in sorted(target.glob("*.xz"))
    }
    assert found == {
        "four.jsonl.xz": [("tagged", "1")],
        "one.jsonl.xz": [("kept", "1"), ("old", "2"), ("old", "3")],
        "single.jsonl.xz": [("untagged", "1")],
        "three.jsonl.xz": [("failed", "1")],
    }


def test_what_cannot_be_read_is_said_and_the_rest_recorded(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    results = modules["results"]
    parts = [Skipped(Path("half"), "it is broken"), part("whole", 0, "1", "one")]
    monkeypatch.setattr(results, "read_parts", lambda _: parts)
    results.record(["anything"], tmp_path)
    assert capsys.readouterr().err == "left out: half: it is broken\n"
    assert [one.id for one in read_archive(tmp_path / "one.jsonl.xz")] == ["whole"]
