"""The CSV of margins: each sample of each split once, in data order, to the last digit."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from janus_pl import LinearRegressor
from janus_pl.callbacks import MarginCSV
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError

# Batches of unequal sizes, and values that need all digits of a float64 or a float32.
TRAIN = [torch.tensor([1 / 3, -2e-8, 5.0], dtype=torch.float64), torch.tensor([0.1, -7.0])]
TEST = [torch.tensor([1e-300, 2 / 3], dtype=torch.float64), torch.tensor([-0.25])]


def trainer_of(**options: Any) -> Any:
    return SimpleNamespace(
        **{"is_global_zero": True, "world_size": 1, "ckpt_path": None, "callbacks": [], **options}
    )


def write(
    callback: MarginCSV, batches: Sequence[tuple[int, Any]], trainer: Any = None, module: Any = None
) -> None:
    """What `predict` calls: the loader's number and the margins of every batch."""
    trainer, module = trainer or trainer_of(), module or LightningModule()
    callback.on_predict_start(trainer, module)
    for number, (loader, margins) in enumerate(batches):
        callback.on_predict_batch_end(trainer, module, margins, None, number, loader)
    callback.on_predict_end(trainer, module)


def read(path: Path) -> tuple[list[str], list[tuple[str, int, float]]]:
    header, *rows = csv.reader(path.read_text().splitlines())
    return header, [(split, int(i), float(margin)) for split, i, margin, *_ in rows]


def test_every_sample_of_both_splits_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "margins.csv"
    write(MarginCSV(str(path)), [*[(0, m) for m in TRAIN], *[(1, m) for m in TEST]])
    header, rows = read(path)
    assert header == ["split", "index", "margin", "label", "file"]
    train, test = ([m for part in split for m in part.tolist()] for split in (TRAIN, TEST))
    assert rows == [
        *[("train", i, margin) for i, margin in enumerate(train)],
        *[("test", i, margin) for i, margin in enumerate(test)],
    ]
    assert len(train) == 5 and len(test) == 3


def test_train_comes_first_whatever_the_order_of_the_batches(tmp_path: Path) -> None:
    path = tmp_path / "margins.csv"
    write(MarginCSV(str(path)), [(1, TEST[0]), (0, TRAIN[0]), (1, TEST[1]), (0, TRAIN[1])])
    rows = read(path)[1]
    assert [row[0] for row in rows] == ["train"] * 5 + ["test"] * 3
    assert [row[1] for row in rows] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert rows[5][2] == 1e-300 and rows[7][2] == -0.25


def test_a_second_pass_replaces_the_file_and_forgets_the_first(tmp_path: Path) -> None:
    callback = MarginCSV(str(tmp_path / "margins.csv"))
    for margins in TRAIN:
        write(callback, [(0, margins)])
    rows = read(tmp_path / "margins.csv")[1]
    assert [row[2] for row in rows] == TRAIN[1].tolist()


def test_a_pass_without_a_test_split_has_train_alone(tmp_path: Path) -> None:
    path = tmp_path / "margins.csv"
    write(MarginCSV(str(path)), [(0, TRAIN[0])])
    assert {row[0] for row in read(path)[1]} == {"train"}


@pytest.mark.parametrize(
    ("checkpoint", "written"),
    [
        ("runs/a/checkpoints/last.ckpt", "margins-a.csv"),
        ("elsewhere/last.ckpt", "margins.csv"),
        (None, "margins.csv"),
    ],
)
def test_the_file_is_here_and_has_the_name_of_the_run(
    checkpoint: str | None, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    write(MarginCSV(), [(0, TRAIN[0])], trainer_of(ckpt_path=checkpoint))
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.csv")] == [written]


def test_a_path_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(MarginCSV("~/m.csv"), [(0, TRAIN[0])], trainer_of(ckpt_path="r/checkpoints/last.ckpt"))
    assert len(read(tmp_path / "m.csv")[1]) == 3


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "margins.csv"
    second = trainer_of(is_global_zero=False, world_size=2)
    write(MarginCSV(str(path)), [(0, TRAIN[0])], second, LinearRegressor())
    assert not path.exists()
    first = trainer_of(world_size=2)
    write(MarginCSV(str(path)), [(0, TRAIN[0])], first, LinearRegressor())
    assert len(read(path)[1]) == 3


def test_several_processes_of_another_module_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"trainer.devices: got 2, allowed: 1 process"):
        write(MarginCSV(str(tmp_path / "m.csv")), [(0, TRAIN[0])], trainer_of(world_size=2))
    assert not list(tmp_path.iterdir())


def test_each_margin_has_its_label_and_its_file(tmp_path: Path) -> None:
    """Files are those of the samples in use; without a label of one number the cell is empty."""
    callback, path = MarginCSV(str(tmp_path / "m.csv")), tmp_path / "m.csv"
    named = {"train": ["train/a/1.png", "train/a/5.png", "train/b/, =2.png"]}
    trainer = trainer_of(datamodule=SimpleNamespace(files=named))
    callback.on_predict_start(trainer, LightningModule())
    batches = [torch.tensor([-1.0, -1.0]), torch.tensor([1.0])]
    for number, (margins, y) in enumerate(zip((TRAIN[1], TRAIN[0][:1]), batches, strict=True)):
        batch = (torch.zeros(len(y), 2), y)
        callback.on_predict_batch_end(trainer, LightningModule(), margins, batch, number, 0)
    callback.on_predict_batch_end(trainer, LightningModule(), TEST[1], torch.ones(1), 0, 1)
    callback.on_predict_end(trainer, LightningModule())
    _, *rows = csv.reader(path.read_text().splitlines())
    assert [row[3:] for row in rows] == [
        *(["-1", "train/a/1.png"], ["-1", "train/a/5.png"], ["1", "train/b/, =2.png"]),
        ["", ""],
    ]
    assert [float(row[2]) for row in rows[:3]] == [*TRAIN[1].tolist(), TRAIN[0][0].item()]


def test_files_of_other_samples_are_not_named(tmp_path: Path) -> None:
    trainer = trainer_of(datamodule=SimpleNamespace(files={"train": ["a.png"]}))
    write(MarginCSV(str(tmp_path / "m.csv")), [(0, TRAIN[0])], trainer)
    _, *rows = csv.reader((tmp_path / "m.csv").read_text().splitlines())
    assert [row[4] for row in rows] == ["", "", ""]


def test_predict_of_a_regressor_writes_the_margins_of_its_weights(tmp_path: Path, fit: Any) -> None:
    options = {"num_train": 7, "dim": 4, "outputs": 3}
    module, data = LinearRegressor(learning_rate=0.01, weight_decay=0.1), LinearProblem(**options)
    trainer = fit(module, data, 3, [MarginCSV(str(tmp_path / "margins.csv"))])
    trainer.predict(module, datamodule=data)
    rows = read(tmp_path / "margins.csv")[1]
    x, y = (a[0] for a in data.problem[:2])
    w = module.weight.detach().numpy()[0]
    norm = (w**2).sum() ** 0.5
    expected = [(y[:, n] @ (w @ x[:, n])) / (y[:, n] @ y[:, n]) / norm for n in range(7)]
    assert [row[:2] for row in rows] == [("train", n) for n in range(7)]
    assert [row[2] for row in rows] == pytest.approx(expected, rel=1e-12)
