"""Records read back: whole runs, runs in parts, and what cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from janus_pl.errors import UsageError
from janus_pl.records.read import read
from janus_pl.run.description import KEY, Description
from janus_pl.run.files import settle
from janus_pl.run.name import run_name, run_tags

CONFIG = {
    "seed_everything": 3,
    "model": {"class_path": "janus_pl.DeepReLUClassifier", "init_args": {"loss": "square"}},
    "data": {"class_path": "janus_pl.data.DigitsPair", "init_args": {"batch_size": "full"}},
    "trainer": {"max_epochs": 4, "callbacks": [{"class_path": "callbacks.LayerRank"}]},
}


def row(epoch: int, **values: Any) -> dict[str, Any]:
    return {"epoch": epoch, "trainer/global_step": 2 * epoch, "eta_t": 0.5 * epoch, **values}


def record(
    folder: Path, rows: Sequence[Mapping[str, Any]], id: str = "abc", code: int = 0, **options: Any
) -> Path:
    """A run as W&B writes it offline; its folder."""
    folder.mkdir(exist_ok=True)
    settings = wandb.Settings(silent=True, x_disable_stats=True)
    given = {"config": CONFIG, **options}
    run = wandb.init(project="p", id=id, dir=folder, mode="offline", settings=settings, **given)
    for item in rows:
        run.log(dict(item))
    path = Path(run.settings.sync_dir)
    wandb.finish(exit_code=code)
    settle(path)
    return path


def test_a_run_is_read_with_its_rows_its_options_and_its_histograms(tmp_path: Path) -> None:
    histogram = wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))
    rows = [row(0, **{"velocity/fc1": 2.5, "rho": 7}), row(1, **{"margin/hist": histogram})]
    record(tmp_path, rows, name="first", group="g")
    (run,), skipped = read([tmp_path])
    assert not skipped
    assert (run.id, run.name, run.group, run.exit_code) == ("abc", "first", "g", 0)
    assert run.rows["epoch"].tolist() == [0, 1]
    assert run.rows["velocity/fc1"].tolist()[0] == 2.5
    assert np.isnan(run.rows["velocity/fc1"].tolist()[1])
    assert not [key for key in run.rows if key.startswith("_") or "." in key]
    assert run.last("rho") == run.first("rho") == 7
    assert np.isnan(run.last("nowhere"))
    assert run.has("rho", "epoch")
    assert not run.has("rho", "nowhere")
    assert run.layers("velocity") == ["fc1"]
    assert run.steps_per_epoch == 2
    assert run.dynamics == "GD"
    assert run.options["model.loss"] == "square"
    assert run.options["trainer.max_epochs"] == 4
    (seen,) = run.histograms["margin/hist"]
    assert seen.epoch == 1
    assert seen.counts.tolist() == [1, 2]
    assert seen.edges.tolist() == [0, 0.5, 1]


def test_a_run_that_is_named_and_described_after_its_start(tmp_path: Path) -> None:
    """As W&B itself writes it, which repeats the run's record for a name and for tags."""
    seen = Description("a.Mine", "module", "raw", "AdamW", False, ("net_0", "head"), batch_size=8)
    settings = wandb.Settings(silent=True, x_disable_stats=True)
    where = {"project": "p", "id": "abc", "dir": tmp_path, "mode": "offline", "settings": settings}
    run = wandb.init(**where, name="before", group="g", config=CONFIG)
    run.config.update({KEY: seen.to_plain()}, allow_val_change=True)
    run.name, run.tags = run_name(seen), tuple(run_tags(seen))
    run.log(row(0, **{"velocity/head": 1.0, "velocity/net_0": 2.0}))
    folder = Path(run.settings.sync_dir)
    wandb.finish()
    settle(folder)
    ((found,), skipped) = read([tmp_path])
    assert not skipped
    assert (found.name, found.group, found.dynamics) == ("Mine-adamw-B8", "g", "AdamW")
    assert found.description == seen
    assert found.layers("velocity") == ["net_0", "head"]
    assert found.options["model.loss"] == "square"


