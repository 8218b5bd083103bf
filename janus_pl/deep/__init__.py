"""Networks and the parametrizations of the paper's, which need no Lightning."""

from janus_pl.deep.mlp import MLP
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS, GlobalScale
from janus_pl.deep.parametrization import Parametrization
from janus_pl.deep.weight_norm import FrobeniusWeightNorm, weight_norm

__all__ = [
    "MLP",
    "PARAMETRIZATIONS",
    "DeepReLU",
    "FrobeniusWeightNorm",
    "GlobalScale",
    "Parametrization",
    "weight_norm",
]
