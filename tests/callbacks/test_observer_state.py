"""What callbacks keep: over an epoch, over a checkpoint, and from one module to the next."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import LinearRegressor
from janus_pl.callbacks import (
    EquilibriumResidual,
    GradientNoise,
    LayerRank,
    LayerVelocity,
    MarginCSV,
    MarginHistogram,
    NeuralCollapse,
    NoiseTime,
    Observer,
    ProgressBar,
    RankBound,
    Sharpness,
    UpdateSplit,
)
from janus_pl.callbacks._observer import Mean
from janus_pl.callbacks.rank_bound import Step
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.observables.time_noise import Window
from janus_pl.run.rows import plain_row
from janus_pl.training.any_module import AnyModule
from janus_pl.training.task import JanusTask

# The mean of an epoch


def test_a_mean_is_of_what_was_added_since_it_was_cleared() -> None:
    mean = Mean()
    assert mean.result() is None
    for values in ([1.0, 2.0, 6.0], [5.0], [7.0, 8.0]):
        mean.clear()
        assert mean.result() is None
        for n, value in enumerate(values, start=1):
            mean.add(torch.tensor([value, -value]))
            expected = sum(values[:n]) / n
            found = mean.result()
            assert found is not None and found.tolist() == [expected, -expected]


def test_a_mean_leaves_what_it_is_given_as_it_is() -> None:
    mean, first = Mean(), torch.tensor([1.0])
    mean.add(first)
    mean.add(torch.tensor([3.0]))
    assert first.tolist() == [1.0]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_mean_goes_on_from_its_state(steps: int) -> None:
    whole, first, second = Mean(), Mean(), Mean()
    second.add(torch.tensor(99.0))  # of another life
    for value in range(steps):
        whole.add(torch.tensor(float(value)))
        first.add(torch.tensor(float(value)))
    second.load(first.state())
    for mean in (whole, second):
        mean.add(torch.tensor(10.0))
    assert second.steps == whole.steps == steps + 1
    assert torch.equal(second.result(), whole.result())


# When an observer looks


class Eye(Observer):
    """Notes when it looks."""

    def __init__(self, every_n_epochs: int) -> None:
        super().__init__(every_n_epochs)
        self.seen: list[int] = []

    def observe(self, trainer: Any, subject: Any) -> dict[str, float]:
        self.seen.append(subject.completed())
        return {}


class Task(JanusTask):
    """A task at an epoch."""

    directions = scale = velocities = velocity_norms = full_velocity_norms = None  # type: ignore
    output_margins = margins = None  # type: ignore[assignment]

    def __init__(self, epoch: int = 0) -> None:
        super().__init__()
        self.epoch = epoch

    def layers(self) -> list[str]:
        return ["a", "b"]

    def split_layers(self) -> list[str]:
        return self.layers()

    def bounded(self) -> dict[str, Any]:
        return {}

    def completed(self) -> int:
        return self.epoch


def trainer_at(epoch: int, last: int, stops: bool = False) -> Any:
    ends = {"max_epochs": last, "max_steps": -1, "current_epoch": epoch - 1, "global_step": epoch}
    return SimpleNamespace(**ends, should_stop=stops, world_size=1, callbacks=[], loggers=[])


def run(
    eye: Eye, begin: int, end: int, last: int, stops: bool = False, is_over: bool = True
) -> Any:
    """Epochs `begin` + 1 to `end` of a run of `last` in all, `stops`: ended by early stopping."""
    task = Task(begin)
    eye.on_train_start(trainer_at(begin, last), task)
    for task.epoch in range(begin + 1, end + 1):
        eye.on_train_epoch_end(trainer_at(task.epoch, last), task)
    if is_over:
        eye.on_train_end(trainer_at(task.epoch, last, stops), task)
    return eye.state_dict()


def test_weights_of_an_earlier_task_are_not_those_of_one_without_any(
    fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    """Linear regression takes its steps by itself, and has no tail that Lightning's steps bound."""
    bound = RankBound()
    fit(small_task(optimizer=lambda p, lr: torch.optim.SGD(p, lr)), small_loader(), 1, [bound])
    assert bound.state_dict()["steps"]
    rows.clear()
    problem = LinearProblem(num_train=7, dim=9, outputs=3)
    says = "RankBound: got 'LinearRegressor', allowed: .* trained by the steps of Lightning"
    with pytest.raises(UsageError, match=says):
        fit(LinearRegressor(learning_rate=0.05), problem, 3, [bound])
    assert rows == []
    off = RankBound(0)
    off.load_state_dict(bound.state_dict())
    fit(LinearRegressor(learning_rate=0.05), problem, 3, [off])
    assert rows and not [key for row in rows for key in row if key.startswith("tail_bound")]


