"""RankBound, UpdateSplit and EquilibriumResidual on real fits, against autograd and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from conftest import SMALL
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import EquilibriumResidual, RankBound, UpdateSplit
from janus_pl.callbacks.rank_bound import tail_windows
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.deep.losses import LOSSES
from janus_pl.errors import TheoremError, UsageError

LAYERS = ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"]
# Multipliers move V_k by eta V_k dot, where the others divide by ||v_k||^2, about 10 here.
RATES = {"weight_norm": 0.03, "per_layer": 0.003, "lagrange": 0.003, "none": 0.003}
every_parametrization = pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
every_loss = pytest.mark.parametrize("loss", list(LOSSES))


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


def task_of(small_task: Any, normalization: str, **options: Any) -> Any:
    options = {"optimizer": plain_sgd, "learning_rate": RATES[normalization], **options}
    options["init_scale"] = 0.8  # outputs of size 1, so that gradients count beside the decay
    return small_task(normalization=normalization, **options).double()


def weights_and_gradients(task: Any, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """W_k and dLoss/dW_k by autograd through the plain forward pass."""
    W = [m.weight.detach().clone().requires_grad_() for m in task.network.weight_layers().values()]
    outputs = task.network.rho.detach() * oracles.forward(W, SMALL["strides"], x)
    loss = LOSSES[task.loss_name](outputs, y).mean()
    return [w.detach() for w in W], [*torch.autograd.grad(loss, W)]


@torch.no_grad()
def set_norms_apart(task: Any) -> None:
    """Other ||v_k||, which the function does not see: at the start they are those of W_k."""
    if task.hparams["normalization"] in ("weight_norm", "per_layer"):
        factors = (0.6, 2.0, 1.7, 0.8, 1.3, 0.5)
        for v, factor in zip(task.parametrization.weights.values(), factors, strict=True):
            v.mul_(factor)


def parts_by_hand(normalization: str, W: Any, G: Any, p: Any, wd: float) -> dict[str, Any]:
    """The three parts of what SGD gets for p_k, with W_k, G_k = dLoss/dW_k and p_k as arrays."""
    V, s = W / np.linalg.norm(W), np.linalg.norm(W) * np.sign(np.vdot(W, p))  # rho_k changes sign
    pull = 1.0 if normalization == "none" else s / np.linalg.norm(p)
    return {
        "gradient": pull * G,
        "decay": 0.0 * p if normalization == "lagrange" else wd * p,
        "projection": 0.0 * p if normalization == "none" else -pull * np.vdot(G, V) * V,
    }


def norms_by_hand(*arguments: Any) -> dict[str, float]:
    """Their norms."""
    return {part: float(np.linalg.norm(g)) for part, g in parts_by_hand(*arguments).items()}


class Path(Callback):
    """W_k and dLoss/dW_k before every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.batch = batch

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        with torch.enable_grad():
            W, G = weights_and_gradients(module, self.batch.x, self.batch.y)
        ps = module.parametrization.weights.values()
        step = {
            "W": [w.flatten(1).numpy() for w in W],
            "G": [g.flatten(1).numpy() for g in G],
            "p": [p.detach().flatten(1).clone().numpy() for p in ps],
            "B": len(self.batch.y),
        }
        self.steps.append(step)


def kept_by_hand(normalization: str, step: dict[str, Any], k: int, eta: float, wd: float) -> float:
    """The coefficient of p_k when -eta times the multiple of G_k is set apart."""
    p, W, G = step["p"][k], step["W"][k], step["G"][k]
    if normalization == "none":
        return 1 - eta * wd
    if normalization == "lagrange":
        V, s = p, np.linalg.norm(W)
        moved = V - eta * s * (G - np.vdot(G, V) * V)
        return (1 + eta * s * np.vdot(G, V)) / np.linalg.norm(moved)
    return 1 - eta * wd + eta * np.vdot(G, W) / np.vdot(p, p)


# The tail bound


