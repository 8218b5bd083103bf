"""The paper's network: four convolutions and two dense layers, all without bias (Section D.5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from janus_pl.errors import UsageError, check_integer, check_memory, is_integer

KERNEL = 3


class DeepReLU(nn.Module):
    r"""The network f_W(x) = rho_learned W_6 relu(W_5 relu(... relu(W_1 x))).

    It has four 3x3 convolutions (padding 0) and two dense layers with ReLU between, and is
    positively homogeneous in every weight. At the start W_k ~ N(0, init_scale^2) and rho_learned
    is 1. `janus_pl.deep.normalizations` decides which parameters are learned, in which coordinates.

    Strides (1, 2, 1, 2) give the paper's 3,519,335 parameters (3,519,328 weights, and rho and six
    gains with `WeightNorm`) and its 3200 features before the first dense layer. The paper prints
    the strides (2, 2, 2, 2); they give 128 features and cost a tenth.

    Args:
        strides: The strides of the four convolutions.
        channels: The output channels of the four convolutions.
        hidden: The width of the first dense layer.
        image_size: The height and width of the input images, in pixels.
        init_scale: The standard deviation of the weights at the start.

    Raises:
        UsageError: Strides or channels are not four positive integers, the strides leave no pixel,
            a size is not a positive integer, or the network does not fit into memory.
    """

    def __init__(
        self,
        strides: Sequence[int] = (1, 2, 1, 2),
        channels: Sequence[int] = (32, 64, 128, 128),
        hidden: int = 1024,
        image_size: int = 32,
        init_scale: float = 0.1,
    ) -> None:
        super().__init__()
        _check_four("model.channels", channels)
        for field, value in {"model.hidden": hidden, "model.image_size": image_size}.items():
            check_integer(field, value, 1)
        features = channels[-1] * output_size(strides, image_size) ** 2
        widths = [3, *channels]
        convolved = sum(a * b for a, b in pairwise(widths)) * KERNEL**2
        count = convolved + hidden * (features + 2)
        # Each weight has a gradient, a momentum and the guard's copy beside it.
        check_memory("model", f"{count:.3g} parameters", 4.0 * 4 * count)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, stride in enumerate(strides, start=1):
            layers[f"conv{k}"] = nn.Conv2d(
                widths[k - 1], widths[k], KERNEL, stride=stride, bias=False
            )
            layers[f"relu{k}"] = nn.ReLU()
        layers["flatten"] = nn.Flatten()
        layers["fc1"] = nn.Linear(features, hidden, bias=False)
        layers["relu5"] = nn.ReLU()
        layers["fc2"] = nn.Linear(hidden, 2, bias=False)
        self.layers = nn.Sequential(layers)
        for layer in self.weight_layers().values():
            nn.init.normal_(layer.get_parameter("weight"), std=init_scale)
        self.rho = nn.Parameter(torch.ones(()))
        # Convolutions are a quarter faster on a CPU when weights and images are channels-last.
        self.to(memory_format=torch.channels_last)

    def weight_layers(self) -> dict[str, nn.Module]:
        """Return the layers that hold a weight, in depth order: conv1 ... conv4, fc1, fc2."""
        return {
            name: layer
            for name, layer in self.layers.named_children()
            if isinstance(layer, nn.Conv2d | nn.Linear)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the two outputs (B, 2) of images (B, 3, H, W)."""
        return self.rho * self.layers(x)


def output_size(strides: Sequence[int], image_size: int) -> int:
    """Return height and width after one unpadded 3x3 convolution for each stride.

    >>> output_size((1, 2, 1, 2), 32), output_size((2, 2, 2, 2), 32)
    (5, 1)
    """
    _check_four("model.strides", strides)
    if max(strides) > image_size:
        allowed = f"four integers of at least 1, at most model.image_size: {image_size}"
        raise UsageError("model.strides", strides, allowed)
    size = image_size
    for stride in strides:
        if size < KERNEL:
            allowed = f"strides that leave a pixel of an image of {image_size} x {image_size}"
            raise UsageError("model.strides", list(strides), allowed)
        size = (size - KERNEL) // stride + 1
    return size


def _check_four(field: str, values: Sequence[int]) -> None:
    four = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 4
    if not four or not all(is_integer(v, least=1) for v in values):
        raise UsageError(field, values, "four integers of at least 1")