@pytest.mark.parametrize(
    ("every", "end", "stops", "seen"),
    [
        (1, 3, False, [0, 1, 2, 3]),
        (4, 9, False, [0, 1, 2, 4, 8, 9]),
        (4, 8, False, [0, 1, 2, 4, 8]),
        (4, 7, True, [0, 1, 2, 4, 7]),  # the end that nobody knew of
        (4, 4, True, [0, 1, 2, 4]),  # which it had looked at by then
        (0, 5, False, []),
        (0, 5, True, []),
    ],
)
def test_each_due_epoch_and_the_last_one_is_looked_at_once(
    every: int, end: int, stops: bool, seen: list[int]
) -> None:
    eye = Eye(every)
    run(eye, 0, end, last=100 if stops else end, stops=stops)
    assert eye.seen == seen


@pytest.mark.parametrize("cut", range(8))
def test_a_run_that_goes_on_is_looked_at_as_the_whole_one(cut: int) -> None:
    """Epoch 0 is not looked at again, and an end that came after the cut is looked at."""
    whole = Eye(4)
    run(whole, 0, 7, last=100, stops=True)
    first, second = Eye(4), Eye(4)
    state = run(first, 0, cut, last=100, is_over=False)
    second.setup(trainer_at(cut, 100), Task(), "fit")
    second.load_state_dict(state)
    run(second, cut, 7, last=100, stops=True)
    again = [0] if cut == 0 else []  # saved before the first step, the start is looked at anew
    assert [*first.seen, *second.seen] == [*again, *whole.seen]
    assert second.state_dict() == whole.state_dict() == {"last_seen": 7}


def test_a_shorter_second_fit_is_looked_at_to_its_end() -> None:
    eye = Eye(100)
    run(eye, 0, 7, last=7)
    eye.seen.clear()
    eye.setup(trainer_at(0, 100), Task(), "fit")
    run(eye, 0, 3, last=100, stops=True)
    assert eye.seen == [0, 1, 2, 3]


# What a checkpoint holds of each


def test_two_of_a_kind_with_other_options_have_states_of_their_own() -> None:
    kinds = [
        (MarginHistogram(1), MarginHistogram(2), MarginHistogram(1, bins=5)),
        (LayerVelocity(1), LayerVelocity(2)),
        (LayerRank(1), LayerRank(1, tolerance=0.5), LayerRank(1, tolerances=(0.5,))),
        (RankBound(1), RankBound(1, window=3)),
        (GradientNoise(1), GradientNoise(1, seed=1), GradientNoise(1, batch_size=3)),
        (GradientNoise(1), GradientNoise(1, gram=2), GradientNoise(1, gram=2, products=9)),
        (UpdateSplit(1), UpdateSplit(2)),
        (Sharpness(1), Sharpness(1, samples=9), Sharpness(1, tolerance=0.5)),
        (NeuralCollapse(1), NeuralCollapse(2), NeuralCollapse(1, layers=["a"])),
        (NoiseTime(9), NoiseTime(8), NoiseTime(9, window=9), NoiseTime(9, samples=9)),
        (EquilibriumResidual(1), EquilibriumResidual(2)),
    ]
    for several in kinds:
        keys = {callback.state_key for callback in several}
        assert len(keys) == len(several)
        assert all(type(several[0]).__name__ in key for key in keys)
    assert MarginHistogram(3).state_key == MarginHistogram(3).state_key


def test_a_state_key_does_not_depend_on_what_has_happened() -> None:
    callback = LayerVelocity(2, 1)
    before = callback.state_key
    callback._last_seen = 5
    callback._mean.add(torch.ones(2))
    callback.full._last_seen = 4
    assert callback.state_key == before


