r"""Losses of K classes, sample by sample.

Outputs are f of shape (B, K), labels y the indices of classes, 0 to K - 1, of shape (B,). The
margin of a sample is (f_y - max_{c != y} f_c)/2. For two classes the losses are those of
`janus_pl.deep.losses` by the same name.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from janus_pl.deep.losses import Loss


def square(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the square loss on outputs coded +1 (the class) and -1 (the others): a mean over c.

    mean_c (f_c - t_c)^2 with t_y = 1 and t_c = -1 else. It is 1 for outputs of 0.

    >>> import torch
    >>> square(torch.tensor([[-1.0, 1.0, -1.0], [0.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    tensor([0., 1.])
    """
    targets = 2 * functional.one_hot(y, outputs.shape[1]).to(outputs) - 1
    return (outputs - targets).square().mean(dim=1)


def square_one_hot(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the square loss on outputs coded 1 (the class) and 0 (the others): a mean over c.

    mean_c (f_c - t_c)^2. It is 1/K for outputs of 0.

    >>> import torch
    >>> square_one_hot(torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0] * 4]), torch.tensor([1, 0]))
    tensor([0.0000, 0.2500])
    """
    targets = functional.one_hot(y, outputs.shape[1]).to(outputs)
    return (outputs - targets).square().mean(dim=1)


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the cross entropy of the outputs in nats: -log softmax(f)_y. It is log K at 0.

    >>> import torch
    >>> float(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp())
    4.0
    """
    return functional.cross_entropy(outputs, y, reduction="none")


# A loss of one's own goes in here under a name of its own, and then by it.
CLASS_LOSSES: dict[str, Loss] = {
    "square": square,
    "square_one_hot": square_one_hot,
    "cross_entropy": cross_entropy,
}


def indices(y: Tensor) -> Tensor:
    """Return labels as indices of classes; the signs -1 and +1 are the classes 0 and 1.

    >>> import torch
    >>> indices(torch.tensor([-1.0, 1.0])), indices(torch.tensor([2]))
    (tensor([0, 1]), tensor([2]))
    """
    return (y > 0).long() if y.is_floating_point() else y
