"""The whole program on real images: 1,000 of CIFAR-10's automobiles and birds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from record_reader import read_rows

from janus_pl.cli.main import main

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")


@pytest.mark.soak
def test_sgd_reaches_zero_error_and_leaves_the_whole_record(
    real_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    args = ["fit", "--config", "sgd.yaml", "--data", "janus_pl.data.ImageFolderPair"]
    args += ["--data.root", str(real_images), "--data.num_train", "1000", "--data.batch_size", "32"]
    args += ["--model.strides", "[2,2,2,2]", "--trainer.max_epochs", "100"]
    assert main(args) == 0
    rows = read_rows(tmp_path / "runs")
    assert [row["epoch"] for row in rows] == list(range(101)), "each epoch once, on one row"

    last = rows[-1]
    assert last["train/error"] == 0
    assert last["trainer/global_step"] == 100 * 32
    keys = {"train/loss", "train/error", "val/loss", "val/error", "rho", "rho_learned", "eta_t"}
    keys |= {"margin/mean", "margin/std", "margin/min", "margin/hist.values"}
    keys |= {"equilibrium/residual"}
    for layer in LAYERS:
        kinds = ("velocity", "rank", "stable_rank", "effective_rank")
        keys |= {f"{kind}/{layer}" for kind in kinds} | {f"spectrum/{layer}.values"}
    assert keys <= set(last)
    assert sum(last["margin/hist.values"]) == 1000
    assert 0.1 < last["margin/mean"] * last["rho"] < 1.1, "rho fbar nears 1 from below"
