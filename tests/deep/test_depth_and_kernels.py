"""The paper's network with other depths and kernels, against the oracle's forward pass."""

from __future__ import annotations

import math
from typing import Any

import oracles
import pytest
import torch

from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.deep import DeepReLU
from janus_pl.errors import UsageError

SMALL: dict[str, Any] = {"channels": (3, 4, 5, 4), "hidden": 7, "image_size": 24}
STRIDES = (2, 1, 1, 1)
CASES = [(6, 3), (5, 3), (9, 3), (6, 1), (6, 2), (7, 4)]


def made(depth: int, kernel: int) -> DeepReLU:
    torch.manual_seed(0)
    return DeepReLU(STRIDES, **SMALL, depth=depth, kernel_size=kernel, init_scale=0.4).double()


@pytest.mark.parametrize(("depth", "kernel"), CASES)
def test_the_function_is_the_oracle_s(depth: int, kernel: int) -> None:
    network = made(depth, kernel)
    layers = network.weight_layers()
    assert [*layers] == [
        *("conv1", "conv2", "conv3", "conv4"),
        *(f"fc{k}" for k in range(1, depth - 3)),
    ]
    weights = [layer.get_parameter("weight").detach() for layer in layers.values()]
    assert all(w.shape[2:] == (kernel, kernel) for w in weights[:4])
    x = torch.randn(5, 3, 24, 24, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(network(x), oracles.forward(weights, STRIDES, x))
    # Homogeneous in each weight: twice the weight, twice the outputs.
    for layer in layers.values():
        before = network(x).detach()
        with torch.no_grad():
            layer.get_parameter("weight").mul_(2)
        torch.testing.assert_close(network(x).detach(), 2 * before)


def test_without_the_options_it_is_the_paper_s() -> None:
    torch.manual_seed(3)
    plain = DeepReLU()
    torch.manual_seed(3)
    said = DeepReLU(depth=6, kernel_size=3)
    assert plain.state_dict().keys() == said.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), said.parameters(), strict=True)
    )
    assert sum(p.numel() for p in plain.layers.parameters()) == 3_519_328


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 4}, "model.depth: got 4"),
        ({"depth": 6.5}, "model.depth: got 6.5"),
        ({"kernel_size": 0}, "model.kernel_size: got 0"),
        ({"kernel_size": 9}, "strides that leave a pixel of an image of 32 x 32"),
        ({"depth": 10**7}, "a size that fits into"),
    ],
)
def test_impossible_ones_are_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        DeepReLU(**options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("normalization", ["weight_norm", "per_layer", "lagrange", "none"])
def test_a_deeper_task_has_rows_of_all_its_layers(
    normalization: str, small_task: Any, small_loader: Any, fit: Any, rows: list[dict[str, Any]]
) -> None:
    rate = 1e-3 if normalization == "lagrange" else 0.05
    task = small_task(depth=8, kernel_size=2, normalization=normalization, learning_rate=rate)
    looks = [MarginHistogram(1), LayerVelocity(1), LayerRank(1)]
    fit(task, small_loader(dtype=torch.float64), 2, looks, precision="64-true")
    for layer in ("conv4", "fc1", "fc2", "fc3", "fc4"):
        assert math.isfinite(rows[-1][f"velocity/{layer}"])
    norms = [float(W.norm()) for W in oracle_weights(task)]
    assert rows[-1]["rho"] == pytest.approx(
        abs(float(task.network.rho.detach())) * math.prod(norms), rel=1e-10
    )


def oracle_weights(task: Any) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in task.network.weight_layers().values()]
