"""NeuralCollapse for K classes and at layers by name, on modules of others and on ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from observables.test_classes import oracle
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import LayerRank, NeuralCollapse
from janus_pl.errors import UsageError

NC2 = ("nc2_equinorm", "nc2_equiangular", "nc2_equiangular_std", "nc2_simplex")
OF_LAYER = {"nc1", *NC2, "nc4", "cdnv"}


class Several(LightningModule):
    """K classes with BatchNorm and dropout, in float64; `factor` multiplies the outputs."""

    def __init__(self, classes: int, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.ReLU())
        self.second = nn.Sequential(nn.Flatten(), nn.Linear(27, 12), nn.ReLU(), nn.Dropout())
        self.last = nn.Linear(12, classes)
        self.factor = factor
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.last(self.second(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("own", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05)


def samples(classes: int, n: int = 60, missing: int | None = None) -> Any:
    rng = np.random.default_rng(classes)
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    y[:classes] = np.arange(classes)
    x = rng.normal(size=(n, 1, 4, 4)) + rng.normal(size=(classes, 1, 4, 4))[y]
    kept = y != missing
    return TensorDataset(torch.from_numpy(x[kept]), torch.from_numpy(y[kept]))


def collapse(row: Any) -> dict[str, float]:
    found = {k: v for k, v in row.items() if k.startswith("collapse/")}
    return {key.removeprefix("collapse/"): value for key, value in found.items()}


def expected(module: Any, data: Any, layer: str = "") -> dict[str, float]:
    """From outputs of each layer, by hand and in evaluation."""
    x, y = data.tensors
    module.eval()
    with torch.no_grad():
        a = module.first(x)
        b = module.second(a)
        h = {"first": a.flatten(1), "second": b, "": b, "last": module.last(b)}[layer]
        outputs = module(x).numpy()
        weight = (module.factor * module.last.weight).numpy()
    own = weight if not layer else np.ones((len(weight), h.shape[1]))
    return oracle(h.numpy(), y.numpy(), outputs, own)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("factor", [2.0, -0.5])
def test_every_layer_against_loops_over_samples(
    classes: int, factor: float, fit: Any, rows: Any
) -> None:
    module, data = Several(classes, factor), samples(classes)
    look = NeuralCollapse(1, layers=["first", "se*d", "last"])
    fit(module, DataLoader(data, 7, shuffle=True), 2, [look])
    found = collapse(rows[-1])
    trivial = set() if classes > 2 else set(NC2)
    exact = {k: v for k, v in expected(module, data).items() if k not in trivial}
    for layer in ("first", "second", "last"):
        numbers = expected(module, data, layer)
        exact |= {f"{key}/{layer}": numbers[key] for key in OF_LAYER - trivial}
    assert found == pytest.approx(exact, rel=1e-8, abs=1e-10)
    assert len(found) == 8 - len(trivial) + 3 * (7 - len(trivial))
    # Two of a kind: the input of the last layer is the output of the one before it.
    assert found["nc1/second"] == pytest.approx(found["nc1"], rel=1e-9)
    assert found["nc1/first"] != pytest.approx(found["nc1"], rel=1e-2)
    # Control: with the factor's sign left out the last layer points the other way.
    opposite = np.sqrt(4 - exact["nc3"] ** 2)
    assert abs(found["nc3"] - opposite) > 1e-3


class Digits(Several):
    """A plain MLP for the ten digits of scikit-learn."""

    def __init__(self) -> None:
        super().__init__(10)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(20, 12), nn.Tanh())
        self.double()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_ten_digits(fit: Any, rows: Any) -> None:
    x, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(x[:300] / 16), torch.from_numpy(y[:300]))
    module = Digits()
    fit(module, DataLoader(data, 10, shuffle=True), 12, [NeuralCollapse(12, layers=["first"])])
    exact = expected(module, data)
    exact |= {f"{k}/first": v for k, v in expected(module, data, "first").items() if k in OF_LAYER}
    start, end = collapse(rows[0]), collapse(rows[-1])
    assert end == pytest.approx(exact, rel=1e-8)
    # Training moves towards collapse.
    for key in ("nc1", "nc3", "cdnv"):
        assert end[key] < start[key], key


def test_without_layers_no_other_keys(fit: Any, rows: Any) -> None:
    fit(Several(3), DataLoader(samples(3), 7), 1, [NeuralCollapse(1)])
    assert [set(collapse(row)) for row in rows] == [OF_LAYER | {"nc3"}] * 2


def test_looking_leaves_buffers_generators_and_logs_alone(fit: Any, rows: Any) -> None:
    ends, written = [], []
    for collapsing in ([], [NeuralCollapse(1, layers=["first"])]):
        module = Several(3)
        looks = [*collapsing, LayerRank(1)]  # rows in both
        np.random.seed(1)
        fit(module, DataLoader(samples(3), 7, shuffle=True), 3, looks)
        state = [*module.state_dict().values(), torch.random.get_rng_state()]
        ends.append([*state, torch.from_numpy(np.random.random(3))])
        written.append(
            [{k: row[k] for k in row if k in ("own", "rank/last", "eta_t")} for row in rows]
        )
        assert all(part.training and not part._forward_hooks for part in module.modules())
        rows.clear()
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert written[0] == written[1]
    assert {"own", "rank/last"} <= written[0][-1].keys()


def said_by(caplog: Any) -> list[str]:
    said = [r.getMessage() for r in caplog.records if "NeuralCollapse" in r.getMessage()]
    assert not any("\n" in line for line in said)
    return said


@pytest.mark.parametrize("layers", [None, ["first"]])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_class_without_samples_is_said(
    classes: int, layers: Any, fit: Any, rows: Any, caplog: Any
) -> None:
    data = samples(classes, missing=1)
    fit(Several(classes), DataLoader(data, 7), 2, [NeuralCollapse(1, layers)])
    assert said_by(caplog) == [
        "NeuralCollapse records nothing of Several: "
        f"of its {classes} classes no training sample is of 1"
    ]
    assert [collapse(row) for row in rows] == [{}] * 3


class Bottleneck(Several):
    """Its last dense layer gives no outputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(x))[:, :3]


