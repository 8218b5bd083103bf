"""Sharpness on tiny real fits, against dense Hessians of the paper's formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from janus_pl import LinearRegressor
from janus_pl.callbacks import Sharpness
from janus_pl.data import LinearProblem
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.training import descended

# PyTorch's own warning, at the first use of torch.func.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

SIZES = {"channels": (2, 3, 3, 3), "hidden": 7, "init_scale": 0.8}  # 305 weights
STRIDES = (2, 1, 1, 1)
RATE, LAM, N = 1e-4, 0.3, 20
KEYS = {f"sharpness/{k}" for k in ("hessian", "batch", "limit", "ratio", "residual", "products")}
EXACT = {"tolerance": 1e-9, "products": 700}

Numbers = dict[str, float]


def sharp(row: Any) -> Numbers:
    found = {k: v for k, v in row.items() if k.startswith("sharpness/")}
    return {k.removeprefix("sharpness/"): v for k, v in found.items()}


class Dense:
    """The Hessian and the gradient of a task's descended loss, from formulas of its own.

    The trained parameters lie one behind the other: the p_k, then rho or the rho_k.
    """

    def __init__(self, task: Any, decay: str) -> None:
        learned, kind = task.parametrization, task.normalization
        self.loss, self.kind = task.loss_name, kind
        self.ps = [p.detach() for p in learned.weights.values()]
        self.gains = [W.detach().norm() for W in (m.weight for m in self._layers(task))]
        self.rho = task.network.rho.detach()
        if kind == "per_layer":
            signs = [
                torch.dot(p.flatten(), m.weight.detach().flatten()).sign()
                for p, m in zip(self.ps, self._layers(task), strict=True)
            ]
            self.gains = [g * s for g, s in zip(self.gains, signs, strict=True)]
        scalars = {"none": [], "per_layer": self.gains}.get(kind, [self.rho])
        self.at = torch.cat([*(p.flatten() for p in self.ps), *(s.view(1) for s in scalars)])
        on_ps = 0.0 if decay == "rho" or kind == "lagrange" else LAM
        on_scalars = 2 * LAM if decay == "rho" else LAM
        size = sum(p.numel() for p in self.ps)
        self.decay = torch.full_like(self.at, on_scalars)
        self.decay[:size] = on_ps

    def _layers(self, task: Any) -> list[Any]:
        return [*task.network.weight_layers().values()]

    def value(self, flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        sizes = [p.numel() for p in self.ps]
        *parts, rest = flat.split([*sizes, len(flat) - sum(sizes)])
        ps = [a.view(p.shape) for a, p in zip(parts, self.ps, strict=True)]
        rho, factors = self.rho, self.gains
        if self.kind == "per_layer":
            factors = [*rest]
        elif self.kind != "none":
            rho = rest[0]
        if self.kind != "none":
            ps = [g * p / p.square().sum().sqrt() for g, p in zip(factors, ps, strict=True)]
        f = rho * oracles.forward(ps, STRIDES, x)
        if self.loss == "square":
            losses = ((f[:, 0] + y) ** 2 + (f[:, 1] - y) ** 2) / 2
        else:
            losses = torch.log1p(torch.exp(-y * (f[:, 1] - f[:, 0])))
        return losses.mean()

    def hessian(self, x: Tensor, y: Tensor) -> Tensor:
        found = torch.func.hessian(lambda flat: self.value(flat, x, y))(self.at)
        return found + torch.diag(self.decay)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        flat = self.at.clone().requires_grad_()
        (found,) = torch.autograd.grad(self.value(flat, x, y), flat)
        return found + self.decay * self.at


@pytest.fixture
def looked(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> Callable[..., tuple[Any, Any, Numbers]]:
    """A fit of two epochs in float64 with one look at the end; task, loader, numbers."""

    def run(look: Sharpness, loader: Any = None, **options: Any) -> tuple[Any, Any, Numbers]:
        given = {"learning_rate": RATE, "weight_decay": LAM, **SIZES, **options}
        task = small_task(**given).double()
        task.parametrization.after_step()  # of unit norm in float64, too
        loader = loader or small_loader(n=N, dtype=torch.float64)
        fit(task, loader, 2, [look])
        return task, loader, sharp(rows[-1])

    return run


CASES = [
    *((kind, "all", "square") for kind in PARAMETRIZATIONS),
    *((kind, "rho", "square") for kind in PARAMETRIZATIONS if kind != "none"),
    ("weight_norm", "all", "cross_entropy"),
]


@pytest.mark.parametrize(("kind", "decay", "loss"), CASES)
@pytest.mark.parametrize("chunk", [100, 7])
def test_every_number_is_that_of_dense_hessians(
    chunk: int, kind: str, decay: str, loss: str, looked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descended, "CHUNK", chunk)
    look = Sharpness(2, batches=5, seed=3, **EXACT)
    task, loader, found = looked(look, normalization=kind, decay=decay, loss=loss)
    dense = Dense(task, decay)
    assert 300 < len(dense.at) < 315
    x, y = loader.x, loader.y
    expected = float(torch.linalg.eigvalsh(dense.hessian(x, y))[-1])
    assert found["hessian"] == pytest.approx(expected, rel=1e-8)
    assert 0 <= found["residual"] <= 1e-9
    assert found["limit"] == pytest.approx(2 * 1.9 / RATE, rel=1e-12)
    assert found["ratio"] == pytest.approx(expected * RATE / 3.8, rel=1e-8)
    # The decay is seen: without it, or with twice as much of it, the number is another.
    bare = float(torch.linalg.eigvalsh(dense.hessian(x, y) - torch.diag(dense.decay))[-1])
    if (kind, decay) in (("none", "all"), ("weight_norm", "all")):
        assert abs(bare - expected) > 1e-6 * expected

    rng = np.random.default_rng((3, 2))
    quotients = []
    for _ in range(5):
        drawn = np.sort(rng.choice(N, 8, replace=False))
        g, H = dense.gradient(x[drawn], y[drawn]), dense.hessian(x[drawn], y[drawn])
        quotients.append(float(g @ H @ g / (g @ g)))
    assert np.std(quotients) > 1e-6 * np.mean(quotients)
    assert found["batch"] == pytest.approx(np.mean(quotients), rel=1e-9)


def test_the_samples_are_drawn_by_a_fixed_seed(looked: Any) -> None:
    task, loader, found = looked(Sharpness(2, samples=6, batches=0, **EXACT))
    dense = Dense(task, "all")
    chosen = np.random.default_rng(0).choice(N, 6, replace=False)
    expected = float(torch.linalg.eigvalsh(dense.hessian(loader.x[chosen], loader.y[chosen]))[-1])
    assert found["hessian"] == pytest.approx(expected, rel=1e-8)
    assert "batch" not in found
    other = float(torch.linalg.eigvalsh(dense.hessian(loader.x[:6], loader.y[:6]))[-1])
    assert abs(other - expected) > 1e-4 * expected


def test_a_minibatch_of_the_whole_set_is_taken_once(looked: Any, small_loader: Any) -> None:
    loader = small_loader(n=N, batch_size="full", dtype=torch.float64)
    task, _, found = looked(Sharpness(2), loader)
    dense = Dense(task, "all")
    g, H = dense.gradient(loader.x, loader.y), dense.hessian(loader.x, loader.y)
    assert found["batch"] == pytest.approx(float(g @ H @ g / (g @ g)), rel=1e-9)


OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], float]] = {
    "Adam": (lambda p, lr: torch.optim.Adam(p, lr), 38.0),
    "Adam, amsgrad": (lambda p, lr: torch.optim.Adam(p, lr, (0.5, 0.9), amsgrad=True), 6.0),
    "AdamW": (lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0), 38.0),
    "RMSprop": (lambda p, lr: torch.optim.RMSprop(p, lr, momentum=0.5), 3.0),
    "RMSprop, centered": (lambda p, lr: torch.optim.RMSprop(p, lr, centered=True), 2.0),
}


def divisors(name: str, state: Any) -> Tensor:
    """What a step divides by, as PyTorch's documentation has it."""
    if name.startswith("RMSprop"):
        square = state["square_avg"]
        if "centered" in name:
            square = square - state["grad_avg"] ** 2
        return square.sqrt() + 1e-8
    first, second = (0.5, 0.9) if "amsgrad" in name else (0.9, 0.999)
    t = 6  # steps
    square = state["max_exp_avg_sq" if "amsgrad" in name else "exp_avg_sq"] / (1 - second**t)
    return (square.sqrt() + 1e-8) * (1 - first**t)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_of_adaptive_optimizers_the_preconditioned_one(name: str, looked: Any, rows: Any) -> None:
    make, limit = OPTIMIZERS[name]
    task, loader, found = looked(Sharpness(2, batches=0, **EXACT), optimizer=make)
    dense, (optimizer,) = Dense(task, "all"), task.trainer.optimizers
    H = dense.hessian(loader.x, loader.y)
    if name == "AdamW":  # its decay is no part of the loss
        H = H - torch.diag(dense.decay)
    held = [*task.parametrization.weights.values(), task.network.rho]
    by = torch.cat([divisors(name, optimizer.state[p]).reshape(-1) for p in held])
    S = torch.diag(by**-0.5)
    shift = LAM * 1.9 / 0.1 if name == "AdamW" else 0.0
    expected = float(torch.linalg.eigvalsh(S @ H @ S)[-1]) + shift
    assert found["preconditioned"] == pytest.approx(expected, rel=1e-7)
    assert found["hessian"] == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-7)
    assert found["limit"] == pytest.approx(limit / RATE, rel=1e-12)
    assert found["ratio"] == pytest.approx(expected * RATE / limit, rel=1e-7)
    first = sharp(rows[0])  # before the first step there is no average
    assert {"hessian", "limit"} <= first.keys()
    assert not {"ratio", "preconditioned"} & first.keys()


