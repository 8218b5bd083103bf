"""Weights are found by parameter: their names, matrices, velocities, and what is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm

from janus_pl.callbacks import LayerRank
from janus_pl.errors import UsageError
from janus_pl.observables.velocity import weight_velocity
from janus_pl.training.any_module import AnyModule
from janus_pl.training.weights import in_order, weights_of


def whole(**parts: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def matrices_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.matrix() for name, weight in weights_of(module)[0].items()}


def of_rank(rank: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    left, right = (torch.randn(n, rank, generator=generator) for n in (rows, columns))
    return left @ right.T


def rank(matrix: Tensor) -> int:
    sigma = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    return int((sigma > 1e-5 * sigma[0]).sum())


# Attention


class Holder(LightningModule):
    """A module of somebody else, of these parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def ranks_by_callback(**parts: nn.Module) -> dict[str, Any]:
    ends = {"max_epochs": 9, "max_steps": -1, "current_epoch": 1, "global_step": 2}
    trainer: Any = SimpleNamespace(**ends, should_stop=False)
    values = LayerRank(1, tolerance=1e-5).observe(trainer, AnyModule(trainer, Holder(**parts)))
    return {k.partition("/")[2]: v for k, v in values.items() if k.startswith("rank/")}


def test_queries_keys_and_values_of_a_transformer_have_the_ranks_of_three_linear_layers() -> None:
    size = 12
    layer = nn.TransformerEncoderLayer(size, 3, dim_feedforward=10)
    linear = {name: nn.Linear(size, size) for name in "qkv"}
    with torch.no_grad():
        for k, each in enumerate(linear.values()):
            each.weight.copy_(of_rank(2 + 3 * k, size, size))
            layer.self_attn.in_proj_weight[k * size : (k + 1) * size] = each.weight
    found = ranks_by_callback(block=layer)
    apart = ranks_by_callback(**linear)
    assert apart == {"q": 2, "k": 5, "v": 8}
    assert {name: found[f"block_self_attn_{name}"] for name in "qkv"} == apart
    assert rank(layer.self_attn.in_proj_weight.detach()) not in apart.values()
    assert list(matrices_of(whole(block=layer))) == [
        *(f"block_self_attn_{part}" for part in "qkv"),
        *("block_self_attn_out_proj", "block_linear1", "block_linear2"),
    ]


def test_velocities_of_queries_keys_and_values_are_those_of_separate_weights() -> None:
    torch.manual_seed(0)
    size, heads = 8, 2
    attention = nn.MultiheadAttention(size, heads, dtype=torch.float64)
    x = torch.randn(5, 3, size, dtype=torch.float64)
    attention(x, x, x)[0].square().sum().backward()
    gradient = attention.in_proj_weight.grad
    assert gradient is not None

    separate = [w.detach().clone().requires_grad_() for w in attention.in_proj_weight.chunk(3)]
    output, _ = nn.functional.multi_head_attention_forward(
        *(x, x, x, size, heads, None, attention.in_proj_bias, None, None, False, 0.0),
        *(attention.out_proj.weight, attention.out_proj.bias),
        use_separate_proj_weight=True,
        q_proj_weight=separate[0],
        k_proj_weight=separate[1],
        v_proj_weight=separate[2],
    )
    output.square().sum().backward()
    weights, _ = weights_of(whole(a=attention))
    for name, alone in zip("qkv", separate, strict=True):
        weight = weights[f"a_{name}"]
        found = weight_velocity(weight.matrix(), weight.read(gradient))
        assert alone.grad is not None
        w, g = alone.detach().numpy(), alone.grad.numpy()
        norm = np.linalg.norm(w)
        expected = -norm * (g - np.vdot(g, w) / norm**2 * w)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_keys_of_another_size_have_parameters_of_their_own() -> None:
    found = matrices_of(whole(a=nn.MultiheadAttention(6, 2, kdim=4, vdim=5, add_bias_kv=True)))
    shapes = {name: tuple(m.shape) for name, m in found.items()}
    assert shapes == {"a_q": (6, 6), "a_k": (6, 4), "a_v": (6, 5), "a_out_proj": (6, 6)}


