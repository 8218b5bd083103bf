"""What is not finite ends a run in one line, and never gets into the weights or a checkpoint."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from environments import LIMIT, PACKAGE
from record_reader import exit_code, read_records, read_rows
from torch import Tensor, nn
from troublemakers import Witness

from janus_pl.cli.main import main
from janus_pl.data import DigitsPair
from janus_pl.training.guard import UpdateGuard

SMALL = ["--model.strides=[2,2,2,2]", "--model.hidden=8", "--model.channels=[2,3,4,4]"]
DIGITS = ["fit", "--config=sgd.yaml", "--data=janus_pl.data.DigitsPair", *SMALL]
LINEAR = ["fit", "--config=linear/a2.yaml", "--model.schedule=constant"]
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
ADAM = ["--model.optimizer=torch.optim.Adam"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def run_folder(base: str = "runs") -> Path:
    (folder,) = Path(base, "janus_pl").iterdir()
    return folder


def callbacks(**poison: Any) -> str:
    """Looks, a checkpoint every epoch, a witness, and poison where it is given."""
    used: list[dict[str, Any]] = [
        {"class_path": "janus_pl.callbacks.MarginHistogram", "init_args": {"every_n_epochs": 1}},
        {"class_path": "janus_pl.callbacks.LayerVelocity"},
        {"class_path": "janus_pl.callbacks.LayerRank", "init_args": {"every_n_epochs": 1}},
        {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}},
        {"class_path": "troublemakers.Witness"},
    ]
    if poison:
        used.append({"class_path": "troublemakers.Poison", "init_args": poison})
    return "--trainer.callbacks=" + json.dumps(used)


def error_line(capsys: pytest.CaptureFixture) -> str:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = (x for x in err.splitlines() if x.startswith("error:"))
    return line


def saved_weights() -> list[Tensor]:
    path = run_folder() / "checkpoints" / "last.ckpt"
    return [*torch.load(path, weights_only=True)["state_dict"].values()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


POISON = {
    "an Inf pixel": ({"what": "image", "value": "inf"}, "loss and gradient of fc2"),
    "a NaN weight": ({"what": "weight", "value": "nan", "name": "conv2"}, "parameter conv2"),
    "an Inf weight": ({"what": "weight", "value": "inf", "name": "conv2"}, "parameter conv2"),
    "a NaN rho": ({"what": "weight", "value": "nan", "name": "rho"}, "parameter rho"),
    "an Inf gradient": (
        {"what": "gradient", "value": "-inf", "name": "conv2"},
        "gradient of conv2",
    ),
}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("poison", POISON)
def test_poison_at_a_chosen_step(
    poison: str, optimizer: str, capsys: pytest.CaptureFixture
) -> None:
    """In the 7th step, the first of an epoch of three: the checkpoint is of the 6th."""
    options, what = POISON[poison]
    args = [*DIGITS, *PLAIN, callbacks(step=6, **options), "--trainer.max_epochs=5"]
    assert main([*args, *(ADAM if optimizer == "Adam" else [])]) == 3
    rate = 0.03 * (1 + math.cos(math.pi * 2 / 5)) / 2
    assert error_line(capsys) == (
        f"error: {what} not finite at epoch 3, step 7, learning rate {rate:g}, lambda 0.001;"
        " the weights are those of step 6"
    )
    assert equal(Witness.final, Witness.steps[6])
    assert equal(saved_weights(), Witness.steps[6])
    assert all(w.isfinite().all() for w in saved_weights())
    assert not equal(Witness.steps[5], Witness.steps[6])
    assert exit_code(run_folder()) == 3
    assert [row["epoch"] for row in read_rows(run_folder())] == [0, 1, 2, 3]


def test_poison_in_mid_epoch_leaves_the_checkpoint_before_it() -> None:
    args = [*DIGITS, *PLAIN, callbacks(step=7, value="nan"), "--trainer.max_epochs=5"]
    assert main(args) == 3
    assert equal(Witness.final, Witness.steps[7])
    assert equal(saved_weights(), Witness.steps[6])


def test_without_the_guard_the_weights_are_poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of this file: the same poison, and a step that nobody holds back."""
    monkeypatch.setattr(UpdateGuard, "settle", lambda guard: None)
    monkeypatch.setattr(UpdateGuard, "step", lambda guard, optimizer, *losses: optimizer.step())
    args = [*DIGITS, *PLAIN, callbacks(step=6, value="nan"), "--trainer.max_epochs=5"]
    assert main(args) == 0
    assert not all(w.isfinite().all() for w in saved_weights())


