"""RankBound on modules that know nothing of the contract: what it counts, and where it is silent.

At eta wd = 1 one step leaves nothing of a plain weight: W = -eta G, whose rank is exactly what the
step's samples make it. The bound is then 0, and a count that is one too low shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import wandb
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl.callbacks import LayerRank, RankBound, rank_bound
from janus_pl.errors import DivergenceError, TheoremError, UsageError
from janus_pl.records.read import read
from janus_pl.records.run import Run
from janus_pl.run.logger import RunLogger
from janus_pl.verify.theorems import Finding, Missing, tails_are_bounded

ETA, ALL = 0.1, 10.0  # a weight decay of 1/eta leaves nothing


class Foreign(LightningModule):
    """Cross entropy of any network, SGD with the groups of parameters that the case asks for."""

    def __init__(self, network: Any, groups: Any = None, scale: float = 1.0) -> None:
        super().__init__()
        self.network, self.groups, self.scale = network, groups, scale

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.scale * nn.functional.cross_entropy(self.network(x).flatten(1), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = self.groups(self.network) if self.groups else self.network.parameters()
        return torch.optim.SGD(groups, ETA, weight_decay=ALL)


def ratios_of(rows: list[dict[str, Any]]) -> list[float]:
    """All ratios of a record, row by row."""
    return [v for row in rows for k, v in row.items() if k.startswith("tail_bound/ratio")]


def bounds_of(row: dict[str, Any]) -> dict[str, float]:
    """What a row says of the bound."""
    return {k: v for k, v in row.items() if k.startswith("tail_bound/")}


def matrices(module: nn.Module) -> list[Tensor]:
    """The weights as they are applied: each group of a convolution by itself."""
    found: list[Tensor] = []
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            found.extend(layer.weight.detach().flatten(1).chunk(getattr(layer, "groups", 1)))
    return found


def samples(*shape: int, n: int = 4, batch_size: int = 1, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return DataLoader(TensorDataset(x.to(dtype), torch.arange(n) % 4), batch_size)


def dense(*sizes: int) -> nn.Sequential:
    layers = [nn.Linear(a, b, dtype=torch.float64) for a, b in pairwise(sizes)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


class Twice(nn.Module):
    """One layer applied two times, so with two rows a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Case(NamedTuple):
    """A network, its samples, options of the trainer, and the ranks of its first two steps."""

    network: Callable[[], nn.Module]
    loader: Callable[[], Any]
    options: dict[str, Any]
    ranks: list[list[int]]


