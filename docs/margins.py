"""Draws docs/margins.png from two run folders: `python docs/margins.py SGD_RUN GD_RUN`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"SGD, B = 32": "#0072B2", "GD, B = N = 1,000": "#D55E00"}
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")


def rows(run: str) -> list[dict[str, Any]]:
    """The history of a run folder, through W&B's own reader."""
    (record,) = Path(run).glob("wandb/offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json"]
    output = subprocess.run([*command, str(record)], capture_output=True, text=True, check=True)
    records = (json.loads(line) for line in output.stdout.splitlines())
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def main(sgd: str, gd: str) -> None:
    histories = dict(zip(COLOURS, (rows(sgd), rows(gd)), strict=True))
    figure, (margins, ranks, noise) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for name, history in histories.items():
        last, colour = history[-1], COLOURS[name]
        edges, counts = last["margin/hist.bins"], last["margin/hist.values"]
        # Each to its own peak: the widths differ a hundredfold.
        heights = [count / max(counts) for count in counts]
        mean = last["margin/mean"]
        label = f"{name}\nmean {mean:.1e}, std/mean {last['margin/std'] / mean:.1e}"
        relative = [edge / mean for edge in edges]
        margins.stairs(heights, relative, color=colour, fill=True, alpha=0.6)
        margins.stairs(heights, relative, color=colour, linewidth=1.2, label=label)
        looks = [row for row in history if "effective_rank/conv3" in row]
        for layer, style in {"conv3": "-", "fc1": "--"}.items():
            ranks.plot(
                [row["epoch"] for row in looks],
                [row[f"effective_rank/{layer}"] for row in looks],
                style,
                color=colour,
                label=f"{name.split(',')[0]}, {layer}",
            )
        velocities = [(row["epoch"], row["velocity/conv3"]) for row in history if row["epoch"]]
        noise.semilogy(*zip(*velocities, strict=True), color=colour, label=name, linewidth=0.8)
    margins.set(xlabel=r"margin $\bar f_n$ / its mean", ylabel="training images (peak = 1)")
    margins.set(xlim=(0.94, 1.04), ylim=(0, 1.5))
    ranks.set(xlabel="epoch", ylabel="effective rank of $V_k$")
    noise.set(xlabel="epoch", ylabel=r"$\|\dot V_k\|_F$, conv3")
    for axes in (margins, ranks, noise):
        axes.legend(frameon=False, fontsize=8, loc="best" if axes is ranks else "upper right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("margins.png"), dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
