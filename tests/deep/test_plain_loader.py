"""A plain DataLoader of pairs (x, y): the same numbers as batches in memory, or one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import janus_pl.callbacks as own
from janus_pl.data import InMemoryBatches
from janus_pl.data.loader import Batch
from janus_pl.deep.batches import Pairs
from janus_pl.errors import UsageError
from janus_pl.training.ranks import Ranks

N = 20
LOOKS = (
    *(own.LayerVelocity, own.LayerRank, own.MarginHistogram, own.GradientNoise),
    *(own.NeuralCollapse, own.EquilibriumResidual, own.UpdateSplit, own.Sharpness),
)


def samples() -> tuple[Tensor, Tensor]:
    """Images of unit norm in float64, and the bool labels of two classes."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, 3, 16, 16, generator=generator, dtype=torch.float64)
    x /= x.flatten(1).norm(dim=1)[:, None, None, None]
    return x, torch.rand(N, generator=generator) > 0.5


def loader(x: Tensor, y: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(x, y), batch_size=8)


def trainer(**options: Any) -> Trainer:
    plain = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    plain |= {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**plain | {"max_epochs": 2, "precision": "64-true"} | options)


def numbers(make: Any, batches: Any) -> dict[str, Tensor]:
    """Everything that fit, validate, test and predict tell of a classifier."""
    task = make()
    run = trainer(callbacks=[look(1) for look in LOOKS])
    run.fit(task, batches, batches)
    found: dict[str, Any] = {**run.callback_metrics}
    found |= {f"weights/{name}": value.clone() for name, value in task.state_dict().items()}
    found |= run.test(task, batches, verbose=False)[0]
    found |= run.validate(task, batches, verbose=False)[0]
    found["predicted"] = torch.cat(run.predict(task, batches))
    return {key: torch.as_tensor(value) for key, value in found.items()}


CODED = {
    "0 and 1": lambda y: y.long(),
    "-1 and 1": lambda y: torch.where(y, 1, -1),
    "float": lambda y: y.float(),
    "bool": lambda y: y,
}


@pytest.fixture(scope="module")
def in_memory() -> dict[str, Tensor]:
    """The numbers of the same samples as batches of ours."""
    from conftest import SMALL

    from janus_pl import DeepReLUClassifier

    def make() -> DeepReLUClassifier:
        torch.manual_seed(0)
        return DeepReLUClassifier(**SMALL, schedule="constant")

    x, y = samples()
    return numbers(
        make, InMemoryBatches(x, torch.where(y, 1.0, -1.0).double(), 8, None, "sequential")
    )


@pytest.mark.parametrize("coding", CODED)
def test_pairs_give_the_numbers_of_batches_in_memory(
    coding: str, in_memory: dict[str, Tensor], small_task: Any
) -> None:
    x, y = samples()
    found = numbers(small_task, loader(x, CODED[coding](y)))
    assert found.keys() == in_memory.keys()
    assert {"margin/mean", "velocity/conv1", "rank/fc2", "gradient_noise/scale"} <= found.keys()
    for key, value in in_memory.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=0, equal_nan=True, msg=key)


def test_exchanged_labels_give_other_numbers(in_memory: dict[str, Tensor], small_task: Any) -> None:
    """The control: the comparison above sees the labels."""
    x, y = samples()
    found = numbers(small_task, loader(x, (~y).long()))
    assert abs(found["margin/mean"] - in_memory["margin/mean"]) > 1e-6


X, Y = samples()
BAD = {
    "three": (X, Y, Y),
    "alone": (X,),
    "gray": (X[:, :1], Y),
    "flat": (X.flatten(1), Y),
    "small": (X[..., :8, :8], Y),
    "column": (X, Y[:, None].double()),
    "bytes": (X.byte(), Y),
    "1 and 2": (X, Y.long() + 1),
    "three classes": (X, torch.arange(N) % 3 - 1),
    "nan": (X, torch.full((N,), torch.nan)),
}


@pytest.mark.parametrize("name", BAD)
def test_other_batches_are_refused_in_one_line_that_says_what_is_needed(
    name: str, small_task: Any
) -> None:
    task = small_task()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    data = DataLoader(TensorDataset(*BAD[name]), batch_size=8)
    with pytest.raises(
        UsageError, match=r"^batch: got .*\(n, 3, 16, 16\) in float64.*0 and 1"
    ) as error:
        trainer().fit(task, data)
    assert "\n" not in str(error.value)
    assert all(torch.equal(task.state_dict()[key].float(), before[key]) for key in before)


def test_codings_may_not_change_from_one_batch_to_the_next() -> None:
    pairs, x = Pairs(16, torch.float64), X[:2]
    assert pairs.batch([x, torch.tensor([1, 1])], Ranks()).y.tolist() == [1, 1]
    assert pairs.batch([x, torch.tensor([0, 1])], Ranks()).y.tolist() == [-1, 1]
    with pytest.raises(UsageError, match="labels -1, 0, 1"):
        pairs.batch([x, torch.tensor([-1, 1])], Ranks())


def test_float64_images_for_float32_weights_are_refused(small_task: Any) -> None:
    with pytest.raises(UsageError, match="in float32"):
        trainer(precision="32-true").fit(small_task(), loader(X, Y))


def test_batches_of_ours_are_taken_as_they_are(small_task: Any) -> None:
    batch = Batch(X, Y.double(), 4)
    task = small_task()
    assert task.minibatch(batch) is batch
    assert task.splits_epochs


def test_several_processes_would_see_other_samples() -> None:
    ranks = Ranks()
    ranks.size = 2
    with pytest.raises(UsageError, match=r"trainer.devices: got 2, allowed: 1"):
        Pairs(16, torch.float64).batch([X, Y], ranks)


def test_looks_see_what_the_hooks_of_a_data_module_make_of_a_batch(
    in_memory: dict[str, Tensor], small_task: Any
) -> None:
    class Halved(LightningDataModule):
        """Stores images of half the size; the hooks double them, exactly."""

        def train_dataloader(self) -> DataLoader:
            x, y = samples()
            return loader(x / 4, y)

        val_dataloader = train_dataloader

        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [batch[0] * 2, batch[1]]

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [batch[0] * 2, batch[1]]

    task = small_task()
    run = trainer(callbacks=[own.MarginHistogram(1), own.LayerVelocity(1)])
    run.fit(task, datamodule=Halved())
    for key, value in run.callback_metrics.items():
        torch.testing.assert_close(value, in_memory[key].to(value), rtol=1e-12, atol=0, msg=key)


def test_a_run_of_pairs_stops_only_at_the_end_of_an_epoch(small_task: Any) -> None:
    """A DataLoader does not know which samples of the epoch it has given."""
    task = small_task()
    trainer(max_epochs=1).fit(task, loader(X, Y))
    assert not task.splits_epochs
