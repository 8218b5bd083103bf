"""The constants of a linear problem that are known before training, to measure W against."""

from __future__ import annotations

import torch
from torch import Tensor

from janus_pl.linear.watch import Watch
from janus_pl.theory import (
    eigenvalue_moduli,
    null_projector,
    regularized_solution,
    singular_values,
)
from janus_pl.theory.threads import threads_for

SHOWN = 16  # of the singular values and eigenvalues in a row: the largest and the smallest


class Landscape:
    r"""The loss (1/N) sum_i ||W x_i - y_i||^2 + lambda ||W||^2 (Eq. 2) of R replicas, in float64.

    Args:
        x: Columns that stand for the N inputs, (R, d, n): their X X^T is that of all N.
        y: Columns that stand for the N targets, (R, m, n): Y X^T and Y Y^T are those of all N.
        w0: W at the start, (R, m, d).
        lam: The weight decay lambda, (R,).
        num_train: The number of samples N.

    Attributes:
        sigma_max: The largest singular value of X, (R,).
        solution: W* = Y X^T (X X^T + N lambda I)^-1, (R, m, d).
    """

    def __init__(self, x: Tensor, y: Tensor, w0: Tensor, lam: Tensor, num_train: int) -> None:
        self.x, self.y, self.w0, self.lam, self.num_train = x, y, w0, lam, num_train
        self.sigma_max = torch.linalg.matrix_norm(x, 2)
        # The solution's ridge is lambda times the number of columns, n instead of N here.
        self.solution = regularized_solution(x, y, lam * (num_train / x.shape[-1]))
        self._solution_norm = _norm(self.solution)
        self._scaled = x.mT * (2 / num_train)
        self._twice_lam = 2 * lam[:, None, None]
        self._null = null_projector(x)
        self._null_start = self.null_norm(w0)

    def null_norm(self, w: Tensor) -> Tensor:
        """Return ||W_perp||, W_perp = W (I - pi), (..., R)."""
        return _norm(w @ self._null)

    def slope(self, w: Tensor) -> Tensor:
        """Return the full gradient without decay, (2/N) (W X - Y) X^T, (..., R, m, d)."""
        return (w @ self.x - self.y) @ self._scaled

    def measure(self, w: Tensor, log_decay: Tensor) -> dict[str, Tensor]:
        """Return the numbers of W by key of the record, (..., R) each, for many times in one call.

        Args:
            w: W, (..., R, m, d).
            log_decay: The log of the product of |1 - 2 eta lambda| over all steps so far, (..., R).
        """
        with threads_for(max(w.shape[-2:])):
            return self._measure(w, log_decay)

    def _measure(self, w: Tensor, log_decay: Tensor) -> dict[str, Tensor]:
        residual = w @ self.x - self.y
        mse = residual.square().sum((-2, -1)) / self.num_train
        distance = _norm(w - self.solution)
        values = {
            "train/loss": mse,
            "train/mse_per_sample": mse,
            "train/mse_per_entry": mse / w.shape[-2],
            "rho": _norm(w),
            "gradient_norm_full": _norm(residual @ self._scaled + self._twice_lam * w),
            "solution/distance": distance,
            "solution/relative_distance": distance / self._solution_norm,
            "null/norm": self.null_norm(w),
            "null/predicted": self._null_start * log_decay.exp(),
        }
        return values | self._spectra(w)

    def _spectra(self, w: Tensor) -> dict[str, Tensor]:
        finite = torch.isfinite(w).all(-1).all(-1, keepdim=True)
        sound = torch.where(finite[..., None], w, 0.0)  # LAPACK refuses a matrix that is not finite
        spectra = {"singular_value": singular_values(sound)}
        if w.shape[-2] == w.shape[-1]:
            spectra["eigenvalue_modulus"] = eigenvalue_moduli(sound)
        spectra = {k: torch.where(finite, v, torch.nan) for k, v in spectra.items()}
        values = {"sigma_min": spectra["singular_value"][..., -1]}
        for name, spectrum in spectra.items():
            k = spectrum.shape[-1]
            width = len(str(k))
            values |= {
                f"{name}/{i + 1:0{width}d}": value
                for i, value in enumerate(spectrum.unbind(-1))
                if i < SHOWN // 2 or i >= k - SHOWN // 2
            }
        return values


def noise(watch: Watch) -> dict[str, Tensor]:
    """Return the numbers of the steps since the last row by key of the record, (R,) each."""
    return {
        "gradient_norm": watch.speed,
        "noise/weights": watch.variance.sqrt(),
        "noise/predictions": watch.probe_variance.sqrt(),
    }


def _norm(w: Tensor) -> Tensor:
    return torch.linalg.vector_norm(w, dim=(-2, -1))