def lived() -> list[tuple[Observer, Observer]]:
    """Callbacks with something to keep, and fresh ones of the same options."""
    velocity, split, bound, rank = (
        LayerVelocity(2, 3),
        UpdateSplit(2),
        RankBound(2, 3),
        LayerRank(5),
    )
    velocity.full._last_seen = 3
    velocity._mean.add(torch.tensor([1.0, 2.0]))
    velocity._mean.add(torch.tensor([2.0, 4.0]))
    split._buffers = {"a": {"gradient": torch.ones(2, 3), "decay": torch.zeros(2, 3)}}
    split._total, split._steps = torch.tensor([[3.0, 6.0]]), torch.tensor([[2, 3]])
    kept, norms = torch.tensor([0.5, 0.25]), torch.tensor([2.0, 3.0]).double()
    bound._steps.extend(Step(kept * n, norms * n, [n, 2 * n]) for n in (1, 2, 3))
    bound._broken = "why"
    pairs: list[tuple[Observer, Observer]] = [
        (velocity, LayerVelocity(2, 3)),
        (split, UpdateSplit(2)),
        (bound, RankBound(2, 3)),
        (rank, LayerRank(5)),
    ]
    noise = NoiseTime(9)
    noise._windows = {9: {"": Window(), "a": Window()}}
    for window in noise._windows[9].values():
        window.add(torch.ones(2, 3))
        window.add(torch.zeros(2, 3))
    pairs.append((noise, NoiseTime(9)))
    for number, (callback, _) in enumerate(pairs):
        callback._last_seen = 7 + number
    return pairs


@pytest.mark.parametrize("which", range(5))
def test_a_state_is_whole_plain_and_loads_into_another(which: int, tmp_path: Path) -> None:
    before, after = lived()[which]
    torch.save(before.state_dict(), tmp_path / "state")
    after.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert repr(after.state_dict()) == repr(before.state_dict())
    assert after._last_seen == 7 + which
    if isinstance(after, LayerVelocity):
        assert after.full._last_seen == 3
        assert after._mean.result().tolist() == [1.5, 3.0]
    elif isinstance(after, UpdateSplit):
        assert after._total is not None and after._steps is not None
        assert (after._total / after._steps).tolist() == [[1.5, 2.0]]
        assert {k: float(v.sum()) for k, v in after._buffers["a"].items()} == {
            "gradient": 6.0,
            "decay": 0.0,
        }
    elif isinstance(after, RankBound):
        assert [step.ranks for step in after._steps] == [[1, 2], [2, 4], [3, 6]]
        assert after._broken == "why"


@pytest.mark.parametrize("which", range(5))
def test_a_setup_forgets_an_earlier_fit(which: int) -> None:
    callback, fresh = lived()[which]
    assert repr(callback.state_dict()) != repr(fresh.state_dict())
    callback.setup(trainer_at(0, 9), Task(), "fit")
    assert repr(callback.state_dict()) == repr(fresh.state_dict())


def test_the_window_is_as_long_after_a_resume(fit: Any, small_task: Any, small_loader: Any) -> None:
    bound = RankBound(1, window=2)
    optimizer = lambda p, lr: torch.optim.SGD(p, lr)  # noqa: E731
    fit(small_task(optimizer=optimizer), small_loader(), 2, [bound])
    assert len(bound._steps) == bound._steps.maxlen == 2


# From one module to the next


