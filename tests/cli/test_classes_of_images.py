"""K classes of images on the command line: what the run knows of them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import janus_pl.data.images
from janus_pl.cli.main import main
from janus_pl.data import ImageClasses

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
OF_DATA: dict[str, Any] = {
    "classes": [2, 0, 5],
    "num_train": 32,
    "label_noise": 0.25,
    "batch_size": 8,
    "seed": None,
}
CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "janus_pl.Classifier",
        "init_args": {
            "network": {
                "class_path": "janus_pl.deep.MLP",
                "init_args": {"inputs": 3072, "outputs": 3, "depth": 2, "width": 7},
            },
        },
    },
    "data": {"class_path": "janus_pl.data.ImageClasses", "init_args": OF_DATA},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("three.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def fit(*options: str) -> Path:
    """The folder of a run that has ended."""
    before = {*Path("runs").glob("*/*")}
    assert main(["fit", "--config=three.yaml", *PLAIN, *options]) == 0
    (made,) = {*Path("runs").glob("*/*")} - before
    return made


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "rows.jsonl").read_text().splitlines()
    seen = [json.loads(line) for line in lines]
    own = ("crc32", "time", "seconds")
    return [{k: v for k, v in row.items() if not k.startswith(own)} for row in seen]


@pytest.mark.filterwarnings("ignore")
def test_a_run_knows_its_classes_its_data_and_its_noise() -> None:
    run = fit("--seed_everything=4")
    described = json.loads((run / "description.json").read_text())
    assert described["classes"] == {"2": 0, "0": 1, "5": 2}
    data = ImageClasses(**{**OF_DATA, "seed": 4})
    data.setup()
    assert described["data"] == json.loads(json.dumps(data.facts.to_plain()))
    assert (described["data"]["noisy"], described["num_train"]) == (8, 32)
    assert described["data_seed"] == 4
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    assert checkpoint["description"]["data"]["sha256"] == data.facts.sha256
    assert [row["epoch"] for row in rows(run)] == [0, 1, 2]


@pytest.mark.filterwarnings("ignore")
def test_other_noise_is_other_data_for_a_checkpoint(capsys: pytest.CaptureFixture) -> None:
    run = fit()
    capsys.readouterr()
    last = f"--ckpt_path={run}/checkpoints/last.ckpt"
    more = ["fit", "--config=three.yaml", *PLAIN, last, "--trainer.max_epochs=3"]
    assert main([*more, "--data.label_noise=0.5"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: data: got 'sha256 ") and "--allow_data_change" in error
    assert main(more) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_run_on_bytes_is_that_on_floats(
    precision: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in "abc":
            (folder / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{i}.png")
    own = {"source": "folder", "root": "images", "image_size": 8, "batch_size": 4}
    config = {**CONFIG, "data": {"class_path": "janus_pl.data.ImageClasses", "init_args": own}}
    Path("three.yaml").write_text(yaml.safe_dump(config))
    options = [f"--trainer.precision={precision}", "--model.network.init_args.inputs=192"]
    plain = rows(fit(*options))
    kept: list[Any] = []
    standardized = janus_pl.data.images.standardized

    def seen(*args: Any) -> Any:
        kept.append(standardized(*args))
        return kept[-1]

    monkeypatch.setattr(janus_pl.data.images, "standardized", seen)
    monkeypatch.setattr(janus_pl.data.images, "FLOAT_LIMIT", 0)
    held = rows(fit(*options))
    # Both splits, once: the trainer, which comes after the first setup, is no reason to read again.
    assert len(kept) == 2 and all(isinstance(x, janus_pl.data.ByteImages) for x in kept)
    assert held == plain
    other = rows(fit(*options, "--data.seed=1"))
    assert other != plain, "else the rows would say nothing"


REFUSED = [
    ("--data.label_noise=1", "data.label_noise: got 1.0, allowed: a number from 0 to below 1"),
    ("--data.label_noise=0.001", "data.label_noise: got 0.001, allowed: 0, or a share that is at"),
    ("--data.num_train=2", "data.num_train: got 2, allowed: an integer from 3 up (the number of"),
    ("--data.num_train=5000", "data.num_train: got 5000, allowed: an integer from 3 to "),
    ("--data.classes=[2,0,12]", "data.classes: got [2, 0, 12], allowed: two or more different"),
    ("--data.source=CIFAR11", "data.source: got 'CIFAR11', allowed: 'folder', 'digits', "),
    ("--data.root=x", "data.root: got 'x', allowed: null for data.source digits"),
    ("--model.network.init_args.outputs=4", "model.network: got 'MLP with 4 outputs', allowed: "),
    (
        "--label_noise=0.1",
        "label_noise: unknown key, allowed: a valid key, the nearest is data.label_noise",
    ),
    ("--label_noise=0.1", "label_noise: unknown key, allowed: a valid key, the nearest is data."),
    (
        "--model=janus_pl.DeepReLUClassifier",
        "data: got 'janus_pl.data.ImageClasses', allowed: two classes labelled -1 and +1",
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("option", "line"), REFUSED)
def test_a_mistake_is_one_line_and_nothing_is_made(
    option: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["fit", "--config=three.yaml", *PLAIN, option]) == 2
    said = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert len(said) == 1 and said[0].startswith(f"error: {line}")
    assert sorted(Path().rglob("*")) == before
