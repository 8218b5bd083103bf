"""`janus_pl.Classifier` against the paper's classifier, loops by hand and float64 oracles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL
from torch import Tensor, nn

from janus_pl import Classifier
from janus_pl.callbacks import (
    LayerRank,
    LayerRotation,
    LayerVelocity,
    LossEvents,
    MarginHistogram,
    RankBound,
    UpdateSplit,
)
from janus_pl.data import InMemoryBatches
from janus_pl.deep import MLP, DeepReLU
from janus_pl.deep.class_losses import CLASS_LOSSES
from janus_pl.deep.scaled import Scaled, is_homogeneous
from janus_pl.errors import UsageError

ETA, LAM, K = 0.05, 0.1, 4


def sgd(momentum: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda params, lr: torch.optim.SGD(params, lr, momentum)


def classifier(network: nn.Module, **options: Any) -> Classifier:
    own = {"learning_rate": ETA, "weight_decay": LAM, "optimizer": sgd(0.9)}
    return Classifier(network.double(), **{**own, **options}).double()


def small_mlp(seed: int = 0, **options: Any) -> MLP:
    torch.manual_seed(seed)
    return MLP(**{"inputs": 12, "outputs": K, "depth": 3, "width": 9, **options})


def samples(n: int = 26, batch_size: Any = 8, k: int = K, **options: Any) -> InMemoryBatches:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 12, generator=generator, dtype=torch.float64)
    return InMemoryBatches(x, torch.arange(n) % k, batch_size, **options)


CALLBACKS = (MarginHistogram, LayerVelocity, LayerRank, LayerRotation, LossEvents)


@pytest.mark.parametrize("loss", ["square", "cross_entropy"])
@pytest.mark.parametrize("normalization", ["weight_norm", "none"])
def test_of_two_classes_it_is_the_paper_s(
    loss: str,
    normalization: str,
    small_task: Any,
    small_loader: Any,
    fit: Any,
    rows: list[dict[str, Any]],
) -> None:
    options: dict[str, Any] = {
        **{"loss": loss, "normalization": normalization, "learning_rate": ETA},
        **{"weight_decay": LAM, "optimizer": sgd(0.9), "schedule": "cosine"},
    }
    looks = lambda: [kind(1) for kind in (*CALLBACKS, UpdateSplit)]  # noqa: E731
    paper = small_task(**options)
    fit(paper, small_loader(dtype=torch.float64), 3, looks(), precision="64-true")
    wanted, length = list(rows), len(rows)
    torch.manual_seed(0)
    mine = Classifier(DeepReLU(**SMALL), **options)
    fit(mine, small_loader(dtype=torch.float64), 3, looks(), precision="64-true")
    found = rows[length:]
    assert len(found) == len(wanted) == 4
    own = {"equilibrium/residual", "equilibrium/common_mode"}  # of two classes alone
    for row, like in zip(found, wanted, strict=True):
        assert row.keys() == like.keys() - own
        for key, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(like[key], rel=1e-10, abs=1e-13), key
    assert mine.description.margin == paper.description.margin == "normalized"


def test_signs_and_indices_are_the_same_two_classes(small_loader: Any, fit: Any, rows: Any) -> None:
    def run(y: Callable[[Tensor], Tensor]) -> list[dict[str, Any]]:
        loader = small_loader(dtype=torch.float64)
        loader.y = y(loader.y)
        torch.manual_seed(0)
        rows.clear()
        fit(Classifier(DeepReLU(**SMALL)), loader, 2, [LayerVelocity(1)], precision="64-true")
        return list(rows)

    signs = run(lambda y: y)
    assert run(lambda y: (y > 0).long()) == signs
    assert run(lambda y: (y < 0).long()) != signs, "control: the other way round"


def by_hand(
    network: nn.Module, loader: Any, loss: str, epochs: int, norm: bool, momentum: float
) -> list[Tensor]:
    """SGD with coupled decay on all parameters, with W = g v/||v|| where `norm` says so."""
    weights = [p for p in network.parameters() if p.dim() > 1]
    gains = [p.detach().square().sum().sqrt() for p in weights]
    rho = torch.ones((), dtype=torch.float64, requires_grad=True)
    named = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    ps = [*named.values(), *([rho] if norm else [])]
    buffers = [torch.zeros_like(p) for p in ps]
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            used, k = {}, 0
            for name, p in named.items():
                used[name] = p
                if p.dim() > 1:
                    used[name] = gains[k] * p / p.square().sum().sqrt() if norm else p
                    k += 1
            outputs = rho * torch.func.functional_call(network, used, (batch.x,))
            loss_of = CLASS_LOSSES[loss](outputs, batch.y).mean()
            for p, gradient, buffer in zip(
                ps, torch.autograd.grad(loss_of, ps), buffers, strict=True
            ):
                buffer.mul_(momentum).add_(gradient + LAM * p.detach())
                p.data.sub_(ETA * buffer)
    return [p.detach() for p in ps]


@pytest.mark.parametrize("loss", sorted(CLASS_LOSSES))
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_its_steps_are_those_of_a_loop_by_hand(loss: str, norm: bool, bias: bool, fit: Any) -> None:
    kind = "weight_norm" if norm else "none"
    task = classifier(small_mlp(bias=bias), loss=loss, normalization=kind)
    fit(task, samples(), 3, precision="64-true")
    wanted = by_hand(small_mlp(bias=bias).double(), samples(), loss, 3, norm, 0.9)
    weights = iter(task.parametrization.weights.values())
    biases = iter(p for name, p in task.named_parameters() if name.endswith("bias"))
    for want in wanted[:-1] if norm else wanted:
        found = next(weights if want.dim() > 1 else biases).detach()
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-13)
    if norm:
        assert float(task.network.rho.detach()) == pytest.approx(float(wanted[-1]), rel=1e-10)


def test_micro_batches_give_the_same_steps(fit: Any) -> None:
    tasks = [classifier(small_mlp()) for _ in range(2)]
    for task, micro in zip(tasks, (None, 3), strict=True):
        fit(task, samples(batch_size="full", micro_batch_size=micro), 3, precision="64-true")
    for one, other in zip(*(task.parameters() for task in tasks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.fixture(params=["weight_norm", "none"])
def ten(request: Any, fit: Any, rows: list[dict[str, Any]]) -> Any:
    """Ten classes by full-batch GD: the task, its data, its last row and its weights."""
    kind = request.param
    task = classifier(small_mlp(outputs=10), normalization=kind, loss="square")
    loader = samples(30, "full", 10)
    looks = [MarginHistogram(1), LayerVelocity(1, 1), LayerRank(1)]
    fit(task, loader, 2, looks, precision="64-true")
    layers: list[Any] = [*task.network.weight_layers().values()]
    Ws = [layer.weight.detach() for layer in layers]
    return task, loader, rows[-1], Ws, task.network.rho.detach()


def outputs_by_hand(Ws: list[Tensor], rho: Tensor, x: Tensor) -> Tensor:
    h = x
    for k, W in enumerate(Ws):
        h = W @ h
        h = h.clamp(min=0) if k + 1 < len(Ws) else h
    return rho * h


def test_margins_of_ten_classes_against_loops(ten: Any) -> None:
    _, loader, last, Ws, rho = ten
    outputs = torch.stack([outputs_by_hand(Ws, rho, x) for x in loader.x])
    margins = oracles_margins(outputs, loader.y).numpy()
    scale = abs(float(rho)) * math.prod(float(W.norm()) for W in Ws)
    assert last["rho"] == pytest.approx(scale, rel=1e-12)
    assert last["margin/mean"] == pytest.approx(np.mean(margins) / scale, rel=1e-10)
    assert last["margin/std"] == pytest.approx(np.std(margins) / scale, rel=1e-10)
    assert last["margin/min"] == pytest.approx(min(margins) / scale, rel=1e-10)
    assert last["train/error"] == pytest.approx(np.mean(margins <= 0))


def test_velocities_of_ten_classes_against_autograd(ten: Any) -> None:
    task, loader, last, Ws, rho = ten
    Ws = [W.requires_grad_() for W in Ws]
    loss = torch.zeros((), dtype=torch.float64)
    for x, y in zip(loader.x, loader.y, strict=True):
        coded = torch.tensor([1.0 if c == int(y) else -1.0 for c in range(10)]).double()
        loss = loss + (outputs_by_hand(Ws, rho, x) - coded).square().sum() / 10 / 30
    assert last["train/loss"] == pytest.approx(float(loss.detach()), rel=1e-12)
    for name, W, G in zip(task.layers(), Ws, torch.autograd.grad(loss, Ws), strict=True):
        V = W.detach() / W.detach().norm()
        velocity = W.detach().norm() * (G - (G * V).sum() * V).norm()
        assert last[f"velocity_full/{name}"] == pytest.approx(float(velocity), rel=1e-9)


def test_ranks_of_ten_classes_against_numpy(ten: Any) -> None:
    task, _, last, Ws, _ = ten
    for name, W in zip(task.layers(), Ws, strict=True):
        sigma = np.linalg.svd((W / W.norm()).numpy(), compute_uv=False)
        p = sigma / sigma.sum()
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        assert last[f"effective_rank/{name}"] == pytest.approx(math.exp(entropy), rel=1e-9)
        assert last[f"rank/{name}"] == int((sigma > 1e-3).sum())
        assert last[f"stable_rank/{name}"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-9)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "plain": (small_mlp, True),
    "leaky": (lambda: small_mlp(activation=nn.LeakyReLU), True),
    "prelu": (lambda: small_mlp(activation=nn.PReLU), True),
    "dropout, not while it is measured": (lambda: small_mlp(activation=nn.Dropout), True),
    "bias": (lambda: small_mlp(bias=True), False),
    "tanh": (lambda: small_mlp(activation=nn.Tanh), False),
    "batch norm": (lambda: small_mlp(batch_norm=True), False),
    "layer norm": (lambda: small_mlp(activation=lambda: nn.LayerNorm(9)), False),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("zero_bias", [False, True])
@pytest.mark.parametrize("normalization", ["weight_norm", "none"])
def test_homogeneity_is_measured(name: str, zero_bias: bool, normalization: str) -> None:
    make, homogeneous = NETWORKS[name]
    network = make()
    if zero_bias:
        for key, p in network.named_parameters():
            if key.endswith("bias"):
                nn.init.zeros_(p)
    task = classifier(network, normalization=normalization)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    state = torch.get_rng_state()
    assert is_homogeneous(task.network, samples().x[:2]) is homogeneous
    assert torch.equal(state, torch.get_rng_state())
    for key, value in task.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert task.network.training


def test_a_network_that_is_not_homogeneous_has_raw_margins(fit: Any, rows: Any) -> None:
    task = classifier(small_mlp(bias=True))
    fit(task, samples(), 2, [MarginHistogram(1)], precision="64-true")
    outputs = task(samples().x)
    margins = oracles_margins(outputs.detach(), samples().y)
    assert rows[-1]["margin_raw/mean"] == pytest.approx(float(margins.mean()), rel=1e-10)
    assert "margin/mean" not in rows[-1]
    assert task.description.margin == "raw"


def oracles_margins(outputs: Tensor, y: Tensor) -> Tensor:
    found = []
    for f, c in zip(outputs.tolist(), y.tolist(), strict=True):
        found.append((f[c] - max(v for k, v in enumerate(f) if k != c)) / 2)
    return torch.tensor(found, dtype=torch.float64)


def test_parts_of_a_step_are_known_where_they_are(fit: Any, rows: Any) -> None:
    for normalization, bias, there in (
        ("none", True, True),
        ("weight_norm", False, True),
        ("weight_norm", True, False),
    ):
        for look, kind in ((UpdateSplit(1), "update/"), (RankBound(1), "tail_bound/")):
            rows.clear()
            task = classifier(small_mlp(bias=bias), normalization=normalization, optimizer=sgd(0.0))
            if there:
                fit(task, samples(), 2, [look], precision="64-true")
                assert any(key.startswith(kind) for key in rows[-1]), (normalization, bias)
                continue
            with pytest.raises(UsageError, match="its network is not homogeneous"):
                fit(task, samples(), 2, [look], precision="64-true")


def test_a_network_that_turns_out_not_to_be_homogeneous_says_so(
    fit: Any, rows: Any, capsys: Any, caplog: Any
) -> None:
    task = classifier(small_mlp(activation=nn.Tanh), normalization="weight_norm")
    with caplog.at_level("INFO"):
        fit(task, samples(), 2, [UpdateSplit(1)], precision="64-true")
    assert not any(key.startswith("update/") for key in rows[-1])
    said = "UpdateSplit records nothing of Classifier: its network is not homogeneous"
    assert caplog.text.count(said) == 1


def test_batch_norm_s_passes_leave_it_as_it_is(fit: Any) -> None:
    """Only steps move the running statistics: with and without looks the weights are equal."""
    states = []
    for looks in ([], [MarginHistogram(1), LayerVelocity(1, 1)]):
        task = classifier(small_mlp(batch_norm=True), normalization="weight_norm")
        fit(task, samples(24), 3, looks, precision="64-true")
        states.append(task.state_dict())
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert float(states[0]["network.layers.norm1.running_mean"].abs().max()) > 0, "control"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no layer": (
        lambda: classifier(nn.Flatten()),
        "model.network: got 'Flatten', allowed: a network with an nn.Linear or nn.Conv",
    ),
    "loss": (lambda: classifier(small_mlp(), loss="squared"), "model.loss: got 'squared'"),
    "normalization": (
        lambda: classifier(small_mlp(), normalization="lagrange"),
        "model.normalization: got 'lagrange', allowed: none, weight_norm",
    ),
    "growing": (
        lambda: classifier(small_mlp(), schedule="growing"),
        "model.schedule: got 'growing', allowed: another one; it is of DeepReLUClassifier",
    ),
    "decay on rho": (
        lambda: classifier(small_mlp(), decay="rho"),
        "model.decay: got 'rho', allowed: all, for model.normalization: none",
    ),
    "zero": (
        lambda: classifier(zero_head(), normalization="weight_norm"),
        "model.normalization: got 'weight_norm', allowed: none, for the weight of fc3 is 0",
    ),
    "shared": (lambda: classifier(shared()), "layers with weights of their own (0 and 1 share"),
    "depth": (lambda: MLP(depth=0), "model.network.depth: got 0"),
    "activation": (lambda: MLP(activation=dict), "model.network.activation"),
    "width": (lambda: MLP(width=10**9), "a size that fits into"),
}


def zero_head() -> MLP:
    network = small_mlp()
    nn.init.zeros_(network.fc3.weight)
    return network


def shared() -> nn.Module:
    layers = nn.Linear(12, 12), nn.Linear(12, 12)
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers)


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_be_is_refused_in_one_line(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(UsageError) as error:
        make()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "loader", "said"),
    [
        (small_mlp, lambda: samples(k=6), "MLP with 4 outputs', allowed: one with 6"),
        (
            lambda: small_mlp(inputs=5),
            samples,
            "a network that takes samples of shape (12,) (mat1 and mat2",
        ),
        (
            lambda: small_mlp(outputs=1),
            samples,
            "allowed: one with two outputs or more for samples of shape (12,)",
        ),
        (
            lambda: small_mlp(batch_norm=True),
            lambda: samples(batch_size="full", micro_batch_size=5),
            "data.micro_batch_size: got 5, allowed: 26, the batch size: the statistics of",
        ),
    ],
)
def test_data_that_do_not_match_are_refused(
    network: Any, loader: Any, said: str, fit: Any, rows: Any
) -> None:
    with pytest.raises(UsageError) as error:
        fit(classifier(network()), loader(), precision="64-true")
    assert said in str(error.value)
    assert not rows, "nothing was written"


def test_a_plain_loader_of_k_classes_is_taken(fit: Any, rows: Any) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    mine = samples(order="sequential")
    plain = DataLoader(TensorDataset(mine.x, mine.y), 8)
    found = []
    for loader in (mine, plain):
        rows.clear()
        fit(classifier(small_mlp()), loader, 2, [MarginHistogram(1)], precision="64-true")
        found.append([dict(row) for row in rows])
    for one, other in zip(*found, strict=True):
        for key in ("train/loss_running", "margin/mean", "rho"):
            assert (key in one) == (key in other), key
            assert one.get(key, 0.0) == pytest.approx(other.get(key, 0.0), rel=1e-12), key
    assert "train/loss_running" in found[0][-1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.arange(26) % 5, "labels 0, 1, 2, 3, 4"),
        (torch.arange(26).double(), "labels 0, 1"),
        (-(torch.arange(26) % 3), "labels"),
        (torch.zeros(26, 2), "((2, 12) in float64, (2, 2) in float64)"),
    ],
)
def test_labels_outside_are_refused(labels: Tensor, said: str, fit: Any, rows: Any) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(samples().x, labels), 8)
    with pytest.raises(UsageError, match="integers from 0 to 3") as error:
        fit(classifier(small_mlp()), loader, precision="64-true")
    assert said in str(error.value)


def test_a_checkpoint_of_another_network_is_refused(fit: Any, tmp_path: Any) -> None:
    task = classifier(small_mlp())
    trainer = fit(task, samples(), 1, precision="64-true")
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)
    with pytest.raises(UsageError) as error:
        fit(classifier(small_mlp(width=8)), samples(), 2, precision="64-true", ckpt_path=path)
    assert "model.network: got 'MLP of 3 tensors and 192 parameters'" in str(error.value)
    again = classifier(small_mlp(seed=1))
    fit(again, samples(), 1, precision="64-true", ckpt_path=path, max_epochs=2)
    straight = classifier(small_mlp())
    fit(straight, samples(), 2, precision="64-true")
    for one, other in zip(again.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


def test_names_of_layers_have_underscores() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))
    network = nn.Sequential(inner, nn.Flatten(), nn.Linear(4, 3))
    task = Classifier(network)
    assert list(task.layers()) == ["0_0", "2"]
    assert "0_2_group0" in " ".join(task.skipped())
    assert {name for name in task.skipped() if name.endswith("bias")}
    assert isinstance(task.network, Scaled)


def test_margins_of_predict_are_in_the_units_of_a_fit(fit: Any) -> None:
    trained = classifier(small_mlp(), normalization="weight_norm")
    trainer = fit(trained, samples(), 1, precision="64-true")
    fresh = classifier(small_mlp(), normalization="weight_norm")
    fresh.load_state_dict(trained.state_dict())
    loader = samples(order="sequential")
    wanted = trained.output_margins(trained(loader.x), loader.y) / trained.scale()
    found = torch.cat(trainer.predict(fresh, loader))
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-10, atol=1e-15)
    assert fresh.margin == "normalized"
    assert float(fresh.scale()) != pytest.approx(1.0), "control: the units differ"
