"""The sample of mutants is the same every time; survivors are found, equivalent ones forgiven."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mutants import run
from mutants.mutations import Mutant, draw, mutants_of, mutated, runs_differently
from mutants.run import (
    ROOT,
    Log,
    Outcome,
    Part,
    Runner,
    judge,
    read_equivalents,
    read_parts,
    run_area,
    score,
    survivors,
    table,
)

# From Python 3.12; the processes run one function and end.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

SOURCE = '''"""A module."""


def capped(x: int | None, most: int = 10) -> int | None:
    if x is None:
        raise ValueError(f"{1 + 1} things are missing")
    (pair,) = zip((x,), (most,), strict=True)
    return min(pair) + 1
'''
TEST = """from toy import capped

def test_capped():
    assert capped(3) == 4
"""
PART = Part("toy", ("toy.py",), ("test_toy.py",))


def directly(words: Sequence[str]) -> int:
    """Run the toy's test without pytest, which takes a second to start."""
    importlib.import_module("test_toy").test_capped()
    return 0


def never(words: Sequence[str]) -> int:
    raise AssertionError("nothing is left to be run")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A project of one function, whose test says nothing of the cap and of None."""
    pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed: make mutants does")
    root = tmp_path / "toy"
    root.mkdir()
    (root / "toy.py").write_text(SOURCE)
    (root / "test_toy.py").write_text(TEST)
    return root


def mutant(text: str, nth: int = 0) -> Mutant:
    return Mutant("toy.py", "AddNot", 0, (5, 4), "capped", text, nth)


def test_every_area_has_files_and_tests() -> None:
    parts = read_parts()
    assert {p.area for p in parts} >= {"losses", "nn", "theory", "linear", "data", "callbacks"}
    for part in parts:
        paths = [word for stage in part.tests for word in stage.split() if "/" in word]
        assert part.files and paths
        assert [p for p in paths if not (ROOT / p.partition("::")[0]).exists()] == []


def test_a_file_belongs_to_one_part() -> None:
    files = [file for part in read_parts() for file in part.files]
    assert len(files) == len(set(files))


def test_every_equivalent_mutant_is_one_of_the_code() -> None:
    pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed: make mutants does")
    listed = read_equivalents()
    files = {file: ROOT / file for file, *_ in listed}
    assert [file for file, path in files.items() if not path.is_file()] == []
    made = {m.key for file, path in files.items() for m in mutants_of(file, path.read_text())}
    assert set(listed) - made == set()


def test_the_sample_is_the_same_wherever_the_lines_are(toy: Path) -> None:
    def sample(seed: int) -> list[tuple[str, int]]:
        source = (toy / "toy.py").read_text()
        drawn = draw(mutants_of("toy.py", source), 4, seed, toy)
        return [(m.operator, m.nth) for m in drawn]

    before = sample(seed=0)
    (toy / "toy.py").write_text("import os\n\n\n" + SOURCE)
    assert sample(seed=0) == before
    assert any(sample(seed) != before for seed in range(1, 5))


def test_each_place_is_drawn_once(toy: Path) -> None:
    drawn = draw(mutants_of("toy.py", SOURCE), 1000, 0, toy)
    places = [(m.position, m.operator.split("_")[0]) for m in drawn]
    assert len(places) == len(set(places))
    # is, the condition itself, the default, + and its number; no annotation, no message.
    assert len(drawn) == 5


def test_an_exception_with_a_dotted_name_is_left_out(toy: Path) -> None:
    source = "try:\n    run()\nexcept (KeyError, os.error):\n    pass\n"
    (toy / "toy.py").write_text(source)
    drawn = draw(mutants_of("toy.py", source), 1000, 0, toy)
    assert [mutated(m, source).splitlines()[2] for m in drawn] == [
        "except (CosmicRayTestingException, os.error):"
    ]


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        (SOURCE, False),
        (SOURCE.replace("x: int | None", "x: int & None"), False),
        (SOURCE.replace("-> int | None", "-> int & None"), False),
        (SOURCE.replace("1 + 1", "1 - 1"), False),
        (SOURCE.replace("pair) + 1", "pair) +* 1"), False),
        (SOURCE.replace("strict=True", "strict=False"), False),
        (SOURCE.replace("ValueError", "TypeError"), True),
        (SOURCE.replace("is None", "is not None"), True),
        (SOURCE.replace("most: int = 10", "most: int = 11"), True),
    ],
)
def test_what_only_speaks_makes_no_mutant(changed: str, differs: bool) -> None:
    assert runs_differently(SOURCE, changed) == differs


def test_survivors_are_reported_and_an_interrupted_run_goes_on(toy: Path, tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", tree="now")
    found = run_area([PART], 1000, 0, Runner(toy, directly), log)
    status = {(o.mutant.operator, o.mutant.text, o.mutant.nth): o.status for o in found}
    survived = {operator for (operator, *_), s in status.items() if s == "survived"}
    assert survived == {"NumberReplacer"}  # the cap
    assert (toy / "toy.py").read_text() == SOURCE
    text = survivors(found, toy)
    assert "toy.py:4 NumberReplacer" in text and "+def capped(x: int | None, most: int =" in text

    assert run_area([PART], 1000, 0, Runner(toy, never), log) == found
    assert len(log.path.read_text().splitlines()) == len(found)
    assert Log(log.path, tree="another").read(o.mutant for o in found) == {}


def test_a_new_stage_is_run_for_the_survivors_alone(toy: Path, tmp_path: Path) -> None:
    log, ran = Log(tmp_path / "log.jsonl", tree="now"), []

    class Strict(Runner):
        """Its first stage notices nothing more, its second notices everything."""

        def control(self, part: Part) -> None:
            pass

        def passes(self, stage: str) -> bool | None:
            ran.append(stage)
            return stage == "test_toy.py"

    before = run_area([PART], 1000, 0, Runner(toy, directly), log)
    survived = [o.mutant for o in before if o.status == "survived"]
    stricter = replace(PART, tests=(*PART.tests, "second.py"))
    after = run_area([stricter], 1000, 0, Strict(toy), log)
    assert survived and ran == ["second.py"] * len(survived)
    assert [o.mutant for o in after if o.stages == ("test_toy.py", "second.py")] == survived
    assert {o.status for o in after} == {"killed"}


def test_the_report_has_the_score_and_the_tree_is_left_alone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", toy], check=True)
    monkeypatch.setattr(run, "ROOT", toy)
    monkeypatch.setattr(run, "HEAVY", ())
    monkeypatch.setattr(run, "read_parts", lambda: [PART])
    monkeypatch.setattr(run.Runner.__init__, "__defaults__", (directly, 60, ()))
    before = (toy / "toy.py").stat().st_mtime_ns
    arguments = ["--n", "1000", "--out", str(tmp_path / "out")]
    assert run.main(arguments) == 1  # the cap survives: 4 of 5
    assert "| all | 5 | 4 | 1 | 0 | 80% |" in (tmp_path / "out" / "report.md").read_text()
    assert run.main([*arguments, "--at_least", "0.8"]) == 0
    assert (toy / "toy.py").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        run.main(["--area", "nowhere", *arguments])


def test_a_mutant_that_hangs_is_killed(toy: Path) -> None:
    runner = Runner(toy, directly, patience=0.5)
    runner.seconds["test_toy.py"] = 0
    (toy / "test_toy.py").write_text("while True: pass\n")
    (any_mutant, *_) = mutants_of("toy.py", SOURCE)
    assert runner.outcome(any_mutant, PART).status == "hung"


def test_tests_that_fail_without_a_mutant_stop_the_run(toy: Path) -> None:
    (toy / "test_toy.py").write_text(TEST.replace("== 4", "== 5"))
    with pytest.raises(SystemExit, match=r"without a mutant, these tests do not pass: test_toy"):
        Runner(toy, directly).control(PART)


def test_tests_of_something_else_stop_the_run(toy: Path) -> None:
    (toy / "test_toy.py").write_text("def test_nothing():\n    assert True\n")
    # By pytest, as in earnest.
    with pytest.raises(SystemExit, match=r"do not import \('toy.py',\)"):
        Runner(toy).control(PART)


def test_equivalent_survivors_are_forgiven_with_a_reason() -> None:
    outcomes = [
        Outcome(mutant("if x:"), "survived"),
        Outcome(mutant("if x:", nth=1), "survived"),
        Outcome(mutant("if y:"), "killed"),
        Outcome(mutant("if z:"), "hung"),
    ]
    judged = judge(outcomes, {mutant("if x:").key: "x is always true", mutant("if y:").key: ""})
    assert [o.status for o in judged] == ["equivalent", "survived", "killed", "hung"]
    assert judged[0].reason == "x is always true"
    assert score(judged) == 2 / 3
    assert table({"toy": judged}).splitlines()[2:] == [
        "| toy | 4 | 2 | 1 | 1 | 67% |",
        "| all | 4 | 2 | 1 | 1 | 67% |",
    ]


def test_the_fault_is_in_the_line_that_is_named(toy: Path) -> None:
    for m in mutants_of("toy.py", SOURCE):
        pairs = zip(SOURCE.splitlines(), mutated(m, SOURCE).splitlines(), strict=True)
        changed = [number for number, (a, b) in enumerate(pairs, start=1) if a != b]
        assert changed == [m.position[0]]