# Recurrent networks


@pytest.mark.parametrize(
    ("kind", "gates"), [(nn.LSTM, "ifgo"), (nn.GRU, "rzn"), (nn.LSTMCell, "ifgo")]
)
def test_each_gate_is_a_layer(kind: Any, gates: str) -> None:
    part = kind(3, 4)
    found = matrices_of(whole(r=part))
    suffix = "" if kind is nn.LSTMCell else "_l0"
    kinds = [("ih", 3), ("hh", 4)]
    assert list(found) == [f"r_{way}{suffix}_{gate}" for way, _ in kinds for gate in gates]
    for way, size in kinds:
        stacked = getattr(part, f"weight_{way}{suffix}").detach()
        for k, gate in enumerate(gates):
            expected = stacked[4 * k : 4 * (k + 1)]
            assert expected.shape == (4, size)
            assert torch.equal(found[f"r_{way}{suffix}_{gate}"], expected)


def test_a_gate_by_its_name_is_the_one_that_the_cell_uses_so() -> None:
    """A forget gate that is shut forgets: PyTorch's order of gates is the one behind the names."""
    cell = nn.LSTMCell(2, 3, bias=False)
    weights, _ = weights_of(whole(r=cell))
    with torch.no_grad():
        for name in ("r_ih_i", "r_hh_i"):  # views of the parameter
            weights[name].matrix().zero_()
        weights["r_ih_f"].matrix().fill_(-50.0)
        _, state = cell(torch.ones(1, 2), (torch.zeros(1, 3), torch.full((1, 3), 9.0)))
    # c' = sigmoid(f) c + sigmoid(i) tanh(g): the first part is gone.
    g = torch.tanh(weights["r_ih_g"].matrix() @ torch.ones(2))
    assert torch.allclose(state[0], 0.5 * g, atol=1e-6)


def test_layers_directions_and_projections_of_a_recurrent_network_have_names() -> None:
    found = matrices_of(whole(r=nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)))
    assert len(found) == 2 * 2 * (4 + 4 + 1)
    assert tuple(found["r_hr_l1_reverse"].shape) == (2, 4)
    assert tuple(found["r_ih_l1_g"].shape) == (4, 4)
    plain = matrices_of(whole(r=nn.RNN(3, 4)))
    assert {k: tuple(m.shape) for k, m in plain.items()} == {"r_ih_l0": (4, 3), "r_hh_l0": (4, 4)}


# Convolutions, embeddings, and other tensors


def test_a_grouped_convolution_is_one_matrix_a_group_as_separate_ones_would_be() -> None:
    conv = nn.Conv2d(6, 4, 3, groups=2, bias=False)
    weights, _ = weights_of(whole(c=conv))
    assert list(weights) == ["c_group0", "c_group1"]
    x = torch.randn(2, 6, 5, 5)
    halves = [
        nn.functional.conv2d(part, weights[f"c_group{k}"].matrix().reshape(2, 3, 3, 3))
        for k, part in enumerate(x.chunk(2, dim=1))
    ]
    assert torch.allclose(conv(x), torch.cat(halves, dim=1), atol=1e-6)


def test_rows_of_a_transposed_convolution_are_its_outputs() -> None:
    plain = nn.ConvTranspose1d(3, 5, 2, bias=False)
    grouped = nn.ConvTranspose1d(4, 6, 2, groups=2, bias=False)
    found = matrices_of(whole(a=plain, b=grouped))
    assert {name: tuple(m.shape) for name, m in found.items()} == {
        "a": (5, 6),
        "b_group0": (3, 4),
        "b_group1": (3, 4),
    }
    x = torch.randn(1, 3, 1)
    by_hand = (found["a"].reshape(5, 3, 2) * x[0, :, 0][None, :, None]).sum(1)
    assert torch.allclose(plain(x)[0], by_hand, atol=1e-6)


