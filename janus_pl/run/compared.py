"""The columns of W&B's summary: the numbers by which runs are compared, and no others.

The rows of a run have each key of the record. W&B copies the newest value of each key into the
summary, which makes hundreds of columns in its table of runs. So the details of our own keys stay
in the rows alone, and the layers have one mean. A key that is not ours is left to W&B.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

COMPARED = frozenset(
    [
        *("train/loss", "train/error", "val/loss", "val/error", "rho"),
        *("margin/mean", "margin/std", "margin/min", "margin/hist"),
        *("margin_raw/mean", "margin_raw/std", "margin_raw/min", "margin_raw/hist"),
        *("equilibrium/residual", "gradient_noise/scale", "noise_time/margin"),
        *("sharpness/hessian", "sharpness/ratio", "collapse/nc1", "event/count", "diverged/epoch"),
        *("null/norm", "null/predicted", "sigma_min", "solution/relative_distance"),
        *("gradient_norm", "noise/weights"),
    ]
)
# The mean over the layers stands for `KIND/LAYER`, by the name of the kind.
OF_LAYERS = ("velocity", "stable_rank", "effective_rank")
# Our other keys, by their first part, and the parts that end in a tolerance.
FAMILIES = frozenset(
    [
        *OF_LAYERS,
        *("velocity_full", "rank", "spectrum", "weight_norm", "rotation", "rotation_since"),
        *("margin", "margin_raw", "equilibrium", "rho_dot", "update", "tail_bound", "collapse"),
        *("gradient_noise", "noise_time", "noise", "sharpness", "event", "effective_rate"),
        *("null", "solution", "singular_value", "eigenvalue_modulus", "diverged"),
    ]
)
DETAILS = frozenset(
    [
        *("train/loss_running", "train/error_running", "train/mse_per_sample"),
        *("train/mse_per_entry", "learning_rate", "rho_learned", "measured_step"),
        "gradient_norm_full",
    ]
)
OF_TOLERANCE = ("rank_absolute_", "rank_relative_")


def is_detail(key: str) -> bool:
    """Tell whether a key of ours is for the rows alone.

    >>> [is_detail(key) for key in ("velocity/conv1", "train/loss", "val/f1_of_mine")]
    [True, False, False]
    """
    family = key.partition("/")[0]
    ours = key in DETAILS or family in FAMILIES or family.startswith(OF_TOLERANCE)
    return ours and key not in COMPARED


def means(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean over the layers of each kind in a row.

    >>> means({"velocity/conv1": 1.0, "velocity/fc1": 3.0, "rho": 5.0})
    {'velocity': 2.0}
    """
    found: dict[str, float] = {}
    for kind in OF_LAYERS:
        values = [v for k, v in row.items() if k.startswith(f"{kind}/") and isinstance(v, float)]
        if values:
            found[kind] = fmean(values)
    return found
