"""Training framework for the Janus effects of SGD against GD: high noise and low rank."""

from janus_pl.classifier import DeepReLUClassifier
from janus_pl.regressor import LinearRegressor
from janus_pl.task import JanusTask
from janus_pl.version import __version__

__all__ = ["DeepReLUClassifier", "JanusTask", "LinearRegressor", "__version__"]
