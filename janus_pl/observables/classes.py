r"""Neural collapse of K classes, in two passes over features that need not fit into memory.

h_n are the features of the training samples at some layer, (d,), mu_c their mean over class c of
n_c samples, p_c = n_c/N. M is the matrix (K, d) of the class means with their own mean taken out,
each class counting the same. The sources: Papyan, Han and Donoho (2020) for NC1 to NC4, Galanti,
Gyorgy and Hutter (2021) for the CDNV. No number depends on the units of the features.

    nc1                   tr(S_W S_B^+)/K, S_W = (1/N) sum_n (h_n - mu_c)(h_n - mu_c)^T and
                          S_B = sum_c p_c (mu_c - mu)(mu_c - mu)^T with mu the mean of all samples
    nc2_equinorm          std/mean over c of ||M_c||
    nc2_equiangular       mean over pairs of |cos(M_c, M_c') + 1/(K - 1)|
    nc2_equiangular_std   std over pairs of cos(M_c, M_c')
    nc2_simplex           || M M^T/||M M^T||_F - (I - 1 1^T/K)/sqrt(K - 1) ||_F
    nc3                   || W/||W||_F - M/||M||_F ||_F, 0 to 2, W the weight (K, d) of the last
                          layer with the mean of its rows taken out
    nc4                   share of samples of which the network decides for another class than the
                          nearest mean; the first class wins a tie
    cdnv                  mean over pairs of (Var_c + Var_c')/(2 ||mu_c - mu_c'||^2),
                          Var_c = (1/n_c) sum_n ||h_n - mu_c||^2

A simplex is a set of K vectors of equal norms and cosines -1/(K - 1); NC2 is 0 for it. All NC2 is 0
for two classes, whatever they are. Standard deviations divide by the number of values. In S_B^+ a
direction counts if the means' spread along it is above 1e-7 of the largest one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from janus_pl.observables.collapse import ROUNDING
from janus_pl.observables.wide import at_home, wide

SMALLEST = 1e-7  # of the largest singular value of the means: below it they have no direction
AT_ONCE = 2**22  # entries that are held in float64


class ClassCollapse:
    """The numbers of one layer: `add` every chunk, `centre`, `spread` every chunk, `numbers`.

    Args:
        classes: K, at least 2.

    >>> collapse, labels = ClassCollapse(3), torch.tensor([0, 1, 2])
    >>> simplex = torch.eye(3, dtype=torch.float64) - 1 / 3
    >>> collapse.add(simplex, labels)
    >>> collapse.centre()
    >>> collapse.spread(simplex, labels, labels)
    >>> numbers = collapse.numbers(2 * simplex)
    >>> sum(map(float, numbers.values())) < 1e-12
    True
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add features (n, d) and their classes (n,), 0 to K - 1, to the means."""
        for h, y in _rows(features, labels):
            members = self._members(y)
            sums = members.T @ h  # no atomic sums, whose order changes on a GPU
            self._sums = sums if self._sums is None else self._sums + sums
            self.counts += members.sum(0).to(self.counts)

    def missing(self) -> list[int]:
        """Return the classes without a sample."""
        return torch.nonzero(self.counts == 0).flatten().tolist()

    @torch.no_grad()
    def centre(self) -> None:
        """End the first pass: every class has a sample, and its mean is known.

        Raises:
            ValueError: There is no sample, or a class has none.
        """
        if self._sums is None or self.missing():
            raise ValueError("a class has no sample")
        counts = self.counts.to(self._sums.device)
        self.means = self._sums / counts[:, None]
        self.centred = self.means - self.means.mean(0)
        self._inverse = _root_of_inverse(self.means, counts)
        self._squares = torch.zeros_like(counts)
        self._whitened = counts.new_zeros(())
        self._disagreeing = counts.new_zeros(())
        self._sums = None

    @torch.no_grad()
    def spread(self, features: Tensor, labels: Tensor, decided: Tensor) -> None:
        """Add features (n, d), classes and the network's decisions (n,) to the second pass.

        A decision of -1, of outputs that are not finite, leaves `nc4` undefined.
        """
        offset = self.means.mean(0)
        half = self.centred.square().sum(1) / 2
        for h, y, decision in _rows(features, labels, decided):
            deviation = h - self.means[y]
            self._squares += self._members(y).T @ deviation.square().sum(1)
            self._whitened += (deviation @ self._inverse).square().sum()
            nearest = ((h - offset) @ self.centred.T - half).argmax(1)
            differs = wide(nearest != decision)
            self._disagreeing += torch.where(decision < 0, torch.nan, differs).sum()

    @torch.no_grad()
    def numbers(self, weight: Tensor | None = None) -> dict[str, Tensor]:
        """Return the numbers by name, () in float64; NaN where one is not defined.

        Args:
            weight: The weight (K, d) of the last layer, for `nc3`.
        """
        total = self.counts.sum().to(self._whitened)
        found = {"nc1": self._whitened / (total * self.classes), **_simplex(self.centred)}
        if weight is not None:
            w = wide(weight) - wide(weight).mean(0)
            found["nc3"] = torch.linalg.matrix_norm(_unit(w) - _unit(self.centred))
        found["nc4"] = self._disagreeing / total
        variances = self._squares / self.counts.to(self._squares)
        found["cdnv"] = _normalized_variance(self.means, variances)
        sound = self._inverse.isfinite().all() & self._squares.isfinite().all()
        return {name: torch.where(sound, value, torch.nan) for name, value in found.items()}

    def _members(self, labels: Tensor) -> Tensor:
        """Return 1 where a sample is of a class, else 0; (n, K)."""
        return wide(torch.nn.functional.one_hot(labels, self.classes))


def _root_of_inverse(means: Tensor, counts: Tensor) -> Tensor:
    """Return F (d, r) with F F^T = S_B^+; NaN if all means are one point or not finite."""
    shares = counts / counts.sum()
    root = shares.sqrt()[:, None] * (means - shares @ means)  # S_B = root^T root
    if not bool(root.isfinite().all()):
        return means.new_full((means.shape[1], 1), torch.nan)
    _, values, directions = torch.linalg.svd(root, full_matrices=False)
    values = values[: len(means) - 1]
    if not bool(values[0] > ROUNDING * torch.linalg.matrix_norm(means)):
        return means.new_full((means.shape[1], 1), torch.nan)
    kept = values > SMALLEST * values[0]
    return directions[: len(values)][kept].T / values[kept]


def _simplex(centred: Tensor) -> dict[str, Tensor]:
    """Return the four distances of centred means (K, d) from a simplex."""
    count = len(centred)
    norms = torch.linalg.vector_norm(centred, dim=1)
    gram = centred @ centred.T
    i, j = torch.triu_indices(count, count, offset=1, device=gram.device)
    cosines = gram[i, j] / (norms[i] * norms[j])
    ideal = torch.eye(count).to(gram) - 1 / count
    return {
        "nc2_equinorm": norms.std(correction=0) / norms.mean(),
        "nc2_equiangular": (cosines + 1 / (count - 1)).abs().mean(),
        "nc2_equiangular_std": cosines.std(correction=0),
        "nc2_simplex": torch.linalg.matrix_norm(_unit(gram) - ideal / (count - 1) ** 0.5),
    }


def _normalized_variance(means: Tensor, variances: Tensor) -> Tensor:
    """Return the mean CDNV over pairs of classes."""
    i, j = torch.triu_indices(len(means), len(means), offset=1, device=means.device)
    return ((variances[i] + variances[j]) / (2 * torch.pdist(means).square())).mean()


def _unit(matrix: Tensor) -> Tensor:
    return matrix / torch.linalg.matrix_norm(matrix)


def _rows(features: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield some rows at a time, the features in float64."""
    size = max(1, AT_ONCE // features.shape[1])
    for h, *rest in zip(*(part.split(size) for part in (features, *others)), strict=True):
        yield wide(h), *map(at_home, rest)
