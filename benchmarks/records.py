"""`python -m benchmarks.records`: 200 runs of 800 rows, made offline and read back; minutes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from janus_pl.records.read import read

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
RANKS = ("rank", "stable_rank", "effective_rank", "rank_absolute_0.1", "rank_relative_0.1")


def make(folder: Path, number: int, epochs: int = 800) -> None:
    """A run with the keys of `configs/small.yaml`."""
    folder.mkdir(parents=True)
    histogram = wandb.Histogram(np_histogram=(np.arange(64), np.arange(65.0)))
    run = wandb.init(
        project="p",
        id=f"run{number:03d}",
        dir=folder,
        mode="offline",
        config={"seed_everything": number, "model": {"init_args": {"weight_decay": 0.001}}},
        settings=wandb.Settings(silent=True, x_disable_stats=True),
    )
    for epoch in range(epochs):
        row: dict[str, Any] = {
            "epoch": epoch,
            "trainer/global_step": 31 * epoch,
            "eta_t": 0.03 * epoch,
            "rho": 1.0,
        }
        row |= {f"velocity/{layer}": 0.1 for layer in LAYERS}
        if epoch % 5 == 0:
            row |= dict.fromkeys(("margin/mean", "margin/std", "margin/min", "train/loss"), 0.1)
            row |= {f"{kind}/{layer}": 1.0 for kind in RANKS for layer in LAYERS}
            row |= {f"spectrum/{layer}": histogram for layer in LAYERS}
            row["margin/hist"] = histogram
        run.log(row)
    run.finish()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(200):
            make(Path(folder) / str(number), number)
        start = time.perf_counter()
        records = read([folder])
        seconds = time.perf_counter() - start
        print(f"{len(records.runs)} runs, {sum(len(r.rows) for r in records.runs)} rows:", end=" ")
        print(f"{seconds:.1f} s")


if __name__ == "__main__":
    main()
