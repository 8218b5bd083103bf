"""The rules of the shipped claims: how often they are wrong, and how often they find an effect."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from janus_pl.run.claims import SHIPPED
from janus_pl.verify import calibration
from janus_pl.verify.calibration import SEEDS, TRIALS, Calibrated, calibrate, effects_of
from janus_pl.verify.claims import Claim, read_claims
from janus_pl.verify.decide import ALPHA, Answer, Region

FILES = {path.stem: read_claims(path).claims for path in sorted(SHIPPED.glob("*.yaml"))}
CLAIMS = FILES["paper"]
NAMES = [(stem, claim.name) for stem, claims in FILES.items() for claim in claims]
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / TRIALS)  # 7.1%


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Calibrated]:
    return {
        (stem, each.claim): each for stem, claims in FILES.items() for each in calibrate(claims)
    }


@pytest.mark.parametrize(("stem", "claim"), NAMES)
def test_a_rule_is_seldom_wrong_and_finds_the_effect_that_its_claim_names(
    stem: str, claim: str, found: dict[tuple[str, str], Calibrated]
) -> None:
    seen, claims = found[stem, claim], FILES[stem]
    assert max(seen.normal, seen.heavy, seen.exploding) <= MOST
    assert seen.power >= 0.8
    assert seen.stated >= 0.8
    primary = sum(claim.primary for claim in claims)
    assert [c.power(ALPHA / primary, SEEDS) for c in claims if c.name == claim and c.primary] in (
        [],
        [seen.stated],
    )


def test_a_rule_that_looks_at_means_alone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: half of all nulls lie on the claim's side of the bound."""

    def by_the_mean(effects: list[float], region: Region, level: float) -> Answer:
        inside = region.low <= np.mean(effects) <= region.high
        return Answer.SUPPORTED if inside else Answer.UNDECIDED

    monkeypatch.setattr(calibration, "decide", by_the_mean)
    (seen,) = calibrate([claim for claim in CLAIMS if claim.name == "noise"])
    assert seen.normal > 0.4


@pytest.mark.parametrize(
    "claim", [c for cs in FILES.values() for c in cs if c.estimator != "tau_of_velocity"]
)
def test_simulated_effects_have_the_mean_and_the_deviation_of_the_claim(
    claim: Claim,
) -> None:
    rng = np.random.default_rng(0)
    truth = claim.to_effect(claim.effect)
    many = [e for _ in range(300) for e in effects_of(claim, truth, calibration._normal, rng)]
    assert np.mean(many) == pytest.approx(truth, abs=5 * claim.deviation / math.sqrt(len(many)))
    assert np.std(many) == pytest.approx(claim.deviation, rel=0.06)


def test_a_claim_without_power_is_seen() -> None:
    weak = replace(CLAIMS[0], deviation=5.0)
    assert calibrate([weak], trials=200)[0].power < 0.5