@pytest.mark.parametrize("normalization", ["weight_norm", "per_layer", "lagrange", "none"])
@pytest.mark.parametrize("rate", ["1e20", "1e38"])
def test_an_absurd_learning_rate(
    rate: str, normalization: str, capsys: pytest.CaptureFixture
) -> None:
    """At 1e38 an update overflows with gradients that are finite."""
    options = [f"--model.learning_rate={rate}", f"--model.normalization={normalization}"]
    args = [*DIGITS, *PLAIN, callbacks(), *options, "--model.schedule=constant"]
    assert main([*args, "--trainer.max_epochs=30"]) == 3
    line = error_line(capsys)
    for part in (" not finite at epoch ", f"learning rate {float(rate):g}", "lambda 0.001"):
        assert part in line
    sound = int(line.rsplit(" ", 1)[1])
    assert f"step {sound + 1}," in line
    assert equal(Witness.final, Witness.steps[sound])
    assert all(w.isfinite().all() for w in Witness.final)
    if (run_folder() / "checkpoints").exists():
        assert all(w.isfinite().all() for w in saved_weights())


def test_an_inf_pixel_in_the_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    setup = DigitsPair.setup

    def poisoned(self: DigitsPair, stage: str = "fit") -> None:
        setup(self, stage)
        self.train_x[17, 1, 2, 3] = math.inf

    monkeypatch.setattr(DigitsPair, "setup", poisoned)
    assert main([*DIGITS, *PLAIN, callbacks(), "--data.batch_size=full"]) == 3
    assert "epoch 1, step 1, learning rate 0.03" in error_line(capsys)
    assert equal(Witness.final, Witness.steps[0])
    assert not list(run_folder().rglob("*.ckpt"))


def summary(folder: Path) -> dict[str, Any]:
    """The newest value of every key of the history, as W&B's summary has them."""
    newest: dict[str, Any] = {}
    for row in read_rows(folder):
        newest |= row
    return newest


@pytest.mark.parametrize(("choice", "code"), [("stop", 3), ("record", 0)])
def test_divergence_as_an_outcome(choice: str, code: int, capsys: pytest.CaptureFixture) -> None:
    args = [*DIGITS, *PLAIN, callbacks(step=7, value="nan"), "--trainer.max_epochs=5"]
    assert main([*args, f"--model.on_divergence={choice}"]) == code
    folder = run_folder()
    assert exit_code(folder) == code
    last = summary(folder)
    assert last["diverged"] is True
    assert (last["diverged/epoch"], last["diverged/step"], last["epoch"]) == (3, 8, 3)
    assert equal(saved_weights(), Witness.steps[6])
    out = capsys.readouterr()
    assert ("error:" in out.err) == (choice == "stop")
    assert ("Run folder:" in out.out) == (choice == "record")
    names = [m["metric"].get("name") for m in read_records(folder) if m["type"] == "metric"]
    assert "diverged" in names


def test_a_sound_run_has_no_such_outcome() -> None:
    assert main([*DIGITS, *PLAIN, callbacks(), "--trainer.max_epochs=1"]) == 0
    assert not [key for key in summary(run_folder()) if key.startswith("diverged")]


@pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")
@pytest.mark.parametrize(("choice", "code"), [("stop", 3), ("record", 0)])
@pytest.mark.parametrize("rate", ["1.0", "1e20", "[1.0,2.0]"])
def test_linear_divergence(
    choice: str, code: int, rate: str, capsys: pytest.CaptureFixture
) -> None:
    options = [f"--model.learning_rate={rate}", f"--model.on_divergence={choice}"]
    assert main([*LINEAR, *PLAIN, callbacks(), *options]) == code
    folder = run_folder()
    assert exit_code(folder) == code
    last = summary(folder)
    assert last["diverged"] == (2 if "[" in rate else True)
    assert last["diverged/epoch"] == last["epoch"]
    epochs = [row["epoch"] for row in read_rows(folder)]
    assert epochs == sorted(set(epochs))
    if choice == "stop":
        line = error_line(capsys)
        assert f"not finite at epoch {last['epoch']}" in line.replace(" in all 2 replicas", "")
        assert f"to {last['diverged/step']}, learning rate" in line
        assert "lambda 0.01" in line
    for path in folder.rglob("last.ckpt"):
        saved = torch.load(path, weights_only=True)["state_dict"]["weight"]
        assert saved.isfinite().flatten(1).all(1).any()


