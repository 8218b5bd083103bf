"""Networks and parametrizations; they know torch alone."""

from janus_pl.nn.deep_relu import DeepReLU
from janus_pl.nn.normalization import PARAMETRIZATIONS, GlobalScale, Parametrization
from janus_pl.nn.weight_norm import FrobeniusWeightNorm, weight_norm

__all__ = [
    "PARAMETRIZATIONS",
    "DeepReLU",
    "FrobeniusWeightNorm",
    "GlobalScale",
    "Parametrization",
    "weight_norm",
]
