"""GradientNoise's covariance against the explicit matrix of one derivative per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import janus_pl.callbacks.gradient_noise as own
from janus_pl.callbacks import GradientNoise
from janus_pl.deep.losses import LOSSES, PULLS
from janus_pl.errors import UsageError

EXACT = {"tolerance": 1e-9, "products": 2000}
NAMES = ("trace", "scale", "top", "effective_rank", "alignment", "residual")


def covariance(row: Any) -> dict[str, float]:
    prefix = "gradient_noise/covariance/"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}


class Net(LightningModule):
    """Fewer than 300 parameters, BatchNorm and dropout, weight decay."""

    def __init__(self, decay: float = 0.01) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            *(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(), nn.Linear(9, 4))
        )
        self.decay = decay
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, weight_decay=self.decay)


def samples(n: int = 30) -> TensorDataset:
    rng = np.random.default_rng(4)
    return TensorDataset(torch.from_numpy(rng.normal(size=(n, 5))), torch.arange(n) % 4)


def by_sample(module: Any, data: TensorDataset) -> tuple[np.ndarray, np.ndarray]:
    """The gradient of each sample, (N, P), and the Hessian of the mean with the decay, in eval."""
    module.eval()
    parameters = [*module.parameters()]
    shapes = [p.shape for p in parameters]

    def loss(flat: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([p.numel() for p in parameters])
        names = [name for name, _ in module.named_parameters()]
        given = {n: q.view(s) for n, q, s in zip(names, pieces, shapes, strict=True)}
        outputs = torch.func.functional_call(module, given, (x,))
        return nn.functional.cross_entropy(outputs, y)

    at = torch.cat([p.detach().flatten() for p in parameters])
    x, y = data.tensors
    grads = [torch.func.grad(loss)(at, x[n : n + 1], y[n : n + 1]) for n in range(len(y))]
    hessian = torch.autograd.functional.hessian(lambda w: loss(w, x, y), at)
    return torch.stack(grads).numpy(), hessian.numpy() + module.decay * np.eye(len(at))


def test_it_is_that_of_per_sample_gradients(fit: Any, rows: Any) -> None:
    module, data = Net(), samples()
    look = GradientNoise(2, batches=3, seed=7, gram=12, hessian_samples=99, **EXACT)
    fit(module, DataLoader(data, 8, shuffle=True), 2, [look])
    found = covariance(rows[-1])
    assert set(found) == set(NAMES)
    g, hessian = by_sample(module, data)
    assert g.shape[1] < 300
    rng = np.random.default_rng((7, 2, 1))
    drawn = np.stack([g[rng.choice(30, 8, replace=False)].mean(0) for _ in range(12)])
    values, vectors = np.linalg.eigh(np.cov(drawn, rowvar=False))
    shares = values[values > 1e-14] / values.sum()
    full = g.mean(0)
    of_hessian = np.linalg.eigh(hessian)[1][:, -1]
    assert found["trace"] == pytest.approx(values.sum(), rel=1e-9)
    assert found["scale"] == pytest.approx(values.sum() * 8 * 29 / 22 / (full @ full), rel=1e-9)
    assert found["top"] == pytest.approx(values[-1], rel=1e-9)
    entropy = -(shares * np.log(shares)).sum()
    assert found["effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-6)
    assert found["alignment"] == pytest.approx(abs(of_hessian @ vectors[:, -1]), rel=1e-6)
    assert found["residual"] < 1e-8
    # Control: another eigenvector of either lies otherwise.
    other = abs(np.linalg.eigh(hessian)[1][:, -2] @ vectors[:, -1])
    assert abs(other - found["alignment"]) > 0.05


def test_bias_and_variance_of_velocities_are_those_of_per_sample_gradients(
    fit: Any, rows: Any
) -> None:
    module, data = Net(), samples()
    fit(module, DataLoader(data, 8, shuffle=True), 2, [GradientNoise(2, batches=3, seed=7)])
    g, _ = by_sample(module, data)
    rng = np.random.default_rng((7, 2))
    draws = [rng.choice(30, 8, replace=False) for _ in range(3)]
    row = rows[-1]
    assert not covariance(row)
    for name, place in {"network_0": slice(0, 45), "network_4": slice(-40, -4)}.items():
        weight = dict(module.named_parameters())[name.replace("_", ".") + ".weight"]
        w = weight.detach().numpy().ravel()
        v = w / np.linalg.norm(w)
        velocity = -np.linalg.norm(w) * (g[:, place] - np.outer(g[:, place] @ v, v))
        full = velocity.mean(0)
        deviations = np.stack([velocity[draw].mean(0) for draw in draws]) - full
        bias, variance = np.linalg.norm(deviations.mean(0)), deviations.var(0, ddof=1).sum()
        assert row[f"gradient_noise/bias/{name}"] == pytest.approx(bias, rel=1e-9)
        assert row[f"gradient_noise/variance/{name}"] == pytest.approx(variance, rel=1e-9)
        scale = variance * 8 * 29 / 22 / (full @ full)
        assert row[f"gradient_noise/scale/{name}"] == pytest.approx(scale, rel=1e-9)


class Quadratic(LightningModule):
    """(1/2) (w - x)^T A (w - x) with A diagonal: a gradient of A (w - x), a Hessian of A."""

    def __init__(self, curvatures: tuple[float, ...]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(curvatures), 1, dtype=torch.float64))
        self.register_buffer("a", torch.tensor(curvatures, dtype=torch.float64))
        self.free = nn.Linear(2, 2)  # no part of the loss

    def training_step(self, batch: Any) -> dict[str, torch.Tensor]:
        away = self.w.flatten() - batch[0]
        return {"loss": (away.square() * self.a).sum(1).mean() / 2}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.w], 1e-12)


@pytest.mark.parametrize("stretched", [0, 2])
def test_a_quadratic_has_a_known_covariance_and_hessian(
    stretched: int, fit: Any, rows: Any
) -> None:
    """C = A Cov(x) A: aligned with A where x varies equally, across it where x does not."""
    rng = np.random.default_rng(0)
    curvatures = np.array([3.0, 2.0, 1.0])
    x = rng.normal(size=(400, 3))
    x[:, stretched] *= 20
    data = TensorDataset(torch.from_numpy(x), torch.zeros(400))
    look = GradientNoise(1, batch_size=1, batches=2, gram=64, hessian_samples=400, **EXACT)
    fit(Quadratic(tuple(curvatures)), DataLoader(data, 40), 1, [look])
    found = covariance(rows[0])
    expected = np.cov(x * curvatures, rowvar=False)
    assert found["top"] == pytest.approx(np.linalg.eigvalsh(expected)[-1], rel=0.5)
    assert found["trace"] == pytest.approx(np.trace(expected), rel=0.5)
    full = curvatures * (1 - x.mean(0))
    ratio = np.trace(expected) / (full @ full)
    assert found["scale"] == pytest.approx(ratio, rel=0.5)
    assert 1 <= found["effective_rank"] < 1.5
    if stretched == 0:
        assert found["alignment"] > 0.99
    else:
        assert found["alignment"] < 0.1


def test_our_network_with_its_scale(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(init_scale=0.8, learning_rate=1e-4).double()
    loader = small_loader(dtype=torch.float64)
    before = GradientNoise(1, batches=2)
    look = GradientNoise(1, batches=2, gram=5, **EXACT)
    fit(task, loader, 1, [look])
    row = rows[-1]
    parameters = [p for p in task.parameters() if p.requires_grad]
    grads = []
    for n in range(20):
        loss = task.losses(task(loader.x[n : n + 1]), loader.y[n : n + 1]).sum()
        grads.append(torch.cat([p.flatten() for p in torch.autograd.grad(loss, parameters)]))
    g = torch.stack(grads).numpy()
    rng = np.random.default_rng((0, 1, 1))
    drawn = np.stack([g[rng.choice(20, 8, replace=False)].mean(0) for _ in range(5)])
    centred = drawn - drawn.mean(0)
    values = np.linalg.eigvalsh(centred @ centred.T / 4)
    found = covariance(row)
    assert found["trace"] == pytest.approx(values.sum(), rel=1e-9)
    assert found["top"] == pytest.approx(values[-1], rel=1e-9)
    assert 0 < found["alignment"] <= 1
    # Existing numbers do not know of it.
    rows.clear()
    again = small_task(init_scale=0.8, learning_rate=1e-4).double()
    fit(again, small_loader(dtype=torch.float64), 1, [before])
    old = {k: v for k, v in rows[-1].items() if k.startswith("gradient_noise/")}
    assert len(old) == 25
    assert {k: row[k] for k in old} == old
    assert not covariance(rows[-1])


def test_a_loss_without_second_derivative_has_no_alignment(
    fit: Any, rows: Any, small_task: Any, small_loader: Any, caplog: Any, monkeypatch: Any
) -> None:
    hinge = lambda f, y: torch.relu(1 - y * (f[:, 1] - f[:, 0]) / 2)  # noqa: E731
    monkeypatch.setitem(LOSSES, "hinge", hinge)
    monkeypatch.setitem(PULLS, "hinge", lambda signal: (signal < 1).to(signal))
    fit(small_task(loss="hinge", init_scale=0.8), small_loader(), 2, [GradientNoise(1, gram=3)])
    said = [r.getMessage() for r in caplog.records if "alignment" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("GradientNoise records no alignment: model.loss: ")
    assert set(covariance(rows[-1])) == {"trace", "scale", "top", "effective_rank"}


@pytest.mark.parametrize(
    ("gram", "fits"), [(64, "3 fit"), (4, "3 fit"), (3, None), (2, None), (0, None)]
)
def test_gradients_that_need_too_much_memory_are_refused_before_the_run(
    gram: int, fits: str | None, fit: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = sum(p.numel() for p in Net().parameters())
    monkeypatch.setattr(own, "ROOM", 3 * 8 * entries + 7)
    look, loader = (
        GradientNoise(1, batches=2, gram=gram, hessian_samples=0),
        DataLoader(samples(), 8),
    )
    if fits is None:
        fit(Net(), loader, 1, [look])
        assert len(covariance(rows[-1])) == (4 if gram else 0)
        return
    with pytest.raises(UsageError) as caught:
        fit(Net(), loader, 1, [look])
    text = str(caught.value)
    assert text.startswith(f"callbacks.GradientNoise.gram: got {gram}, allowed: at most ")
    assert f"{gram} x {entries} parameters x 8 bytes are" in text and text.endswith(fits)
    assert "\n" not in text
    assert rows == []


def test_the_room_is_300_megabytes() -> None:
    own.check_room(64, 1_171_875, 4_687_500)
    with pytest.raises(UsageError, match=r"64 x 1,171,876 parameters x 4 bytes are 300 MB; 63 fit"):
        own.check_room(64, 1_171_876, 4_687_504)
    with pytest.raises(UsageError, match=r"600 MB; not even 2 fit; 0 leaves"):
        own.check_room(2, 75_000_001, 300_000_004)


def test_gd_has_no_covariance(fit: Any, rows: Any, small_task: Any, small_loader: Any) -> None:
    fit(small_task(), small_loader(batch_size="full"), 1, [GradientNoise(1, gram=4)])
    assert covariance(rows[-1]) == {"trace": 0.0}