CASES = {
    "one batch": Case(lambda: dense(6, 5), lambda: samples(6), {}, [[1], [1]]),
    "accumulated": Case(
        lambda: dense(6, 5),
        lambda: samples(6),
        {"accumulate_grad_batches": 2},
        [[2], [2]],
    ),
    "accumulated unevenly": Case(
        lambda: dense(8, 7, 6),
        lambda: samples(8),
        {"accumulate_grad_batches": 3},
        [[3, 3], [1, 1]],  # the epoch's end steps with what there is
    ),
    "groups": Case(
        lambda: nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64),
        lambda: samples(4, 3, 3),
        {},
        [[1, 1], [1, 1]],
    ),
    "groups and positions": Case(
        lambda: nn.Conv1d(12, 15, 3, groups=3, dtype=torch.float64),
        lambda: samples(12, 4),
        {},
        [[2, 2, 2], [2, 2, 2]],  # two positions
    ),
    "groups, accumulated": Case(
        lambda: nn.Conv2d(8, 10, 3, groups=2, dtype=torch.float64),
        lambda: samples(8, 3, 3),
        {"accumulate_grad_batches": 2},
        [[2, 2], [2, 2]],
    ),
    "a layer used twice": Case(Twice, lambda: samples(6), {}, [[2], [2]]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rank_of_a_step_is_counted_and_no_more(name: str, fit: Any, rows: Any) -> None:
    case, bound = CASES[name], RankBound()
    torch.manual_seed(0)
    module = Foreign(case.network())
    options = {"limit_train_batches": case.options.get("accumulate_grad_batches", 1)}
    fit(module, case.loader(), 1, [bound], **case.options, **options)
    assert [step.ranks for step in bound._steps] == case.ranks[:1]
    weights = matrices(module)
    for weight, rank in zip(weights, case.ranks[0], strict=True):
        sigma = np.linalg.svd(weight.numpy(), compute_uv=False)
        assert sigma[rank - 1] > 1e-6 * sigma[0]
        assert sigma[rank] < 1e-13 * sigma[0]  # so the case does leave a tail to look at
    ratios = ratios_of(rows)
    assert len(ratios) == len(weights) == len(case.ranks[0])
    assert all(0 < ratio <= 1 for ratio in ratios)

    # All four samples: every step starts to count anew.
    bound = RankBound()
    fit(Foreign(case.network()), case.loader(), 1, [bound], **case.options)
    assert [step.ranks for step in bound._steps][:2] == case.ranks


@pytest.mark.parametrize("name", CASES)
def test_one_row_less_breaks_the_bound(name: str, fit: Any, monkeypatch: Any) -> None:
    case = CASES[name]
    monkeypatch.setattr(rank_bound, "_plain_rank", lambda weight, rows: rows - 1)
    with pytest.raises(TheoremError, match="tail bound is broken"):
        fit(Foreign(case.network()), case.loader(), 1, [RankBound()], **case.options)


def test_looks_between_the_steps_are_not_counted(fit: Any) -> None:
    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            pl_module.network(torch.ones(50, 6, dtype=torch.float64))

    bound = RankBound()
    options = {"accumulate_grad_batches": 2}
    fit(Foreign(dense(6, 5)), samples(6), 1, [bound, Look()], **options)
    assert [step.ranks for step in bound._steps] == [[2], [2]]


@pytest.mark.parametrize("decays", [(5.0, 0.0), (0.0, 5.0)])
@pytest.mark.parametrize("rates", [(0.1, 0.01), (0.01, 0.1)])
def test_every_weight_has_its_own_rate_and_decay(
    decays: Any, rates: Any, fit: Any, rows: Any
) -> None:
    def groups(network: nn.Sequential) -> Any:
        options = zip((network[0], network[2]), rates, decays, strict=True)
        return [
            {"params": layer.parameters(), "lr": eta, "weight_decay": wd}
            for layer, eta, wd in options
        ]

    bound, module = RankBound(), Foreign(dense(9, 8, 7), groups)
    fit(module, samples(9), 2, [bound])
    expected = [1 - eta * wd for eta, wd in zip(rates, decays, strict=True)]
    for step in bound._steps:
        assert step.kept.tolist() == pytest.approx(expected, rel=1e-15)
    ratios = ratios_of(rows)
    assert len(ratios) == 4, "two layers in two epochs"
    assert all(0 < ratio <= 1 for ratio in ratios)


def test_a_weight_that_no_gradient_reaches_does_not_decay(fit: Any, rows: Any) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = dense(6, 5), dense(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    bound, module = RankBound(), Foreign(Unused())
    start = module.network.unused[0].weight.detach().clone()
    fit(module, samples(6), 1, [bound])
    assert torch.equal(module.network.unused[0].weight, start)
    assert [step.kept.tolist() for step in bound._steps] == [[0.0, 1.0]] * 4
    assert rows[-1]["tail_bound/ratio/network_unused_0"] == pytest.approx(1, rel=1e-10)


def test_attention_calls_no_output_layer_and_any_rank_is_allowed(fit: Any, rows: Any) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x)[0]

    fit(Foreign(Attention()), samples(3, 6), 1, [RankBound()])
    # The packed projection is read by other callbacks, but no layer of its own applies it.
    assert bounds_of(rows[-1]) == {"tail_bound/vacuous/network_inner_out_proj": 1.0}


def test_a_weight_that_modules_share_is_left_out(fit: Any, rows: Any) -> None:
    network = dense(6, 6, 6, 5)
    network[2].weight = network[0].weight
    fit(Foreign(network), samples(6), 1, [RankBound()])
    layers = {key.rpartition("/")[2] for row in rows for key in bounds_of(row)}
    assert layers == {"network_4"}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.Embedding])
def test_a_module_without_a_layer_of_known_rank_is_refused(kind: Any, fit: Any, rows: Any) -> None:
    module = Foreign(kind(6, 5))
    with pytest.raises(
        UsageError, match=r"callbacks\.RankBound: got 'Foreign', allowed: .*plain w"
    ):
        fit(module, samples(6), 1, [RankBound()])
    assert rows == []


def test_chosen_layers_alone_are_recorded_and_each_as_among_all(fit: Any, rows: Any) -> None:
    found = []
    for chosen in (None, ["*_0", "*_4"]):
        rows.clear()
        torch.manual_seed(0)
        groups = lambda m: [{"params": m.parameters(), "weight_decay": 5.0}]  # noqa: E731
        module = Foreign(dense(9, 8, 7, 6), groups)
        fit(module, samples(9), 1, [RankBound(layers=chosen)])
        found.append(bounds_of(rows[-1]))
    every, some = found
    assert {key.rpartition("/")[2] for key in every} == {"network_0", "network_2", "network_4"}
    assert some == {k: v for k, v in every.items() if not k.endswith("_2")}
    assert len(some) == 4


