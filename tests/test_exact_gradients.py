"""A full batch in micro-batches of any size has the gradient of the full batch."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from distributed_cases import fit, foreign_fit, problem, task_of
from torch import Tensor

from janus_pl.deep.losses import LOSSES

N = 1001
EXACT = {torch.float64: 1e-12, torch.float32: 1e-5}


def error(found: list[Tensor], right: list[Tensor]) -> float:
    """The largest relative error of a tensor, by its Frobenius norm."""
    assert all(g.norm() > 0 for g in right)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, right, strict=True))


@cache
def in_one_go(loss: str, normalization: str, dtype: torch.dtype) -> list[Tensor]:
    """The gradient of the mean loss over all N samples, by autograd alone."""
    x, y = problem(N, dtype)
    task = task_of(dtype, loss=loss, normalization=normalization)
    trained = [p for p in task.parameters() if p.requires_grad]
    return [*torch.autograd.grad(LOSSES[loss](task(x), y).mean(), trained)]


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize(
    ("loss", "normalization"),
    [
        *((loss, way) for loss in ("square", "cross_entropy") for way in ("weight_norm", "none")),
        ("logistic", "per_layer"),
        ("exponential", "lagrange"),
    ],
)
@pytest.mark.parametrize("micro", [1, 7, 250, N])
def test_the_gradient_is_that_of_the_full_batch(
    micro: int, loss: str, normalization: str, dtype: torch.dtype
) -> None:
    result = fit(1, N, "full", micro, epochs=1, dtype=dtype, loss=loss, normalization=normalization)
    assert result["steps"] == 1
    (gradient,) = result["gradients"]
    assert error(gradient, in_one_go(loss, normalization, dtype)) < EXACT[dtype]


@pytest.mark.parametrize("micro", [7, N])
def test_an_epoch_is_one_step_and_the_schedule_counts_steps(micro: int) -> None:
    result = fit(1, N, "full", micro, epochs=3, schedule="cosine", learning_rate=0.004)
    assert result["steps"] == 3
    assert result["rates"] == pytest.approx([0.004, 0.003, 0.001])
    assert [row["trainer/global_step"] for row in result["rows"]] == [0, 1, 2, 3]


def test_minibatches_in_micro_batches_are_the_minibatches() -> None:
    """Of 8, 8 and 5 samples in pieces of 3: 3, 3, 2 and 3, 2."""
    pieces, whole = (fit(1, 21, 8, micro, epochs=2) for micro in (3, None))
    assert len(pieces["gradients"]) == 6
    for found, right in zip(pieces["gradients"], whole["gradients"], strict=True):
        assert error(found, right) < EXACT[torch.float64]


@pytest.mark.parametrize(
    ("n", "batch_size", "accumulated"), [(40, 16, 3), (40, 20, 4), (N, 250, 5)]
)
def test_lightnings_accumulation_fails_the_same_test(
    n: int, batch_size: int, accumulated: int
) -> None:
    """The negative control: 40 as 16, 16 and 8, a factor above the number of batches; and N."""
    result = foreign_fit(1, n, batch_size, accumulate_grad_batches=accumulated)
    (gradient,) = result["gradients"]
    assert error(gradient, result["full"]) > 1e-2
    (plain,) = foreign_fit(1, n, n)["gradients"]
    assert error(plain, result["full"]) < EXACT[torch.float64]
