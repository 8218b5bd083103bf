"""The paper's network: four convolutions, then dense layers, all without bias (Section D.5)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from janus_pl.errors import UsageError, check_integer, check_memory, is_integer

CONVOLUTIONS = 4


class DeepReLU(nn.Module):
    r"""The network f_W(x) = rho_learned W_L relu(W_{L-1} relu(... relu(W_1 x))), by default L = 6.

    Four convolutions (padding 0) and L - 4 dense layers, positively homogeneous in every weight. At
    the start W_k ~ N(0, init_scale^2) and rho_learned is 1. `janus_pl.deep.normalizations` decides
    which parameters are learned.

    Strides (1, 2, 1, 2) give the paper's 3,519,335 parameters (3,519,328 weights, and rho and six
    gains with `WeightNorm`) and its 3200 features before the first dense layer. The printed strides
    (2, 2, 2, 2) give 128 features and cost a tenth.

    Args:
        strides: The strides of the four convolutions.
        channels: The output channels of the four convolutions.
        hidden: The width of all dense layers but the last.
        image_size: The height and width of the input images, in pixels.
        init_scale: The standard deviation of the weights at the start.
        depth: L, the number of weights; 5 or more.
        kernel_size: The height and width of each convolution's kernel, in pixels.

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
        depth: int = 6,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        _check_four("model.channels", channels)
        sizes = {"hidden": hidden, "image_size": image_size, "kernel_size": kernel_size}
        for field, value in sizes.items():
            check_integer(f"model.{field}", value, 1)
        check_integer("model.depth", depth, CONVOLUTIONS + 1)
        features = channels[-1] * output_size(strides, image_size, kernel_size) ** 2
        widths = [3, *channels]
        dense = [features, *[hidden] * (depth - CONVOLUTIONS - 1), 2]
        convolved = sum(a * b for a, b in pairwise(widths)) * kernel_size**2
        count = convolved + sum(a * b for a, b in pairwise(dense))
        # Each weight has a gradient, a momentum and the guard's copy beside it.
        check_memory("model", f"{count:.3g} parameters", 4.0 * 4 * count)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, stride in enumerate(strides, start=1):
            layers[f"conv{k}"] = nn.Conv2d(
                widths[k - 1], widths[k], kernel_size, stride=stride, bias=False
            )
            layers[f"relu{k}"] = nn.ReLU()
        layers["flatten"] = nn.Flatten()
        for k, (into, out) in enumerate(pairwise(dense), start=1):
            layers[f"fc{k}"] = nn.Linear(into, out, bias=False)
            if k < len(dense) - 1:
                layers[f"relu{CONVOLUTIONS + k}"] = nn.ReLU()
        self.layers = nn.Sequential(layers)
        for layer in self.weight_layers().values():
            nn.init.normal_(layer.get_parameter("weight"), std=init_scale)
        self.rho = nn.Parameter(torch.ones(()))
        # Convolutions are a quarter faster on a CPU when weights and images are channels-last.
        self.to(memory_format=torch.channels_last)

    def weight_layers(self) -> dict[str, nn.Module]:
        """Return the layers that hold a weight, in depth order: conv1 ... conv4, fc1, fc2, ...."""
        return {
            name: layer
            for name, layer in self.layers.named_children()
            if isinstance(layer, nn.Conv2d | nn.Linear)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the two outputs (B, 2) of images (B, 3, H, W)."""
        return self.rho * self.layers(x)


def output_size(strides: Sequence[int], image_size: int, kernel_size: int = 3) -> int:
    """Return height and width after one unpadded square convolution for each stride.

    >>> output_size((1, 2, 1, 2), 32), output_size((2, 2, 2, 2), 32)
    (5, 1)
    """
    _check_four("model.strides", strides)
    if max(strides) > image_size:
        allowed = f"four integers of at least 1, at most model.image_size: {image_size}"
        raise UsageError("model.strides", strides, allowed)
    size = image_size
    for stride in strides:
        if size < kernel_size:
            allowed = f"strides that leave a pixel of an image of {image_size} x {image_size}"
            raise UsageError("model.strides", list(strides), allowed)
        size = (size - kernel_size) // stride + 1
    return size


def _check_four(field: str, values: Sequence[int]) -> None:
    four = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 4
    if not four or not all(is_integer(v, least=1) for v in values):
        raise UsageError(field, values, "four integers of at least 1")
