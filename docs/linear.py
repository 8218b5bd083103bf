"""Draws docs/linear.png from two run folders: `python docs/linear.py SGD_RUN GD_RUN`."""

from __future__ import annotations

import sys
from pathlib import Path

from margins import plt, rows

COLOURS = {"SGD, B = 1": "#0072B2", "GD": "#D55E00"}
NULL = r"$\|W(I - \pi)\|$"


def main(sgd: str, gd: str) -> None:
    histories = dict(zip(COLOURS, (rows(sgd), rows(gd)), strict=True))
    figure, (by_epoch, by_rate, spectrum) = plt.subplots(
        1, 3, figsize=(13, 3.6), layout="constrained"
    )
    for name, history in histories.items():
        colour = COLOURS[name]
        epochs = [row["epoch"] for row in history]
        norms = [row["null/norm"] for row in history]
        by_epoch.plot(epochs, norms, "o", markersize=3, color=colour, label=name)
        predicted = [row["null/predicted"] for row in history]
        by_epoch.plot(epochs, predicted, color="black", linewidth=0.8)
        style = {"linewidth": 1} if name != "GD" else {"marker": "o", "markersize": 3, "ls": ""}
        by_rate.plot([row["eta_t"] for row in history], norms, color=colour, label=name, **style)
        for key in (key for key in history[0] if key.startswith("singular_value/")):
            label = name if key.endswith("/01") else None
            values = [row[key] for row in history]
            spectrum.plot(epochs, values, color=colour, linewidth=0.9, label=label)
    by_epoch.plot([], [], color="black", linewidth=0.8, label="closed form")
    by_epoch.set(xscale="symlog", yscale="log", xlabel="epoch", ylabel=NULL)
    by_rate.set(yscale="log", xlabel="accumulated learning rate ηt", ylabel=NULL)
    spectrum.set(xscale="symlog", yscale="log", xlabel="epoch", ylabel="singular values of $W$")
    for axes in (by_epoch, by_rate, spectrum):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("linear.png"), dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
