r"""Any network with a scale rho on its outputs, and whether it is homogeneous in its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from janus_pl.deep.parametrization import HomogeneousNetwork
from janus_pl.errors import UsageError
from janus_pl.training.weights import evaluating

DOUBLED = 1e-4  # relative: outputs of twice a weight against twice the outputs


class Scaled(nn.Module):
    """A network f_W(x) = rho layers(x); its layers are all nn.Linear and nn.Conv with a weight.

    Args:
        layers: The network.

    Raises:
        UsageError: It has no such layer, or two of them share a weight.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.rho = nn.Parameter(torch.ones(()))
        _check_readable(self.weight_layers(), layers)

    def weight_layers(self) -> dict[str, nn.Module]:
        """Return the layers that hold a weight, by name with underscores for dots."""
        return {
            name.replace(".", "_") or "weight": part
            for name, part in self.layers.named_modules()
            if isinstance(part, nn.Linear | _ConvNd) and getattr(part, "groups", 1) == 1
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, K) of samples (B, ...)."""
        return self.rho * self.layers(x)


def scaled(network: nn.Module) -> Scaled:
    """Return a network with a scale: itself if it has one, or else within `Scaled`.

    Weights of networks with convolutions become channels-last, as images are.

    Raises:
        UsageError: The network cannot be used.
    """
    own = hasattr(network, "weight_layers") and isinstance(
        getattr(network, "rho", None), nn.Parameter
    )
    found = cast(Scaled, network) if own else Scaled(network)
    if any(isinstance(part, nn.Conv2d) for part in found.modules()):
        found.to(memory_format=torch.channels_last)
    return found


def batch_norms(network: nn.Module) -> list[str]:
    """Return the names of the layers whose outputs depend on the other samples of a batch."""
    return [name for name, part in network.named_modules() if isinstance(part, _BatchNorm)]


def shifts(network: nn.Module) -> bool:
    """Tell whether a layer has a bias, or normalizes: then the network is not homogeneous."""
    return any(getattr(part, "bias", None) is not None for part in network.modules()) or bool(
        batch_norms(network)
    )


@torch.no_grad()
def is_homogeneous(network: HomogeneousNetwork, x: Tensor) -> bool:
    """Tell whether twice the weight of any one layer gives twice the outputs; measured on samples.

    Other trained parameters are shifted for the time of the measurement, since a number that is
    zero at the start does not show. All values are put back bit for bit.

    Args:
        network: The network.
        x: Some samples, (B, ...).
    """
    module = cast(nn.Module, network)
    if shifts(module):  # biases and statistics may be 0 at the start, and do not stay
        return False
    layers = network.weight_layers()
    weights = {id(_norm_of(layer)) for layer in layers.values()} | {id(network.rho)}
    weights |= {id(p) for layer in layers.values() for p in _of_weight(layer)}
    others = [p for p in module.parameters() if id(p) not in weights]
    with evaluating(module), _kept([*module.parameters()]):
        for k, other in enumerate(others):
            steps = torch.arange(1, other.numel() + 1, device=other.device) + k
            other.add_(torch.sin(steps.to(other)).view_as(other))
        before = module(x)
        for layer in layers.values():
            norm = _norm_of(layer)
            held = norm.clone()
            norm.mul_(2)
            doubled = module(x)
            norm.copy_(held)
            size = float(before.abs().max())
            if not size > 0 or float((doubled - 2 * before).abs().max()) > DOUBLED * size:
                return False
    return True


def _norm_of(layer: nn.Module) -> Tensor:
    """Return the factor of a layer's weight: its gain, or the weight itself."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.get_parameter("parametrizations.weight.original0")
    return layer.get_parameter("weight")


def _of_weight(layer: nn.Module) -> Iterator[Tensor]:
    if parametrize.is_parametrized(layer, "weight"):
        yield layer.get_parameter("parametrizations.weight.original1")
    else:
        yield layer.get_parameter("weight")


@contextmanager
def _kept(tensors: list[nn.Parameter]) -> Iterator[None]:
    """Put back the values of some tensors after the block."""
    held = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, held, strict=True):
            tensor.copy_(value)


def _check_readable(layers: dict[str, nn.Module], network: nn.Module) -> None:
    if not layers:
        allowed = "a network with an nn.Linear or nn.Conv"
        raise UsageError("model.network", type(network).__name__, allowed)
    first: dict[int, str] = {}
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer):
            allowed = f"a network whose layers have plain weights ({name} is parametrized)"
            raise UsageError("model.network", type(network).__name__, allowed)
        same = first.setdefault(id(layer.get_parameter("weight")), name)
        if same != name:
            allowed = f"layers with weights of their own ({same} and {name} share one)"
            raise UsageError("model.network", type(network).__name__, allowed)
