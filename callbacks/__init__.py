"""Callbacks that look at a task and log what they see; one file each."""

from callbacks._observer import Observer
from callbacks.equilibrium_residual import EquilibriumResidual
from callbacks.gradient_noise import GradientNoise
from callbacks.layer_rank import LayerRank
from callbacks.layer_rotation import LayerRotation
from callbacks.layer_velocity import LayerVelocity
from callbacks.loss_events import LossEvents
from callbacks.margin_csv import MarginCSV
from callbacks.margin_histogram import MarginHistogram
from callbacks.neural_collapse import NeuralCollapse
from callbacks.noise_time import NoiseTime
from callbacks.progress import ProgressBar
from callbacks.rank_bound import RankBound
from callbacks.run_checkpoint import RunCheckpoint
from callbacks.sharpness import Sharpness
from callbacks.update_split import UpdateSplit

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
