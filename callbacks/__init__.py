"""Callbacks that look at a task and log what they see; one file each.

Their package is `janus_pl.callbacks`. In a checkout the folder also lies at the top. There
`callbacks` is an older name of the same modules.
"""

import sys

from janus_pl.callbacks._observer import Observer
from janus_pl.callbacks.equilibrium_residual import EquilibriumResidual
from janus_pl.callbacks.gradient_noise import GradientNoise
from janus_pl.callbacks.layer_rank import LayerRank
from janus_pl.callbacks.layer_rotation import LayerRotation
from janus_pl.callbacks.layer_velocity import LayerVelocity
from janus_pl.callbacks.loss_events import LossEvents
from janus_pl.callbacks.margin_csv import MarginCSV
from janus_pl.callbacks.margin_histogram import MarginHistogram
from janus_pl.callbacks.neural_collapse import NeuralCollapse
from janus_pl.callbacks.noise_time import NoiseTime
from janus_pl.callbacks.progress import ProgressBar
from janus_pl.callbacks.rank_bound import RankBound
from janus_pl.callbacks.run_checkpoint import RunCheckpoint
from janus_pl.callbacks.sharpness import Sharpness
from janus_pl.callbacks.update_split import UpdateSplit

__all__ = [
    "EquilibriumResidual",
    "GradientNoise",
    "LayerRank",
    "LayerRotation",
    "LayerVelocity",
    "LossEvents",
    "MarginCSV",
    "MarginHistogram",
    "NeuralCollapse",
    "NoiseTime",
    "Observer",
    "ProgressBar",
    "RankBound",
    "RunCheckpoint",
    "Sharpness",
    "UpdateSplit",
]

if __name__ != "janus_pl.callbacks":
    _package = "janus_pl.callbacks"
    for _name, _module in [*sys.modules.items()]:
        if _name == _package or _name.startswith(f"{_package}."):
            sys.modules[__name__ + _name.removeprefix(_package)] = _module
