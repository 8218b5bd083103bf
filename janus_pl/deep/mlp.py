"""A multilayer perceptron of equal widths."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from janus_pl.errors import UsageError, check_integer, check_memory, check_number


class MLP(nn.Sequential):
    """Dense layers fc1 ... fc<depth> of one width, with an activation between two of them.

    Without bias and batch normalization and with a homogeneous activation such as ReLU it is
    homogeneous in each weight, so its margins are normalized.

    Args:
        inputs: The numbers in a sample, of all its axes together; 3072 for images of 3 x 32 x 32.
        outputs: The number of classes K.
        depth: The number of dense layers, at least 1.
        width: The outputs of all layers but the last.
        batch_norm: Whether batch normalization follows each layer but the last.
        bias: Whether layers have a bias.
        activation: The activation as a class, such as `torch.nn.ReLU`.
        init_scale: The standard deviation of normal weights at the start; not set: PyTorch's
            uniform weights, which shrink images of unit norm from layer to layer.

    Raises:
        UsageError: A size is not a positive integer, or the network does not fit into memory.

    >>> [name for name, _ in MLP(4, 2, depth=2, width=3).named_children()]
    ['flatten', 'fc1', 'activation1', 'fc2']
    """

    def __init__(
        self,
        inputs: int = 3072,
        outputs: int = 2,
        depth: int = 5,
        width: int = 100,
        batch_norm: bool = False,
        bias: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        init_scale: float | None = None,
    ) -> None:
        if init_scale is not None:
            check_number("model.network.init_scale", init_scale, above=0)
        sizes = {"inputs": inputs, "outputs": outputs, "depth": depth, "width": width}
        for field, value in sizes.items():
            check_integer(f"model.network.{field}", value, 1)
        widths = [inputs, *[width] * (depth - 1), outputs]
        count = inputs * width + max(0, depth - 2) * width**2 + width * outputs
        check_memory("model.network", f"{count:.3g} parameters", 4.0 * 4 * count)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for k in range(1, depth + 1):
            layers[f"fc{k}"] = dense = nn.Linear(widths[k - 1], widths[k], bias=bias)
            if init_scale is not None:
                nn.init.normal_(dense.weight, std=init_scale)
            if k < depth:
                if batch_norm:
                    layers[f"norm{k}"] = nn.BatchNorm1d(width)
                layers[f"activation{k}"] = _made(activation)
        super().__init__(layers)
        self.init_scale = init_scale

    def extra_repr(self) -> str:
        """Return the option that the parts do not show."""
        return f"init_scale={self.init_scale}"


def _made(activation: Callable[[], nn.Module]) -> nn.Module:
    made = activation()
    if not isinstance(made, nn.Module):
        allowed = "a class of activations, such as torch.nn.ReLU"
        raise UsageError("model.network.activation", activation, allowed)
    return made