def test_the_parts_of_a_resumed_run_are_one_with_each_epoch_once(tmp_path: Path) -> None:
    record(tmp_path / "one", [row(e, loss=1.0) for e in range(4)], code=143)
    record(tmp_path / "two", [row(e, loss=2.0) for e in (2, 3, 4)])
    (run,), skipped = read([tmp_path])
    assert not skipped
    assert run.rows["epoch"].tolist() == [0, 1, 2, 3, 4]
    # The newer part went on from a checkpoint after epoch 1: what it recorded again is its own.
    assert run.rows["loss"].tolist() == [1, 1, 2, 2, 2]


def test_runs_are_found_wherever_the_path_points_and_once(tmp_path: Path) -> None:
    path = record(tmp_path / "run", [row(0)])
    file = next(path.glob("*.wandb"))
    for place in (tmp_path, tmp_path / "run", path, file):
        assert [run.id for run in read([place]).runs] == ["abc"]
    assert len(read([tmp_path, path]).runs) == 1


@pytest.mark.parametrize(
    ("code", "left_out"), [(0, False), (5, False), (1, True), (3, True), (143, True)]
)
def test_a_run_that_ended_badly_is_left_out_unless_a_theorem_broke(
    code: int, left_out: bool, tmp_path: Path
) -> None:
    record(tmp_path, [row(0)], code=code)
    runs, skipped = read([tmp_path])
    if not left_out:
        assert [run.exit_code for run in runs] == [code]
        assert not skipped
        return
    assert not runs
    interrupted = code == 143
    reason = "it has not ended, or was interrupted"
    assert skipped[0].reason == (reason if interrupted else f"it ended with exit code {code}")
    assert len(read([tmp_path], unfinished=True).runs) == interrupted


def test_broken_and_half_written_runs_are_named_and_the_others_read(tmp_path: Path) -> None:
    whole = record(tmp_path / "whole", [row(e, loss=float(e)) for e in range(200)])
    content = next(whole.glob("*.wandb")).read_bytes()
    for name, part in {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "noise": bytes(range(256)) * 64,
    }.items():
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        next(folder.glob("*.wandb")).unlink()
        (folder / f"run-{name}.wandb").write_bytes(part)
    record(tmp_path / "rowless", [], id="rowless")
    # A cut record has the id of the whole one: alone it is unfinished.
    runs, skipped = read([tmp_path / "cut"])
    assert not runs
    assert "has not ended" in skipped[0].reason
    (run,), skipped = read([tmp_path / "cut"], unfinished=True)
    assert not skipped
    assert 0 < len(run.rows) < 200
    assert run.exit_code is None
    runs, skipped = read([tmp_path / name for name in ("whole", "empty", "noise", "rowless")])
    assert [run.id for run in runs] == ["abc"]
    assert {entry.path.name for entry in skipped} == {
        "run-empty.wandb",
        "run-noise.wandb",
        "run-rowless.wandb",
    }
    assert all(entry.reason for entry in skipped)


@pytest.mark.parametrize(
    ("kind", "size", "other", "named"),
    [
        ("offline-run", 0, "abc", False),
        ("offline-run", 7, "abc", False),  # W&B's header alone
        ("offline-run", 0, "xyz", True),  # of a run with no other part
        ("offline-run", 30, "abc", True),  # something was written, and is damaged
        ("run", 7, "abc", True),  # online the next part does not repeat its rows
    ],
)
def test_a_part_killed_before_its_first_record_is_named_where_rows_may_be_missing(
    kind: str, size: int, other: str, named: bool, tmp_path: Path
) -> None:
    whole = record(tmp_path / "whole", [row(0), row(1)], id=other)
    content = next(whole.glob("*.wandb")).read_bytes()
    folder = tmp_path / "wandb" / f"{kind}-20260101_000000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(content[:size])
    (run,), skipped = read([tmp_path])
    assert run.rows["epoch"].tolist() == [0, 1]
    assert [entry.path.parent.name for entry in skipped] == [folder.name] * named


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_path_without_a_run_is_a_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^RUN: got .*, allowed: a folder with W&B's record"):
        read([tmp_path / name])
