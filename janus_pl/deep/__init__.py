"""Networks and the parametrizations of the paper's, which need no Lightning.

`ResNet18` is imported when it is first used, for torchvision takes a second.
"""

from typing import Any

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
    "ResNet18",
    "weight_norm",
]


def __getattr__(name: str) -> Any:
    if name != "ResNet18":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from janus_pl.deep.resnet import ResNet18

    return ResNet18