@every_parametrization
@every_loss
def test_the_tail_bound_holds_at_every_recorded_step(
    normalization: str, loss: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = task_of(small_task, normalization, loss=loss, weight_decay=2.0)
    loader = small_loader(n=3, batch_size=1, dtype=torch.float64)
    path = Path()
    fit(task, loader, epochs=6, callbacks=[RankBound(), path])
    assert len(path.steps) == 18
    ratios = [row for row in rows if "tail_bound/ratio/fc1" in row]
    assert len(ratios) == 6
    seen = [v for row in rows for k, v in row.items() if k.startswith("tail_bound/ratio")]
    assert all(0 <= ratio <= 1 for ratio in seen)

    # The last row from the definition: fc1 is 7 x 16, so windows of 1 to 6 steps say something.
    k, eta, wd = 4, RATES[normalization], 2.0
    p = [*task.parametrization.weights.values()][k].detach().flatten(1).numpy()
    sigma = np.linalg.svd(p, compute_uv=False)
    a = [kept_by_hand(normalization, step, k, eta, wd) for step in path.steps]
    by_hand = [
        np.linalg.norm(sigma[n:])
        / (np.abs(np.prod(a[-n:])) * np.linalg.norm(path.steps[-n]["p"][k]))
        for n in range(1, 7)
    ]
    assert ratios[-1]["tail_bound/ratio/fc1"] == pytest.approx(max(by_hand), rel=1e-10)
    assert ratios[-1]["tail_bound/vacuous/fc1"] == 0


@every_parametrization
def test_a_wrong_decay_factor_breaks_it_loudly(
    normalization: str, fit: Any, rows: Any, small_task: Any, small_loader: Any, monkeypatch: Any
) -> None:
    kind: Any = PARAMETRIZATIONS[normalization]
    right = kind.kept
    monkeypatch.setattr(kind, "kept", lambda self, eta, wd: right(self, eta, wd) * 0.3)
    loader = small_loader(n=3, batch_size=1, dtype=torch.float64)
    with pytest.raises(TheoremError, match=r"tail bound is broken in \w+ at step 3: .* bound"):
        fit(task_of(small_task, normalization), loader, epochs=6, callbacks=[RankBound()])
    assert rows[-1]["epoch"] == 1  # the row that shows it is there
    assert max(v for k, v in rows[-1].items() if k.startswith("tail_bound/ratio")) > 1


def test_the_last_epoch_is_loud_too(
    fit: Any, rows: Any, small_task: Any, small_loader: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("janus_pl.deep.answers.decay_of", lambda *_: ("coupled", 250.0))
    loader = small_loader(n=3, batch_size=1, dtype=torch.float64)
    with pytest.raises(TheoremError):
        fit(task_of(small_task, "none"), loader, epochs=1, callbacks=[RankBound()])
    assert rows[-1]["epoch"] == 1


def test_float32_rounding_is_no_violation(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = task_of(small_task, "weight_norm", weight_decay=0.1).float()
    fit(task, small_loader(n=3, batch_size=1), epochs=40, callbacks=[RankBound()])
    seen = [v for row in rows for k, v in row.items() if k.startswith("tail_bound/ratio")]
    assert len(seen) >= 40 * 2
    assert max(seen) <= 1


def test_a_convolution_counts_its_positions_and_a_batch_its_pieces(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    bound = RankBound()
    loader = small_loader(n=5, batch_size=3, dtype=torch.float64, micro_batch_size=2)
    fit(task_of(small_task, "weight_norm"), loader, epochs=1, callbacks=[bound])
    # 16 x 16 images, strides (2, 1, 1, 1): 7, 5, 3 and 1 pixels a side.
    positions = [49, 25, 9, 1, 1, 1]
    assert [step.ranks for step in bound._steps] == [[B * m for m in positions] for B in (3, 2)]


def test_full_batch_descent_says_nothing(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    loader = small_loader(batch_size="full", dtype=torch.float64)
    fit(task_of(small_task, "weight_norm"), loader, callbacks=[RankBound()])
    keys = {k for row in rows for k in row if k.startswith("tail_bound")}
    assert keys == {f"tail_bound/vacuous/{layer}" for layer in LAYERS}
    assert all(rows[-1][key] == 1 for key in keys)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
            r"model\.optimizer\.momentum: got 0\.9",
        ),
        (lambda p, lr: torch.optim.Adam(p, lr), r"model\.optimizer: got 'Adam'"),
    ],
)
def test_momentum_and_other_optimizers_are_refused(
    optimizer: Any, message: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    with pytest.raises(UsageError, match=message):
        fit(small_task(optimizer=optimizer), small_loader(), callbacks=[RankBound()])
    fit(small_task(optimizer=optimizer), small_loader(), callbacks=[RankBound(0)])  # off


def test_windows_stop_where_they_would_be_vacuous() -> None:
    sigma, kept, norms = np.array([3.0, 2.0, 1.0]), np.array([0.5, 0.25]), np.array([8.0, 4.0])
    tails, bounds = tail_windows(sigma, kept, norms, np.array([1, 1]))
    assert tails.tolist() == pytest.approx([np.sqrt(5.0), 1.0])
    assert bounds.tolist() == [1.0, 1.0]
    tails, bounds = tail_windows(sigma, kept, norms, np.array([1, 3]))
    assert tails.tolist() == bounds.tolist() == []


# The parts of a step


@every_parametrization
@every_loss
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_shares_of_a_step_are_those_of_autograd(
    normalization: str,
    loss: str,
    momentum: float,
    fit: Any,
    rows: Any,
    small_task: Any,
    small_loader: Any,
) -> None:
    task = task_of(
        small_task,
        normalization,
        loss=loss,
        weight_decay=0.5,
        optimizer=lambda p, lr: torch.optim.SGD(p, lr, momentum=momentum),
    )
    set_norms_apart(task)
    loader = small_loader(batch_size="full", dtype=torch.float64)
    path = Path()
    fit(task, loader, epochs=4, callbacks=[UpdateSplit(), path])
    assert len(path.steps) == 4
    assert not [key for key in rows[0] if key.startswith("update/")]
    remembered = False
    for k, layer in enumerate(LAYERS):
        # m_a <- momentum m_a + g_a of each part by itself; the step is -lr times their sum.
        buffers = dict.fromkeys(("gradient", "decay", "projection"), 0.0)
        for t, (step, row) in enumerate(zip(path.steps, rows[1:], strict=True)):
            W, G, p = (step[key][k] for key in ("W", "G", "p"))
            parts = parts_by_hand(normalization, W, G, p, 0.5)
            buffers = {part: momentum * buffers[part] + parts[part] for part in parts}
            sizes = {part: np.linalg.norm(m) for part, m in buffers.items()}
            for part, size in sizes.items():
                share = row[f"update/{part}/{layer}"]
                assert share == pytest.approx(size / sum(sizes.values()), rel=1e-10, abs=1e-15)
            if t + 1 < len(path.steps):  # the parts are all of the step that is taken
                moved = p - RATES[normalization] * sum(buffers.values())
                if normalization == "lagrange":
                    moved = moved / np.linalg.norm(moved)
                np.testing.assert_allclose(path.steps[t + 1]["p"][k], moved, rtol=0, atol=1e-12)
            now = norms_by_hand(normalization, W, G, p, 0.5)
            if now["gradient"] > 0:  # else no layer gets any: one of them is dead
                share = now["gradient"] / sum(now.values())
                remembered |= abs(row[f"update/gradient/{layer}"] - share) > 1e-3
    assert remembered == (momentum > 0), "shares of a step's own gradient would not do"


@every_parametrization
@every_loss
@pytest.mark.parametrize("rho", [1.0, -0.7])
def test_the_radial_part_of_the_gradient_is_one_number_for_all_layers(
    normalization: str, loss: str, rho: float, small_task: Any, small_loader: Any
) -> None:
    """`radial` and `step_parts` of the parametrizations, that RankBound and UpdateSplit rest on."""
    task = task_of(small_task, normalization, loss=loss)
    set_norms_apart(task)
    with torch.no_grad():
        task.network.rho.fill_(rho)
    loader = small_loader(dtype=torch.float64)
    x, y = loader.x, loader.y
    task.losses(task(x), y).mean().backward()
    W, G = weights_and_gradients(task, x, y)

    radial = task.parametrization.radial().tolist()
    inner = [float((g * w).sum()) for g, w in zip(G, W, strict=True)]
    scale = rho * float(np.prod([float(w.norm()) for w in W]))
    fbar, mbar = (
        oracles.margins(W, SMALL["strides"], x, y),
        oracles.common_modes(W, (2, 1, 1, 1), x),
    )
    nu = oracles.multiplier(loss, fbar, mbar, scale)
    assert abs(nu) > 1e-3
    assert radial == pytest.approx([-2 * nu] * len(LAYERS), rel=1e-10)
    assert radial == pytest.approx(inner, rel=1e-10)

    wd = 0.0 if normalization == "lagrange" else 0.5  # that of the group of the p_k
    parts = zip(*task.parametrization.step_parts(wd).tolist(), strict=True)
    for *layer, sizes in zip(W, G, task.parametrization.weights.values(), parts, strict=True):
        by_hand = norms_by_hand(normalization, *(t.detach().numpy() for t in layer), wd)
        assert list(sizes) == pytest.approx([*by_hand.values()], rel=1e-10)


def test_shares_are_means_over_the_minibatches(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = task_of(small_task, "weight_norm", weight_decay=0.5)
    path = Path()
    fit(task, small_loader(dtype=torch.float64), epochs=1, callbacks=[UpdateSplit(), path])
    shares = []
    for step in path.steps:
        p, W, G = (step[key][4] for key in ("p", "W", "G"))
        pull = np.linalg.norm(W) / np.linalg.norm(p)
        radial = pull * abs(np.vdot(G, W)) / np.linalg.norm(W)
        parts = [pull * np.linalg.norm(G), 0.5 * np.linalg.norm(p), radial]
        shares.append(parts[0] / sum(parts))
    assert len(shares) == 3
    assert rows[-1]["update/gradient/fc1"] == pytest.approx(np.mean(shares), rel=1e-10)
    assert rows[-1]["update/gradient/fc1"] != pytest.approx(shares[-1], rel=1e-6)


# The equilibrium of rho


@every_parametrization
@every_loss
def test_flow_of_the_scale_is_minus_the_gradient(
    normalization: str, loss: str, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = task_of(small_task, normalization, loss=loss, weight_decay=0.3)
    loader = small_loader(dtype=torch.float64)
    fit(task, loader, epochs=3, callbacks=[EquilibriumResidual(1)])
    row = {k.removeprefix("equilibrium/"): v for k, v in rows[-1].items() if "equil" in k}

    layers = task.network.weight_layers()
    norms = torch.stack([m.weight.detach().norm() for m in layers.values()]).requires_grad_()
    rho = task.network.rho.detach().clone().requires_grad_()
    W = [
        n * m.weight.detach() / m.weight.detach().norm()
        for n, m in zip(norms, layers.values(), strict=True)
    ]
    outputs = rho * oracles.forward(W, SMALL["strides"], loader.x)
    value = LOSSES[loss](outputs, loader.y).mean()
    decay = 0.3 / 2 * (rho.square() if task.network.rho.requires_grad else norms.square().sum())
    learned = rho if task.network.rho.requires_grad else norms
    flow = -torch.autograd.grad(value + decay, learned, retain_graph=True)[0]
    nu = -float(torch.autograd.grad(value, rho)[0] * rho.detach()) / 2
    assert row["nu"] == pytest.approx(nu, rel=1e-10)
    has_residual = loss == "square" and learned is rho
    assert [key in row for key in ("residual", "common_mode")] == [has_residual] * 2
    if learned is rho:
        assert row["rho_dot"] == pytest.approx(float(flow * rho.detach().sign()), rel=1e-10)
    else:
        assert [row[f"rho_dot/{k}"] for k in LAYERS] == pytest.approx(flow.tolist(), rel=1e-10)
        assert "rho_dot" not in row


@pytest.mark.parametrize("normalization", ["weight_norm", "lagrange"])
@pytest.mark.parametrize("decay", ["all", "rho"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_residual_of_the_equilibrium(
    normalization: str,
    decay: Any,
    sign: float,
    fit: Any,
    rows: Any,
    small_task: Any,
    small_loader: Any,
) -> None:
    """mu - (M + lambda) rho in the units of the learned rho, from margins sample by sample."""
    options = {"weight_decay": 0.3, "decay": decay, "learning_rate": 0.001}
    task = task_of(small_task, normalization, **options)
    with torch.no_grad():
        task.network.rho.mul_(sign)  # (-rho, -V_L) is the same function
    loader = small_loader(dtype=torch.float64)
    fit(task, loader, epochs=3, callbacks=[EquilibriumResidual(1)])
    row = {k.removeprefix("equilibrium/"): v for k, v in rows[-1].items() if "equil" in k}

    W = [m.weight.detach() for m in task.network.weight_layers().values()]
    learned = float(task.network.rho.detach())
    assert np.sign(learned) == sign
    margins, common = [], []
    for x_n, y_n in zip(loader.x, loader.y.tolist(), strict=True):
        f_0, f_1 = (learned * oracles.forward(W, SMALL["strides"], x_n[None]))[0].tolist()
        margins.append(y_n * (f_1 - f_0) / 2 / abs(learned))
        common.append((f_0 + f_1) / 2 / abs(learned))
    mu, _, M = oracles.margin_moments(margins)
    # PyTorch's weight decay is the derivative of lambda rho^2 over rho: lambda is half of it.
    lam, rho = {"all": 0.3 / 2, "rho": 0.3}[decay], abs(learned)
    second_output = rho * np.mean(np.square(common))
    assert row["residual"] == pytest.approx(mu - (M + lam) * rho, rel=1e-10)
    assert row["common_mode"] == pytest.approx(second_output, rel=1e-10)
    assert row["rho_dot"] == pytest.approx(2 * (mu - (M + lam) * rho - second_output), rel=1e-10)
    # None of the terms is too small to be seen.
    terms = [mu, M * rho, lam * rho, second_output]
    assert min(map(abs, terms)) > 1e-3 * max(map(abs, terms))


# Modules of others


class Foreign(LightningModule):
    """One plain dense layer after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.dense = nn.Linear(6 * 4, 8)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.relu(self.conv(x)).flatten(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, weight_decay=0.7)


def test_serves_other_modules(fit: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    loader = DataLoader(TensorDataset(x, torch.tensor([0, 1, 2, 3])), batch_size=1)
    split = UpdateSplit()
    fit(Foreign(), loader, epochs=3, callbacks=[RankBound(), split, EquilibriumResidual(1)])
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    logged = rows[-1]
    assert 0 < logged["tail_bound/ratio/dense"] <= 1
    assert logged["tail_bound/vacuous/dense"] == 0
    assert logged["update/projection/dense"] == 0
    total = sum(logged[f"update/{part}/conv"] for part in ("gradient", "decay", "projection"))
    assert total == pytest.approx(1)
    # What it does not have is said once, and is on no row.
    said = [r.getMessage() for r in caplog.records if "EquilibriumResidual" in r.getMessage()]
    reason = "it has no learned scale rho"
    assert said == [f"EquilibriumResidual records nothing of Foreign: {reason}"]
    assert not [key for row in rows for key in row if key.startswith("equilibrium")]
