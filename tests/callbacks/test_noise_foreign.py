"""GradientNoise and Sharpness on modules of others: served without a trace, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from janus_pl.callbacks import GradientNoise, LayerRank, Sharpness

EXACT = {"tolerance": 1e-9, "products": 2000}


class Net(LightningModule):
    """Three classes; it counts its steps, keeps losses, and has buffers and dropout."""

    steps: torch.Tensor
    network: nn.Module

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            *(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))
        )
        self.register_buffer("steps", torch.zeros(()))
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.steps.add_(1)
        self.losses.append(float(loss.detach()))
        self.log("own", loss, on_step=False, on_epoch=True)
        self.log_dict({"more": loss}, on_step=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05)


def data(n: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(n, 5, generator=generator), torch.arange(n) % 3)


def noise(row: Any) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith("gradient_noise/")}


def said(caplog: Any, name: str = "GradientNoise") -> list[str]:
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith(name)]
    assert not any("\n" in line for line in lines)
    return lines


def test_looking_leaves_weights_buffers_lists_generators_and_logs_alone(
    fit: Any, rows: Any
) -> None:
    ends, written, kept = [], [], []
    for own in ([], [GradientNoise(1, batches=2, gram=2), Sharpness(1, batches=1)]):
        module = Net()
        np.random.seed(1)
        trainer = fit(module, DataLoader(data(), 7, shuffle=True), 3, [*own, LayerRank(1)])
        state = [*module.state_dict().values(), torch.random.get_rng_state()]
        ends.append([*state, torch.from_numpy(np.random.random(3))])
        written.append([[row.get(k) for k in ("own", "eta_t", "rank/network_0")] for row in rows])
        kept.append(
            (module.losses, {k: float(trainer.callback_metrics[k]) for k in ("own", "more")})
        )
        assert bool(noise(rows[-1])) == bool(own)
        assert module.training and type(module) is Net
        rows.clear()
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert written[0] == written[1] and kept[0] == kept[1]
    assert len(kept[0][0]) == 9


class Stepping(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.optimizers().step()


class Summed(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="sum")


class Pairwise(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        outputs = self(batch[0])
        return (outputs @ outputs.T).tanh().mean()


class Picturing(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step < 0:  # never in the training
            raise AssertionError
        if not self.training:
            self.logger.experiment.add_scalar("own", 1)
        return super().training_step(batch, batch_idx)


class Holding(Net):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.last = self(batch[0])  # a tensor with a graph, which cannot be copied
        return self.last.square().mean()


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield torch.randn(5), torch.tensor(0)


TRIPLES = TensorDataset(*data().tensors, torch.ones(20))


@pytest.mark.parametrize(
    ("kind", "samples", "reason"),
    [
        (Stepping, data(), "its training_step steps the optimizers itself"),
        (Summed, data(), "its loss is no mean over samples: "),
        (Pairwise, data(), "its loss is no mean over samples: "),
        (Picturing, data(), "its training_step cannot be tried ('NoneType' object has no attr"),
        (Net, TRIPLES, "its batches are not pairs (x, y)"),
        (Net, Endless(), "its training set is a stream, of which each sample is seen once"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line_and_the_run_goes_on(
    kind: Any, samples: Any, reason: str, fit: Any, rows: Any, caplog: Any
) -> None:
    looks = [GradientNoise(1, batches=2, batch_size=4), LayerRank(1)]
    fit(kind(), DataLoader(samples, 5), 2, looks, limit_train_batches=2)
    (line,) = said(caplog)
    assert line.startswith(f"GradientNoise records nothing of {kind.__name__}: {reason}")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all("rank/network_0" in row and not noise(row) for row in rows)


def test_a_module_that_cannot_be_copied_is_looked_at_while_it_can(
    fit: Any, rows: Any, caplog: Any
) -> None:
    fit(Holding(), DataLoader(data(), 5), 2, [GradientNoise(1, batches=2), LayerRank(1)])
    (line,) = said(caplog)
    assert line.startswith("GradientNoise records nothing of Holding: it cannot be copied (Only T")
    assert [bool(noise(row)) for row in rows] == [True, False, False]


class Attention(Net):
    """Fused attention has no second derivative, and one layer's weight is computed."""

    def __init__(self, curved: bool = True) -> None:
        super().__init__()
        self.network = nn.Linear(5, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = parametrizations.weight_norm(nn.Linear(8, 3))
        self.curved = curved
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.network(x)[:, None] * torch.linspace(-1, 1, 4, dtype=x.dtype)[:, None]
        out = self.last(self.attention(h, h, h, need_weights=False)[0].mean(1))
        return out if self.curved else Once.apply(out)


class Once(torch.autograd.Function):
    """An operation that says, as those of PyTorch, that its backward has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            raise RuntimeError("derivative for own::once_backward\nis not implemented")
        return 2 * gradient * ctx.saved_tensors[0]


def doubles() -> TensorDataset:
    x, y = data().tensors
    return TensorDataset(x.double(), y)


def test_attention_and_computed_weights(fit: Any, rows: Any) -> None:
    module = Attention()
    fit(
        module,
        DataLoader(doubles(), 5),
        1,
        [GradientNoise(9, batches=2, gram=3, hessian_samples=20, **EXACT)],
    )
    found = noise(rows[-1])
    names = {"network", "attention_q", "attention_k", "attention_v", "attention_out_proj", "last"}
    assert {k.removeprefix("gradient_noise/bias/") for k in found if "/bias/" in k} == names
    assert "gradient_noise/covariance/alignment" in found
    # The last layer's V_k dot by hand: W = g v/||v||, its gradient that of the computed weight.
    module.eval()
    rng, (x, y) = np.random.default_rng((0, 1)), doubles().tensors
    velocities = []
    for chosen in (range(20), *(rng.choice(20, 5, replace=False) for _ in range(2))):
        w = module.last.weight.detach().requires_grad_()
        last = module.last
        h = module.network(x)[:, None] * torch.linspace(-1, 1, 4, dtype=x.dtype)[:, None]
        h = module.attention(h, h, h, need_weights=False)[0].mean(1)
        index = torch.tensor(sorted(chosen))
        loss = nn.functional.cross_entropy((h @ w.T + last.bias)[index], y[index])
        (gradient,) = torch.autograd.grad(loss, w)
        v, size = w.detach() / w.detach().norm(), w.detach().norm()
        velocities.append(-size * (gradient - (gradient * v).sum() * v))
    full, *others = velocities
    bias = (sum(others) / 2 - full).norm()
    assert found["gradient_noise/bias/last"] == pytest.approx(float(bias), rel=1e-9)


def test_a_step_without_second_derivative_has_no_alignment_and_no_sharpness(
    fit: Any, rows: Any, caplog: Any
) -> None:
    looks = [GradientNoise(1, batches=2, gram=3), Sharpness(1)]
    fit(Attention(curved=False), DataLoader(doubles(), 5), 1, looks)
    (line,) = said(caplog)
    reason = "its loss has no second derivative (derivative for own::once_backward is not"
    assert line.startswith(f"GradientNoise records no alignment: {reason}")
    (_, line) = said(caplog, "Sharpness")
    assert line.startswith(f"Sharpness records nothing of Attention: {reason}")
    kinds = {k.rpartition("/")[2] for k in noise(rows[-1]) if "covariance" in k}
    assert kinds == {"trace", "scale", "top", "effective_rank"}


class Smooth(Net):
    """Weight decay and momentum; in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.5, weight_decay=0.02)


def test_sharpness_of_a_module_of_others_is_that_of_the_whole_hessian(fit: Any, rows: Any) -> None:
    module = Smooth()
    fit(module, DataLoader(doubles(), 5), 2, [Sharpness(2, samples=20, batches=0, **EXACT)])
    module.eval()
    x, y = doubles().tensors
    names = dict(module.named_parameters())
    shapes = [p.shape for p in names.values()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([p.numel() for p in names.values()])
        given = {n: q.view(s) for n, q, s in zip(names, pieces, shapes, strict=True)}
        outputs = torch.func.functional_call(module, given, (x,))
        return nn.functional.cross_entropy(outputs, y) + 0.01 * flat.square().sum()

    at = torch.cat([p.detach().flatten() for p in names.values()])
    top = float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at))[-1])
    assert rows[-1]["sharpness/hessian"] == pytest.approx(top, rel=1e-8)
    assert rows[-1]["sharpness/limit"] == pytest.approx(2 * 1.5 / 0.05, rel=1e-12)