def test_groups_with_unequal_rates_are_scaled(looked: Any) -> None:
    look = Sharpness(2, batches=0, **EXACT)
    task, loader, found = looked(look, schedule="growing", learning_rate=0.008)
    (optimizer,) = task.trainer.optimizers
    on_vs, on_rho = (group["lr"] for group in optimizer.param_groups)
    assert on_vs > 1.01 * on_rho
    dense = Dense(task, "all")
    dense.decay[:-1] = 0.0  # the growing rate stands in for it
    S = torch.ones_like(dense.at)
    S[-1] = (on_rho / on_vs) ** 0.5
    H = dense.hessian(loader.x, loader.y)
    expected = float(torch.linalg.eigvalsh(S[:, None] * H * S)[-1])
    assert found["preconditioned"] == pytest.approx(expected, rel=1e-8)
    assert found["hessian"] == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-8)
    assert found["limit"] == pytest.approx(3.8 / on_vs, rel=1e-12)
    assert found["ratio"] == pytest.approx(expected * on_vs / 3.8, rel=1e-8)


@pytest.mark.parametrize(("outputs", "batch"), [(1, 2), (3, "full")])
def test_linear_regression_has_its_closed_form(
    outputs: int, batch: Any, fit: Any, rows: Any
) -> None:
    data = LinearProblem(num_train=11, dim=9, outputs=outputs, batch_size=batch, replicas=2)
    task = LinearRegressor(
        learning_rate=0.05, weight_decay=[0.1, 0.7], schedule="inverse_sqrt", looks_per_decade=9
    )
    fit(task, data, 9, [Sharpness(1, batches=4, **EXACT)])
    X = data.problem.x[0]
    lam = 0.1
    size = X.shape[1] if batch == "full" else batch
    expected = 2 * (np.linalg.eigvalsh(X @ X.T / 11)[-1] + lam)
    looks = [row for row in rows if sharp(row)]
    assert len(looks) > 3
    for row in looks:
        found, eta = sharp(row), 0.05 / max(row["epoch"], 1) ** 0.5
        assert found["hessian"] == pytest.approx(expected, rel=1e-12)
        assert found["limit"] == pytest.approx(2 / eta, rel=1e-12)
        assert found["ratio"] == pytest.approx(expected * eta / 2, rel=1e-12)
    # The last look's minibatches, at its W.
    W, Y = task.weight.detach()[0].numpy(), data.problem.y[0]
    rng, quotients = np.random.default_rng((0, 9)), []
    for _ in range(1 if batch == "full" else 4):
        drawn = rng.choice(11, size, replace=False)
        x, y = X[:, drawn], Y[:, drawn]
        H = 2 * (x @ x.T / size + lam * np.eye(9))
        g = 2 * (W @ x - y) @ x.T / size + 2 * lam * W
        quotients.append(np.vdot(g, g @ H) / np.vdot(g, g))
    assert sharp(rows[-1])["batch"] == pytest.approx(np.mean(quotients), rel=1e-9)


@pytest.mark.parametrize("held", [1e9, 0])
def test_a_stream_is_read_in_pieces(
    held: float, fit: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janus_pl.data.regression.HELD", held)
    monkeypatch.setattr("janus_pl.linear.curvature.SAMPLES_AT_ONCE", 16)
    data = LinearProblem(num_train=50, dim=7, outputs=2, batch_size=5, order="online")
    fit(LinearRegressor(learning_rate=0.01, weight_decay=0.1), data, 1, [Sharpness(1, **EXACT)])
    assert data.streamed == (held == 0)
    X = data.stream(0, 50)[0][0]
    expected = 2 * (np.linalg.eigvalsh(X @ X.T / 50)[-1] + 0.1)
    assert sharp(rows[-1])["hessian"] == pytest.approx(expected, rel=1e-12)
    assert sharp(rows[-1])["batch"] > 0


def test_exactly_these_keys_at_its_epochs(looked: Any, rows: Any) -> None:
    looked(Sharpness(2))
    assert [{f"sharpness/{k}" for k in sharp(row)} for row in rows] == [KEYS] * 3
    rows.clear()
    looked(Sharpness(0))
    assert [sharp(row) for row in rows] == [{}] * 3
