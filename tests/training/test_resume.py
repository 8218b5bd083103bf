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
from training.crashing import run

from janus_pl.records.read import read
from janus_pl.records.run import Run

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
CLASSIFIER = [
    *("fit", "--config", "quickstart.yaml", *QUIET, "--data.num_train", "100"),
    *("--model.hidden", "8", "--model.channels", "[2,3,4,4]", "--trainer.max_epochs", "7"),
    *("--data.batch_size=32", "--model.schedule=cosine", "--model.weight_decay=4e-3"),
    "--trainer.check_val_every_n_epoch=2",
    "--trainer.callbacks=["
    '{"class_path": "janus_pl.callbacks.MarginHistogram", "init_args": {"every_n_epochs": 3}},'
    '{"class_path": "janus_pl.callbacks.LayerVelocity"},'
    '{"class_path": "janus_pl.callbacks.LayerRank"},'
    '{"class_path": "janus_pl.callbacks.UpdateSplit"},'
    '{"class_path": "janus_pl.callbacks.GradientNoise"},'
    '{"class_path": "janus_pl.callbacks.LayerRotation", "init_args": {"every_n_epochs": 3}},'
    '{"class_path": "janus_pl.callbacks.LossEvents", "init_args": {"threshold": 0.9}},'
    '{"class_path": "janus_pl.callbacks.NoiseTime",'
    ' "init_args": {"every_n_epochs": 8, "window": 8}},'
    '{"class_path": "janus_pl.callbacks.Sharpness", "init_args": {"every_n_epochs": 3}},'
    '{"class_path": "training.crashing.Jitter"},'
    '{"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 2}}]',
]
REGRESSOR = [
    *("fit", "--config", "linear/a2.yaml", *QUIET, "--trainer.max_epochs", "3000"),
    *("--data.order", "shuffle", "--model.learning_rate", "0.05", "--model.schedule", "cosine"),
    "--trainer.callbacks=["
    '{"class_path": "janus_pl.callbacks.MarginHistogram"},'
    '{"class_path": "janus_pl.callbacks.LayerVelocity"},'
    '{"class_path": "janus_pl.callbacks.LayerRank"},'
    '{"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 2}}]',
]
NETWORK = [
    *("fit", "--config", "low_rank/mlp_wn.yaml", *QUIET, "--data.num_train", "100"),
    *("--model.network.width", "8", "--trainer.max_epochs", "7", "--model.schedule", "cosine"),
    *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.momentum", "0.9"),
    "--trainer.check_val_every_n_epoch=2",
    "--trainer.callbacks=["
    '{"class_path": "janus_pl.callbacks.MarginHistogram", "init_args": {"every_n_epochs": 3}},'
    '{"class_path": "janus_pl.callbacks.LayerVelocity"},'
    '{"class_path": "janus_pl.callbacks.LayerRank"},'
    '{"class_path": "janus_pl.callbacks.LossEvents", "init_args": {"threshold": 0.9}},'
    '{"class_path": "training.crashing.Jitter"},'
    '{"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 2}}]',
]
TASKS = {"classifier": CLASSIFIER, "regressor": REGRESSOR}
RESUME = ["--ckpt_path", "last"]
KILLED = -9


# How often each moment comes in a run; the first files are those of its start.
MOST = {
    "classifier": {"step": 26, "border": 6, "validation": 3, "row": 7, "save": 4, "saved": 3}
    | {"half": 4, "fsync": 22, "replace": 11},
    "regressor": {"step": 15, "border": 15, "row": 90, "save": 7, "saved": 6}
    | {"half": 7, "fsync": 59, "replace": 30},
}


def moments(task: str, count: int) -> list[str]:
    """Random moments of a run, the same every time.

    So many different blows by SIGKILL, of every kind; four more, `after:S`, by the clock, which may
    find the run at its end; and signals that can be handled.
    """
    rng = random.Random(f"{task} {count}")
    most = MOST[task]
    first = {"fsync": 3, "replace": 2}
    by_call: dict[str, None] = {}
    kinds = list(most)  # each once, then any
    while len(by_call) < count - 2:
        kind = kinds.pop() if kinds else rng.choice([*most])
        by_call[f"{kind}:{rng.randint(first.get(kind, 1), most[kind])}"] = None
    by_clock = [f"after:{rng.uniform(0, 1):.2f}" for _ in range(4)]
    signals = [f"term:{rng.randint(1, 14)}"] + [f"int:{rng.randint(1, 26)}"] * (
        task == "classifier"
    )
    return [*by_call, "end:1", "ended:1", *by_clock, *signals]


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


