"""Claims files: what is read, and what is refused in one line."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.run import claims as there
from janus_pl.run.claims import SHIPPED, claims_there
from janus_pl.verify.claims import MOST_PRIMARY, PAPER, read_claims
from janus_pl.verify.decide import ALPHA

ONE: dict[str, Any] = {
    "says": "SGD's noise is {} x GD's",
    "source": "Fig. 1",
    "estimator": "sgd_over_gd",
    "quantity": "velocity",
    "bound": {"above": 3},
    "effect": 20,
    "deviation": 0.8,
}


def written(tmp_path: Path, claims: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(claims if isinstance(claims, str) else yaml.safe_dump({"claims": claims}))
    return path


def test_the_paper_s_claims_are_at_most_a_table_and_fit_its_lines() -> None:
    claims = read_claims().claims
    primary = [claim for claim in claims if claim.primary]
    assert 8 <= len(primary) <= MOST_PRIMARY
    for claim in claims:
        # The answer, a typical estimate, and the seeds.
        line = f"{claim.says.format('0.0025 [0.0011, 0.0057]')}; 8 seeds, 123 needed"
        assert len(line) <= 86 or not claim.primary, claim.name
        assert claim.power(ALPHA / len(primary), 8) >= 0.8


@pytest.mark.parametrize(
    ("bound", "effect", "region"),
    [
        ({"above": 3}, 20, (math.log(3), math.inf)),
        ({"below": 0.5}, 0.1, (-math.inf, math.log(0.5))),
        ({"within": [0.5, 2]}, 1, (-math.log(2), math.log(2))),
    ],
)
def test_ratios_are_compared_as_logarithms(
    tmp_path: Path, bound: Any, effect: float, region: tuple[float, float]
) -> None:
    given = {**ONE, "bound": bound, "effect": effect}
    path = written(tmp_path, {"a": given})
    (claim,) = read_claims(path).claims
    assert tuple(claim.region) == pytest.approx(region)
    assert claim.from_effect(claim.to_effect(effect)) == pytest.approx(effect)
    assert read_claims(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_slopes_are_as_they_are(tmp_path: Path) -> None:
    given = {**ONE, "estimator": "slope", "bound": {"within": [-0.1, 0.2]}, "effect": 0}
    (claim,) = read_claims(written(tmp_path, {"a": given})).claims
    assert tuple(claim.region) == (-0.1, 0.2)
    assert claim.from_effect(-3.0) == -3.0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"estimator": "sgd_ovr_gd"}, "claims.a.estimator: got 'sgd_ovr_gd', allowed: a valid key, the"
     " nearest is sgd_over_gd"),
    ({"quantity": "velocty"}, "claims.a.quantity: got 'velocty', allowed: a valid key, the nearest"
     " is velocity"),
    ({"setting": {"los": "square"}}, "claims.a.setting.los: got 'square', allowed: a valid key, the"
     " nearest is loss"),
    ({"setting": "square"}, "claims.a.setting: got 'square', allowed: a mapping of loss, "),
    ({"clock": "step"}, "claims.a.clock: got 'step', allowed: a valid key, the nearest is steps"),
    ({"dynamics": "Adam"}, "claims.a.dynamics: got 'Adam', allowed: one of GD, SGD"),
    ({"bound": {"above": "three"}}, "claims.a.bound.above: got 'three', allowed: a ratio above 0"),
    ({"bound": {"above": math.nan}}, "claims.a.bound.above: got nan, allowed: a ratio above 0"),
    ({"bound": {"above": 0}}, "claims.a.bound.above: got 0, allowed: a ratio above 0"),
    ({"bound": {"within": [2, 1]}}, "claims.a.bound.within: got [2, 1], allowed: [X, Y] with X"),
    ({"bound": {"within": 2}}, "claims.a.bound.within: got 2, allowed: [X, Y] with X < Y"),
    ({"bound": {"over": 1}}, "claims.a.bound: got {'over': 1}, allowed: {above: X}, {below: X}"),
    ({"bound": 3}, "claims.a.bound: got 3, allowed: {above: X}, {below: X} or {within: [X, Y]}"),
    ({"bound": {"above": 3, "below": 9}}, "claims.a.bound: got {'above': 3, 'below': 9}, allowed"),
    ({"effect": 2}, "claims.a.effect: got 2, allowed: a number within the bound"),
    ({"effect": "big"}, "claims.a.effect: got 'big', allowed: a number in the unit of the bound"),
    ({"deviation": 0}, "claims.a.deviation: got 0, allowed: a finite number above 0"),
    ({"seeds": 4}, "claims.a.seeds: got 4, allowed: an integer from 5 up"),
    ({"seeds": True}, "claims.a.seeds: got True, allowed: an integer from 5 up"),
    ({"primary": "yes please"}, "claims.a.primary: got 'yes please', allowed: true or false"),
    ({"says": "no place"}, "claims.a.says: got 'no place', allowed: a sentence with one {}"),
    ({"says": "{} and {}"}, "claims.a.says: got '{} and {}', allowed: a sentence with one {}"),
    ({"says": "{0} of {x}"}, "claims.a.says: got '{0} of {x}', allowed: a sentence with one {}"),
    ({"xyz": 1}, "claims.a.xyz: got 1, allowed: one of bound, clock, deviation"),
    ({"bounds": 1}, "claims.a.bounds: got 1, allowed: a valid key, the nearest is bound"),
    ({"window": [5]}, "claims.a.window: got [5], allowed: two epochs [E, F] with 0 <= E < F"),
    ({"window": [9, 3]}, "claims.a.window: got [9, 3], allowed: two epochs [E, F] with 0 <= E"),
    ({"window": "late"}, "claims.a.window: got 'late', allowed: two epochs [E, F]"),
    ({"window": [1, 2], "clock": "steps"}, "claims.a.window: got [1, 2], allowed: none"),
    ({"source": None}, "claims.a.source: got None, allowed: a text"),
    ({"estimator": "tau_of_velocity"}, "claims.a.quantity: got 'velocity', allowed: rank, for"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), WRONG)
def test_a_mistake_in_a_claim_is_one_line(
    changed: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = written(tmp_path, {"a": {**ONE, **changed}})
    assert main(["verify", str(tmp_path), "--claims", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("key", [*ONE])
def test_what_a_claim_needs_is_named(key: str, tmp_path: Path) -> None:
    given = {name: value for name, value in ONE.items() if name != key}
    with pytest.raises(UsageError, match=rf"claims\.a\.{key}: got None, allowed: a value"):
        read_claims(written(tmp_path, {"a": given}))


FILES = [
    ("claims: {a: {says: x}, a: {says: y}}", "claims.a is there twice"),
    ("claims: []", "claims: {NAME: {says: ..., ...}}"),
    ("claims: {}", "claims: {NAME: {says: ..., ...}}"),
    ("- 1", "claims: {NAME: {says: ..., ...}}"),
    ("claims: {a: {}}\nmore: 1", "claims: {NAME: {says: ..., ...}}"),
    ("claims: {a: 3}", "claims.a: got 3, allowed: a mapping with says"),
    ("claims: {a: [}", "a YAML file in UTF-8"),
    ("\tclaims: 1", "a YAML file in UTF-8"),
]


@pytest.mark.parametrize(("text", "said"), FILES)
def test_a_file_that_is_none_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = written(tmp_path, text)
    assert main(["verify", str(tmp_path), "--claims", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(tmp_path), "--claims", "nowhere.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --claims: got 'nowhere.yaml', allowed: an existing file, or")


def test_more_primary_claims_than_a_table_holds_are_refused(tmp_path: Path) -> None:
    many = {f"c{k}": ONE for k in range(MOST_PRIMARY + 1)}
    with pytest.raises(UsageError, match="16 primary ones"):
        read_claims(written(tmp_path, many))
    many["c0"] = {**ONE, "primary": False}
    assert len(read_claims(written(tmp_path, many)).claims) == 16


def test_a_run_knows_the_claims_files_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.name for path in PAPER.parent.glob("*.yaml")]
    assert {"paper.yaml", "scale.yaml", "edge.yaml"} <= {*names}
    files = [PAPER.with_name(name) for name in names]
    shipped = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    monkeypatch.chdir(tmp_path)
    assert claims_there() == shipped
    mine = tmp_path / "configs" / "claims" / "paper.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    assert claims_there() == {**shipped, "configs/claims/paper.yaml": digest}
    monkeypatch.setattr(there, "SHIPPED", tmp_path / "none")
    mine.unlink()
    assert claims_there() == {}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_eight_seeds_support_each_shipped_claim_that_is_true(path: Path) -> None:
    claims = read_claims(path).claims
    asked = sum(claim.primary for claim in claims)
    for claim in claims:
        assert claim.power(ALPHA / asked if claim.primary else ALPHA, 8) > 0.8
