"""Record golden rows anew: `python tests/golden/record.py [RUN ...] [--keys GLOB]`.

A change that moves a number on purpose records that key anew, that key alone, and says so in
CHANGELOG.md:

    python tests/golden/record.py theory --keys 'tail_bound/*'

All other lines of the file stay as they are, byte for byte. So do float64 lines that still agree to
ten digits. Keys that differ and were not asked for are named, and the exit code is then 1.

Bits belong to a machine. A part is recorded on the machine of `machine.json` alone; elsewhere
everything is, by the command without arguments, which writes that file too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # as pytest has them

from golden import runs  # noqa: E402


def main(args: Sequence[str] | None = None) -> int:
    """Train the runs that were named, or all, and rewrite their files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(runs.NAMES)}")
    parser.add_argument("--keys", metavar="GLOB", default="*", help="keys to record anew")
    asked = parser.parse_args(args)
    if unknown := {*asked.runs} - {*runs.NAMES}:
        parser.error(f"no run is called {', '.join(sorted(unknown))}")
    file, here = runs.FOLDER / runs.MACHINE, runs.machine()
    everything = not asked.runs and asked.keys == "*"
    other = runs.other_machine(json.loads(file.read_text()), here) if file.exists() else ""
    if other and not everything:
        parser.error(f"a part is recorded on the recorded machine alone; {other}")
    left = []
    for name in asked.runs or runs.NAMES:
        path = runs.FOLDER / f"{name}.json"
        before = path.read_text() if path.exists() else "{}"
        text, differing = renewed(before, trained(name), asked.keys)
        path.write_text(text)
        left += [f"{name}: {line}" for line in differing]
    if everything:
        file.write_text(json.dumps(here, indent=1) + "\n")
    print("\n".join(["differ and were not asked for:", *left]) if left else "done")
    return 1 if left else 0


def trained(name: str) -> dict[str, runs.Columns]:
    """Train a run in each of its dtypes."""
    record = {}
    for dtype in runs.dtypes(name):
        with tempfile.TemporaryDirectory() as folder:
            record[dtype] = runs.train(name, dtype, Path(folder)).columns
    return record


def renewed(text: str, now: dict[str, runs.Columns], pattern: str) -> tuple[str, list[str]]:
    """Rewrite the keys of a record that match a pattern; name those that differ and do not.

    Args:
        text: The record's file.
        now: The columns of the runs, by dtype.
        pattern: A shell pattern.
    """
    before, after, left = runs.record_of(text), {}, []
    for dtype, new in now.items():
        old, exact = before.get(dtype, {}), dtype == "float32"
        changed = {
            key
            for key in old.keys() | new.keys()
            if runs.differences(_only(old, key), _only(new, key), exact)
        }
        renew = {key for key in changed if runs.matches(key, pattern)}
        left += [f"{dtype}: {key}" for key in sorted(changed - renew)]
        kept = {key: column for key, column in old.items() if key not in renew}
        after[dtype] = kept | {key: new[key] for key in renew & new.keys()}
    return runs.text_of(after), left


def _only(held: runs.Columns, key: str) -> runs.Columns:
    return {key: held[key]} if key in held else {}


if __name__ == "__main__":
    raise SystemExit(main())
