"""`python -m benchmarks.rows [RUNS]`: a sealed row, and runs from rows.jsonl or W&B's files.

Both are ratios. Of 200 runs it takes some minutes, most of it to make them.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from benchmarks.common import seconds_of, side_by_side
from benchmarks.records import LAYERS, RANKS, make
from janus_pl.records.read import read
from janus_pl.run.journal import Journal
from janus_pl.run.rows import Histogram, Value, plain_row

ROWS, EPOCHS, RUNS = 400, 800, 200


def row(epoch: int) -> dict[str, Value]:
    """A row with the keys of `configs/small.yaml`, as `benchmarks.records` hands it to W&B."""
    found: dict[str, Value] = {
        **{"epoch": epoch, "trainer/global_step": 31 * epoch, "eta_t": 0.03 * epoch, "rho": 1.0},
        **{f"velocity/{layer}": 0.1 for layer in LAYERS},
    }
    if epoch % 5 == 0:
        histogram = Histogram(np.arange(64), np.arange(65.0))
        found |= dict.fromkeys(("margin/mean", "margin/std", "margin/min", "train/loss"), 0.1)
        found |= {f"{kind}/{layer}": 1.0 for kind in RANKS for layer in LAYERS}
        found |= {f"spectrum/{layer}": histogram for layer in LAYERS}
        found["margin/hist"] = histogram
    return found


def sealed(folder: Path, rows: Sequence[Mapping[str, Value]]) -> float:
    """Write rows as a run does; return the seconds, without the end that waits for the disk."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)

    def append() -> None:
        for each in rows:
            journal.append(each)

    seconds = seconds_of(append)
    journal.close()
    return seconds


def unsealed(folder: Path, rows: Sequence[Mapping[str, Value]]) -> float:
    """Write rows as before seals: each of them handed to the system at once."""
    folder.mkdir(exist_ok=True)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:

        def append() -> None:
            for each in rows:
                file.write(json.dumps(plain_row(each)) + "\n")
                file.flush()

        return seconds_of(append)


def beside(folder: Path, number: int) -> None:
    """Give a run that W&B has recorded the files of a run's folder."""
    sealed(folder, [row(epoch) for epoch in range(EPOCHS)])
    config = f"seed_everything: {number}\nmodel: {{init_args: {{weight_decay: 0.001}}}}\n"
    (folder / "config.yaml").write_text(config)
    (folder / "outcome.json").write_text(json.dumps({"exit_code": 0, "rows": EPOCHS}))


def seal_ratio(folder: Path) -> None:
    rows = [row(epoch) for epoch in range(ROWS)]
    variants: dict[str, Callable[[], float]] = {
        "sealed": lambda: sealed(folder / "a", rows),
        "unsealed": lambda: unsealed(folder / "b", rows),
    }
    took = side_by_side(variants, 15)
    print(f"a row: sealed {1e6 * took['sealed'] / ROWS:.0f} us,", end=" ")
    print(f"unsealed {1e6 * took['unsealed'] / ROWS:.0f} us:", end=" ")
    print(f"{took['sealed'] / took['unsealed']:.2f} (aim: at most 1.5)")


def both_seconds_of(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds by the clock and of processors, those of other programs among them.

    W&B's reader is several programs side by side, so that on a busy machine it gets a larger share.
    """

    def used() -> float:
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))

    before = used()
    seconds = seconds_of(function)
    return seconds, used() - before


def reading_ratio(folder: Path, runs: int) -> None:
    for number in range(runs):
        make(folder / f"run{number:03d}", number, EPOCHS)
    wandb.teardown()
    copies = sorted(folder.rglob("run-*.wandb"))
    through: list[Any] = []
    slow, slow_cpu = both_seconds_of(lambda: through.append(read(copies)))
    for number in range(runs):
        beside(folder / f"run{number:03d}", number)
    fast, fast_cpu = both_seconds_of(lambda: through.append(read([folder])))
    counts = [(len(r.runs), sum(len(run.rows) for run in r.runs)) for r in through]
    assert counts[0] == counts[1] == (runs, runs * EPOCHS), counts
    assert not any(run.notes for records in through for run in records.runs)
    print(f"{runs} runs of {EPOCHS} rows: from rows.jsonl {fast:.1f} s,", end=" ")
    print(f"through W&B's reader {slow:.1f} s: {fast / slow:.2f} (aim: at most 0.25);", end=" ")
    print(f"of processor time {fast_cpu:.1f} of {slow_cpu:.1f} s: {fast_cpu / slow_cpu:.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seal_ratio(Path(folder))
        reading_ratio(Path(folder) / "runs", int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)


if __name__ == "__main__":
    main()
