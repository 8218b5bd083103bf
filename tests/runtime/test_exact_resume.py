"""A run that was killed, wherever, and resumed is the run that never was: bit for bit."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from runtime.crashing import run

from janus_pl.report.records import Run, read

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
CLASSIFIER = [
    *("fit", "--config", "quickstart.yaml", *QUIET, "--data.num_train", "100"),
    *("--model.hidden", "8", "--model.channels", "[2,3,4,4]", "--trainer.max_epochs", "7"),
    "--trainer.check_val_every_n_epoch=2",
    "--trainer.callbacks=["
    '{"class_path": "callbacks.MarginHistogram", "init_args": {"every_n_epochs": 3}},'
    '{"class_path": "callbacks.LayerVelocity"}, {"class_path": "callbacks.LayerRank"},'
    '{"class_path": "callbacks.UpdateSplit"}, {"class_path": "callbacks.GradientNoise"},'
    '{"class_path": "runtime.crashing.Jitter"},'
    '{"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 2}}]',
]
REGRESSOR = [
    *("fit", "--config", "linear/a2.yaml", *QUIET, "--trainer.max_epochs", "3000"),
    *("--data.order", "shuffle", "--model.learning_rate", "0.05", "--model.schedule", "cosine"),
    "--trainer.callbacks=["
    '{"class_path": "callbacks.MarginHistogram"}, {"class_path": "callbacks.LayerVelocity"},'
    '{"class_path": "callbacks.LayerRank"},'
    '{"class_path": "callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 2}}]',
]
TASKS = {"classifier": CLASSIFIER, "regressor": REGRESSOR}
RESUME = ["--ckpt_path", "last"]
KILLED = -9


def moments(task: str, count: int) -> list[str]:
    """Random moments of a run, of every kind, the same every time; `after:S` is of the clock."""
    rng = random.Random(f"{task} {count}")
    most = {"step": 26, "border": 6, "validation": 3, "row": 7, "save": 4, "saved": 3, "end": 1}
    most |= {"ended": 1, "term": 26, "int": 26}
    if task == "regressor":
        most = {"step": 15, "border": 15, "row": 90, "save": 7, "saved": 6, "end": 1}
        most |= {"ended": 1, "term": 14}
    kinds = list(most) + rng.choices(["step", "row", "border"], k=count - len(most) - 4)
    by_call = [f"{kind}:{rng.randint(1, most[kind])}" for kind in kinds]
    return by_call + [f"after:{rng.uniform(0, 1):.2f}" for _ in range(4)]


def kill(folder: Path, args: Sequence[str], moment: str) -> None:
    """Start or go on, and be killed there; by the clock that may be after its end."""
    kind, _, number = moment.partition(":")
    if kind == "after":
        assert run(folder, args, delay=float(number)) in (KILLED, 0)
    else:
        assert run(folder, args, moment) == {"term": 143, "int": 130}.get(kind, KILLED)


def record(folder: Path) -> Run:
    """The only run below a folder, its parts merged."""
    (merged,), skipped = read([folder / "runs"])
    assert not skipped
    return merged


def final_state(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("runs/*/*/checkpoints/last.ckpt")
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Bitwise, all the way down."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), where
        assert torch.equal(torch.isnan(a), torch.isnan(b)), where
    else:
        assert a == b or (a != a and b != b), where


def assert_same_run(resumed: Path, whole: Path) -> None:
    """Weights, optimizer, schedule, generators, callbacks; and the record, each epoch once."""
    a, b = final_state(resumed), final_state(whole)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "exact_resume", "epoch"):
        assert_equal(a[part], b[part], part)
    assert a["global_step"] == b["global_step"]
    for key in ("eta_t", "linear"):
        assert_equal(a.get(key), b.get(key), key)
    first, second = record(resumed), record(whole)
    assert first.rows["epoch"].is_unique
    pd.testing.assert_frame_equal(first.rows, second.rows, check_exact=True, check_like=True)
    assert first.histograms.keys() == second.histograms.keys()
    for key, seen in first.histograms.items():
        assert [h.epoch for h in seen] == [h.epoch for h in second.histograms[key]]
        for one, other in zip(seen, second.histograms[key], strict=True):
            assert (one.counts == other.counts).all(), key
            assert (one.edges == other.edges).all(), key


def finish(folder: Path, args: Sequence[str]) -> None:
    assert run(folder, [*args, *RESUME]) == 0


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each task's run that nobody interrupts."""
    folders = {task: tmp_path_factory.mktemp(task) for task in TASKS}
    for task, folder in folders.items():
        assert run(folder, TASKS[task]) == 0
    return folders


# All but the first blow are to the resumed run. Steps 10 and 3 are within epochs of four, and the
# last checkpoint is there when the last blow comes, but no word of how the run ended.
SHORT = {
    "classifier": ["step:10", "term:3", "saved:1", "ended:1"],
    "regressor": ["step:9", "term:4", "ended:1"],
}


@pytest.mark.parametrize("task", TASKS)
def test_killed_and_resumed_it_is_the_same_run(task: str, whole: Any, tmp_path: Path) -> None:
    for moment in SHORT[task]:
        kill(tmp_path, [*TASKS[task], *RESUME], moment)
    finish(tmp_path, TASKS[task])
    assert len(list(tmp_path.glob("runs/*/*"))) == 1, "one folder, one id"
    assert_same_run(tmp_path, whole[task])


def test_without_the_states_of_the_generators_it_is_another(whole: Any, tmp_path: Path) -> None:
    kill(tmp_path, CLASSIFIER, "step:10")
    assert run(tmp_path, [*CLASSIFIER, *RESUME], forget=True) == 0
    with pytest.raises(AssertionError, match="state_dict"):
        assert_same_run(tmp_path, whole["classifier"])


@pytest.mark.soak
@pytest.mark.parametrize("converts", [True, False], ids=["as it is", "control"])
def test_in_float64_too(converts: bool, tmp_path: Path) -> None:
    """Lightning by itself would put the weights of a checkpoint into a float32 model."""
    double = [*CLASSIFIER, "--trainer.precision=64-true"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    assert run(whole, double) == 0
    kill(resumed, double, "step:10")
    assert run(resumed, [*double, *RESUME], converts=converts) == 0
    if converts:
        assert_same_run(resumed, whole)
    else:
        with pytest.raises(AssertionError, match="state_dict"):
            assert_same_run(resumed, whole)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("task", "moment"), [(task, moment) for task in TASKS for moment in moments(task, 20)]
)
def test_killed_anywhere_it_is_the_same_run(
    task: str, moment: str, whole: Any, tmp_path: Path
) -> None:
    kill(tmp_path, TASKS[task], moment)
    ended = [json.loads(f.read_text()) for f in tmp_path.glob("runs/*/*/outcome.json")]
    if ended == [{"exit_code": 0}]:
        assert moment.startswith("after"), "only the clock may come after the end"
    else:
        finish(tmp_path, TASKS[task])
    assert_same_run(tmp_path, whole[task])


@pytest.mark.soak
@pytest.mark.parametrize("task", TASKS)
def test_killed_three_times_in_a_row_it_is_the_same_run(
    task: str, whole: Any, tmp_path: Path
) -> None:
    for moment in ("step:9", "step:3", "save:1"):
        kill(tmp_path, [*TASKS[task], *RESUME], moment)
    finish(tmp_path, TASKS[task])
    assert_same_run(tmp_path, whole[task])
