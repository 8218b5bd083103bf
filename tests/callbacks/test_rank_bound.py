"""Windows of the tail bound by brute force, and what a second run forgets of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import RankBound
from janus_pl.callbacks.rank_bound import rounding, tail_windows


@pytest.mark.parametrize("seed", range(6))
def test_windows_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sigma = np.sort(rng.uniform(0, 5, 9))[::-1]
    steps = 12
    kept, norms = rng.uniform(-1.2, 1.2, steps), rng.uniform(1, 9, steps)
    ranks = rng.integers(0, 4, steps)  # 0: a step of another optimizer
    expected = []
    for n in range(1, steps + 1):
        rank = sum(ranks[steps - n :])
        if rank < 9:
            product = np.prod(np.abs(kept[steps - n :]))
            expected.append((np.sqrt(sum(sigma[rank:] ** 2)), product * norms[steps - n]))
    tails, bounds = tail_windows(sigma, kept, norms, ranks)
    assert len(tails) == len(bounds) == len(expected) > 2
    np.testing.assert_allclose(np.stack([tails, bounds], 1), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_grows_by_sixteen_of_the_largest_norm_a_step(dtype: torch.dtype) -> None:
    weight, norms = torch.zeros(3, 5, dtype=dtype), np.array([2.0, 7.0, 0.5])
    eps = 2.0 ** (-23 if dtype == torch.float32 else -52)
    expected = [16 * eps * 7.0 * n for n in (1, 2, 3)]
    assert rounding(weight, norms).tolist() == pytest.approx(expected, rel=1e-12)
    # Entries below the least normal number are rounded as those at it.
    tiny = float(torch.finfo(dtype).tiny)
    assert rounding(weight, norms * 0).tolist() == pytest.approx(
        [16 * eps * tiny * np.sqrt(15) * n for n in (1, 2, 3)], rel=1e-9, abs=0
    )


class Dense(LightningModule):
    """Two dense layers by plain SGD."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (nn.Linear(8, 8, dtype=torch.float64) for _ in range(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.second(torch.tanh(self.first(batch[0]))).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, weight_decay=0.5)


def loader(samples: int) -> DataLoader:
    x = torch.randn(samples, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return DataLoader(TensorDataset(x), 1)


@pytest.mark.parametrize(("window", "steps"), [(2, 2), (5, 5), (100, 6)])
def test_no_more_steps_are_kept_than_the_window_has(window: int, steps: int, fit: Any) -> None:
    bound = RankBound(window=window)
    fit(Dense(), loader(3), 2, [bound])
    assert len(bound._steps) == steps
    again = RankBound(window=window)
    again.load_state_dict(bound.state_dict())
    assert len(again._steps) == steps


def test_a_second_run_forgets_the_steps_of_the_first(fit: Any) -> None:
    bound = RankBound()
    fit(Dense(), loader(5), 1, [bound])
    assert len(bound._steps) == 5
    fit(Dense(), loader(3), 1, [bound])
    assert len(bound._steps) == 3


def test_of_several_bounds_that_break_the_first_is_named(fit: Any) -> None:
    bound, module = RankBound(), Dense()
    trainer = fit(module, loader(3), 1, [bound])
    with torch.no_grad():
        module.first.weight *= 50
        module.second.weight *= 100
    row: dict[str, Any] = dict(bound.observe(trainer, module))
    assert min(row["tail_bound/ratio/first"], row["tail_bound/ratio/second"]) > 1
    assert bound._broken is not None
    assert bound._broken.startswith("the tail bound is broken in first at step 3")
    said = bound._broken
    with torch.no_grad():
        module.first.weight /= 50
    row = dict(bound.observe(trainer, module))
    assert row["tail_bound/ratio/first"] <= 1 < row["tail_bound/ratio/second"]
    assert bound._broken == said