def final_state(folder: Path, name: str = "last") -> dict[str, Any]:
    (path,) = folder.glob(f"runs/*/*/checkpoints/{name}.ckpt")
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


def _anywhere(state: Any) -> Any:
    """A state in whatever folder the run lies: of paths the last part."""
    if isinstance(state, dict):
        return {_anywhere(key): _anywhere(value) for key, value in state.items()}
    if isinstance(state, str) and "runs/" in state:
        return Path(state).name
    return state


def assert_same_run(resumed: Path, whole: Path) -> None:
    """Weights, optimizer, schedule, generators, callbacks; and the record, each epoch once."""
    a, b = final_state(resumed), final_state(whole)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "exact_resume", "epoch"):
        assert_equal(a[part], b[part], part)
    assert a["global_step"] == b["global_step"]
    for key in ("eta_t", "linear"):
        assert_equal(a.get(key), b.get(key), key)
    for key in ("callbacks", "row"):
        assert_equal(_anywhere(a.get(key)), _anywhere(b.get(key)), key)
    best = [final_state(folder, "best")["state_dict"] for folder in (resumed, whole)]
    assert_equal(*best, "best.ckpt")
    spectra = [file.read_bytes() for f in (resumed, whole) for file in f.glob("runs/*/*/spectra*")]
    assert len(spectra) == 2 and spectra[0] == spectra[1] != b""
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


def test_a_row_that_early_stopping_holds_back_is_not_lost(tmp_path: Path) -> None:
    """The last epoch is saved, and the blow comes before its row is written."""
    patient = '{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": '
    patient += '{"monitor": "train/loss_running", "patience": 100}}, {"class_path": "callbacks.'
    args = [part.replace('{"class_path": "callbacks.', patient, 1) for part in CLASSIFIER]
    args += ["--trainer.max_epochs", "6"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    assert run(whole, args) == 0
    kill(resumed, args, "end:1")
    finish(resumed, args)
    assert record(whole).rows["epoch"].tolist() == [*range(7)]
    assert_same_run(resumed, whole)


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
    if [outcome["exit_code"] for outcome in ended] == [0]:
        assert moment.startswith("after"), "only the clock may come after the end"
    else:
        finish(tmp_path, TASKS[task])
    assert_same_run(tmp_path, whole[task])


# What else a run's next step may depend on.
OTHERS = {
    "GD": ["--data.batch_size", "full", "--data.micro_batch_size", "30"],
    "with replacement": ["--data.order", "with_replacement"],
    "Adam": ["--model.optimizer", "torch.optim.Adam"],
    "Lagrange": ["--model.normalization", "lagrange", "--model.learning_rate", "0.001"],
    "rho of every layer": ["--model.normalization", "per_layer"],
    "cross entropy": ["--model.loss", "cross_entropy"],
    "tail bound": [
        "--model.optimizer.init_args.momentum",
        "0",
        "--trainer.callbacks+=janus_pl.callbacks.RankBound",
    ],
    "batch norm": ["--model.network.batch_norm", "true"],
    "any network": ["--model.network.bias", "true"],
    "replicas": ["--model.weight_decay", "[0.01, 0.1]"],
    "stream": [
        "--config",
        "linear/online.yaml",
        "--data.num_train",
        "3000",
        "--trainer.max_epochs",
        "1",
    ],
}

BASES = {"replicas": REGRESSOR, "stream": REGRESSOR, "batch norm": NETWORK, "any network": NETWORK}
SOAK = [pytest.param(what, marks=pytest.mark.soak) for what in OTHERS if what != "batch norm"]


@pytest.mark.parametrize("what", ["batch norm", *SOAK])
def test_so_it_is_however_it_trains(what: str, tmp_path: Path) -> None:
    base = BASES.get(what, CLASSIFIER)
    args = [*base, *OTHERS[what]]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    assert run(whole, args) == 0
    kill(resumed, args, "border:4" if what == "GD" else "step:6")
    finish(resumed, args)
    assert_same_run(resumed, whole)


@pytest.mark.soak
@pytest.mark.parametrize("task", TASKS)
def test_killed_four_times_in_a_row_it_is_the_same_run(
    task: str, whole: Any, tmp_path: Path
) -> None:
    for moment in ("step:9", "keep:1", "step:3", "save:1"):
        kill(tmp_path, [*TASKS[task], *RESUME], moment)
    finish(tmp_path, TASKS[task])
    assert_same_run(tmp_path, whole[task])
