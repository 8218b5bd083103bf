"""Each theorem's bound just below and just above, in every row and every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report.generic import STEP, network, regression

from janus_pl.records.run import Run
from janus_pl.verify.theorems import THEOREMS, Checked, Finding

ALL = {theorem.name: theorem for theorem in THEOREMS}
HOLDS, FAILS, UNTESTABLE = "holds", "broken", "not testable"
GD = "full"
nan = math.nan


def only(key: str, runs: Sequence[Run]) -> Checked:
    checked = ALL[key].check(runs)
    assert len(checked.findings) <= 1
    return checked


def found(key: str, runs: Sequence[Run]) -> Finding:
    """The single finding."""
    (finding,) = ALL[key].check(runs).findings
    return finding


def names(runs: Sequence[Run]) -> list[str]:
    return [run.id for run in runs]


# Theorem 1

DECAY = np.array([2.0, 0.7, 0.03, 1e-4, 3e-7])


def decayed(off: Sequence[float], predicted: np.ndarray = DECAY, **options: Any) -> Run:
    """A null space that is off its closed form by these, in units of its start."""
    norm = predicted + np.asarray(off) * predicted[0]
    return regression(columns={"null/norm": norm, "null/predicted": predicted}, **options)


@pytest.mark.parametrize("row", range(1, 5))
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("size", "expected"), [(0.99e-9, HOLDS), (1.01e-9, FAILS)])
def test_the_closed_form_is_kept_to_1e_9_of_the_start_in_every_row(
    row: int, sign: int, size: float, expected: str
) -> None:
    off = [sign * size if k == row else 0.0 for k in range(5)]
    run = decayed(off)
    verdict = only("Theorem 1", [run])
    assert verdict.answer == expected
    assert verdict.broken is (expected == FAILS)
    assert verdict.findings[0].size == pytest.approx(size, rel=1e-3)
    left = run.rows["null/norm"].iloc[-1] / DECAY[0]
    assert verdict.findings[0].measured.endswith(f"in 5 rows; {left:.3g} of the start is left")


def test_the_closed_form_is_compared_where_both_numbers_are() -> None:
    off = [0.0, 5e-10, 0.0, 0.0, 0.0]
    run = decayed(off)
    run.rows.loc[0, ["null/norm", "null/predicted"]] = nan  # then the start is the next row
    run.rows.loc[2, "null/norm"] = nan
    verdict = only("Theorem 1", [run])
    assert verdict.findings[0].size == pytest.approx(5e-10 * 2 / 0.7, rel=1e-6)
    assert "in 3 rows; 4.29e-07 of the start is left" in verdict.findings[0].measured


@pytest.mark.parametrize(("start", "told"), [(1e-12, False), (1.01e-12, True), (0.0, False)])
def test_a_null_space_that_starts_empty_decays_from_nothing(start: float, told: bool) -> None:
    predicted = start * np.array([1, 0.5, 0.25, 0.1, 0.01])
    run = regression(columns={"null/norm": predicted, "null/predicted": predicted})
    assert only("Theorem 1", [run]).answer == (HOLDS if told else UNTESTABLE)
    assert only("A.1", [run]).missing != ALL["A.1"].needs or told


def test_each_run_has_its_own_verdict() -> None:
    runs = [decayed([0] * 5), decayed([0, 0, 2e-9, 0, 0], seed=1)]
    checked = ALL["Theorem 1"].check(runs)
    assert [f.holds for f in checked.findings] == [True, False]
    assert checked.answer == FAILS
    assert checked.sentence.endswith(f"2 runs, broken in {runs[1].name}")


# The law over B


def fading(
    batch: int | str,
    kept: Sequence[float],
    epochs: Sequence[float] = (0, 1, 2, 3, 4),
    start: float = 3.0,
    steps: int = 1,
    **options: Any,
) -> Run:
    """A null space of which these shares of the start are left at each epoch."""
    norm = start * np.asarray(kept, float)
    columns = {"null/norm": norm, "null/predicted": norm, STEP: steps * np.asarray(epochs)}
    trainer = {"max_epochs": 9}  # whatever the rows
    return regression(batch, epochs=epochs, columns=columns, trainer=trainer, **options)


def kept_at(rate: float, ratio: float, wrong: Mapping[int, float] | None = None) -> np.ndarray:
    shares = np.exp(-rate * ratio * np.arange(5.0))
    for row, value in (wrong or {}).items():
        shares[row] = value
    return shares


@pytest.mark.parametrize(
    ("off", "expected"),
    [(0.0, HOLDS), (0.95e-6, HOLDS), (-0.95e-6, HOLDS), (1.05e-6, FAILS), (-1.05e-6, FAILS)],
)
def test_slopes_are_as_the_steps_to_one_millionth(off: float, expected: str) -> None:
    sgd = fading(5, kept_at(0.1, 4 * (1 + off)), steps=4, start=0.5)
    gd = fading(GD, kept_at(0.1, 1))
    verdict = only("law over B", [sgd, gd])
    assert verdict.answer == expected
    assert verdict.findings[0].size == pytest.approx(abs(off), abs=1e-9)
    assert names(verdict.findings[0].runs) == names((gd, sgd))
    assert f"{sgd.name} falls" in verdict.findings[0].measured
    assert verdict.findings[0].measured.endswith(f"as {gd.name}; it takes 4 times the steps")


def test_a_pair_that_is_rounding_alone_hides_no_later_pair() -> None:
    gone = fading(5, [1.0, *[1e-11] * 4], steps=2)
    sgd, gd = fading(1, kept_at(0.1, 4), steps=4), fading(GD, kept_at(0.1, 1))
    verdict = only("law over B", [gone, sgd, gd])
    assert verdict.answer == HOLDS
    assert names(verdict.findings[0].runs) == names((gd, sgd))


def test_the_slope_is_that_of_the_last_epoch_above_rounding() -> None:
    """Earlier rows may be off by rounding of their own; later ones are rounding alone."""
    wrong_first = {1: 0.5}
    sgd = fading(5, kept_at(1.4, 4, wrong_first | {4: 0.99e-10}), steps=4)
    gd = fading(GD, kept_at(1.4, 1, {1: 0.9}))
    # At epoch 4 of SGD 1.9e-10 would be left: one with less than 1e-10 is not taken.
    assert only("law over B", [sgd, gd]).answer == HOLDS
    above = fading(5, kept_at(1.4, 4, wrong_first | {4: 1.01e-10}), steps=4)
    verdict = only("law over B", [above, gd])
    assert verdict.answer == FAILS
    seen = math.log(1.01e-10) / (-1.4 * 4)
    assert verdict.findings[0].size == pytest.approx(abs(seen / 4 - 1))


def test_an_epoch_at_which_nothing_is_lost_has_no_slope() -> None:
    sgd = fading(5, kept_at(0.1, 4, {4: 1.0}), steps=4)
    gd = fading(GD, kept_at(0.1, 1))
    assert only("law over B", [sgd, gd]).answer == HOLDS, "by epoch 3"
    growing = fading(5, [1, 1.1, 1.2, 1.0, 3.0], steps=4)
    verdict = only("law over B", [growing, gd])
    assert verdict.missing == f"rows of {growing.name} before its null space is rounding"


def test_slopes_are_compared_at_common_epochs() -> None:
    sgd = fading(5, kept_at(0.1, 4), steps=4)
    rare = fading(GD, [1, math.exp(-0.2), 0.3], epochs=(0, 2, 5))
    assert only("law over B", [sgd, rare]).answer == HOLDS
    apart = fading(GD, [1, math.exp(-0.7)], epochs=(0, 7))
    assert only("law over B", [sgd, apart]).answer == UNTESTABLE


@pytest.mark.parametrize(
    "options",
    [
        {"model": {"gd_schedule": "constant"}},
        {"model": {"gd_learning_rate": 0.1}},
        {"seed": 1},
        {"model": {"learning_rate": 0.3}},
    ],
)
def test_the_law_is_of_runs_at_one_rate_and_one_seed(options: dict[str, Any]) -> None:
    sgd = fading(5, kept_at(0.1, 4), steps=4)
    gd = fading(GD, kept_at(0.1, 1), **options)
    assert only("law over B", [sgd, gd]).answer == UNTESTABLE
    assert only("law over B", [sgd, fading(GD, kept_at(0.1, 1))]).answer == HOLDS
    if "seed" not in options:  # both of them, as a config for the pair has it
        both = [fading(5, kept_at(0.1, 4), steps=4, **options), gd]
        allowed = set(options["model"]) == {"learning_rate"}
        assert only("law over B", both).answer == (HOLDS if allowed else UNTESTABLE)
    same = [fading(size, kept_at(0.1, 4), steps=4) for size in (5, 6)]
    assert only("law over B", same).answer == UNTESTABLE, "as many steps an epoch"
    # Another with other steps is compared with each of them.
    more = fading(2, kept_at(0.1, 8), steps=8)
    each = ALL["law over B"].check([*same, more]).findings
    assert [(f.holds, "falls 2 times" in f.measured) for f in each] == [(True, True)] * 2


def test_medians_over_replicas_have_no_slope_of_one() -> None:
    pair = [fading(5, kept_at(0.1, 4), steps=4), fading(GD, kept_at(0.1, 1))]
    assert only("law over B", pair).answer == HOLDS
    for k in range(2):
        many = replace(pair[k], rows=pair[k].rows.assign(**{"null/norm/q05": 0.1}))
        assert only("law over B", [many, pair[1 - k]]).answer == UNTESTABLE


# A.1


def empty(batch: int | str, norms: Sequence[float], **options: Any) -> Run:
    columns = {"null/norm": norms, "null/predicted": [0.0] * 5}
    return regression(batch, columns=columns, **options)


@pytest.mark.parametrize("row", range(1, 5))
@pytest.mark.parametrize("of_gd", [True, False])
@pytest.mark.parametrize(
    ("largest", "expected"), [(1e-12, HOLDS), (1.01e-12, FAILS), (math.inf, FAILS)]
)
def test_an_empty_null_space_stays_below_1e_12_in_every_row_of_both(
    row: int, of_gd: bool, largest: float, expected: str
) -> None:
    norms = [1e-13 * k for k in range(5)]
    odd = [largest if k == row else norm for k, norm in enumerate(norms)]
    runs = [empty(1, norms if of_gd else odd), empty(GD, odd if of_gd else norms)]
    verdict = only("A.1", runs)
    assert verdict.answer == expected
    assert verdict.findings[0].size == max(run.rows["null/norm"].max() for run in runs)


def test_both_dynamics_are_needed_and_the_missing_one_is_named() -> None:
    norms = [0.0] * 5
    sgd, gd = empty(1, norms), empty(GD, norms)
    assert only("A.1", [sgd]).missing == f"{sgd.name} with data.batch_size: full"
    assert only("A.1", [gd]).missing == f"{gd.name} with data.batch_size: 1"
    other = empty(GD, norms, model={"learning_rate": 0.5})
    assert only("A.1", [sgd, other]).answer == UNTESTABLE
    full = empty(GD, [2e-12, *norms[1:]])  # which does not start empty
    assert only("A.1", [sgd, full]).answer == UNTESTABLE


# The tail bound


def bounded(
    ratios: Mapping[str, Sequence[float]],
    vacuous: Mapping[str, Sequence[float]] | None = None,
    exit_code: int = 0,
) -> Run:
    """A record of RankBound: no numbers at the start, then a ratio for each row."""
    columns: dict[str, Any] = {}
    for layer, values in ratios.items():
        columns[f"tail_bound/ratio/{layer}"] = [nan, *values]
        columns[f"tail_bound/vacuous/{layer}"] = [nan, *([0.0] * 4)]
    for layer, values in (vacuous or {}).items():
        columns[f"tail_bound/vacuous/{layer}"] = [nan, *values]
    return network(columns=columns, exit_code=exit_code)


FINE = (0.5, 0.4, 0.3, 0.2)


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("layer", ["conv1", "fc1"])
@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1.0, HOLDS), (np.nextafter(1, 2), FAILS), (nan, FAILS), (math.inf, FAILS)],
)
def test_the_tail_bound_is_kept_in_every_row_and_layer(
    row: int, layer: str, ratio: float, expected: str
) -> None:
    odd = [ratio if k == row else value for k, value in enumerate(FINE)]
    ratios = {k: odd if k == layer else FINE for k in ("conv1", "fc1")}
    verdict = only("tail bound", [bounded(ratios)])
    assert verdict.answer == expected
    assert verdict.broken is (expected == FAILS)
    said = verdict.findings[0].measured
    if math.isfinite(ratio):
        each = ", ".join(f"{k} {max(values):.3g}" for k, values in ratios.items())
        assert said.endswith(f"tail/bound at most {each} (4 rows)")


def test_where_the_bound_is_vacuous_no_ratio_is_due() -> None:
    ratios = {"conv1": (nan, 0.5, nan, 0.25), "fc1": (0.75, nan, nan, 0.5)}
    vacuous = {"conv1": (1, 0, 1, 0), "fc1": (0, 1, 1, 0), "fc2": (1, 1, 1, 1)}
    verdict = only("tail bound", [bounded(ratios, vacuous)])
    assert verdict.answer == HOLDS
    said = "tail/bound at most conv1 0.5, fc1 0.75; vacuous for fc2 (3 rows)"
    assert verdict.findings[0].measured.endswith(said)
    # Where it is not vacuous one is.
    due = bounded(ratios, {**vacuous, "conv1": (0, 0, 1, 0)})
    assert only("tail bound", [due]).answer == FAILS
    gone = bounded({"fc1": FINE}, {"conv1": (1, 1, 0, 1)})
    assert only("tail bound", [gone]).answer == FAILS, "not even a column of ratios"
    nothing = bounded({}, {"conv1": (1, 1, 1, 1)})
    said = f"a smaller batch than that of {nothing.name}: its bound is vacuous"
    assert only("tail bound", [nothing]).missing == said
    assert only("tail bound", [network()]).missing == ALL["tail bound"].needs


def test_a_run_that_stopped_at_a_broken_bound_has_broken_it() -> None:
    ratios = {"fc1": FINE}
    for code, expected in ((0, HOLDS), (5, FAILS)):
        assert only("tail bound", [bounded(ratios, exit_code=code)]).answer == expected
    unfinished = replace(bounded(ratios), exit_code=None)
    assert only("tail bound", [unfinished]).answer == HOLDS
