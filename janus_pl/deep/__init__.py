"""The paper's network and its parametrizations, which need no Lightning."""

from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS, GlobalScale
from janus_pl.deep.parametrization import Parametrization
from janus_pl.deep.weight_norm import FrobeniusWeightNorm, weight_norm

__all__ = [
    "PARAMETRIZATIONS",
    "DeepReLU",
    "FrobeniusWeightNorm",
    "GlobalScale",
    "Parametrization",
    "weight_norm",
]