def test_embeddings_are_read_and_bilinear_layers_flattened() -> None:
    parts = {"e": nn.Embedding(7, 3), "g": nn.EmbeddingBag(5, 2), "b": nn.Bilinear(2, 3, 4)}
    found = {name: tuple(m.shape) for name, m in matrices_of(whole(**parts)).items()}
    assert found == {"e": (7, 3), "g": (5, 2), "b": (4, 6)}


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_a_parametrized_weight_is_the_tensor_that_is_computed(kind: str) -> None:
    torch.manual_seed(0)
    layer = getattr(parametrizations, kind)(nn.Linear(5, 4, bias=False))
    weights, skipped = weights_of(whole(a=layer))
    assert list(weights) == ["a"]
    assert not skipped
    assert weights["a"].parametrized
    layer.eval()
    assert torch.allclose(weights["a"].matrix() @ torch.ones(5), layer(torch.ones(5)), atol=1e-6)


def test_looking_at_a_spectral_norm_does_not_move_it() -> None:
    layer = parametrizations.spectral_norm(nn.Linear(5, 4))
    layer.train()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for _ in range(3):
        weights_of(whole(a=layer))[0]["a"].matrix()
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    assert layer.training
    layer(torch.ones(5))  # a forward pass in training does
    assert not all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_a_tensor_that_two_layers_share_is_read_once() -> None:
    embedding, out = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
    out.weight = embedding.weight
    weights, skipped = weights_of(whole(embedding=embedding, out=out))
    assert list(weights) == ["embedding"]
    assert skipped == {"out": "is embedding"}


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (nn.LayerNorm((3, 4), bias=False), "scales each feature by itself"),
        (nn.BatchNorm2d(4), "a vector"),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), "each group is a vector"),
        (nn.Linear(5, 1, bias=False), None),
    ],
)
def test_what_is_no_matrix_is_left_out_with_the_reason(part: nn.Module, why: str | None) -> None:
    weights, skipped = weights_of(whole(a=part))
    assert set(skipped.values()) == ({why} if why else set())
    assert list(weights) == ([] if why else ["a"])


def test_an_old_weight_norm_is_left_out_and_the_new_one_is_named() -> None:
    with pytest.warns(FutureWarning):
        layer = old_weight_norm(nn.Linear(5, 4, bias=False))
    weights, skipped = weights_of(whole(a=layer))
    assert "a_weight_v" not in weights
    assert "parametrizations" in skipped["a_weight_v"]


def test_two_layers_of_one_name_are_refused() -> None:
    nested = whole(b=nn.Linear(2, 3))
    module = whole(a=nested, a_b=nn.Linear(2, 3))
    with pytest.raises(UsageError) as caught:
        weights_of(module)
    message = str(caught.value)
    assert "two layers named a_b" in message
    assert "a.b.weight, a_b.weight" in message
    assert "\n" not in message


def test_a_parameter_of_the_module_itself_is_a_weight() -> None:
    module = whole(a=nn.Linear(2, 3))
    module.register_parameter("token", nn.Parameter(torch.ones(1, 4, 5)))
    module.register_parameter("gain", nn.Parameter(torch.ones(())))
    weights, skipped = weights_of(module)
    assert {name: tuple(w.matrix().shape) for name, w in weights.items()} == {
        "token": (4, 5),
        "a": (3, 2),
    }
    assert skipped == {"gain": "a scalar", "a_bias": "a vector"}


# Order


class Calls(nn.Module):
    """Calls its parts in an order of its own, the first of them twice."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("never", "last", "attention", "first"):
            size = nn.MultiheadAttention(4, 1) if name == "attention" else nn.Linear(4, 4)
            self.add_module(name, size)

    def forward(self, x: Tensor) -> Tensor:
        first, attention, last = (self.get_submodule(n) for n in ("first", "attention", "last"))
        x = first(first(x))
        return last(attention(x, x, x)[0])


def test_order_is_that_of_the_first_calls_and_what_is_not_called_is_last() -> None:
    module = Calls()
    weights, _ = weights_of(module)
    calls: list[nn.Module] = []
    for part in module.modules():
        part.register_forward_pre_hook(lambda called, _: calls.append(called))
    module(torch.ones(3, 4))
    attention = [f"attention_{part}" for part in ("q", "k", "v", "out_proj")]
    assert list(in_order(weights, calls, module)) == ["first", *attention, "last", "never"]
    assert list(weights) == ["never", "last", *attention, "first"]
