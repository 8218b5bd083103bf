"""Callbacks that look at a task and log what they see; one file each."""

from callbacks.layer_rank import LayerRank
from callbacks.layer_velocity import LayerVelocity
from callbacks.margin_csv import MarginCSV
from callbacks.margin_histogram import MarginHistogram
from callbacks.progress import ProgressBar
from callbacks.run_checkpoint import RunCheckpoint

__all__ = [
    "LayerRank",
    "LayerVelocity",
    "MarginCSV",
    "MarginHistogram",
    "ProgressBar",
    "RunCheckpoint",
]
