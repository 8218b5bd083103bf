"""What `make quickstart` prints: the table of its three runs, and a sentence on each face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE
from rich.table import Table

from janus_pl.records.run import STEP, Run
from janus_pl.report.figures.janus import RANK, VELOCITY, late, layer_mean
from janus_pl.report.figures.series import batch_of, relative_spread

LAYERS = ("conv3", "conv4", "fc1")  # those of 128 rows or more


def noise(run: Run) -> float:
    """Return ||V_k dot||, geometric mean over the layers and the last fifth of the epochs."""
    return late(layer_mean(run, VELOCITY, "epoch"))


def spread(run: Run) -> float:
    """Return std/|mean| of the margins, geometric mean over the last fifth of the epochs."""
    return late(relative_spread(run, "epoch"))


def fall(run: Run, layer: str) -> float:
    """Return the share of its effective rank that a layer has lost since the start."""
    key = f"{RANK}/{layer}"
    return 1 - run.last(key) / run.first(key)


ROWS: dict[str, Callable[[Run], str]] = {
    "minibatch": batch_of,
    "steps": lambda run: f"{run.last(STEP):,.0f}",
    "training error": lambda run: f"{run.last('train/error'):.2%}",
    "test error": lambda run: f"{run.last('val/error'):.2%}",
    "margins, std/|mean| *": lambda run: f"{spread(run):.2g}",
    "noise, ||V_k dot|| *": lambda run: f"{noise(run):.2g}",
    **{
        f"effective rank, {layer}": lambda run, key=f"{RANK}/{layer}": (  # type: ignore[misc]
            f"{run.first(key):.0f} -> {run.last(key):.0f}"
        )
        for layer in LAYERS
    },
}


def table(names: Iterable[str], runs: Sequence[Run]) -> Table:
    """Return the table of the runs, a column each, under their names."""
    shown = Table(title="The same network, data and epochs", box=SIMPLE, show_edge=False)
    shown.add_column("* mean of the last fifth")
    for name in names:
        shown.add_column(name, justify="right")
    for label, value in ROWS.items():
        shown.add_row(label, *map(value, runs))
    return shown


def sentences(sgd: Run, without: Run, gd: Run) -> list[str]:
    """Return a sentence on each face, and one on what GD at equal epochs did not have."""
    over_gd, over_without = noise(sgd) / noise(gd), noise(sgd) / noise(without)
    falls = {run.id: [fall(run, layer) for layer in LAYERS] for run in (sgd, without, gd)}
    shown = {key: _range(values) for key, values in falls.items()}
    return [
        f"Noise: ||V_k dot|| of SGD is {over_gd:.2g} times that of GD, and {over_without:.2g} times"
        " that of SGD without decay.",
        f"Low rank: the effective ranks of {', '.join(LAYERS)} fell by {shown[sgd.id]} under SGD,"
        f" by {shown[without.id]} without decay, by {shown[gd.id]} under GD.",
        f"Steps: in the same {sgd.last('epoch'):.0f} epochs SGD took {sgd.last(STEP):,.0f} steps,"
        f" GD {gd.last(STEP):,.0f}; these runs do not say what GD does in as many.",
    ]


def _range(falls: Sequence[float]) -> str:
    """Return the least and the largest fall in words.

    >>> _range([0.503, 0.55]), _range([0.001, -0.002])
    ('50% to 55%', 'less than 1%')
    """
    if max(map(abs, falls)) < 0.01:
        return "less than 1%"
    return f"{min(falls):.0%} to {max(falls):.0%}"
