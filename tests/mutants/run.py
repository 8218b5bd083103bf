"""Puts small faults into a copy of the code, one at a time, and counts those the tests notice.

    python tests/mutants/run.py [--area theory] [--n 40] [--seed 0] [--at_least 0.9]

What is mutated, and which tests should notice: `areas.toml`. Survivors that change nothing that
anyone can see: `equivalent.toml`, each with its reason. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import importlib
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mutants.mutations import Mutant, draw, mutants_of, mutated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEAVY = ("torch", "lightning.pytorch", "torchvision", "wandb", "pandas", "scipy.stats", "numba")
Session = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Part:
    """Files of an area and their tests, in stages: a later one runs if the earlier ones passed."""

    area: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: killed, hung (killed as well) or survived; the stages that ran."""

    mutant: Mutant
    status: str
    stages: tuple[str, ...] = ()
    reason: str | None = None

    def answers(self, part: Part) -> bool:
        """Whether it still holds with the stages of today's table."""
        if self.status == "survived":
            return set(part.tests) <= set(self.stages)
        return self.stages[-1] in part.tests


def read_parts(table: Path = HERE / "areas.toml", root: Path = ROOT) -> list[Part]:
    """The table of areas, with its patterns resolved."""
    parts = []
    for entry in tomllib.loads(table.read_text())["part"]:
        files: set[Path] = set()
        for pattern in entry["files"]:
            found = set(root.glob(pattern))
            if not found:
                raise SystemExit(f"{table.name}: no file is {pattern}")
            files |= found
        names = tuple(sorted(str(f.relative_to(root)) for f in files))
        parts.append(Part(entry["area"], names, tuple(entry["tests"])))
    return parts


def read_equivalents(table: Path = HERE / "equivalent.toml") -> dict[Any, str]:
    """Mutants that no test can notice, by their key, with the reason."""
    entries = tomllib.loads(table.read_text()).get("equivalent", [])
    return {(e["file"], e["operator"], e["line"], e.get("nth", 0)): e["reason"] for e in entries}


def copy_tree(root: Path, to: Path) -> str:
    """Copy what git knows or does not ignore; return a digest of it without this folder."""
    listing = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256()
    for name in sorted(names.splitlines()):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)
            if HERE not in (root / name).parents:
                digest.update(f"{name}\0".encode() + (root / name).read_bytes())
    return digest.hexdigest()


def pytest_session(arguments: Sequence[str]) -> int:
    """Run tests until one fails."""
    import pytest

    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments]))


class Runner:
    """Runs tests in a scratch copy of the tree, where one file at a time is another.

    Each session is a fork of this process, so that heavy packages are imported once.
    """

    def __init__(
        self, root: Path, session: Session = pytest_session, patience: float = 60, heavy: Any = ()
    ) -> None:
        self.root, self.session, self.patience = root, session, patience
        self.seconds: dict[str, float] = {}
        for package in heavy:
            with contextlib.suppress(ImportError):
                importlib.import_module(package)

    def passes(self, stage: str) -> bool | None:
        """Whether the tests of a stage pass; None if they hang."""
        limit = self.patience + 5 * self.seconds[stage] if stage in self.seconds else None
        with tempfile.TemporaryDirectory() as temporary:
            words = [f"--basetemp={temporary}/t", *shlex.split(stage)]
            process = multiprocessing.get_context("fork").Process(target=self._run, args=(words,))
            process.start()
            try:
                process.join(limit)
                return None if process.exitcode is None else process.exitcode == 0
            finally:  # with everything that the tests have started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid or 0, signal.SIGKILL)
                process.join()

    def _run(self, words: Sequence[str]) -> None:
        """Be a process of its own, whose code is that of the scratch copy."""
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(self.root)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        ours = {ROOT, HERE.parent, HERE}
        sys.path[:] = [str(self.root), *(p for p in sys.path if Path(p).resolve() not in ours)]
        # No bytecode: two mutants of a file may have the same size and second.
        sys.dont_write_bytecode = True
        os.environ.update(PYTHONDONTWRITEBYTECODE="1", PYTHONPATH=str(self.root))
        sys.exit(self.session(words))

    @contextlib.contextmanager
    def changed(self, file: str, source: str):
        path = self.root / file
        before, stat = path.read_bytes(), path.stat()
        path.write_text(source)
        try:
            yield
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def control(self, part: Part) -> None:
        """Without a fault the tests pass; with a broken file they do not."""
        for stage in part.tests:
            start = time.monotonic()
            if stage not in self.seconds and not self.passes(stage):
                raise SystemExit(f"without a mutant, these tests do not pass: {stage}")
            self.seconds.setdefault(stage, time.monotonic() - start)
        with contextlib.ExitStack() as stack:
            for file in part.files:
                stack.enter_context(self.changed(file, "raise SystemError('control')\n"))
            if self.passes(part.tests[0]):
                raise SystemExit(f"these tests do not import {part.files}: {part.tests[0]}")

    def outcome(self, mutant: Mutant, part: Part, passed: tuple[str, ...] = ()) -> Outcome:
        """Run the stages that have not passed already until one notices."""
        source = (self.root / mutant.file).read_text()
        with self.changed(mutant.file, mutated(mutant, source)):
            for stage in (s for s in part.tests if s not in passed):
                passes, passed = self.passes(stage), (*passed, stage)
                if not passes:
                    return Outcome(mutant, "hung" if passes is None else "killed", passed)
        return Outcome(mutant, "survived", passed)


