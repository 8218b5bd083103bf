"""`model.hold_norms` against a loop in plain PyTorch, and what is recorded of such a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from conftest import SMALL
from lightning.pytorch import Callback
from torch import Tensor

from janus_pl.callbacks import LayerRotation, RankBound, UpdateSplit
from janus_pl.deep.losses import LOSSES
from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import WeightNorm

ETA, LAM, EPOCHS = 0.05, 0.3, 6


@pytest.fixture
def made(small_task: Any) -> Callable[..., Any]:
    """A task in float64 from the start, so that g_k is ||v_k|| to its last digit."""

    def make(hold: float | None, momentum: float = 0.9, **options: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            return small_task(
                hold_norms=hold,
                optimizer=lambda params, lr: torch.optim.SGD(params, lr, momentum),
                **{"learning_rate": ETA, "weight_decay": LAM, "init_scale": 0.5, **options},
            )
        finally:
            torch.set_default_dtype(torch.float32)

    return make


class Batches(Callback):
    """Keeps the minibatches that training sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.seen.append((batch.x.clone(), batch.y.clone()))


def by_hand(
    vs: list[Tensor],
    gains: Sequence[Tensor],
    rho: Tensor,
    batches: Sequence[tuple[Tensor, Tensor]],
    targets: Sequence[float] | None,
    momentum: float,
) -> tuple[list[Tensor], Tensor]:
    """SGD with coupled decay on W_k = g_k v_k/||v_k||; ||v_k|| is put back after every step."""
    ps = [v.clone().requires_grad_() for v in [*vs, rho]]
    buffers = [torch.zeros_like(p) for p in ps]
    for x, y in batches:
        W = [g * v / v.square().sum().sqrt() for g, v in zip(gains, ps[:-1], strict=True)]
        outputs = ps[-1] * oracles.forward(W, SMALL["strides"], x)
        gradients = torch.autograd.grad(LOSSES["square"](outputs, y).mean(), ps)
        with torch.no_grad():
            for k, (p, gradient) in enumerate(zip(ps, gradients, strict=True)):
                buffers[k] = momentum * buffers[k] + gradient + LAM * p
                p -= ETA * buffers[k]
                if targets is not None and k < len(vs):
                    p *= targets[k] / p.square().sum().sqrt()
    return [p.detach() for p in ps[:-1]], ps[-1].detach()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("c", [1.0, 0.5])
def test_it_is_the_loop_by_hand(
    c: float, momentum: float, made: Any, fit: Any, small_loader: Any
) -> None:
    free, task, batches = made(None, momentum), made(c, momentum), Batches()
    begun = [v.detach().clone() for v in free.parametrization.weights.values()]
    norms = [float(v.square().sum().sqrt()) for v in begun]
    gains, rho = free.parametrization.gains, free.network.rho.detach().clone()
    loader = small_loader(dtype=torch.float64)
    fit(task, loader, EPOCHS, [batches], precision="64-true")
    assert len(batches.seen) == 3 * EPOCHS
    start, targets = [c * v for v in begun], [c * norm for norm in norms]
    vs, right = by_hand(start, gains, rho, batches.seen, targets, momentum)
    for found, v, norm in zip(task.parametrization.weights.values(), vs, norms, strict=True):
        assert float((found.detach() - v).abs().max()) < 1e-12
        assert float(found.detach().norm()) == pytest.approx(c * norm, rel=1e-14)
    assert float(task.network.rho.detach()) == pytest.approx(float(right), rel=1e-12)
    # The negative control: without the norms put back V_k are others.
    vs, _ = by_hand(start, gains, rho, batches.seen, None, momentum)
    units = zip(task.directions().values(), vs, strict=True)
    assert max(float((V - oracles.unit(v).flatten(1)).abs().max()) for V, v in units) > 1e-4


