"""Golden rows: eight short runs of frozen configs give the numbers that they gave before.

Float64 rows are compared to ten digits on every machine, float32 rows bit for bit on the machine of
`golden/machine.json`. Linear regression has no float32: its float64 rows are compared both ways. To
record a key anew: `tests/golden/record.py`.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden import record, runs

from janus_pl.run.spelling import older

BASE = Path(__file__).resolve().parent.parent / "configs" / "base.yaml"
GIVEN = {"run_dir", "trainer.precision"}  # on the command line, by runs.train
Trained = Callable[[str, str], runs.Run]
# The paper's learning rate starts above the limit of stability, and then it is said.
pytestmark = pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")
each_run = pytest.mark.parametrize("name", runs.NAMES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run, trained when it is first asked for."""

    @functools.cache
    def train(name: str, dtype: str) -> runs.Run:
        return runs.train(name, dtype, tmp_path_factory.mktemp(name))

    return train


def text(name: str) -> str:
    return (runs.FOLDER / f"{name}.json").read_text(encoding="utf-8")


def recorded(name: str, dtype: str = "float64") -> runs.Columns:
    return runs.record_of(text(name))[dtype]


def recorded_machine() -> dict[str, Any]:
    return json.loads((runs.FOLDER / runs.MACHINE).read_text(encoding="utf-8"))


# The runs


@each_run
def test_float64_rows_are_the_recorded_ones_to_ten_digits(name: str, trained: Trained) -> None:
    assert runs.differences(recorded(name), trained(name, "float64").columns, exact=False) == []


@each_run
def test_rows_are_the_recorded_ones_bit_for_bit_on_the_recorded_machine(
    name: str, trained: Trained
) -> None:
    if other := runs.other_machine(recorded_machine(), runs.machine()):
        pytest.skip(f"recorded on another machine: {other}")
    dtype = runs.dtypes(name)[-1]
    assert runs.differences(recorded(name, dtype), trained(name, dtype).columns, exact=True) == []


@each_run
def test_every_option_of_a_run_comes_from_its_frozen_config(name: str, trained: Trained) -> None:
    assert strays(frozen(name), trained(name, "float64").config) == []


# The frozen configs


