"""Neural collapse of the features before the last layer, and of any layer, for K classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from janus_pl.callbacks._observer import Observer, check_globs, globs_of, owner_of
from janus_pl.observables.classes import ClassCollapse
from janus_pl.observables.collapse import (
    class_distance_normalized_variance,
    decisions,
    difference,
    nearest_mean_disagreement,
    self_duality,
    two_classes,
    within_class_variability,
)
from janus_pl.observables.onto import onto
from janus_pl.run.rows import Value
from janus_pl.training.subject import Features, NotOffered, Subject


class NeuralCollapse(Observer):
    r"""Logs NC1 to NC4 (Papyan, Han and Donoho, 2020) and the CDNV of the training features.

    Features are the input of the last `nn.Linear`, for the paper's network the ReLUs before fc2.
    mu_c is their mean over class c, M the class means (K, d) with their own mean taken out, each
    class counting the same.

        collapse/nc1                  tr(S_W S_B^+)/K: variability within the classes; S_W and S_B
                                      are the covariances within and between them, every sample
                                      counting the same
        collapse/nc2_equinorm         std/mean of ||M_c||
        collapse/nc2_equiangular      mean over pairs of |cos(M_c, M_c') + 1/(K - 1)|
        collapse/nc2_equiangular_std  std over pairs of cos(M_c, M_c')
        collapse/nc2_simplex          ||M M^T/||M M^T||_F - (I - 1 1^T/K)/sqrt(K - 1)||_F
        collapse/nc3                  ||W/||W||_F - M/||M||_F||_F, 0 to 2: last layer against means
        collapse/nc4                  share of samples where the nearest class mean decides
                                      otherwise than the network
        collapse/cdnv                 mean over pairs of (Var_c + Var_c')/(2 ||mu_c - mu_c'||^2)
                                      (Galanti, Gyorgy and Hutter, 2021)

    With `layers` each key but nc3 is also logged with /LAYER behind it, for the outputs of these
    layers as vectors. NC2 is not logged for two classes, whose means are always a simplex. A number
    that is not defined (the means are one point, something is not finite) is missing. If a class
    has no sample, one line says so, and nothing is recorded. The equations are in
    `janus_pl.observables.classes`, those of two classes in `janus_pl.observables.collapse`.

    It serves any LightningModule whose batches are (x, y) with classes from 0 to K - 1 (of two
    classes also +1/-1), with K outputs (of two classes also one). Without `layers` the outputs have
    to be those of its last `nn.Linear`, up to a factor. A look costs a forward pass over the
    training set and the memory of its N feature vectors, with `layers` two passes more. Forward
    passes are in evaluation: BatchNorm takes its running statistics.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        layers: Globs of the names of parts of the module, with underscores for dots (for the
            paper's network: conv1, relu1, ..., fc1, relu5, fc2), each used once in a forward pass;
            not set: the input of the last `nn.Linear` alone.
    """

    keys: tuple[str, ...] = (
        *("collapse/nc1", "collapse/nc2_equinorm", "collapse/nc2_equiangular"),
        *("collapse/nc2_equiangular_std", "collapse/nc2_simplex"),
        *("collapse/nc3", "collapse/nc4", "collapse/cdnv"),
    )

    def __init__(self, every_n_epochs: int = 10, layers: Sequence[str | int] | None = None) -> None:
        super().__init__(every_n_epochs)
        self.layers = globs_of(self, layers, "null for the input of the last nn.Linear alone")
        if self.layers is not None:
            self.keys = (*NeuralCollapse.keys, "collapse/*/*")
        self._has_last = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._has_last = True

    def check(self, subject: Subject) -> None:
        check_globs(self, self.layers or (), [*subject.parts()])

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        numbers = self._of_last(subject)
        if self.layers is not None:
            numbers |= self._of_layers(subject)
        if not numbers:
            return {}
        values = zip(numbers, torch.stack([*numbers.values()]).tolist(), strict=True)
        return {f"collapse/{key}": value for key, value in values if math.isfinite(value)}

    def _of_last(self, subject: Subject) -> dict[str, Tensor]:
        """Return the numbers of the input of the last dense layer; none if there are others."""
        if not self._has_last:
            return {}
        try:
            seen = subject.features()
        except NotOffered as reason:
            if self.layers is None:
                raise
            who = owner_of(subject)
            rank_zero_info(f"NeuralCollapse records the chosen layers of {who} alone: {reason}")
            self._has_last = False
            return {}
        return _two(seen) if seen.classes == 2 else _several(seen)

    def _of_layers(self, subject: Subject) -> dict[str, Tensor]:
        names = [name for name in subject.parts() if self._takes(name)]
        found: dict[str, ClassCollapse] = {}
        for seen in subject.forwards(names):
            for name, h in seen.features.items():
                found.setdefault(name, ClassCollapse(seen.classes)).add(h, seen.labels)
        for collapse in found.values():
            _centre(collapse)
        for seen in subject.forwards(names):
            decided = decisions(seen.outputs)
            for name, h in seen.features.items():
                found[name].spread(h, seen.labels, decided)
        return {
            f"{key}/{name}": value
            for name, collapse in found.items()
            for key, value in _without_trivial(collapse).items()
        }

    def _takes(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self.layers or ())


def _two(seen: Features) -> dict[str, Tensor]:
    """Return the numbers of two classes, by their closed forms."""
    for c in range(2):
        if not bool((seen.labels == c).any()):  # labels are on the host
            raise NotOffered(_missing([c], 2))
    classes = two_classes(seen.features, seen.labels == 1)
    return {
        "nc1": within_class_variability(classes),
        "nc3": self_duality(classes, seen.weight),
        "nc4": nearest_mean_disagreement(classes, seen.features, difference(seen.outputs)),
        "cdnv": class_distance_normalized_variance(classes),
    }


def _several(seen: Features) -> dict[str, Tensor]:
    collapse = ClassCollapse(seen.classes)
    labels = onto(seen.labels, seen.features.device)
    collapse.add(seen.features, labels)
    _centre(collapse)
    collapse.spread(seen.features, labels, decisions(seen.outputs))
    return collapse.numbers(seen.weight)


def _centre(collapse: ClassCollapse) -> None:
    if missing := collapse.missing():
        raise NotOffered(_missing(missing, collapse.classes))
    collapse.centre()


def _missing(missing: Sequence[int], classes: int) -> str:
    which = ", ".join(map(str, missing[:9])) + (", ..." if len(missing) > 9 else "")
    return f"of its {classes} classes no training sample is of {which}"


def _without_trivial(collapse: ClassCollapse) -> dict[str, Tensor]:
    numbers = collapse.numbers()
    if collapse.classes > 2:
        return numbers
    return {key: value for key, value in numbers.items() if not key.startswith("nc2")}
