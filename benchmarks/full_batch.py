"""A full-batch step, N = 10,000, default network: seconds and peak memory by micro-batch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback

from benchmarks.common import N, classifier, fit_seconds, images
from janus_pl.data import InMemoryBatches
from janus_pl.data.loader import DEFAULT_MICRO_BATCH

SIZES = (100, DEFAULT_MICRO_BATCH, 500, 1000, N)
STEPS = 2


class Memory(Callback):
    """The peak of the resident memory from the start of training on, above what is in use there."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is in use now
        self.base = kilobytes("VmRSS")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.peak = kilobytes("VmHWM")


def kilobytes(entry: str) -> int:
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def here(micro_batch_size: int) -> None:
    """Print seconds a step and megabytes above the base, of this process."""
    warnings.simplefilter("ignore")
    memory = Memory()
    loader = InMemoryBatches(*images(), "full", micro_batch_size)
    seconds = fit_seconds(classifier(), loader, STEPS, [memory])
    print(json.dumps([seconds, (memory.peak - memory.base) * 1024 / 1e6]))


def in_a_process(micro_batch_size: int) -> tuple[float, float]:
    code = f"from benchmarks.full_batch import here; here({micro_batch_size})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, megabytes = json.loads(output.stdout.splitlines()[-1])
    return seconds, megabytes


def main(rounds: int = 2) -> None:
    measured: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:  # they take turns, so that a busy machine hits all
            measured[size].append(in_a_process(size))
    seconds = {size: median(s for s, _ in found) for size, found in measured.items()}
    print(f"A full-batch step, N = {N}, default network, {torch.get_num_threads()} threads")
    for size, found in measured.items():
        share, peak = seconds[size] / seconds[N], max(mb for _, mb in found)
        note = "  the default: at most 0.65 and 300 MB" if size == DEFAULT_MICRO_BATCH else ""
        print(f"  {size:>6}  {seconds[size]:6.1f} s  {share:.3f} of one go  {peak:5.0f} MB{note}")


if __name__ == "__main__":
    main()
