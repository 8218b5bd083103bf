"""ResNet-18 with batch normalization on real images: killed and resumed, and in two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from training.crashing import run
from training.test_resume import QUIET, RESUME, assert_same_run, final_state, kill

from janus_pl.cli.main import main

EPOCHS, STEPS = 4, 3  # steps of an epoch
LOOKS = [
    {"class_path": f"callbacks.{name}"}
    for name in ("MarginHistogram", "LayerVelocity", "LayerRank", "NeuralCollapse")
]
KEEP = {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}}
ROWS = "runs/*/*/rows.jsonl"


class Forgetful(Callback):
    """The negative control: goes on as if the checkpoint had no buffers."""

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        for part in pl_module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()


@pytest.fixture(scope="module")
def images(real_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few of the real images."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 6), ("test", 2)):
        for source in sorted((real_images / split).iterdir()):
            folder = root / split / source.name
            folder.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                (folder / file.name).symlink_to(file)
    return root


def line(images: Path) -> list[str]:
    """Return the command line of a fit of twelve images in minibatches of four."""
    return [
        *("fit", "--config", "low_rank/resnet18.yaml", *QUIET),
        *("--data", "janus_pl.data.ImageClasses", "--data.source", "folder"),
        *("--data.root", str(images), "--data.batch_size", "4", "--data.micro_batch_size", "4"),
        *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.momentum", "0.9"),
        *("--model.schedule", "cosine", "--trainer.max_epochs", str(EPOCHS)),
        "--trainer.check_val_every_n_epoch=2",
        f"--trainer.callbacks={json.dumps([*LOOKS, KEEP])}",
    ]


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, line(images)) == 0
    return folder


def rows(folder: Path) -> bytes:
    (path,) = folder.glob(ROWS)
    return path.read_bytes()


@pytest.mark.soak
def test_killed_and_resumed_it_is_the_same_run(images: Path, whole: Path, tmp_path: Path) -> None:
    # In the second epoch, whose rows are then two; before the first step after a checkpoint.
    for moment, length in (("step:5", 2), ("step:4", 3)):
        kill(tmp_path, [*line(images), *RESUME], moment)
        assert len(rows(tmp_path).splitlines()) == length
    assert run(tmp_path, [*line(images), *RESUME]) == 0
    assert_same_run(tmp_path, whole)
    assert rows(tmp_path) == rows(whole)
    assert len(rows(whole).splitlines()) == 1 + EPOCHS
    state = final_state(whole)["state_dict"]
    names = [name for name in state if name.endswith("num_batches_tracked")]
    assert len(names) == 20, "batch normalizations of ResNet-18"
    assert all(int(state[name]) == EPOCHS * STEPS for name in names), "passes of looks do not count"


@pytest.mark.soak
def test_without_the_buffers_it_is_another(images: Path, whole: Path, tmp_path: Path) -> None:
    kill(tmp_path, line(images), "step:5")
    forget = [f"--trainer.callbacks+={__name__}.Forgetful", "--allow_config_change"]
    assert run(tmp_path, [*line(images), *RESUME, *forget]) == 0
    ends, other = (final_state(folder)["state_dict"] for folder in (tmp_path, whole))
    differs = {name for name in other if not torch.equal(ends[name], other[name])}
    assert {name.rpartition(".")[2] for name in differs} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }, "no weight depends on the running statistics; what they measure does"
    assert rows(tmp_path) != rows(whole)


def test_two_processes_are_refused_in_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    assert main([*line(images), *two]) == 2
    (said,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert said == (
        "error: trainer.devices: got 2, allowed: 1: the statistics of layers.bn1 are of one"
        " process; GroupNorm has none"
    )
    assert not [*tmp_path.glob("runs/*/*")], "nothing was made"
