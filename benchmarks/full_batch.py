"""A full-batch step, N = 10,000, default network: seconds and peak memory by micro-batch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback

from benchmarks.common import N, classifier, fit_seconds, images
from janus_pl.data import InMemoryBatches
from janus_pl.data.loader import DEFAULT_MICRO_BATCH

SIZES = (100, DEFAULT_MICRO_BATCH, 500, 1000, N)
STEPS = 2


class Cost(NamedTuple):
    """Wall and processor seconds of a step, and the peak of its memory in MB.

    Attributes:
        above_step: above what is in use between two steps.
        above_start: above what is in use before the first one, so with gradients, momentum, and
            the code that a first step loads and compiles.
    """

    wall: float
    processor: float
    above_step: float
    above_start: float


class Meter(Callback):
    """Measures every step of a fit; the first one pays for what comes once."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.start = in_use()

    def on_train_batch_start(self, *args: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is in use now
        self.before = in_use()
        self.clocks = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        wall, processor = time.perf_counter() - self.clocks[0], time.process_time() - self.clocks[1]
        peak = megabytes("VmHWM")
        self.costs.append(Cost(wall, processor, peak - self.before, peak - self.start))


def in_use() -> float:
    return megabytes("VmRSS")


def megabytes(entry: str) -> float:
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def here(micro_batch_size: int) -> None:
    """Print what the last step and, of memory, the most costly one took of this process."""
    warnings.simplefilter("ignore")
    meter = Meter()
    loader = InMemoryBatches(*images(), "full", micro_batch_size)
    fit_seconds(classifier(), loader, STEPS, [meter])
    last = meter.costs[-1]
    print(json.dumps(last._replace(above_start=max(cost.above_start for cost in meter.costs))))


def in_a_process(micro_batch_size: int) -> Cost:
    code = f"from benchmarks.full_batch import here; here({micro_batch_size})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return Cost(*json.loads(output.stdout.splitlines()[-1]))


def main(rounds: int = 1) -> None:
    measured: dict[int, list[Cost]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:  # they take turns, so that a busy machine hits all
            measured[size].append(in_a_process(size))
    costs = {
        size: Cost(*(median(row) for row in zip(*found, strict=True)))
        for size, found in measured.items()
    }
    whole = costs[N]
    print(f"A full-batch step, N = {N}, default network, {torch.get_num_threads()} threads")
    print("  micro-batch   wall s  of one go  processor s  of one go  MB of a step  since start")
    for size, cost in costs.items():
        aim = "  (at most 0.65 and 300 MB)" if size == DEFAULT_MICRO_BATCH else ""
        print(
            f"  {size:>11}  {cost.wall:7.1f}  {cost.wall / whole.wall:9.3f}"
            f"  {cost.processor:11.1f}  {cost.processor / whole.processor:9.3f}"
            f"  {cost.above_step:12.0f}  {cost.above_start:11.0f}{aim}"
        )


if __name__ == "__main__":
    main()