def test_a_nan_weight_of_linear_regression(capsys: pytest.CaptureFixture) -> None:
    """The checkpoint is of the look before it, and its weights are those of the run without it."""
    used = json.loads(callbacks().partition("=")[2])
    poison = {"class_path": "troublemakers.PoisonLinear", "init_args": {"piece": 12}}
    stable = [*LINEAR, *PLAIN, "--model.learning_rate=0.01"]
    assert main([*stable, f"--trainer.callbacks={json.dumps([*used, poison])}"]) == 3
    line = error_line(capsys)
    assert "not finite at epoch" in line
    assert "learning rate 0.01, lambda 0.01" in line
    assert exit_code(run_folder()) == 3
    saved = torch.load(run_folder() / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"]["weight"].isfinite().all()
    done = saved["linear"]["training"]["done"]
    assert done > 0
    rows = read_rows(run_folder())
    assert max(row["epoch"] for row in rows) >= done
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    shutil.rmtree("runs")
    assert main([*stable, callbacks(), f"--trainer.max_epochs={done}"]) == 0
    (sound,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
    weight = torch.load(sound, weights_only=True)["state_dict"]["weight"]
    assert torch.equal(weight, saved["state_dict"]["weight"])


def test_a_signal_after_a_bad_step_leaves_the_sound_checkpoint() -> None:
    """Before the look at the epoch's end: what a stop would save is not sound."""
    used = json.loads(callbacks(step=6, value="nan").partition("=")[2])
    send = {"signal_name": "SIGTERM", "hook": "on_train_batch_end", "calls": 6}
    used.append({"class_path": "troublemakers.SendSignal", "init_args": send})
    args = [*DIGITS, *PLAIN, f"--trainer.callbacks={json.dumps(used)}", "--trainer.max_epochs=5"]
    assert main(args) == 3
    assert equal(saved_weights(), Witness.steps[6])


class Stepper:
    """What Lightning wraps around an optimizer, as far as the guard knows it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


def test_all_ranks_decide_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank found something bad after its step: one reduction, and no step here either."""
    calls = []

    def all_reduce(flags: Tensor, op: object) -> None:
        assert op == torch.distributed.ReduceOp.MAX
        calls.append(flags.clone())
        flags[0] = 1  # of the other rank

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    weight = nn.Parameter(torch.ones(3))
    guard = UpdateGuard({"fc1": weight})
    weight.grad = torch.ones(3)
    guard.step(Stepper(torch.optim.SGD([weight], 0.1)), torch.tensor(1.0))
    assert not calls  # what is bad before a step, all know from the sum of the gradients
    guard.settle()
    assert len(calls) == 1
    assert not calls[0].any()
    assert torch.equal(weight.detach(), torch.ones(3))
    assert guard.culprit() == "loss"


RANKS = """
import os, sys, torch
from torch import nn
from janus_pl.training.guard import UpdateGuard
from tests.test_divergence import Stepper

child = os.fork()
rank = int(child == 0)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2
)
weight = nn.Parameter(torch.ones(3))
guard = UpdateGuard({"fc1": weight})
for step in range(4):
    loss = torch.tensor(float("nan") if (rank, step) == (1, 2) else 1.0)
    weight.grad = torch.ones(3)
    guard.step(Stepper(torch.optim.SGD([weight], 0.25)), loss)
    guard.settle()
with open(f"{sys.argv[1]}.{rank}", "w") as file:
    print(guard.culprit(), guard.state().tolist(), weight.tolist(), file=file)
torch.distributed.destroy_process_group()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.soak
def test_two_ranks_keep_the_same_weights(tmp_path: Path) -> None:
    """The loss of one of them is bad in the third step."""
    command = [sys.executable, "-c", RANKS, str(tmp_path / "store")]
    places = os.pathsep.join([PACKAGE, str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": places}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        said = (tmp_path / f"store.{rank}").read_text()
        assert said == "loss [1.0, 2.0] [0.5, 0.5, 0.5]\n"