def test_a_glob_that_matches_no_bounded_layer_is_refused(fit: Any, rows: Any) -> None:
    """Other callbacks read the packed projection, so that it is a layer."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x)[0]

    says = r"callbacks\.RankBound\.layers: got '\*_q', .*match a layer: network_inner_out_proj$"
    with pytest.raises(UsageError, match=says):
        fit(Foreign(Mixed()), samples(3, 6), 1, [RankBound(layers=["*_q"])])
    fit(Foreign(Mixed()), samples(3, 6), 1, [LayerRank(1, layers=["*_q"])])
    assert {key.partition("/")[2] for key in rows[0] if key.startswith("rank/")} == {
        "network_inner_q"
    }


def test_optimizers_that_take_turns(fit: Any, rows: Any) -> None:
    """One backward pass, then a step of each: the second still has its gradient to take."""

    class Turns(Foreign):
        def __init__(self) -> None:
            super().__init__(dense(9, 8, 7))
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self) -> Any:
            layers = (self.network[0], self.network[2])
            return [torch.optim.SGD(m.parameters(), ETA, weight_decay=ALL) for m in layers]

    bound, module = RankBound(), Turns()
    fit(module, samples(9, n=2), 1, [bound])
    assert [step.ranks for step in bound._steps] == [[1, 0], [0, 1]] * 2
    assert [step.kept.tolist() for step in bound._steps] == [[0.0, 1.0], [1.0, 0.0]] * 2
    ratios = ratios_of(rows)
    assert len(ratios) == 2
    assert all(0 < ratio <= 1 for ratio in ratios)
    # eta_t is the first optimizer's; the trainer counts the steps of both.
    assert (rows[-1]["trainer/global_step"], rows[-1]["eta_t"]) == (4, pytest.approx(2 * ETA))


# Rounding


@pytest.mark.parametrize("size", [1.0, 1e-24, 1e-37, 1e-44])
def test_a_tiny_weight_is_no_violation(size: float, fit: Any, rows: Any) -> None:
    """float32 squares are 0 from 1e-23 down, and near 1e-45 float32 cannot decay any further."""
    torch.manual_seed(0)
    network = nn.Linear(40, 40, bias=False)
    nn.init.normal_(network.weight, std=size)
    groups = lambda m: [{"params": m.parameters(), "weight_decay": 1.0}]  # noqa: E731
    module, bound = Foreign(network, groups, scale=0.0), RankBound()
    fit(module, samples(40, dtype=torch.float32), 10, [bound])
    ratios = ratios_of(rows)
    assert len(ratios) == 10
    assert all(0 < ratio <= 1 for ratio in ratios)
    if size > 1e-38:  # it shrinks as a whole, and all of it but one direction is most of it
        sigma = np.linalg.svd(network.weight.detach().double().numpy(), compute_uv=False)
        tail = np.linalg.norm(sigma[1:]) / np.linalg.norm(sigma)
        # What is allowed for rounding is 2e-6 of the norm 39 steps ago, which was 60 times this.
        assert ratios[-1] == pytest.approx(tail, rel=2e-4)


def test_float64_is_held_to_its_own_rounding(fit: Any, rows: Any) -> None:
    """An eigenvalue of W W^T is good to 1e-8 of sigma_1, which is far above the bound."""
    torch.manual_seed(0)
    network = nn.Linear(40, 40, bias=False, dtype=torch.float64)
    groups = lambda m: [{"params": m.parameters(), "weight_decay": 9.0}]  # noqa: E731
    fit(Foreign(network, groups), samples(40, n=15), 1, [RankBound()])
    (ratio,) = ratios_of(rows)
    assert 0 < ratio <= 1


def test_the_ratio_is_to_the_bound_and_its_rounding(fit: Any, rows: Any, monkeypatch: Any) -> None:
    class Before(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            norms.append(float(pl_module.network[0].weight.detach().norm()))

    norms: list[float] = []
    monkeypatch.setattr(rank_bound, "ROUNDINGS", 2.0**48)  # so that it counts
    torch.manual_seed(0)
    groups = lambda m: [{"params": m.parameters(), "weight_decay": 5.0}]  # noqa: E731
    module = Foreign(dense(9, 8), groups)
    fit(module, samples(9, n=7), 1, [RankBound(), Before()])
    sigma = np.linalg.svd(module.network[0].weight.detach().numpy(), compute_uv=False)
    by_hand = []
    for n in range(1, 8):
        allowed = 0.5**n * norms[-n] + 2.0**48 * 2.0**-52 * n * max(norms)
        by_hand.append(np.linalg.norm(sigma[n:]) / allowed)
    assert ratios_of(rows) == pytest.approx([max(by_hand)], rel=1e-10)


# What is no number


class Spoil(Callback):
    """Puts one entry into the first layer after the last step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.is_last_batch:
            with torch.no_grad():
                pl_module.network[0].weight[0, 0] = self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tail_that_is_no_number_is_a_violation(
    value: float, dtype: Any, fit: Any, rows: Any
) -> None:
    module = Foreign(dense(6, 5).to(dtype))
    with pytest.raises(TheoremError, match="beyond rank 1 is nan"):
        fit(module, samples(6, dtype=dtype), 1, [RankBound(), Spoil(value)])
    assert rows[-1]["epoch"] == 1  # the row that shows it is there
    assert math.isnan(rows[-1]["tail_bound/ratio/network_0"])


