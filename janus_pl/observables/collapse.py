r"""Neural collapse of two classes: NC1, NC3, NC4 (Papyan, Han and Donoho, 2020) and the CDNV.

h_n are the features of the training samples, the input of the last layer, and mu_0 and mu_1 their
class means; class 1 has the label +1, p_c is the share of class c and delta = mu_1 - mu_0. None of
the four depends on the units of the features. NC2, class means that form a simplex, holds for any
two points and is no evidence of anything.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from janus_pl.observables.onto import onto
from janus_pl.observables.wide import at_home, wide

ROUNDING = 1e-14  # of float64 means over thousands of samples, relative to their size


class Classes(NamedTuple):
    """Two classes of features in float64; all NaN where a class is missing, a feature is not
    finite, or both means are one point.

    Attributes:
        shares: p_c, shape (2,).
        means: mu_c, shape (2, d).
        variances: (1/n_c) sum_n ||h_n - mu_c||^2, shape (2,).
        along: the part of `variances` along delta, shape (2,).
    """

    shares: Tensor
    means: Tensor
    variances: Tensor
    along: Tensor


def two_classes(features: Tensor, positive: Tensor) -> Classes:
    """Return the statistics of features (N, d); the class is 1 where `positive` (N,) is True.

    `positive` lies on the host.

    Variances are of the centred features, so a large common offset costs no digits but its own.
    """
    # The host tells the classes apart, so that it need not wait for the sizes of the parts.
    of_each = [torch.nonzero(chosen).flatten() for chosen in (~positive, positive)]
    parts = [wide(features.index_select(0, onto(k, features.device))) for k in of_each]
    means = torch.stack([h.mean(0) for h in parts])
    delta = means[1] - means[0]
    distance = torch.linalg.vector_norm(delta)
    # False as well for means that are not finite: neither inf nor NaN is above itself.
    sound = distance > ROUNDING * torch.linalg.matrix_norm(means)
    centred = [h - mean for h, mean in zip(parts, means, strict=True)]
    variances = torch.stack([h.square().sum(1).mean() for h in centred])
    along = torch.stack([(h @ (delta / distance)).square().mean() for h in centred])
    shares = torch.stack([wide(~positive).mean(), wide(positive).mean()])
    shares = onto(shares, means.device)
    values = (shares, means, variances, along)
    return Classes(*(torch.where(sound, value, torch.nan) for value in values))


def within_class_variability(classes: Classes) -> Tensor:
    r"""Return NC1 = tr(S_W S_B^+)/2 = delta^T S_W delta/(2 p_0 p_1 ||delta||^4), shape (), >= 0.

    S_W = (1/N) sum_n (h_n - mu_c)(h_n - mu_c)^T and S_B = sum_c p_c (mu_c - mu)(mu_c - mu)^T with
    mu the mean over all samples, which for two classes is p_0 p_1 delta delta^T. Balanced classes
    have 2 delta^T S_W delta/||delta||^4.

    >>> h = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0], [5.0, 2.0]])
    >>> y = torch.tensor([False, False, True, True])
    >>> float(within_class_variability(two_classes(h, y)))  # delta = (4, 0), S_W[0, 0] = 1/2
    0.0625
    """
    shares = classes.shares
    along = (shares * classes.along).sum()
    return along / (2 * shares.prod() * _delta(classes).square().sum())


def self_duality(classes: Classes, weight: Tensor) -> Tensor:
    r"""Return NC3 = ||W^T/||W|| - M/||M|| ||_F, shape (), from 0 (aligned) to 2 (opposite).

    W is the weight of the last layer with the mean of its rows taken out, M the class means with
    their mean taken out, each class counting the same. Both are a vector and its opposite, so NC3
    is ||w/||w|| - delta/||delta|| || with w the weight of f_1 - f_0.

    Args:
        classes: of the features.
        weight: of the last layer, (2, d), its rows the outputs f_0 and f_1; or (1, d), one output
            that is positive for class 1. NaN where it does not tell the classes apart.

    >>> classes = two_classes(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), torch.tensor([False, True]))
    >>> float(self_duality(classes, torch.tensor([[0.0, -1.0], [0.0, 5.0]])))
    0.0
    """
    w, delta = difference(wide(weight).T), _delta(classes)
    return torch.linalg.vector_norm(w / w.norm() - delta / delta.norm())


def nearest_mean_disagreement(classes: Classes, features: Tensor, scores: Tensor) -> Tensor:
    r"""Return NC4, the share of samples for which network and nearest mean decide differently.

    The network decides for class 1 where its score f_1 - f_0 is positive; the nearest mean is mu_1
    where <h_n - (mu_0 + mu_1)/2, delta> is. Ties are class 0. Shapes: features (N, d), scores
    (N,); returns (), NaN where a score is not finite.
    """
    scores = at_home(scores)
    side = (wide(features) - classes.means.mean(0)) @ _delta(classes)
    sound = torch.isfinite(side).all() & torch.isfinite(scores).all()
    return torch.where(sound, wide((side > 0) != (scores > 0)).mean(), torch.nan)


def class_distance_normalized_variance(classes: Classes) -> Tensor:
    r"""Return CDNV = (Var_0 + Var_1)/(2 ||mu_1 - mu_0||^2), shape ().

    Source: Galanti, Gyorgy and Hutter, 2021. Var_c = (1/n_c) sum_n ||h_n - mu_c||^2.

    >>> h = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0], [5.0, 2.0]])
    >>> y = torch.tensor([False, False, True, True])
    >>> float(class_distance_normalized_variance(two_classes(h, y)))  # Var_0 = 1, Var_1 = 2
    0.09375
    """
    return classes.variances.sum() / (2 * _delta(classes).square().sum())


def difference(outputs: Tensor) -> Tensor:
    """Return f_1 - f_0 of two outputs (N, 2), or the only output of (N, 1); shape (N,)."""
    return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]


def decisions(outputs: Tensor) -> Tensor:
    """Return the class (N,) that outputs (N, K), or (N, 1) of two classes, decide for; -1 of NaN.

    The first class wins a tie.

    >>> decisions(torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, torch.nan]])).tolist()
    [1, -1]
    """
    few = outputs.shape[1] < 3
    decided = (difference(outputs) > 0).long() if few else outputs.argmax(1)
    return torch.where(outputs.isfinite().all(1), decided, -1)


def _delta(classes: Classes) -> Tensor:
    return classes.means[1] - classes.means[0]
