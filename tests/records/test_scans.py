"""Which runs a scan compares, and up to which end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report.generic import measured, zero_function
from report.scanned import classified, scanned

from janus_pl.records.families import families, is_untrained
from janus_pl.records.run import Run
from janus_pl.records.scans import CLOCKS, OPTIONS, scan, varying


def ids(found: Any) -> set[str]:
    return {at.run.id for at in found.windows}


def test_runs_up_to_the_common_end_of_each_clock() -> None:
    runs = [scanned(16, rate=0.2), scanned(64, rate=0.2)]
    runs[1] = replace(runs[1], rows=runs[1].rows[runs[1].rows["epoch"] <= 30])
    ends = {}
    for clock, column in CLOCKS.items():
        found = scan(runs, ["batch_size"], clock)
        assert found is not None
        assert found.end == min(float(run.rows[column].iloc[-1]) for run in runs)
        for at in found.windows:
            times = at.rows[column]
            assert times.max() <= found.end and times.min() > 0.8 * found.end
        ends[clock] = found.end
    assert ends == {"epochs": 30, "steps": 240, "eta_t": pytest.approx(48)}


def test_lengths_may_differ_at_equal_steps_and_the_longest_run_counts() -> None:
    long, short = (scanned(16, epochs=tuple(range(n + 1))) for n in (40, 10))
    other = scanned(64, epochs=tuple(range(41)))
    short = replace(short, id="short")
    at_epochs = scan([long, short, other], ["batch_size"], "epochs")
    assert at_epochs and ids(at_epochs) == {long.id, other.id} and not at_epochs.lengths
    for some in ([long, short, other], [short, long, other]):
        at_steps = scan(some, ["batch_size"], "steps")
        assert at_steps and ids(at_steps) == {long.id, other.id} and at_steps.lengths


def test_a_scan_of_equal_steps_alone_is_read_at_equal_epochs_up_to_the_shortest() -> None:
    """Of configured lengths that all differ there is no other comparison, and it is said."""
    runs = [scanned(b, epochs=tuple(range(n + 1))) for b, n in ((16, 10), (64, 40))]
    found = scan(runs, ["batch_size"], "epochs")
    assert found and found.lengths and found.end == 10


def test_the_family_of_most_values_then_of_most_runs() -> None:
    few = [scanned(b, seed=s, lam=1e-4) for b in (16, 64) for s in range(5)]
    many = [scanned(b, lam=1e-3) for b in (16, 32, 64)]
    found = scan([*few, *many], ["batch_size"], "epochs")
    assert found and ids(found) == {run.id for run in many}
    found = scan([*few, *many[:2]], ["batch_size"], "epochs")
    assert found and ids(found) == {run.id for run in few}
    found = scan([*few, *many], ["batch_size", "weight_decay"], "epochs")
    assert found and ids(found) == {run.id for run in [*few, *many]}
    assert found.values == [16, 32, 64] and {*found.runs} == {1e-4, 1e-3}


@pytest.mark.parametrize(
    "odd",
    [
        lambda run: replace(run, exit_code=None),
        lambda run: replace(run, exit_code=3),
        lambda run: replace(run, rows=run.rows.assign(diverged=1.0)),
        zero_function,
    ],
)
def test_runs_without_a_result_are_no_part_of_a_scan(odd: Any) -> None:
    runs = [scanned(16), scanned(64), scanned(32)]
    found = scan([*runs[:2], odd(runs[2])], ["batch_size"], "epochs")
    assert found and ids(found) == {run.id for run in runs[:2]}
    assert scan([runs[0], odd(runs[2])], ["batch_size"], "epochs") is None


def test_gd_is_the_batch_size_n() -> None:
    assert OPTIONS["batch_size"].of(scanned("full")) == 512
    assert varying([scanned("full"), scanned(64)]) == ["batch_size"]


def test_an_optimizer_is_its_class_with_its_options() -> None:
    def of(**given: Any) -> Run:
        spec = {"class_path": "torch.optim.SGD", "init_args": given}
        return measured(scanned(model={"optimizer": spec}), momentum=given.get("momentum"))

    runs = [
        of(momentum=0.9, fused=True),
        of(momentum=0.9, fused=False),
        of(momentum=0.9, nesterov=1),
    ]
    words = [OPTIONS["optimizer"].of(run) for run in runs]
    assert words[0] == words[1] != words[2], "fused changes no number"
    assert varying(runs) == ["optimizer"]
    assert varying([runs[0], scanned(64, model=runs[0].config["model"]["init_args"])]) == [
        "batch_size"
    ]


def test_options_of_somebody_else_s_module_are_not_known_but_for_what_is_measured() -> None:
    theirs = [
        measured(run, kind="module", task="m.M", weight_decay=None, decays={})
        for run in (scanned(16, rate=0.1), scanned(64, rate=0.1))
    ]
    assert varying(theirs) == ["batch_size"]
    assert OPTIONS["learning_rate"].of(theirs[0]) is None
    rates = [measured(scanned(rate=r), kind="module", task="m.M") for r in (0.1, 0.2)]
    assert varying(rates) == []
    ours = [classified(scanned(rate=r)) for r in (0.1, 0.2)]
    assert varying(ours) == ["learning_rate"]


def test_a_batch_size_that_was_not_measured_still_tells() -> None:
    """An option of that name in somebody else's data, which is not the size of the batches."""
    runs = [
        measured(scanned(b), kind="module", task="m.M", batch_size=8, decays={}) for b in (16, 64)
    ]
    assert len(families(runs, "batch")) == 2


@pytest.mark.parametrize(("classes", "untrained"), [(2, True), (10, False)])
def test_f_0_of_more_classes_has_a_larger_cross_entropy(classes: int, untrained: bool) -> None:
    run = measured(
        scanned(loss="cross_entropy", columns={"train/loss": 0.9}),
        classes={str(k): k for k in range(classes)},
    )
    assert is_untrained(run) is untrained
    lost = replace(run, rows=run.rows.assign(**{"train/loss": 2.3}))
    assert is_untrained(lost)
