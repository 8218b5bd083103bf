"""A small run of the paper's network from the command line and in a script, and what it leaves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from record_reader import files_of

CONFIG = """
data:
  class_path: janus_pl.data.DigitsPair
  init_args: {batch_size: 64, num_train: 192}
model:
  init_args: {strides: [2, 2, 2, 2], channels: [2, 3, 4, 4], hidden: 8, weight_decay: 0.002}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: janus_pl.callbacks.MarginHistogram
    - class_path: janus_pl.callbacks.LayerRank
    - class_path: janus_pl.callbacks.RunCheckpoint
    - class_path: janus_pl.callbacks.MarginCSV
"""
SCRIPT = """
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import WandbLogger

from janus_pl.callbacks import LayerRank, MarginHistogram, RunCheckpoint
from janus_pl import DeepReLUClassifier
from janus_pl.data import DigitsPair

seed_everything(0)
small = {"strides": [2, 2, 2, 2], "channels": [2, 3, 4, 4], "hidden": 8}
model = DeepReLUClassifier(weight_decay=0.002, **small)
data = DigitsPair(batch_size=64, num_train=192)
looks = [MarginHistogram(), LayerRank(), RunCheckpoint()]
quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
trainer = Trainer(max_epochs=2, accelerator="cpu", check_val_every_n_epoch=10, **quiet,
                  logger=WandbLogger(project="janus_pl", save_dir="runs"), callbacks=looks)
trainer.fit(model, data)
"""
FILES = {"config.yaml", "description.json", "rows.jsonl", "outcome.json", "checkpoints", ".lock"}


def fit_args(*more: str) -> list[str]:
    """The command line of the run, with its config in the working directory."""
    Path("tiny.yaml").write_text(CONFIG)
    return ["fit", "--config", "tiny.yaml", *more]


def only_run(root: str = "runs/janus_pl") -> Path:
    """The only folder of a run below a project."""
    (config,) = Path(root).glob("*/config.yaml")
    return config.parent


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's folder, without what seals a line."""
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [_plain(json.loads(line)) for line in lines]


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    row = line.get("row", line)
    return {key: row[key] for key in row if "/" in key or key in ("epoch", "eta_t", "rho")}


def facts_of(folder: Path) -> dict[str, Any]:
    """What the record says of the run, apart from its names and places."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    data = config["data"]["init_args"]
    model = config["model"]["init_args"]
    described = json.loads((folder / "description.json").read_text())
    assert described.pop("id") == folder.name
    names = ("strides", "channels", "hidden", "weight_decay", "loss", "learning_rate", "schedule")
    return {
        "rows": rows_of(folder),
        "description": described,
        "exit_code": json.loads((folder / "outcome.json").read_text())["exit_code"],
        "seed": config["seed_everything"],
        "epochs": config["trainer"]["max_epochs"],
        "classes": [config[part]["class_path"] for part in ("model", "data")],
        "model": {name: model[name] for name in names},
        "data": {name: data[name] for name in ("batch_size", "num_train", "order", "seed")},
        "files": sorted({path.name for path in folder.iterdir()} & FILES),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
    }


def content_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_of(folder)
    }
