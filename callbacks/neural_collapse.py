"""Neural collapse of the features before the last layer, for two classes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer

from callbacks._observer import Observer
from janus_pl.observables.collapse import (
    class_distance_normalized_variance,
    nearest_mean_disagreement,
    self_duality,
    two_classes,
    within_class_variability,
)
from janus_pl.run.rows import Value
from janus_pl.training.subject import Subject


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

    keys = ("collapse/nc1", "collapse/nc3", "collapse/nc4", "collapse/cdnv")

    def __init__(self, every_n_epochs: int = 10) -> None:
        super().__init__(every_n_epochs)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        seen = subject.features()
        classes = two_classes(seen.features, seen.positive)
        numbers = {
            "collapse/nc1": within_class_variability(classes),
            "collapse/nc3": self_duality(classes, seen.weight),
            "collapse/nc4": nearest_mean_disagreement(classes, seen.features, seen.scores),
            "collapse/cdnv": class_distance_normalized_variance(classes),
        }
        values = zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True)
        return {key: value for key, value in values if math.isfinite(value)}
