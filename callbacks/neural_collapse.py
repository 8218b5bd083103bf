"""Neural collapse of the features before the last layer, for two classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from callbacks._observer import Observer
from janus_pl.observables.collapse import (
    class_distance_normalized_variance,
    difference,
    nearest_mean_disagreement,
    self_duality,
    two_classes,
    within_class_variability,
)
from janus_pl.run.rows import Value
from janus_pl.training.ranks import Ranks
from janus_pl.training.samples import training_samples
from janus_pl.training.task import JanusTask


class NeuralCollapse(Observer):
    r"""Logs NC1, NC3, NC4 (Papyan, Han and Donoho, 2020) and the CDNV of the training features.

    Features are the input of the last `nn.Linear`, for the paper's network the ReLUs before fc2.

        collapse/nc1   tr(S_W S_B^+)/2: variability within the classes
        collapse/nc3   ||W^T/||W|| - M/||M|| ||_F, 0 to 2: last layer against class means
        collapse/nc4   share of samples where the nearest class mean decides otherwise
        collapse/cdnv  (Var_0 + Var_1)/(2 ||mu_1 - mu_0||^2) (Galanti, Gyorgy and Hutter, 2021)

    NC2, class means that form a simplex, is trivial for two classes and not logged. A number that
    is not defined (a class is missing, both means are one point, something is not finite) is
    missing. The equations are in `janus_pl.observables.collapse`.

    Any other LightningModule is served whose batches are (x, y), with labels +1/-1 or 1/0, and
    whose last `nn.Linear` gives its two outputs, or one. A look costs a forward pass over the
    training set and the memory of its N feature vectors.

    Args:
        every_n_epochs: look at epochs 0, 1, 2, 4, 8, ... up to this number, at its multiples, and
            at the last one; 0 is off.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        super().__init__(every_n_epochs)
        self._layer: nn.Linear | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        dense = {k: m for k, m in pl_module.named_modules() if isinstance(m, nn.Linear)}
        name, self._layer = list(dense.items())[-1] if dense else ("", None)
        if self._layer is None:
            owner = type(pl_module).__name__
            rank_zero_info(f"NeuralCollapse reads nothing of {owner}: it has no nn.Linear")
        elif not isinstance(pl_module, JanusTask):
            rank_zero_info(f"NeuralCollapse reads the input of {name or 'the module itself'}")

    def observe(self, trainer: Trainer, module: LightningModule) -> Mapping[str, Value]:
        if self._layer is None:
            return {}
        try:
            features, positive, scores, sign = _features(trainer, module, self._layer)
        except ValueError as error:
            self._layer = None
            rank_zero_warn(f"NeuralCollapse logs nothing for {type(module).__name__}: {error}")
            return {}
        classes = two_classes(features, positive)
        numbers = {
            "collapse/nc1": within_class_variability(classes),
            "collapse/nc3": self_duality(classes, sign * self._layer.weight.detach()),
            "collapse/nc4": nearest_mean_disagreement(classes, features, scores),
            "collapse/cdnv": class_distance_normalized_variance(classes),
        }
        values = zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True)
        return {key: value for key, value in values if math.isfinite(value)}


@torch.no_grad()
def _features(
    trainer: Trainer, module: LightningModule, layer: nn.Linear
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (N, d), whether a label is of class 1 (N,), scores f_1 - f_0 (N,), and a sign ().

    The sign is -1 where the module's outputs are those of the layer times a negative number, as
    with a negative rho: (rho, W) and (-rho, -W) are the same function.

    Raises:
        ValueError: no two classes, or no two outputs (or one) of the layer.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    pieces: list[tuple[Tensor, ...]] = []
    ranks = module.ranks if isinstance(module, JanusTask) else Ranks()
    with _evaluating(module):
        hook = layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
        try:
            for batch in training_samples(trainer):
                if not isinstance(batch, tuple | list) or len(batch) < 2:
                    raise ValueError("its batches are not pairs (x, y)")
                seen.clear()
                outputs, y = module(ranks.own(batch[0])), batch[1]
                if len(seen) != 1:
                    raise ValueError("its last nn.Linear is not used once in a forward pass")
                h, raw = seen[0]
                if h.dim() != 2 or not isinstance(y, Tensor) or ranks.own(y).numel() != len(h):
                    raise ValueError("it has no feature vector and label for every sample")
                found = h, _score(outputs, len(h)), _score(raw, len(h))
                h, score, raw = (ranks.gather(part, len(y)) for part in found)
                pieces.append((h, y.flatten(), score, raw))
        finally:
            hook.remove()
    features, y, scores, raw = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    labels = set(y.unique().tolist())
    if not (labels <= {-1, 1} or labels <= {0, 1}):
        raise ValueError("its labels are not those of two classes, +1 and -1 or 1 and 0")
    return features, y > 0, scores, torch.dot(scores, raw.to(scores)).sign()


def _score(outputs: object, count: int) -> Tensor:
    if isinstance(outputs, Tensor) and outputs.dim() == 1:
        outputs = outputs[:, None]
    if not isinstance(outputs, Tensor) or outputs.shape not in ((count, 1), (count, 2)):
        raise ValueError("it has not two outputs, or one, and its last nn.Linear the same")
    return difference(outputs)


@contextmanager
def _evaluating(module: LightningModule) -> Iterator[None]:
    """No dropout, and batch norm as it is; every part's mode is put back."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes.items():
            child.training = mode
