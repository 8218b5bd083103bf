"""Ranks of the weights in last.ckpt, by ten lines of numpy, against the last row of the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.cli.main import main

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
LOOKS = [
    {"class_path": "janus_pl.callbacks.LayerRank"},
    {"class_path": "janus_pl.callbacks.RunCheckpoint"},
]
MLP = ["--config=low_rank/digits.yaml", "--data.num_train=100", "--trainer.max_epochs=15"]
RESNET = ["--config=low_rank/resnet18.yaml", "--data=janus_pl.data.DigitsPair"]
RESNET += ["--data.num_train=8", "--data.batch_size=4", "--data.micro_batch_size=4"]
RESNET += ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0"]
# Decay and rates at which ranks fall within these few steps.
CASES = {
    "mlp": [*MLP, "--model.weight_decay=0.3"],
    "mlp, weight-normalized": [
        *(*MLP, "--model.normalization=weight_norm", "--model.weight_decay=0.05"),
        "--model.learning_rate=1",
    ],
    "resnet18": RESNET,
    "resnet18, weight-normalized": [*RESNET, "--model.normalization=weight_norm"],
}
LAYERS = {"mlp": [f"fc{k}" for k in range(1, 6)], "resnet18": ["conv1", "layer2_0_conv2", "fc"]}
PLACES = {"weight": "weight", "weight_norm": "parametrizations.weight.original1"}


def ranks(checkpoint: Path, place: str, tolerance: float, power: float = 1) -> dict[str, Any]:
    """Return #{sigma_i/||W||_F^power > tolerance} and ||W||_F^2/sigma_1^2 of each matrix."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    found = {}
    for name in (n for n in state if n.endswith(place)):
        W = state[name].double().numpy()
        if W.ndim > 1:
            sigma = np.linalg.svd(W.reshape(len(W), -1), compute_uv=False)
            norm = np.sqrt((W**2).sum())
            count = int((sigma / norm**power > tolerance).sum())
            layer = name.removeprefix("network.layers.").removesuffix(f".{place}")
            found[layer.replace(".", "_")] = count, norm**2 / sigma[0] ** 2
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.soak if "resnet" in name else ()) for name in CASES],
)
def test_ranks_of_the_record_are_those_of_the_last_checkpoint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    assert main(["fit", *CASES[name], *QUIET, f"--trainer.callbacks={json.dumps(LOOKS)}"]) == 0
    (folder,) = tmp_path.glob("runs/*/*")
    row = json.loads((folder / "rows.jsonl").read_text().splitlines()[-1])
    checkpoint = folder / "checkpoints" / "last.ckpt"
    place = PLACES["weight_norm" if "weight" in name else "weight"]
    found = ranks(checkpoint, place, 1e-3)
    recorded = {key.partition("/")[2] for key in row if key.startswith("rank/")}
    assert found.keys() == recorded >= {*LAYERS[name.partition(",")[0]]}
    for layer, (count, stable) in found.items():
        assert row[f"rank/{layer}"] == count, layer
        assert row[f"stable_rank/{layer}"] == pytest.approx(stable, rel=1e-6), layer
    for layer, (count, _) in ranks(checkpoint, place, 0.1).items():
        assert row[f"rank_absolute_1e-01/{layer}"] == count, layer
    if name == "mlp, weight-normalized":
        assert row["rank/fc2"] < 100, "ranks have fallen"
    # Negative controls: without the Frobenius norm, or at another tolerance, some are others.
    for wrong in (ranks(checkpoint, place, 0.1, power=0), ranks(checkpoint, place, 0.2)):
        assert any(row[f"rank_absolute_1e-01/{k}"] != count for k, (count, _) in wrong.items())
