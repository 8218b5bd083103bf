"""The inputs of a network's last dense layer over the training set of two classes."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from janus_pl.observables.collapse import difference
from janus_pl.training.ranks import Ranks
from janus_pl.training.samples import training_samples
from janus_pl.training.subject import Features, NotOffered
from janus_pl.training.weights import evaluating


@torch.no_grad()
def features_of(
    trainer: Trainer, module: LightningModule, layer: nn.Linear, ranks: Ranks
) -> Features:
    """Return the features before a layer, with labels and scores; a pass over the training set.

    Args:
        trainer: The trainer of the fit.
        module: The module, called as `module(x)`.
        layer: The last dense layer.
        ranks: The processes that share the samples; `Ranks()` if each looks by itself.

    Raises:
        NotOffered: The labels are not those of two classes, or the module has not two outputs (or
            one), or it does not use the layer once for each sample.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    pieces: list[tuple[Tensor, ...]] = []
    with evaluating(module):
        hook = layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
        try:
            for batch in training_samples(trainer):
                if not isinstance(batch, tuple | list) or len(batch) < 2:
                    raise NotOffered("its batches are not pairs (x, y)")
                seen.clear()
                outputs, y = module(ranks.own(batch[0])), batch[1]
                if len(seen) != 1:
                    raise NotOffered("its last nn.Linear is not used once in a forward pass")
                h, raw = seen[0]
                if h.dim() != 2 or not isinstance(y, Tensor) or ranks.own(y).numel() != len(h):
                    raise NotOffered("it has no feature vector and label for every sample")
                found = h, _score(outputs, len(h)), _score(raw, len(h))
                h, score, raw = (ranks.gather(part, len(y)) for part in found)
                pieces.append((h, y.flatten(), score, raw))
        finally:
            hook.remove()
    features, y, scores, raw = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    labels = set(y.unique().tolist())
    if not (labels <= {-1, 1} or labels <= {0, 1}):
        raise NotOffered("its labels are not those of two classes, +1 and -1 or 1 and 0")
    sign = torch.dot(scores, raw.to(scores)).sign()
    return Features(features, y > 0, scores, sign * layer.weight.detach())


def last_dense(module: nn.Module) -> nn.Linear:
    """Return the last `nn.Linear` of a module, in the order of registration.

    Raises:
        NotOffered: The module has no `nn.Linear`.
    """
    dense = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not dense:
        raise NotOffered("it has no nn.Linear")
    return dense[-1]


def _score(outputs: object, count: int) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.dim() == 1:
        outputs = outputs[:, None]
    if not isinstance(outputs, Tensor) or outputs.shape not in ((count, 1), (count, 2)):
        raise NotOffered("it has not two outputs, or one, and its last nn.Linear the same")
    return difference(outputs)
