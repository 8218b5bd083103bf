"""Which runs compare, what is trained, and what several seeds say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from report.generic import measured, network, regression
from scipy import stats

from janus_pl.records.effects import Estimate, mean, ratio
from janus_pl.records.families import (
    by_seed,
    families,
    is_untrained,
    is_zero_function,
    lambda_of,
    numerics_of,
    outputs_left,
    seed_of,
)
from janus_pl.records.run import Run
from janus_pl.verify.settings import differences
from janus_pl.verify.subjects import ANY
from janus_pl.verify.theorems import Finding, Missing, Theorem

# Estimates

VALUES = (0.25, 0.5, 1.75, 0.125)


def test_a_mean_has_student_s_interval() -> None:
    """By the quantile of scipy's interval function, which the code does not use."""
    for n in (2, 3, 4):
        some = VALUES[:n]
        low, high = stats.t.interval(0.95, n - 1, np.mean(some), stats.sem(some))
        found = mean("name", some)
        assert found == Estimate("name", pytest.approx(np.mean(some)), found.low, found.high, n)
        assert (found.low, found.high) == pytest.approx((low, high))
    assert mean("one", VALUES[:1]) == Estimate("one", 0.25, None, None, 1)


def test_a_ratio_has_the_interval_of_its_logarithms() -> None:
    logs = np.log(VALUES)
    low, high = stats.t.interval(0.95, 3, logs.mean(), stats.sem(logs))
    found = ratio("name", VALUES)
    assert found.value == pytest.approx(np.prod(VALUES) ** 0.25)
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert found.seeds == 4
    assert str(found) == f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
    assert str(ratio("one", [0.25])) == "0.25"


@pytest.mark.parametrize("odd", [0.0, -1.0, math.nan, math.inf])
def test_of_what_has_no_logarithm_there_is_no_ratio(odd: float) -> None:
    with pytest.raises(ValueError, match="allowed: finite ratios above 0"):
        ratio("name", [1.0, odd])


# Which runs compare


@pytest.mark.parametrize(
    ("options", "varied"),
    [
        ({"lam": 2e-3}, "lambda"),
        ({"batch": 64}, "batch"),
        ({"data": {"micro_batch_size": 4}}, None),
        ({"seed": 1}, None),
        ({"data_seed": 1}, None),
        ({"trainer": {"max_epochs": 77}}, "epochs"),
        ({"trainer": {"max_steps": 77}}, "epochs"),
        ({"loss": "logistic"}, "loss"),
        ({"model": {"learning_rate": 0.2}}, "nothing"),
        ({"model": {"optimizer": {"init_args": {"momentum": 0.9}}}}, "nothing"),
        ({"data": {"num_train": 9}}, "nothing"),
        ({"trainer": {"precision": "16"}}, "nothing"),
        ({"trainer": {"accelerator": "gpu", "callbacks": ["X"], "devices": 3}}, None),
    ],
)
def test_runs_compare_that_differ_in_what_is_varied_alone(
    options: dict[str, Any], varied: str | None
) -> None:
    pair = [network(), network(**options)]
    for name in ("lambda", "batch", "epochs", "loss"):
        together = len(families(pair, name)) == 1
        assert together == (varied in (None, name)), name
    assert (len(families(pair)) == 1) == (varied is None)


def test_families_and_seeds_keep_their_order() -> None:
    runs = [network(lam, seed=seed) for lam in (2e-3, 0.0) for seed in (1, 0)]
    other = network(model={"learning_rate": 7})
    assert families([runs[0], other, *runs[1:]], "lambda") == [runs, [other]]
    assert by_seed(runs) == [[runs[0], runs[2]], [runs[1], runs[3]]]
    assert seed_of(network(seed=3, data_seed=4)) == (3, 4)


@pytest.mark.parametrize(
    ("given", "expected"), [(1e-3, 1e-3), (0, 0.0), ([1e-3], math.nan), (None, math.nan)]
)
def test_lambda_is_one_number_or_none(given: Any, expected: float) -> None:
    found = lambda_of(network(model={"weight_decay": given}))
    assert found == expected or (math.isnan(found) and math.isnan(expected))


# What is trained

AT_ZERO = {
    "square": 1.0,
    "exponential": 1.0,
    "logistic": 0.6931471805599453,
    "cross_entropy": 0.6931471805599453,
}


def ended(loss: str, train_loss: float) -> Run:
    return network(loss=loss, columns={"train/loss": [5.0, 0.1, 9.0, train_loss, math.nan]})


@pytest.mark.parametrize("loss", AT_ZERO)
@pytest.mark.parametrize(("share", "untrained"), [(0.9899, False), (0.99, True), (1.5, True)])
def test_a_loss_within_one_percent_of_that_of_zero_is_untrained(
    loss: str, share: float, untrained: bool
) -> None:
    assert is_untrained(ended(loss, share * AT_ZERO[loss])) is untrained


def test_of_other_losses_and_records_nothing_is_untrained() -> None:
    assert not is_untrained(ended("hinge", 1e9))
    assert not is_untrained(network(columns={"train/loss": [math.nan] * 5}))
    assert is_untrained(ended("square", math.nan)), "the newest number that there is: 9"
    assert not is_untrained(regression())