@pytest.mark.parametrize("normalization", ["weight_norm", "none"])
@pytest.mark.parametrize("eta", [1e6, 1e200])
def test_divergence_of_a_task_stays_what_it_is(
    normalization: str, eta: float, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    options = {"learning_rate": eta, "normalization": normalization, "loss": "exponential"}
    sgd = lambda p, lr: torch.optim.SGD(p, lr)  # noqa: E731
    task = small_task(optimizer=sgd, init_scale=0.8, **options).double()
    loader = small_loader(n=3, batch_size=1, dtype=torch.float64)
    with pytest.raises(DivergenceError):
        fit(task, loader, 3, [RankBound()])
    assert rows[-1]["diverged"]


# What verify makes of the record


def run_of(rows: list[dict[str, float]], exit_code: int = 0) -> Run:
    axes = [{"epoch": n, "trainer/global_step": 3 * n} for n in range(len(rows))]
    frame = pd.DataFrame([axis | row for axis, row in zip(axes, rows, strict=True)])
    return Run("bounded", "bounded", None, Path("bounded"), {}, exit_code, frame)


def looked(ratio: float | None) -> dict[str, float]:
    """A row of RankBound; None: W&B's text for a number that is none, which no record keeps."""
    row = {"tail_bound/vacuous/fc1": 0.0, "tail_bound/vacuous/conv1": 1.0}
    return row if ratio is None else row | {"tail_bound/ratio/fc1": ratio}


VACUOUS = {"tail_bound/vacuous/fc1": 1.0, "tail_bound/vacuous/conv1": 1.0}
UNLOOKED = {"train/loss_running": 0.5}


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ([UNLOOKED, looked(0.5), UNLOOKED, looked(1.0)], True),
        ([VACUOUS, looked(0.5)], True),
        ([looked(0.5), looked(1.0005)], False),
        ([looked(0.5), looked(math.nan), looked(0.5)], False),
        ([looked(0.5), looked(None), looked(0.5)], False),
        ([looked(None), looked(None)], False),
        ([looked(0.5), looked(math.inf)], False),
    ],
)
def test_verify_takes_every_look_for_a_number(rows: list[dict[str, float]], holds: bool) -> None:
    (finding,) = tails_are_bounded([run_of(rows)])
    assert isinstance(finding, Finding)
    assert finding.holds is holds
    assert "vacuous for conv1" in finding.measured
    looks = sum(row.get("tail_bound/vacuous/fc1") == 0 for row in rows)
    assert f"({looks} rows)" in finding.measured


def test_verify_needs_a_bound_that_says_something() -> None:
    assert tails_are_bounded([run_of([UNLOOKED])]) == []
    (missing,) = tails_are_bounded([run_of([VACUOUS, UNLOOKED])])
    assert isinstance(missing, Missing)


@pytest.mark.parametrize("spoiled", [False, True])
def test_verify_and_the_callback_agree_on_a_real_record(
    spoiled: bool, tmp_path: Path, fit: Any
) -> None:
    """A bound of 0, which rounding exceeds; and NaN, which W&B's reader hands out as text."""
    torch.manual_seed(0)
    used = [RankBound(), Spoil(math.nan)] if spoiled else [RankBound()]
    module, logger = Foreign(dense(6, 5)), RunLogger(run_dir=tmp_path)
    if spoiled:
        with pytest.raises(TheoremError):
            fit(module, samples(6), 1, used, logger=logger)
    else:
        fit(module, samples(6), 1, used, logger=logger)
    wandb.finish()
    (run,) = read([tmp_path]).runs
    assert run.exit_code == (5 if spoiled else 0)
    (finding,) = tails_are_bounded([replace(run, exit_code=0)])  # the ratios alone have to tell
    assert isinstance(finding, Finding)
    assert finding.holds is not spoiled
