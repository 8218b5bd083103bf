"""Training framework for the Janus effects of SGD against GD: high noise and low rank."""

from janus_pl.classifier import DeepReLUClassifier
from janus_pl.task import JanusTask

__version__ = "0.1.0"
__all__ = ["DeepReLUClassifier", "JanusTask"]
