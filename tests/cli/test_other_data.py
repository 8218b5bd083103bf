"""A run goes on, and predicts, with its own data alone, wherever they lie; a flag is recorded."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from data.test_fingerprint import CHANGES, add_image, image, swap_classes
from PIL import Image
from record_reader import files_of, read_rows

from janus_pl.cli.main import main
from janus_pl.training import same_data

COUNTS = {"train": 6, "test": 3}
RUN = ["--config", "sgd.yaml", "--data", "janus_pl.data.ImageFolderPair", "--data.image_size", "16"]
RUN += ["--model.strides", "[2, 1, 1, 1]", "--model.channels", "[2, 3, 4, 4]", "--model.hidden=8"]
RUN += ["--model.image_size=16", "--model.schedule=constant"]
RUN += ["--data.batch_size", "5", "--trainer.enable_progress_bar", "false"]
RUN += ["--trainer.enable_model_summary", "false"]
FIT = ["fit", *RUN, "--trainer.callbacks=callbacks.RunCheckpoint", "--trainer.max_epochs"]
PREDICT = ["predict", *RUN, '--trainer.callbacks=[{"class_path": "janus_pl.callbacks.MarginCSV"}']
PREDICT[-1] += ', {"class_path": "janus_pl.callbacks.RunCheckpoint"}]'


def write_images(root: Path) -> Path:
    for s, (split, count) in enumerate(COUNTS.items()):
        for c, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                file = root / split / name / f"{i}.png"
                Image.fromarray(image(100 * s + 10 * c + i, 16)).save(file)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with images at `images` and an interrupted run of two epochs on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["janus_pl"])
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        assert main([*FIT, "4", "--data.root", "images"]) == 0
        wandb.finish()
    (outcome,) = folder.glob("runs/janus_pl/*/outcome.json")
    outcome.unlink()  # as of a run that was killed after its last checkpoint
    (folder / "last.ckpt").write_bytes((outcome.parent / "checkpoints/last.ckpt").read_bytes())
    yield folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    copy = Path(shutil.copytree(trained, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return copy


def run_of(place: Path) -> Path:
    (run,) = (place / "runs/janus_pl").iterdir()
    return run


def content(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in files_of(place)}


def error(capsys: pytest.CaptureFixture) -> str:
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    return line


LAST = ["--data.root", "images", "--ckpt_path", "last"]
FROM = ["--data.root", "images", "--ckpt_path", "last.ckpt"]
COMMANDS = {
    "last": [*FIT, "4", *LAST],
    "file": [*FIT, "8", *FROM],
    "predict": [*PREDICT, *FROM],
    "validate": ["validate", *RUN, *FROM],
}


@pytest.mark.parametrize("command", ["last", "file", "predict", "validate"])
def test_swapped_labels_are_refused_everywhere_and_nothing_is_touched(
    command: str, place: Path, capsys: pytest.CaptureFixture
) -> None:
    swap_classes(place / "images")
    before = content(place)
    assert main(COMMANDS[command]) == 2
    said = error(capsys)
    assert re.match(r"error: data: got 'sha256 \w{8}, from /.*/images', allowed: those of ", said)
    assert said.endswith("/images, or --allow_data_change")
    assert content(place) == before


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not swap_classes])
def test_each_other_change_is_refused_too(change: Callable[[Path], None], place: Path) -> None:
    change(place / "images")
    before = content(place)
    assert main(COMMANDS["last"]) == 2
    assert main(COMMANDS["predict"]) == 2
    assert content(place) == before


def test_without_the_comparison_other_data_are_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    monkeypatch.setattr(same_data, "facts_of", lambda data: same_data.DataFacts())
    monkeypatch.setattr("janus_pl.training.subjects.facts_of", same_data.facts_of)
    add_image(place / "images")
    assert main(COMMANDS["last"]) == 0


def test_equal_data_elsewhere_are_accepted(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / "images").rename(place / "moved")
    moved = ["--data.root", str(place / "moved")]
    assert main([*COMMANDS["last"], *moved]) == 0
    assert f"Going on with {run_of(Path()).relative_to('.')}" in caplog.text
    described = json.loads((run_of(place) / "description.json").read_text())["data"]
    assert described["source"] == str(place / "moved")
    assert "changes" not in described
    assert main([*PREDICT, *FROM, *moved]) == 0


def test_the_record_knows_its_data(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main(COMMANDS["file"]) == 0
    new = max((place / "runs/janus_pl").iterdir(), key=lambda run: run.stat().st_mtime)
    described = json.loads((new / "description.json").read_text())["data"]
    line = (
        "Data: 12 files to train on, 6 to test on, cat (-1), dog (+1), 3x16x16,"
        f" sha256 {described['sha256'][:8]}, from {place / 'images'}"
    )
    assert [m for m in caplog.messages if m.startswith("Data: ")] == [line]
    held = torch.load(new / "checkpoints/last.ckpt", weights_only=True)["description"]["data"]
    assert held == described
    assert described["samples"]["train"] == {"cat": 6, "dog": 6}


def test_a_change_that_is_allowed_is_recorded(place: Path) -> None:
    before = json.loads((run_of(place) / "description.json").read_text())["data"]["sha256"]
    old = {run_of(place)}
    add_image(place / "images")
    with pytest.warns(UserWarning, match="--allow_data_change: from step 12 on, sha256"):
        assert main([*COMMANDS["file"], "--allow_data_change"]) == 0
    (new,) = {*(place / "runs/janus_pl").iterdir()} - old
    described = json.loads((new / "description.json").read_text())["data"]
    change = {"step": 12, "from": before, "to": described["sha256"]}
    assert described["changes"] == [change]
    assert before != described["sha256"]
    checkpoint = new / "checkpoints" / "last.ckpt"
    held = torch.load(checkpoint, weights_only=True)
    assert held["description"]["data"]["changes"] == [change]
    # It is no longer new to the run that has seen it, and allowed once is not allowed for ever.
    again = [*FIT, "9", "--data.root", "images", "--ckpt_path", str(checkpoint)]
    assert main(again) == 0
    assert "allow_data_change: false" in (new / "config.yaml").read_text()
    add = np.array(Image.open(place / "images/train/cat/0.png"))
    Image.fromarray(255 - add).save(place / "images/train/cat/0.png")
    assert main(again) == 2


def test_margins_of_other_data_are_named_after_them(place: Path) -> None:
    checkpoint = ["--ckpt_path", str(run_of(place) / "checkpoints/last.ckpt")]
    assert main([*PREDICT, "--data.root", "images", *checkpoint]) == 0
    name = run_of(place).name
    of_own = Path(f"margins-{name}.csv").read_bytes()
    add_image(place / "images")
    more = ["--data.root", "images", *checkpoint, "--allow_data_change"]
    with pytest.warns(UserWarning, match="--allow_data_change"):
        assert main([*PREDICT, *more]) == 0
    assert Path(f"margins-{name}.csv").read_bytes() == of_own
    (other,) = Path().glob(f"margins-{name}-????????.csv")
    rows = [*csv.DictReader(other.read_text().splitlines())]
    assert len(rows) == 13 + 6
    assert [row["file"] for row in rows[5:7]] == ["train/cat/5.png", "train/dog/0.png"]
    assert [row["label"] for row in rows[5:7]] == ["-1", "1"]


def test_two_runs_that_differ_in_their_place_go_on_with_their_own(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_of(place)
    shutil.copytree(place / "images", place / "other")
    swap_classes(place / "other")
    other = [*FIT, "4", "--data.root", "other"]
    assert main(other) == 0
    (second,) = {*(place / "runs/janus_pl").iterdir()} - {first}
    (second / "outcome.json").unlink()
    assert main(COMMANDS["last"]) == 0
    assert f"Going on with {first.relative_to(place)}" in caplog.text
    assert main([*COMMANDS["last"], "--data.root", "other"]) == 0
    assert f"Going on with {second.relative_to(place)}" in caplog.text


def write_csv(last: float) -> None:
    Path("problem.csv").write_text(f"x1,x2,x3,y1\n1,2,0.5,1\n2,1,0,{last}\n")


def test_a_changed_csv_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    write_csv(3)
    fit = ["fit", "--config", "linear/base.yaml", "--data.source", "problem.csv"]
    fit += ["--trainer.enable_progress_bar=false", "--data.num_train=null", "--data.dim=null"]
    fit += ["--data.outputs=null", "--model.learning_rate=0.01", "--trainer.max_epochs"]
    assert main([*fit, "20"]) == 0
    (run,) = Path("runs/janus_pl").iterdir()
    (run / "outcome.json").unlink()
    checkpoint = ["--ckpt_path", str(run / "checkpoints/last.ckpt")]
    before = content(tmp_path / "runs")
    write_csv(3.5)
    capsys.readouterr()
    for given in (["20", "--ckpt_path", "last"], ["40", *checkpoint]):
        assert main([*fit, *given]) == 2
        other = r"'X, Y and W0 of sha256 \w{12}'"
        assert re.search(f"data: got {other}, allowed: {other}, as in the", error(capsys))
        assert content(tmp_path / "runs") == before
    write_csv(3.0)
    assert main([*fit, "40", *checkpoint, "--run_dir", "again"]) == 0
    assert read_rows(next(Path("again/janus_pl").iterdir()))[-1]["epoch"] == 40


def test_somebody_elses_data_are_unknown_and_never_refused() -> None:
    then: dict[str, Any] = {"data": {"sha256": "a" * 64}}
    unknown = same_data.facts_of(object())
    assert same_data.changes_since(then, unknown, 3) == []
    known = same_data.DataFacts(sha256="b" * 64)
    older: list[Any] = [None, {}, {"data": {}}, {"data": {"sha256": "unknown"}}, {"data": 5}]
    for described in older:
        assert same_data.changes_since(described, known, 3) == []