class Foreign(LightningModule):
    """A network of two classes, or what has no layers at all."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        torch.manual_seed(sum(sizes))
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.network = nn.Sequential(*layers)
        self.free = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return (self.free * nn.functional.cross_entropy(self(x), (y > 0).long())).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def pairs_of(size: int, labels: tuple[int, ...] = (0, 1)) -> DataLoader:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(6, size, generator=generator)
    y = torch.tensor([labels[n % len(labels)] for n in range(6)])
    return DataLoader(TensorDataset(x, y), batch_size=3)


def test_the_next_module_is_looked_at_and_not_the_one_before(fit: Any, rows: Any) -> None:
    """Of other layers, and by the same callbacks; a fresh set sees the same."""

    def looks() -> list[Any]:
        return [LayerVelocity(), LayerRank(1), NeuralCollapse(1), RankBound(), UpdateSplit(1)]

    used, fresh = looks(), looks()
    fit(Foreign(5, 4, 2), pairs_of(5), 1, used)
    records = []
    for looking in (used, fresh):
        rows.clear()
        fit(Foreign(7, 6, 3, 2), pairs_of(7), 1, looking)
        records.append([plain_row(row) for row in rows])
    second, alone = records
    assert {f"velocity/network_{k}" for k in range(3)} <= second[-1].keys()
    assert [row["epoch"] for row in second] == [0, 1]
    assert second == alone
    kinds = {key.split("/")[0] for key in second[-1]}
    assert {"collapse", "update", "tail_bound", "rank", "spectrum_table"} <= kinds


def test_a_module_without_anything_to_read_after_one_with_it(
    fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    """It is refused, and what was refused reads the next one."""
    looks = [GradientNoise(1, batch_size=2, batches=2), RankBound()]
    options = {"optimizer": lambda p, lr: torch.optim.SGD(p, lr)}
    fit(small_task(**options), small_loader(), 1, looks)
    assert any(key.startswith("gradient_noise") for key in rows[-1])
    rows.clear()
    with pytest.raises(UsageError, match="GradientNoise: got 'LinearRegressor', allowed: a mod"):
        fit(LinearRegressor(), LinearProblem(num_train=7, dim=9), 1, looks)
    assert rows == []
    fit(small_task(**options), small_loader(), 1, looks)
    assert any(key.startswith("gradient_noise") for key in rows[-1])
    assert any(key.startswith("tail_bound") for key in rows[-1])


@pytest.mark.parametrize("make", [NeuralCollapse, MarginHistogram])
def test_what_is_declined_of_one_module_is_read_of_the_next(
    make: Any, fit: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    look = make(1)
    fit(Foreign(5, 2), pairs_of(5, (0, 7)), 2, [look])
    says = f"{make.__name__} records nothing of Foreign: its labels are not"
    said = [r.getMessage() for r in caplog.records if make.__name__ in r.getMessage()]
    assert len(said) == 1 and said[0].startswith(says)
    own = ("collapse/", "margin")
    assert len(rows) == 3 and not [key for row in rows for key in row if key.startswith(own)]
    rows.clear()
    fit(Foreign(5, 2), pairs_of(5), 2, [look])
    assert [any(key.startswith(own) for key in row) for row in rows] == [True] * 3
    assert len([r for r in caplog.records if make.__name__ in r.getMessage()]) == 1


def test_a_second_predict_writes_its_own_margins(
    small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    from lightning.pytorch import Trainer

    file = MarginCSV(str(tmp_path / "margins.csv"))
    for n in (7, 4):
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=[file],
            enable_progress_bar=False,
            default_root_dir=tmp_path,
        )
        trainer.predict(small_task(), small_loader(n=n, batch_size=3, order="sequential"))
        lines = (tmp_path / "margins.csv").read_text().splitlines()[1:]
        assert [line.split(",")[:2] for line in lines] == [["train", str(i)] for i in range(n)]


@pytest.mark.parametrize("full", [0, 1])
def test_layers_of_a_velocity_that_are_none_are_refused(
    full: int, fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    """Also if the full velocity alone is asked for."""
    look = LayerVelocity(1 - full, full, layers=["fc1", "fc7"])
    with pytest.raises(UsageError, match=r"LayerVelocity\.layers: got 'fc7', .*: conv1, conv2"):
        fit(small_task(), small_loader(), 1, [look])
    assert rows == []
    fit(small_task(), small_loader(), 1, [LayerVelocity(1 - full, full, layers=["fc*"])])
    name = "velocity_full" if full else "velocity"
    found = {key for key in rows[-1] if key.startswith("velocity")}
    assert found == {f"{name}/fc1", f"{name}/fc2"}


def test_shares_of_a_layer_that_is_computed_from_others_are_refused(fit: Any, rows: Any) -> None:
    module = Foreign(5, 4, 2)
    nn.utils.parametrizations.weight_norm(module.network[0])
    says = r"UpdateSplit\.layers: got '\*_0', allowed: globs that match a layer: network_1"
    with pytest.raises(UsageError, match=says):
        fit(module, pairs_of(5), 1, [UpdateSplit(layers=["*_0"])])
    assert rows == []
    fit(module, pairs_of(5), 1, [UpdateSplit(), LayerVelocity()])
    assert {key.rpartition("/")[2] for key in rows[-1] if key.startswith("update/")} == {
        "network_1"
    }
    assert rows[-1]["velocity/network_0"] > 0


# The bar


def shown(bar: ProgressBar, trains: bool = True, **progress: float) -> dict[str, Any]:
    task = Task()
    task.row.numbers = {k.replace("__", "/"): v for k, v in progress.items()}
    state = SimpleNamespace(fn=TrainerFn.FITTING if trains else TrainerFn.PREDICTING)
    trainer: Any = SimpleNamespace(progress_bar_metrics={}, loggers=[], state=state)
    return dict(bar.get_metrics(trainer, task))


def test_the_bar_shows_the_newest_of_every_number() -> None:
    bar = ProgressBar()
    assert shown(bar) == {}
    first = shown(bar, train__loss=0.5, margin__mean=1e-7, rho=2.0)
    assert first == {"loss": 0.5, "margin": "1.000e-07", "rho": "2.000e+00"}
    second = shown(bar, train__loss_running=0.25, train__loss=0.125, rho=3.0)
    assert second == {"loss": 0.25, "margin": "1.000e-07", "rho": "3.000e+00"}
    assert shown(bar, trains=False, rho=4.0) == second, "it is that of the fit"
    assert shown(ProgressBar(), margin_raw__mean=0.5) == {"margin": "5.000e-01"}


def test_one_bar_is_drawn_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        "janus_pl.callbacks.progress.time", SimpleNamespace(monotonic=lambda: clock.now)
    )
    drawn: list[tuple[int, bool]] = []
    bar, task = ProgressBar(), Task(0)
    task.planned = 50
    monkeypatch.setattr(bar, "_update", lambda bar_id, n, hard=False: drawn.append((n, hard)))
    monkeypatch.setattr(bar, "_update_metrics", lambda trainer, module: None)
    monkeypatch.setattr(bar, "_stop_progress", lambda: None)
    for task.epoch, later in ((1, 0.0), (2, 0.05), (3, 0.06), (4, 0.01), (5, 0.2)):
        clock.now += later
        bar.on_train_batch_end(None, task)
    assert drawn == [(1, False), (3, False), (5, False)]
    bar.on_train_end(None, task)
    assert drawn[-1] == (5, True)


def test_one_bar_is_added_for_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, task = ProgressBar(), Task(0)
    task.planned = 50
    added: list[int] = []

    def add_task(total: int, text: str) -> int:
        added.append(total)
        return 3

    monkeypatch.setattr(bar, "_add_task", add_task)
    bar.progress = object()  # type: ignore[assignment]
    for _ in range(3):
        bar.on_train_epoch_start(None, task)
    assert added == [50]


def test_an_end_that_nobody_knew_of_is_looked_at_by_all(
    fit: Any, small_task: Any, small_loader: Any, rows: Any
) -> None:
    """Also by the full velocity, whose cadence is its own, and at the start."""
    stop = EarlyStopping("train/loss_running", patience=2, min_delta=1e9, verbose=False)
    looks = [LayerVelocity(100, 100), LayerRank(100), UpdateSplit(100)]
    fit(small_task(), small_loader(), 50, [*looks, stop])
    kinds = [{key.split("/")[0] for key in row if key.endswith("/fc1")} for row in rows]
    full = {"velocity_full", "rank", "stable_rank", "effective_rank", "spectrum"}
    for kind, expected in zip(
        kinds, [full, full | {"velocity", "update"}, full | {"velocity", "update"}], strict=False
    ):
        assert expected <= kind
    assert rows[-1]["epoch"] == 3, "which is not due"
    assert full | {"velocity", "update"} <= kinds[-1]


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()),
            "network_0; skipped: network_0_bias (a vector), network_1 (a vector),"
            " network_1_bias (a vector)",
        ),
        (
            nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU()),
            "network_0; skipped: none",
        ),
        (
            nn.Sequential(nn.LayerNorm((2, 3)), nn.Conv1d(2, 2, 3, groups=2, bias=False)),
            "no layer; skipped: network_0 (scales each feature by itself),"
            " network_0_bias (scales each feature by itself), network_1 (each group is a vector)",
        ),
        (nn.Sequential(nn.ReLU()), "no layer; skipped: none"),
    ],
)
def test_what_is_skipped_has_weights_of_its_own(
    network: nn.Module, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Containers and activations have none, and are not spoken of."""
    module = LightningModule()
    module.network = network
    caplog.set_level(logging.INFO)
    trainer: Any = SimpleNamespace(train_dataloader=None, optimizers=[])
    subject = AnyModule(trainer, module)
    for _ in range(2):  # callbacks start it one by one
        subject.start()
    line = f"Layers of LightningModule that callbacks read: {says}"
    assert [r.getMessage() for r in caplog.records if not r.name.startswith("wandb")] == [line]