def frozen(name: str) -> dict[str, Any]:
    return yaml.safe_load((runs.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def strays(frozen: Mapping[str, Any], resolved: Mapping[str, Any]) -> list[str]:
    """Options of a resolved config that are not the frozen one's, nor defaults of a class.

    An option that a class gets later on has its default. It is a stray where base.yaml, which the
    command line always reads first, sets it.
    """
    own, now = dict(options(frozen)), dict(options(resolved))
    base = dict(options(yaml.safe_load(BASE.read_text(encoding="utf-8"))))
    changed = [
        f"{key}: {now.get(key)!r}, not {own[key]!r}" for key in own if now.get(key) != own[key]
    ]
    added = sorted(now.keys() - own.keys() - GIVEN)
    return changed + [f"{key}: from base.yaml" for key in added if key in base]


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options by dotted name; callbacks by class, and their order as an option of its own.

    >>> dict(options({"a": {"b": [1]}, "c": [{"class_path": "x.Y", "init_args": {"n": 2}}]}))
    {'a.b': [1], 'c': ['x.Y'], 'c.x.Y.n': 2}
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from options(value, f"{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield name, [older(part["class_path"]) for part in value]
            for part in value:
                yield from options(
                    part.get("init_args", {}), f"{name}.{older(part['class_path'])}."
                )
        else:
            yield name, value


def test_every_run_has_a_frozen_config_and_a_record_and_no_base() -> None:
    stems = {
        kind: {path.stem for path in runs.FOLDER.glob(f"*.{kind}")} for kind in ("yaml", "json")
    }
    assert stems == {"yaml": {*runs.NAMES}, "json": {*runs.NAMES, Path(runs.MACHINE).stem}}


@pytest.mark.parametrize("name", ["quickstart_sgd", "theory"])
def test_an_option_from_elsewhere_is_found(name: str) -> None:
    whole = frozen(name)
    assert strays(whole, whole) == []
    without = copy.deepcopy(whole)
    del without["model"]["init_args"]["schedule"]
    assert strays(without, whole) == ["model.init_args.schedule: from base.yaml"]
    other = copy.deepcopy(whole)
    other["data"]["init_args"]["order"] = "sequential"
    other["trainer"]["callbacks"][0]["init_args"]["bins"] = 64
    found = strays(whole, other)
    assert len(found) == 2
    assert "data.init_args.order: 'sequential', not 'shuffle'" in found
    del other["trainer"]["callbacks"][1:]
    assert any(line.startswith("trainer.callbacks: ['callbacks.M") for line in strays(whole, other))


@each_run
def test_a_recorded_run_trains(name: str) -> None:
    # Rows of a network that hardly moves would guard hardly anything.
    for dtype in runs.dtypes(name):
        loss = recorded(name, dtype)["train/loss"]
        assert loss[-1] < 0.95 * loss[0], dtype


# The comparison itself


def moved(values: list[Any], by: float) -> list[Any]:
    """A column whose last value that is there is a little larger; a count by one."""
    row = max(k for k, value in enumerate(values) if value is not None)
    return [*values[:row], moved_value(values[row], by), *values[row + 1 :]]


def moved_value(value: Any, by: float) -> Any:
    if isinstance(value, list):
        place = max(
            range(len(value)), key=lambda k: abs(value[k]) if value[k] != str(value[k]) else 0
        )
        return [*value[:place], moved_value(value[place], by), *value[place + 1 :]]
    if isinstance(value, float):
        return value + by * (abs(value) or 1.0)
    return value + 1 if isinstance(value, int) else f"{value}'"


@each_run
def test_a_value_off_by_a_billionth_is_found_in_every_column(name: str) -> None:
    for dtype in runs.dtypes(name):
        old = recorded(name, dtype)
        assert len(old) > 50
        for key, values in old.items():
            (found,) = runs.differences(old, old | {key: moved(values, 1e-9)}, exact=False)
            assert found.startswith(f"{key}: row ")


@each_run
def test_rounding_is_no_difference_to_ten_digits_and_is_one_to_the_bit(name: str) -> None:
    old = recorded(name)
    floats = {key for key, values in old.items() if any(isinstance(v, float) and v for v in values)}
    assert len(floats) > 30
    for key in floats:
        values = [
            math.nextafter(v, math.inf) if isinstance(v, float) and v else v for v in old[key]
        ]
        assert runs.differences(old, old | {key: values}, exact=False) == []
        assert len(runs.differences(old, old | {key: values}, exact=True)) == 1


def test_a_missing_or_new_key_row_or_value_is_found() -> None:
    old = recorded("theory")
    some = "gradient_noise/bias/fc1"
    without = {key: values for key, values in old.items() if key != some}
    shorter = {key: values[:-1] for key, values in old.items()}
    gap = old | {some: [*old[some][:-1], None]}
    for exact in (True, False):
        assert runs.differences(old, without, exact) == [f"{some}: missing"]
        assert runs.differences(without, old, exact) == [f"{some}: not recorded"]
        found = runs.differences(old, shorter, exact)
        assert found == [f"{key}: 3 rows, 4 recorded" for key in old]
        assert runs.differences(old, gap, exact) == [
            f"{some}: row 3 is None, {old[some][-1]!r} recorded"
        ]


def test_another_machine_is_named_by_what_differs() -> None:
    here = recorded_machine()
    assert runs.other_machine(here, copy.deepcopy(here)) == ""
    older = runs.other_machine(here, here | {"torch": "2.0.0"})
    assert older == f"torch is '2.0.0', '{here['torch']}' recorded"
    assert runs.other_machine(here, here | {"flags": ["sse2"]}).startswith("flags without avx, ")
    assert "environment" in runs.other_machine(here, here | {"environment": {"MKL_CBWR": "AVX2"}})


# Recording


@each_run
def test_a_record_is_written_as_it_was_read(name: str) -> None:
    assert runs.text_of(runs.record_of(text(name))) == text(name)


def test_one_key_is_recorded_anew_and_all_other_lines_stay() -> None:
    before = text("theory")
    now = runs.record_of(before)
    rounded = "rho"  # still the recorded number, to ten digits
    for dtype, key, by in [
        ("float64", "collapse/nc1", 1e-9),
        ("float64", "margin/hist.edges", 1e-9),
        ("float64", rounded, 1e-14),
        ("float32", "collapse/nc1", 1e-14),
    ]:
        now[dtype][key] = moved(now[dtype][key], by)
    del now["float32"]["val/loss"]
    now["float64"]["new/key"] = [1.0, 2.0, 3.0, 4.0]

    after, left = record.renewed(before, now, "collapse/*")
    assert left == ["float64: margin/hist.edges", "float64: new/key", "float32: val/loss"]
    old, new = before.splitlines(), after.splitlines()
    assert len(old) == len(new)
    changed = [a for a, b in zip(old, new, strict=True) if a != b]
    assert [line.split(":")[0].strip() for line in changed] == ['"collapse/nc1"'] * 2

    everything, left = record.renewed(before, now, "*")
    assert left == []
    assert runs.differences(now["float64"], runs.record_of(everything)["float64"], False) == []
    assert runs.record_of(everything)["float32"] == now["float32"]
    (rho,) = (line for line in before.splitlines()[:200] if line.startswith('    "rho"'))
    assert rho in everything


def test_a_part_is_not_recorded_on_another_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(runs, "machine", lambda: recorded_machine() | {"torch": "2.0.0"})
    monkeypatch.setattr(record, "trained", lambda name: pytest.fail("nothing is to be trained"))
    for args in (["theory"], ["--keys", "rho"]):
        with pytest.raises(SystemExit):
            record.main(args)
        assert "torch is '2.0.0'" in capsys.readouterr().err
