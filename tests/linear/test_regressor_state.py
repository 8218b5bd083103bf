"""Linear regression in parts, and what it keeps: rows, windows, the first epoch of a divergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from training.test_going_on import Stop, same

from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.data import LinearProblem
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.linear.replicas import LinearTraining
from janus_pl.run.rows import Table, plain_row
from janus_pl.training.resume import ExactResume

Rows = list[dict[str, Any]]
SMALL = {"num_train": 7, "dim": 9, "outputs": 3, "batch_size": 2}
EPOCHS = 60


class SaveAt(Checkpoint):
    """Saves a checkpoint at a look of the callbacks, and ends the part."""

    def __init__(self, epoch: int | None, path: Path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.epoch is not None and pl_module.completed() >= self.epoch:
            trainer.save_checkpoint(self.path)
            raise Stop


@pytest.fixture
def run(fit: Any, rows: Rows, tmp_path: Path) -> Any:
    """A run in parts that end at the first looks from these epochs on."""

    def go(
        ends: Sequence[int] = (), early: bool = False, change: Any = None, **options: Any
    ) -> tuple[Rows, torch.Tensor, list[Any], LinearRegressor]:
        rows.clear()
        path = None
        epochs, data = options.pop("epochs", EPOCHS), {**SMALL, "order": "shuffle"}
        defaults = {"learning_rate": 0.05, "schedule": "cosine", "looks_per_decade": 20}
        for number, end in enumerate([*ends, None]):
            if change and end is None:
                epochs, data = change.get("epochs", epochs), {**data, **change.get("data", {})}
            looks: list[Callback] = [MarginHistogram(2), LayerVelocity(1, 4), LayerRank(16)]
            extra: list[Callback] = [ExactResume(goes_on=path is not None)]
            if early:
                extra += [EarlyStopping("train/loss", patience=10_000, verbose=False)]
            following = tmp_path / f"{number}.ckpt"
            module = LinearRegressor(**{**defaults, **options})
            keep = {"enable_checkpointing": True, "ckpt_path": path}
            try:
                fit(
                    module,
                    LinearProblem(**data),
                    epochs,
                    [*looks, *extra, SaveAt(end, following)],
                    **keep,
                )
            except Stop:
                path = following
        states = [look.state_dict() for look in looks]
        return [plain_row(row) for row in rows], module.weight.detach().clone(), states, module

    return go


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("options", [{}, {"weight_decay": [0.01, 0.1]}], ids=["one", "replicas"])
@pytest.mark.parametrize(
    "ends", [(1, 2), (10, 20, 30), (49,), (49, 51)], ids=["start", "middle", "fifth", "tenths"]
)
def test_in_parts_it_is_the_same_run(
    ends: Sequence[int], options: Any, early: bool, run: Any
) -> None:
    """Also where the last fifth, whose noise the last row has, is in several parts."""
    whole, parts = run(early=early, **options), run(ends, early, **options)
    plan = whole[3].replicas.plan
    assert [row["epoch"] for row in whole[0]] == [0, *plan.records]
    assert len(plan.records) > 20 and len([look for look in plan.looks if look > 48]) > 1
    assert [row["epoch"] for row in parts[0]] == [row["epoch"] for row in whole[0]]
    for one, other in zip(parts[0], whole[0], strict=True):
        assert one.keys() == other.keys(), one["epoch"]
        assert [key for key in one if not same(one[key], other[key])] == [], one["epoch"]
    assert "noise/weights_last_tenth" in parts[0][-1]
    assert ("replicas" in parts[0][-1]) == bool(options)
    assert torch.equal(parts[1], whole[1])
    assert same(parts[2], whole[2])


@pytest.mark.parametrize("options", [{}, {"weight_decay": [0.01, 0.1]}], ids=["one", "replicas"])
def test_broken_off_after_its_last_checkpoint_it_has_the_last_row_of_the_whole_run(
    options: Any, run: Any
) -> None:
    """At its last look, with nothing left to do but to write that row."""
    whole, parts = run(early=True, **options), run((57,), early=True, **options)
    assert [row["epoch"] for row in parts[0]] == [row["epoch"] for row in whole[0]]
    assert same(parts[0], whole[0])


def test_the_table_of_replicas_has_the_numbers_of_the_end(run: Any, rows: Rows) -> None:
    *_, module = run(weight_decay=[0.01, 0.1, 0.5])
    table = rows[-1]["replicas"]
    assert isinstance(table, Table)
    column = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    norms = [float(torch.linalg.vector_norm(w)) for w in module.weight.detach()]
    assert column["rho"] == pytest.approx(norms, rel=1e-12)
    assert column["weight_decay"] == (0.01, 0.1, 0.5)
    x, y, _ = (torch.from_numpy(np.asarray(a[0])) for a in module.data.problem)
    losses = [float((w @ x - y).square().sum(0).mean()) for w in module.weight.detach()]
    assert column["train/loss"] == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data": {"seed": 5}}, r"data.seed: got 5, allowed: 0, as in the checkpoint"),
        ({"data": {"batch_size": 3}}, "data.batch_size"),
        ({"data": {"order": "sequential"}}, "data.order"),
        ({"epochs": 70}, "trainer.max_epochs"),  # of a cosine
    ],
)
def test_what_a_run_that_goes_on_may_not_change(options: Any, says: str, run: Any) -> None:
    with pytest.raises(UsageError, match=says):
        run((10,), change=options)
    run((10,), change={})


def test_a_longer_constant_run_goes_on_and_knows_its_own_last_fifth(run: Any) -> None:
    """Windows of the shorter run's last fifth are no part of the longer one's."""
    whole = run(epochs=100, schedule="constant")
    parts = run((50,), schedule="constant", change={"epochs": 100})
    assert torch.equal(parts[1], whole[1])
    assert parts[0][-1].keys() == whole[0][-1].keys() and parts[0][-1]["epoch"] == 100
    assert same(parts[0][-1], whole[0][-1])
    assert [end for end, _ in parts[3].record._windows] == [
        end for end, _ in whole[3].record._windows
    ]


# A divergence

RATES = [0.05, 0.4, 3.0]  # sound; late; early


def lost_at(rate: float, lam: float, epochs: int) -> int:
    """The number of epochs after which W is not finite, by the plain loop; -1 if it always is."""
    data = LinearProblem(**SMALL, order="sequential")
    data.setup()
    x, y, w0 = (np.asarray(a[0]) for a in data.problem)
    w = w0.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(epochs):
            for first in range(0, 7, 2):
                some = slice(first, min(first + 2, 7))
                count = some.stop - some.start
                residual = w @ x[:, some] - y[:, some]
                w = (1 - 2 * rate * lam) * w - 2 * rate / count * residual @ x[:, some].T
            if not np.isfinite(w).all():
                return epoch
    return -1


def training(rates: Sequence[float], epochs: int) -> LinearTraining:
    data = LinearProblem(**SMALL, order="sequential")
    data.setup()
    w = torch.from_numpy(data.w0()).repeat_interleave(len(rates), 0)
    options: Any = ("constant", "paper", epochs, 50, 5)
    return LinearTraining(data, [0.01], list(rates), *options, w)


def test_the_first_epoch_that_is_lost_stays_and_w_before_a_piece_is_kept() -> None:
    """However many pieces follow it."""
    epochs = 2000
    expected = [lost_at(rate, 0.01, epochs) for rate in RATES]
    assert expected[0] == -1 and 0 < expected[2] < expected[1] < epochs
    run = training(RATES, epochs)
    while run.plan.done < epochs:
        for piece in run.plan:
            before = run.weight.clone()
            run.run(piece)
            assert torch.equal(run.sound.nan_to_num(9), before.nan_to_num(9))
            assert run.sound.data_ptr() != run.weight.data_ptr()
            lost = [first if 0 <= first < piece.last else -1 for first in expected]
            assert run.diverged.tolist() == lost


@pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")
def test_a_run_ends_with_the_last_of_its_replicas_and_names_that_one(fit: Any, rows: Rows) -> None:
    late, early = lost_at(0.4, 0.01, 5000), lost_at(3.0, 0.01, 5000)
    assert early < late
    module = LinearRegressor(learning_rate=[0.4, 3.0], schedule="constant")
    says = rf"in all 2 replicas at epoch {late + 1}, .* learning rate 0.4, lambda 0.01"
    with pytest.raises(DivergenceError, match=says):
        fit(module, LinearProblem(**SMALL, order="sequential"), 100_000)
    assert (rows[-1]["diverged"], rows[-1]["epoch"]) == (2, late + 1)
    assert rows[-1]["eta_t"] >= 0.4 * 4 * late
    epochs = [row["epoch"] for row in rows]
    assert epochs == sorted(set(epochs)), "each row once, the one of the outcome last"
    assert module.weight[0].isfinite().all(), "the last sound one"
