"""What is asked of a run on a device, pretended or real; and the budgets, all in this place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from golden.runs import columns, deviation
from pretended.watch import Watch

# The most waits of a look, solvers apart; a callback that is not here has one. What is above one
# is named, so that none grows: eigenvalues of a Hessian are found by iteration, and of each step
# the host has to know two things, its end and its span; and it has to know the samples' classes.
WAITS = {"GradientNoise": 26, "Sharpness": 7, "NeuralCollapse": 2}
# A solver tells the host whether it has found a result: one for each layer in callbacks of spectra,
# and one for each step of an iteration.
PER_LAYER = ("LayerRank", "LossEvents", "RankBound")
SOLVERS = {"GradientNoise": 13, "Sharpness": 3}
# At the end of an epoch, outside of looks: the running loss and the guard's word, the row, the
# held-out numbers, and whether the weights are still those of the last pass and of the validation.
BORDER = 6
BORDER_FILES = ("janus_pl/deep/", "janus_pl/training/held.py", "janus_pl/training/task.py")
# Of a piece of linear regression, which is a step to the trainer and trains many epochs.
LINEAR_WAITS = 3  # orders and rates go to the device; the host asks whether a run has diverged
# Operations of a training step of the paper's network, views left out: with the default callbacks,
# and with all others besides.
OPERATIONS = {"default": 89, "all": 389}


def most_waits(name: str, layers: int) -> int:
    """Return the most waits of a look of a callback, solvers included."""
    solvers = SOLVERS | dict.fromkeys(PER_LAYER, layers)
    return WAITS.get(name, 1) + solvers.get(name, 0)


def waits_within_steps(watch: Watch) -> list[str]:
    """Return every wait within a training step, with its line."""
    return [f"{wait.why} at {wait.place}" for wait in watch.waits if wait.step]


def waits_of_looks(watch: Watch) -> dict[str, int]:
    """Return the most waits that one look of a callback needed, solvers apart."""
    return _most(watch, solvers=False)


def solvers_of_looks(watch: Watch) -> dict[str, int]:
    """Return the most solvers that one look of a callback waited for."""
    return _most(watch, solvers=True)


def _most(watch: Watch, solvers: bool) -> dict[str, int]:
    counts = Counter(wait.look for wait in watch.waits if (wait.why == "solver") == solvers)
    most: dict[str, int] = {}
    for (name, _), count in counts.items():
        if name:
            most[name] = max(most.get(name, 0), count)
    return most


def waits_of_borders(watch: Watch) -> int:
    """Return the waits between epochs that belong to the task and to no callback."""
    places = [wait.place for wait in watch.waits if not wait.step and not wait.look[0]]
    return sum(place.startswith(BORDER_FILES) for place in places)


def differences(
    found: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]], tolerance: float
) -> list[str]:
    """Name every key of two records whose values differ by more than a part of them."""
    one, other = columns(found), columns(right)
    said = [f"{key} is in one of them" for key in sorted(one.keys() ^ other.keys())]
    for key in sorted(one.keys() & other.keys()):
        pairs = [*zip(one[key], other[key], strict=True)]
        worst = max((deviation(b, a) for a, b in pairs), default=0.0)
        if not worst <= tolerance:
            said.append(f"{key} differs by {worst:.1e}: {pairs[-1]}")
    return said


def not_numbers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name every value of a record that holds NaN or infinity, as unset memory would give."""
    found = []
    for row in rows:
        for key, value in row.items():
            text = json.dumps(value)
            if "NaN" in text or "Infinity" in text:
                found.append(f"{key} of epoch {row.get('epoch')}")
    return found
