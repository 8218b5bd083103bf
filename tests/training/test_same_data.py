"""The comparison of data in a script of one's own, and what is known of somebody else's loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import DeepReLUClassifier, LinearRegressor
from janus_pl.data import DigitsPair, LinearProblem
from janus_pl.data.fingerprint import DataFacts
from janus_pl.errors import UsageError
from janus_pl.run.description import Description, read_description, write_description
from janus_pl.training.same_data import changes_since, check_data
from janus_pl.training.subjects import Describes

A, B = DataFacts(sha256="a" * 64, source="/a"), DataFacts(sha256="b" * 64, source="/b")


def described(facts: DataFacts, kind: Any = "network", **more: Any) -> dict[str, Any]:
    data = {**facts.to_plain(), **more}
    return Description("t.T", kind, "raw", "SGD", False, (), data=data).to_plain()


# The comparison


def test_equal_data_are_no_change_and_earlier_changes_are_kept() -> None:
    earlier = [{"step": 3, "from": "c", "to": A.sha256}]
    assert changes_since(described(A), A, 9) == []
    assert changes_since(described(A, changes=earlier), A, 9) == earlier
    with pytest.warns(UserWarning, match="from step 9 on, sha256 bbbbbbbb, from /b, before"):
        found = changes_since(described(A, changes=earlier), B, 9, allowed=True)
    assert found == [*earlier, {"step": 9, "from": A.sha256, "to": B.sha256}]


@pytest.mark.parametrize(
    ("kind", "training", "ends"),
    [
        ("network", True, ", or --allow_data_change"),
        ("linear", True, "from /a"),
        ("linear", False, ", or --allow_data_change"),
    ],
)
def test_other_data_are_one_line_that_names_both(kind: str, training: bool, ends: str) -> None:
    """A linear fit cannot go on with other data: the flag is not offered."""
    with pytest.raises(UsageError) as caught:
        changes_since(described(A, kind), B, 9, where="c.ckpt", training=training)
    said = str(caught.value)
    start = "data: got 'sha256 bbbbbbbb, from /b', allowed: those of c.ckpt, sha256 aaaaaaaa, from"
    assert said.startswith(start)
    assert said.endswith(ends)
    if ends == "from /a":
        with pytest.raises(UsageError):
            changes_since(described(A, kind), B, 9, allowed=True, where="c.ckpt")
    assert "\n" not in said


class OfA:
    facts = A


class OfB:
    facts = B


def test_a_folder_without_a_checkpoint_is_compared_by_its_description(tmp_path: Path) -> None:
    module = BoringModel()
    task = f"{BoringModel.__module__}.BoringModel"
    data = A.to_plain()
    write_description(tmp_path, Description(task, "module", "raw", "SGD", False, (), data=data))
    said = read_description(tmp_path)
    check_data(said, tmp_path, module, OfA(), False, True)
    check_data(said, tmp_path, module, OfB(), True, True)
    check_data(None, None, module, OfB(), False, True)
    check_data(said, tmp_path, OfA(), OfB(), False, True)  # a checkpoint of another module
    with pytest.raises(UsageError, match="allow_data_change"):
        check_data(said, tmp_path, module, OfB(), False, True)


@pytest.mark.parametrize("content", [b"", b"no archive", b'{"description": 3}'])
def test_a_description_that_is_none_says_nothing_of_data(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "description.json").write_bytes(content)
    said = read_description(tmp_path)
    assert said in ({}, {"description": 3})
    check_data(said, tmp_path, BoringModel(), OfB(), False, True)


# A script of one's own


def digits(**options: Any) -> DigitsPair:
    return DigitsPair(num_train=10, batch_size=5, **options)


def network() -> DeepReLUClassifier:
    return DeepReLUClassifier(strides=(2, 2, 2, 2), channels=(2, 3, 4, 4), hidden=5)


def trainer_of(tmp_path: Path, describes: Describes, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    }
    quiet |= {"accelerator": "cpu", "enable_checkpointing": False, "limit_val_batches": 0}
    return Trainer(default_root_dir=tmp_path, callbacks=[describes], **{**quiet, **options})


@pytest.mark.filterwarnings("ignore")
def test_a_script_is_refused_other_data_by_every_function(tmp_path: Path) -> None:
    path = tmp_path / "some.ckpt"
    first = trainer_of(tmp_path, Describes(), max_epochs=1)
    first.fit(network(), datamodule=digits())
    first.save_checkpoint(path)
    held = torch.load(path, weights_only=True)["description"]["data"]
    assert held["samples"]["train"] == {"3": 5, "8": 5}
    for data, refused in ((digits(), False), (digits(seed=1), True)):
        for name in ("fit", "validate", "test", "predict"):
            describes = Describes()
            trainer = trainer_of(tmp_path, describes, max_epochs=2)
            call = getattr(trainer, name)
            if not refused:
                call(network(), datamodule=data, ckpt_path=path)
                assert describes.changes == []
                continue
            with pytest.raises(UsageError, match="data: got 'sha256 "):
                call(network(), datamodule=data, ckpt_path=path)
            assert trainer.global_step in (0, 2), "before the first step"
    describes = Describes(allow_data_change=True)
    trainer = trainer_of(tmp_path, describes, max_epochs=2)
    model = network()
    trainer.fit(model, datamodule=digits(seed=1), ckpt_path=path)
    (change,) = model.description.data["changes"]
    assert (change["step"], change["from"]) == (2, held["sha256"])
    assert describes.changed
    trainer.fit(network(), datamodule=digits(seed=1))
    assert describes.changes == [], "a new fit without a checkpoint has seen none"


def test_a_linear_fit_knows_its_recipe(tmp_path: Path) -> None:
    model, data = LinearRegressor(), LinearProblem(num_train=4, dim=3, outputs=2)
    trainer_of(tmp_path, Describes(), max_epochs=2).fit(model, datamodule=data)
    seen = model.description.data
    assert (seen["sha256"], seen["pool"]) == (data.facts.sha256, data.facts.pool)
    assert (seen["dim"], seen["outputs"], seen["source"]) == (3, 2, "seed 0")


class Named(TensorDataset):
    """A data set as torchvision's: with a root and the indices of its classes."""

    root = "some/where"
    class_to_idx = {"a": 0, "b": 1}  # noqa: RUF012


def test_of_somebody_elses_loader_counts_and_place_are_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    seen: list[Description] = []

    class Keeps(Describes):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_start(trainer, pl_module)
            checkpoint: dict[str, Any] = {}
            self.on_save_checkpoint(trainer, pl_module, checkpoint)
            seen.append(Description.of(checkpoint["description"]))

    class Plain(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch[0], batch_idx)

    loader = DataLoader(Named(torch.ones(6, 32)), batch_size=3)
    trainer = trainer_of(tmp_path, Keeps(), max_steps=1)
    trainer.fit(Plain(), loader)
    (found,) = seen
    assert found.data["sha256"] == found.data["pool"] == "unknown"
    assert found.pool is None
    assert found.data["samples"] == {"train": {"all": 6}}
    assert found.data["source"] == str(tmp_path / "some" / "where")
    place = tmp_path / "some" / "where"
    line = f"Data: 6 samples to train on, a (0), b (1), sha256 unknown, from {place}"
    assert [m for m in caplog.messages if m.startswith("Data:")] == [line]
