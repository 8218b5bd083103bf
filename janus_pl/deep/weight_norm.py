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
    """The product W = g v/||v|| and the norm ||v||, with their gradients in closed form.

    Autograd's own derivative makes twelve passes over the weight. The closed form makes seven and
    so saves a tenth of a training step of the default network on a CPU. The norm is an output, so
    that derivatives of the gradient, as in products with a Hessian, see that it depends on v.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        norm = frobenius_norm(v)
        return v * (g / norm), norm

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])
        ctx.save_for_forward(*inputs, output[1])

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad: Tensor | None, grad_norm: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        g, v, norm = ctx.saved_tensors
        needs_g, needs_v = ctx.needs_input_grad
        grad_g = grad_v = None
        if grad is not None:
            inner = torch.dot(grad.reshape(-1), v.reshape(-1))
            grad_g = inner / norm if needs_g else None
            if needs_v:
                tangent = torch.addcmul(grad, v, -inner / norm.square())
                scale = g / norm
                grad_v = tangent * scale if torch.is_grad_enabled() else tangent.mul_(scale)
        if grad_norm is not None and needs_v:
            along = v * (grad_norm / norm)
            grad_v = along if grad_v is None else grad_v + along
        return grad_g, grad_v

    @staticmethod
    def jvp(ctx, g_dot: Tensor | None, v_dot: Tensor | None):  # type: ignore[no-untyped-def]
        g, v, norm = ctx.saved_tensors
        w_dot, norm_dot = torch.zeros_like(v), torch.zeros_like(norm)
        if g_dot is not None:
            w_dot = v * (g_dot / norm)
        if v_dot is not None:
            norm_dot = torch.dot(v.reshape(-1), v_dot.reshape(-1)) / norm
            w_dot = w_dot + (v_dot - v * (norm_dot / norm)) * (g / norm)
        return w_dot, norm_dot


class Held:
    """The weight that a layer uses instead of a computed one; None: it computes."""

    def __init__(self) -> None:
        self.weight: Tensor | None = None


class FrobeniusWeightNorm(nn.Module):
    r"""The parametrization W = g v/||v||_F, for `torch.nn.utils.parametrize`.

    With G = dLoss/dW and V = v/||v||: dLoss/dv = (g/||v||)(G - <G, V> V) and dLoss/dg = <G, V>. So
    <v, dLoss/dv> = 0, and the paper's V_k dot is -||v|| dLoss/dv (Eq. 15), with no extra backward
    pass. Shapes: g is (); v and W have the layer's shape, for instance (out, in, kh, kw).

    >>> norm = FrobeniusWeightNorm()
    >>> norm(torch.tensor(10.0), torch.tensor([[3.0, 4.0]]))
    tensor([[6., 8.]])

    Attributes:
        held: Holds W within a step that computed it for all layers (`janus_pl.deep.once`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        if self.held.weight is not None:
            return self.held.weight
        if torch.compiler.is_compiling():  # it takes no function with a jvp, and fuses by itself
            return v * (g / frobenius_norm(v))
        return _Normalize.apply(g, v)[0]

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
