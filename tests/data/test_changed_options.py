"""Options of a data module that are set between two fits: as those of a new data module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from training.foreign import Classifier
from training.trainer_fits import Probe, trainer_of

from janus_pl import DeepReLUClassifier, LinearRegressor
from janus_pl.data import DigitsPair, LinearProblem
from janus_pl.errors import UsageError

DIGITS: dict[str, Any] = {"num_train": 21, "batch_size": 8, "micro_batch_size": 4}
PROBLEM: dict[str, Any] = {"num_train": 6, "dim": 5, "outputs": 2, "batch_size": 2}
IMAGES = [
    ("batch_size", "full"),
    ("batch_size", 5),
    ("micro_batch_size", 3),
    ("micro_batch_size", None),
    ("order", "sequential"),
    ("order", "with_replacement"),
    ("seed", 4),
    ("num_train", 30),
    ("num_train", None),
    ("classes", (1, 7)),
]
LINES = [
    *(("batch_size", "full"), ("batch_size", 3), ("order", "shuffle"), ("order", "online")),
    *(("seed", 4), ("num_train", 8), ("dim", 7), ("outputs", 3), ("informative", 2), ("empty", 1)),
    *(("init", "zero"), ("init_scale", 0.5), ("replicas", 2), ("source", "toy")),
]


def batches(loader: Any, epoch: int = 1) -> list[Tensor]:
    loader.set_epoch(epoch)
    return [torch.cat([b.x.flatten(1), b.y.view(len(b.y), -1)], 1) for b in loader]


def alike(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def digits(**options: Any) -> DigitsPair:
    data = DigitsPair(**{**DIGITS, **options})
    data.setup()
    return data


def problem(**options: Any) -> LinearProblem:
    data = LinearProblem(**{**PROBLEM, **options})
    data.setup()
    return data


@pytest.mark.parametrize(("name", "value"), IMAGES)
def test_images_are_those_of_a_new_module(name: str, value: Any) -> None:
    data = digits()
    first = data.train_dataloader()
    before = batches(first)
    setattr(data, name, value)
    data.setup()
    now, new = data.train_dataloader(), digits(**{name: value})
    assert now is not first
    assert alike(batches(now), batches(new.train_dataloader()))
    assert now.micro_batch_size == new.train_dataloader().micro_batch_size
    assert data.facts == new.facts
    if name != "micro_batch_size":
        assert not alike(batches(now), before)
    setattr(data, name, {"seed": 0, "order": "shuffle", "classes": (3, 8), **DIGITS}[name])
    data.setup()
    assert alike(batches(data.train_dataloader()), before), "and back"


def test_nothing_is_made_again_if_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    data, line = digits(), problem()
    loader, drawn = data.train_dataloader(), line.problem
    monkeypatch.setattr(DigitsPair, "read", None)
    for stage in ("fit", "test", "fit"):
        data.setup(stage)
        line.setup(stage)
    assert data.train_dataloader() is loader
    assert line.problem is drawn
    data.batch_size = 5  # it decides no sample
    data.setup()
    assert data.train_dataloader() is not loader


@pytest.mark.parametrize(("name", "value"), LINES)
def test_a_problem_is_that_of_a_new_module(name: str, value: Any) -> None:
    if name == "source":  # the toy has sizes of its own
        data, new = problem(), LinearProblem("toy", batch_size=2)
        data.num_train, data.dim, data.outputs = 2, 3, 2
        new.setup()
    else:
        data, new = problem(), problem(**{name: value})
    used = data.problem, data.facts, data.compressed(), [*data.train_dataloader()]
    assert used
    setattr(data, name, value)
    data.setup()
    for one, other in zip(data.problem, new.problem, strict=True):
        assert np.array_equal(one, other)
    assert all(map(np.array_equal, data.compressed(), new.compressed()))
    assert data.facts == new.facts
    assert np.array_equal(data.indices(3), new.indices(3))
    assert (data.whole, data.steps_per_epoch) == (new.whole, new.steps_per_epoch)
    assert alike(batches(data.train_dataloader()), batches(new.train_dataloader()))


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (digits, "batch_size", 22),
        (digits, "batch_size", 0),
        (digits, "micro_batch_size", 9),
        (digits, "num_train", 1),
        (digits, "num_train", 9999),
        (digits, "order", "random"),
        (digits, "seed", -1),
        (problem, "batch_size", 7),
        (problem, "num_train", 0),
        (problem, "order", "random"),
        (problem, "init", "given"),
        (problem, "empty", 5),
        (problem, "informative", 6),
        (problem, "seed", -1),
    ],
)
def test_a_value_out_of_range_is_refused_as_at_first(
    make: Callable[[], Any], name: str, value: Any
) -> None:
    data = make()
    before = getattr(data, name)
    setattr(data, name, value)
    with pytest.raises(UsageError, match=rf"^data.{name}: got .*, allowed: "):
        data.setup()
    setattr(data, name, before)
    data.setup()
    assert alike(batches(data.train_dataloader()), batches(make().train_dataloader()))


def test_a_file_decides_its_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("a", 6), ("b", 9)):
        np.savez(tmp_path / f"{name}.npz", X=rng.normal(size=(4, n)), Y=rng.normal(size=(2, n)))
    data = LinearProblem(str(tmp_path / "a.npz"))
    data.setup()
    data.num_train = 5
    with pytest.raises(UsageError, match=r"^data.num_train: got 5, allowed: 6"):
        data.setup()
    data.num_train = 6
    data.source = str(tmp_path / "b.npz")
    data.setup()
    assert (data.num_train, data.problem.x.shape) == (9, (1, 4, 9))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["deep", "linear"])
def test_a_second_fit_takes_the_batch_size_of_now(kind: str, tmp_path: Path) -> None:
    if kind == "deep":
        small = {"strides": (2, 2, 2, 2), "channels": (2, 3, 4, 4), "hidden": 8}
        module: Any = DeepReLUClassifier(**small, schedule="constant")
        data: Any = DigitsPair(num_train=20, batch_size=8)
    else:
        module, data = LinearRegressor(learning_rate=0.01), LinearProblem(**PROBLEM)
    described = []
    for size in (data.batch_size, "full"):
        data.batch_size = size
        trainer_of(tmp_path, {"max_epochs": 1}, Probe()).fit(module, datamodule=data)
        described.append(module.description)
    assert [each.whole for each in described] == [False, True]
    assert [each.steps_per_epoch for each in described] == [3, 1]
    assert described[1].batch_size == data.num_train


# Tensors of an evaluation


def test_images_that_an_evaluation_moves_can_be_trained_on() -> None:
    data = digits()
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))  # type: ignore[assignment]
    with torch.inference_mode():
        data.test_dataloader()
    assert data.train_x.is_meta
    assert not data.train_x.is_inference()


@pytest.mark.filterwarnings("ignore")
def test_a_module_is_fitted_after_its_predictions(tmp_path: Path) -> None:
    data = LinearProblem(num_train=20, dim=6, outputs=1)
    module: Any = Regression()
    trainer: Trainer = trainer_of(tmp_path, {"max_epochs": 1}, Probe())
    trainer.predict(module, datamodule=data)
    trainer_of(tmp_path, {"max_epochs": 1}, Probe()).fit(module, datamodule=data)


class Regression(Classifier):
    """Somebody else's module on a linear problem."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.float())[:, :1]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self(batch[0]) - batch[1].float()).square().mean()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])