class Log:
    """The outcomes so far of one state of the tree, in a file of all states."""

    def __init__(self, path: Path, tree: str) -> None:
        self.path, self.tree = path, tree

    def read(self, mutants: Iterable[Mutant]) -> dict[Mutant, Outcome]:
        names = {json.dumps(m.key): m for m in mutants}
        entries = map(json.loads, self.path.read_text().splitlines() if self.path.exists() else ())
        ours = (e for e in entries if e["tree"] == self.tree and e["key"] in names)
        made = (Outcome(names[e["key"]], e["status"], tuple(e["stages"])) for e in ours)
        return {outcome.mutant: outcome for outcome in made}

    def write(self, o: Outcome) -> None:
        entry = {"tree": self.tree, "key": json.dumps(o.mutant.key), "status": o.status}
        with self.path.open("a") as lines:
            lines.write(json.dumps({**entry, "stages": o.stages}) + "\n")


def run_area(parts: Sequence[Part], n: int, seed: int, runner: Runner, log: Log) -> list[Outcome]:
    """Run a sample of an area's mutants, but not again those whose outcome is in the log."""
    part_of = {file: part for part in parts for file in part.files}
    sources = {file: (runner.root / file).read_text() for file in part_of}
    every = (m for file, source in sources.items() for m in mutants_of(file, source))
    drawn, checked = draw(every, n, seed, runner.root), set()
    known = log.read(drawn)
    for mutant in drawn:
        part, last = part_of[mutant.file], known.get(mutant)
        if last and last.answers(part):
            continue
        if part not in checked:
            runner.control(part)
            checked.add(part)
        start = time.monotonic()
        passed = last.stages if last and last.status == "survived" else ()
        known[mutant] = outcome = runner.outcome(mutant, part, passed)
        log.write(outcome)
        spent = time.monotonic() - start
        print(f"{outcome.status:8} {spent:4.0f} s  {mutant.file}:{mutant.position[0]}", flush=True)
    return [known[mutant] for mutant in drawn]


def judge(outcomes: Iterable[Outcome], equivalents: dict[Any, str]) -> list[Outcome]:
    """Give the survivors that are listed as equivalent their reason."""
    return [
        replace(o, status="equivalent", reason=equivalents[o.mutant.key])
        if o.status == "survived" and o.mutant.key in equivalents
        else o
        for o in outcomes
    ]


def score(outcomes: Sequence[Outcome]) -> float:
    """The part of the mutants that are not equivalent which the tests noticed."""
    counted = [o for o in outcomes if o.status != "equivalent"]
    return sum(o.status != "survived" for o in counted) / max(1, len(counted))


def table(areas: dict[str, list[Outcome]]) -> str:
    """The scores by area, in Markdown."""
    lines = [
        "| area | mutants | killed | survived | equivalent | score |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for area, outcomes in {**areas, "all": [o for a in areas.values() for o in a]}.items():
        survived, same = (sum(o.status == s for o in outcomes) for s in ("survived", "equivalent"))
        counts = f"{len(outcomes)} | {len(outcomes) - survived - same} | {survived} | {same}"
        lines.append(f"| {area} | {counts} | {score(outcomes):.0%} |")
    return "\n".join(lines)


def survivors(outcomes: Iterable[Outcome], root: Path) -> str:
    """Where each survivor is, what names it in equivalent.toml, and its diff."""
    texts = []
    for mutant in (o.mutant for o in outcomes if o.status == "survived"):
        before = (root / mutant.file).read_text()
        diff = difflib.unified_diff(
            before.splitlines(), mutated(mutant, before).splitlines(), n=0, lineterm=""
        )
        lines = "\n".join(list(diff)[3:])
        head = f"{mutant.file}:{mutant.position[0]} {mutant.operator} nth {mutant.nth}"
        texts.append(f"{head}\n{lines}\n")
    return "\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--area", default="", help="one area of areas.toml; default: all")
    parser.add_argument("--n", type=int, default=40, help="mutants an area")
    parser.add_argument("--seed", type=int, default=0, help="another one draws another sample")
    parser.add_argument("--at_least", type=float, default=0.9, help="the score that is asked for")
    parser.add_argument("--out", type=Path, default=ROOT / ".mutants", help="results, report.md")
    args = parser.parse_args(arguments)
    args.out.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    report = args.out / "report.md"
    parts = [p for p in read_parts() if args.area in ("", p.area)]
    if not parts:
        parser.error(f"no area is {args.area}")
    done: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        log = Log(args.out / "results.jsonl", copy_tree(ROOT, Path(scratch)))
        runner, equivalents = Runner(Path(scratch), heavy=HEAVY), read_equivalents()
        for area in dict.fromkeys(p.area for p in parts):
            ours = [p for p in parts if p.area == area]
            done[area] = judge(run_area(ours, args.n, args.seed, runner, log), equivalents)
            left = survivors((o for a in done.values() for o in a), Path(scratch))
            report.write_text(f"{table(done)}\n\n```\n{left}```\n")
    print(report.read_text())
    return 0 if score([o for a in done.values() for o in a]) >= args.at_least else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with the tests that are running
    sys.exit(main())