def test_without_a_last_layer_of_k_outputs_the_chosen_layers_are_left(
    fit: Any, rows: Any, caplog: Any
) -> None:
    loader = DataLoader(samples(3), 7)
    fit(Bottleneck(5), loader, 2, [NeuralCollapse(1)])
    reason = "its last nn.Linear has not as many outputs as the module"
    assert said_by(caplog) == [f"NeuralCollapse records nothing of Bottleneck: {reason}"]
    assert not collapse(rows[-1])
    caplog.clear()
    module = Bottleneck(5)
    fit(module, loader, 2, [NeuralCollapse(1, layers=["second"])])
    (line,) = said_by(caplog)
    assert line == f"NeuralCollapse records the chosen layers of Bottleneck alone: {reason}"
    assert set(collapse(rows[-1])) == {f"{key}/second" for key in OF_LAYER}


class Twice(Several):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0 * self.first(x).mean()


@pytest.mark.parametrize(
    ("module", "layer", "reason"),
    [
        (Twice(3), "first", "first is used 2 times in a forward pass, not once"),
        (Several(3), "own_metric", "own_metric is used 0 times in a forward pass, not once"),
        (Several(3), "pair", "the output of pair is no tensor with a row for every sample"),
    ],
)
def test_layers_that_cannot_be_read_are_named(
    module: Any, layer: str, reason: str, fit: Any, rows: Any, caplog: Any
) -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    module.own_metric, module.pair = nn.Identity(), Pair()
    module.first.register_forward_hook(lambda *args: module.pair(args[2]) and None)
    fit(module, DataLoader(samples(3), 7), 1, [NeuralCollapse(1, layers=[layer])])
    name = type(module).__name__
    assert said_by(caplog) == [f"NeuralCollapse records nothing of {name}: {reason}"]
    assert not collapse(rows[-1])


def test_globs_without_a_layer_are_refused_before_the_run(fit: Any, rows: Any) -> None:
    loader = DataLoader(samples(3), 7)
    says = r"callbacks\.NeuralCollapse\.layers: got 'third', allowed: globs .*: first, first_0, "
    with pytest.raises(UsageError, match=says) as caught:
        fit(Several(3), loader, 1, [NeuralCollapse(1, layers=["first", "third"])])
    assert caught.value.exit_code == 2
    assert rows == []


@pytest.mark.parametrize("layers", ["first", []])
def test_layers_are_a_list(layers: Any) -> None:
    with pytest.raises(UsageError, match=r"callbacks\.NeuralCollapse\.layers"):
        NeuralCollapse(1, layers=layers)


def test_our_network_at_every_part(fit: Any, rows: Any, small_task: Any, small_loader: Any) -> None:
    """The outputs of relu5 are the inputs of fc2, and numbers are those of today."""
    task, loader = small_task().double(), small_loader(n=30, dtype=torch.float64)
    fit(task, loader, 2, [NeuralCollapse(1, layers=["conv*", "relu5"])])
    found = collapse(rows[-1])
    parts = ("conv1", "conv2", "conv3", "conv4", "relu5")
    keys = {f"{key}/{part}" for key in ("nc1", "nc4", "cdnv") for part in parts}
    assert set(found) == keys | {"nc1", "nc3", "nc4", "cdnv"}
    for key in ("nc1", "nc4", "cdnv"):
        assert found[f"{key}/relu5"] == pytest.approx(found[key], rel=1e-9)


def test_a_monitor_may_be_a_layers_number() -> None:
    assert "collapse/*/*" in NeuralCollapse(1, layers=["first"]).keys
    assert "collapse/*/*" not in NeuralCollapse(1).keys
    assert NeuralCollapse(1, layers=["a"]).state_key != NeuralCollapse(1).state_key