def emptied(rho: float, mu: float = 3.0, sigma: float = 4.0, train_loss: float = 1.0) -> Run:
    """rho times the root mean square of the margins: 2 * 5 at the start."""
    columns = {
        "rho": [-2.0, 9.0, 9.0, rho, math.nan],
        "margin/mean": [-3.0, 9.0, 9.0, mu, math.nan],
        "margin/std": [4.0, 9.0, 9.0, sigma, math.nan],
        "train/loss": [5.0, 0.1, 9.0, train_loss, math.nan],
    }
    return network(columns=columns)


@pytest.mark.parametrize(
    ("run", "left", "zero"),
    [
        (emptied(0.02), 0.01, False),
        (emptied(0.0199), 0.00995, True),
        (emptied(-0.0199), 0.00995, True),
        (emptied(0.02, mu=0.0), 0.008, True),
        (emptied(0.02, sigma=0.0), 0.006, True),
        (emptied(0.0199, train_loss=0.98), 0.00995, False),
    ],
)
def test_a_network_that_ended_as_zero_has_a_hundredth_of_its_outputs(
    run: Run, left: float, zero: bool
) -> None:
    assert outputs_left(run) == pytest.approx(left)
    assert is_zero_function(run) is zero


def test_outputs_that_were_not_recorded_or_were_zero_tell_nothing() -> None:
    without = emptied(1e-9)
    without.rows["margin/std"] = math.nan
    assert math.isnan(outputs_left(without))
    assert not is_zero_function(without)
    silent = emptied(1e-9)
    silent.rows.loc[0, "rho"] = 0.0
    assert math.isnan(outputs_left(silent))


# Theorems


def checked(results: Sequence[Finding | Missing]) -> Any:
    rule = Theorem("k", "off by {}", "s", "t", ANY, lambda _: list(results), "wanted")
    return rule.check([])


def found(run: Run, size: float = 0.5, holds: bool = True) -> Finding:
    return Finding(holds, size, "measured", [run])


def test_a_theorem_that_fails_anywhere_is_broken() -> None:
    one, other = network(), network(seed=1)
    sound = checked([found(one), found(other, 0.75)])
    assert (sound.answer, sound.broken) == ("holds", False)
    assert sound.sentence == "off by 0.75; 2 runs"
    broken = checked([found(one), found(other, 0.25, holds=False), Missing("a run")])
    assert (broken.answer, broken.broken) == ("broken", True)
    assert broken.sentence == f"off by 0.5; 2 runs, broken in {other.name}"
    odd = checked([found(one, math.nan, holds=False), found(other, 9.0)])
    assert odd.sentence.startswith("off by nan; 2 runs, broken in")


def test_without_findings_the_first_reason_is_told() -> None:
    missing = checked([Missing("a"), Missing("b")])
    assert (missing.answer, missing.broken) == ("not testable", False)
    assert missing.sentence == "k: needs a"
    assert checked([]).sentence == "k: needs wanted"
    assert missing.to_json()["missing"] == "a"
    assert checked([found(network())]).to_json()["missing"] is None


# What tells settings apart


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([{"batch": 8}, {"batch": 16}], ["batch_size 8", "batch_size 16"]),
        ([{"loss": "square"}, {"loss": "logistic"}], ["loss square", "loss logistic"]),
        ([{"seed": 0}, {"seed": 1}], ["", ""]),
        ([{"lam": 1e-3}, {"lam": 2e-3}], ["", ""]),
        ([{"data": {"root": "a"}}, {"data": {"root": "b"}}], ["", ""]),
        ([{"data": {"micro_batch_size": 1}}, {"data": {"micro_batch_size": 2}}], ["", ""]),
        ([{"model": {"on_divergence": "a"}}, {"model": {"on_divergence": "b"}}], ["", ""]),
        ([{"trainer": {"max_epochs": e}} for e in (3, 4)], ["max_epochs 3", "max_epochs 4"]),
        ([{"trainer": {"precision": p}} for p in "ab"], ["precision a", "precision b"]),
        ([{"trainer": {"devices": 1}}, {"trainer": {"devices": 2}}], ["", ""]),
        ([{"model": {"x": 1, "y": 2}}, {"model": {"x": 3, "y": 4}}], ["x 1, y 2", "x 3, y 4"]),
        ([{"model": {"x": 1}}, {}], ["x 1", ""]),
    ],
)
def test_settings_are_told_apart_by_the_options_that_matter(
    options: list[dict[str, Any]], said: list[str]
) -> None:
    assert differences([[network(**given)] for given in options]) == said


def test_what_differs_within_a_setting_does_not_tell_it_apart() -> None:
    both = [network(1e-3, 8), network(1e-3, 8, loss="logistic")]
    other = [network(1e-3, 16), network(1e-3, 16)]
    assert differences([both, other]) == ["batch_size 8", "batch_size 16, loss square"]


# How float32 was computed


def test_numerics_tell_families_apart_and_older_records_count_as_ieee() -> None:
    old = network()
    assert old.description.numerics is None
    new = measured(network(seed=1), numerics="ieee")
    assert len(families([old, new])) == 1
    for numerics in ("tf32", "convolutions tf32, products ieee"):
        assert len(families([old, new, measured(network(), numerics=numerics)])) == 2
    for said in (None, "tf32"):  # in float64 there is none
        wide = measured(old, device="NVIDIA H200", precision="64-true", numerics=said)
        assert numerics_of(wide) == "ieee"


def test_numerics_are_told_where_they_tell_settings_apart() -> None:
    ieee, tf32 = (measured(network(), numerics=numerics) for numerics in ("ieee", "tf32"))
    assert differences([[ieee], [tf32]]) == ["numerics ieee", "numerics tf32"]
    assert differences([[network()], [ieee]]) == ["", ""]