@pytest.mark.parametrize("c", [1.0, 0.5, 3.0])
def test_the_function_at_the_start_is_the_same(c: float, made: Any, small_loader: Any) -> None:
    x = small_loader(dtype=torch.float64).x
    free, held = made(None), made(c)
    torch.testing.assert_close(held(x), free(x), rtol=1e-13, atol=0)
    for name, V in held.directions().items():
        torch.testing.assert_close(V, free.directions()[name], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("c", [1.0, 0.5])
def test_norm_and_effective_rate_stay(
    c: float, made: Any, fit: Any, small_loader: Any, rows: Any
) -> None:
    norms = made(None).parametrization.norms().tolist()
    fit(made(c), small_loader(dtype=torch.float64), 4, [LayerRotation(1)], precision="64-true")
    assert len(rows) == 5
    for row in rows:
        for layer, norm in zip(made(c).layers(), norms, strict=True):
            assert row[f"weight_norm/{layer}"] == pytest.approx(c * norm, rel=1e-13)
            effective = ETA / (c * norm) ** 2
            assert row[f"effective_rate/{layer}"] == pytest.approx(effective, rel=1e-12)
    rows.clear()
    fit(made(None), small_loader(dtype=torch.float64), 4, [LayerRotation(1)], precision="64-true")
    assert rows[-1]["weight_norm/fc1"] < 0.9 * norms[4]  # the control: they do not stay by itself


def test_decay_does_next_to_nothing(made: Any, fit: Any, small_loader: Any) -> None:
    """A steady motion is faster by eta lambda/(1 - beta)^2, and not by 1/||v_k||^2."""
    eta, lam = 1e-7, 1000.0

    def path(hold: float | None, lam: float) -> float:
        task = made(hold, learning_rate=eta, weight_decay=lam)
        loader = small_loader(batch_size="full", dtype=torch.float64)
        task.network.rho.requires_grad_(False)  # else it would decay, and the slope with it
        start = task.directions()["fc1"].clone()
        fit(task, loader, 400, precision="64-true")
        return float((task.directions()["fc1"] - start).norm())

    held, free = (path(hold, lam) / path(hold, 0.0) - 1 for hold in (1.0, None))
    assert held == pytest.approx(eta * lam / 0.1**2, rel=0.15)
    assert free > 10 * held


@pytest.mark.parametrize("c", [1.0, 0.7])
@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_a_step_is_what_is_kept_and_a_multiple_of_the_gradient(c: float, lam: float) -> None:
    """`kept`, on which the tail bound stands, of a step without momentum, norm put back."""
    torch.manual_seed(0)
    network: Any = DeepReLU(**SMALL, init_scale=0.8).double()
    learned = WeightNorm(network, c)
    learned.after_step()  # to the last digit of float64
    before = [v.detach().flatten().clone().numpy() for v in learned.weights.values()]
    batch = torch.randn(9, 3, 16, 16, dtype=torch.float64)
    y = torch.tensor([1.0, -1, -1, 1, -1, -1, 1, -1, -1], dtype=torch.float64)
    LOSSES["logistic"](network(batch), y).mean().backward()
    W = [m.weight.detach().clone().requires_grad_() for m in network.weight_layers().values()]
    plain = float(network.rho.detach()) * oracles.forward(W, SMALL["strides"], batch)
    gradients = torch.autograd.grad(LOSSES["logistic"](plain, y).mean(), W)
    kept = learned.kept(0.3, lam).tolist()
    torch.optim.SGD(learned.groups(lam, "all"), 0.3).step()
    grown = [float(v.detach().norm()) for v in learned.weights.values()]
    learned.after_step()
    after = [v.detach().flatten().numpy() for v in learned.weights.values()]
    for a, p, G, new in zip(kept, before, gradients, after, strict=True):
        columns = np.stack([p, G.flatten().numpy()], axis=1)
        (expected, _), *_ = np.linalg.lstsq(columns, new)
        assert a == pytest.approx(expected, rel=1e-9)
    norms = [np.linalg.norm(p) for p in before]
    assert max(abs(g / n - 1) for g, n in zip(grown, norms, strict=True)) > 1e-4  # was put back


def test_callbacks_of_steps_hold(made: Any, fit: Any, small_loader: Any, rows: Any) -> None:
    looks = [UpdateSplit(1), RankBound(1)]
    loader = small_loader(5, 2, dtype=torch.float64)
    fit(made(0.5, 0.0, learning_rate=0.2), loader, 8, looks, precision="64-true")
    ratios = [v for row in rows for k, v in row.items() if k.startswith("tail_bound/ratio/")]
    assert len(ratios) > 8
    assert max(ratios) <= 1
    for row in rows[1:]:
        parts = [row[f"update/{part}/fc1"] for part in ("gradient", "decay", "projection")]
        assert sum(parts) == pytest.approx(1, rel=1e-12)
        assert parts[1] > 0  # the decay is in the optimizer's step, which is then put back
