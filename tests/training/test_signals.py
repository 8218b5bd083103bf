"""Signals at every moment of a run: exit code, checkpoint, record, W&B's state."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import troublemakers
from conftest import ROOT
from environments import LIMIT, PACKAGE
from record_reader import exit_code, read_records, read_rows

import janus_pl.linear.replicas
from janus_pl.cli.main import main
from janus_pl.data import DigitsPair
from janus_pl.data.splits import RawPair
from janus_pl.errors import STOPPING
from janus_pl.linear import log_spaced
from janus_pl.records.read import read

SMALL = ["--model.strides=[2,2,2,2]", "--model.hidden=8", "--model.channels=[2,3,4,4]"]
DIGITS = ["fit", "--config=sgd.yaml", "--data=janus_pl.data.DigitsPair", *SMALL]
LINEAR = ["fit", "--config=linear/a2.yaml", "--model.learning_rate=0.01"]
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def run_folder() -> Path:
    (folder,) = Path("runs/janus_pl").iterdir()
    return folder


def callbacks(*extra: dict[str, Any]) -> str:
    every = {"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": {"every_n_epochs": 1}}
    return "--trainer.callbacks=" + json.dumps(
        [{"class_path": "janus_pl.callbacks.LayerRank"}, every, *extra]
    )


def sending(name: str, hook: str, calls: int = 0) -> str:
    options = {"signal_name": name, "hook": hook, "calls": calls}
    return callbacks({"class_path": "troublemakers.SendSignal", "init_args": options})


def last_checkpoint() -> dict[str, Any]:
    path = run_folder() / "checkpoints" / "last.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)


def stopped(capsys: pytest.CaptureFixture) -> str:
    """The one line that says so."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = (x for x in err.splitlines() if x.startswith("stopped"))
    return line


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGXCPU", 152)],
)
def test_a_signal_in_mid_epoch(
    name: str, code: int, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    """In the 5th step, the 2nd of its epoch: that step is taken, and none after it."""
    before = [signal.getsignal(s) for s in STOPPING]
    constant = [*DIGITS, *PLAIN, "--model.schedule=constant"]
    stop = sending(name, "on_train_batch_start", calls=4)
    assert main([*constant, stop, "--trainer.max_epochs=50"]) == code
    assert [signal.getsignal(s) for s in STOPPING] == before
    folder = run_folder()
    path = folder / "checkpoints" / "last.ckpt"
    assert stopped(capsys) == f"stopped by {name} after step 5; the checkpoint is {path}"
    assert "was not set" not in caplog.text and "GPU available" in caplog.text
    assert [row["epoch"] for row in read_rows(folder)] == [0, 1]
    assert exit_code(folder) == code
    assert [r["type"] for r in read_records(folder)].count("preempting") == 1
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == 5

    limit = ["--trainer.max_steps=5", "--trainer.max_epochs=-1", "--run_dir=whole"]
    assert main([*constant, callbacks(), *limit]) == 0
    (whole,) = Path("whole/janus_pl").iterdir()
    assert "preempting" not in [r["type"] for r in read_records(whole)]
    expected = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved["state_dict"].keys() == expected.keys()
    assert all(torch.equal(saved["state_dict"][k], expected[k]) for k in expected)


AT_THE_END = {
    "the last step": ("on_train_batch_end", 2, 3, [0, 1]),
    "validation": ("on_validation_batch_start", 0, 3, [0, 1]),
    "the looks": ("on_train_epoch_end", 1, 6, [0, 1, 2]),
}


@pytest.mark.parametrize("when", AT_THE_END)
def test_after_an_epochs_last_step_the_epoch_is_ended(
    when: str, capsys: pytest.CaptureFixture
) -> None:
    hook, calls, step, epochs = AT_THE_END[when]
    every = ["--trainer.check_val_every_n_epoch=1", "--trainer.max_epochs=50"]
    assert main([*DIGITS, sending("SIGTERM", hook, calls), *PLAIN, *every]) == 143
    assert f"after step {step};" in stopped(capsys)
    rows = read_rows(run_folder())
    assert [row["epoch"] for row in rows] == epochs
    assert all("val/loss" in row for row in rows[1:])
    assert last_checkpoint()["global_step"] == step


def test_a_row_that_waits_for_early_stopping_is_not_lost() -> None:
    early = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "train/loss_running", "patience": 40},
    }
    options = {"signal_name": "SIGINT", "hook": "on_train_epoch_end", "calls": 1}
    send = {"class_path": "troublemakers.SendSignal", "init_args": options}
    assert main([*DIGITS, callbacks(early, send), *PLAIN, "--trainer.max_epochs=50"]) == 130
    assert [row["epoch"] for row in read_rows(run_folder())] == [0, 1, 2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_run_at_its_end_is_finished(name: str) -> None:
    stop = sending(name, "on_train_epoch_end", calls=1)
    assert main([*DIGITS, stop, *PLAIN, "--trainer.max_epochs=2"]) == 0
    assert exit_code(run_folder()) == 0
    assert [row["epoch"] for row in read_rows(run_folder())] == [0, 1, 2]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_while_data_are_read_nothing_is_left(
    name: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def read(self: DigitsPair) -> RawPair:
        os.kill(os.getpid(), signal.Signals[name])
        raise AssertionError("the signal was not heeded")

    monkeypatch.setattr(DigitsPair, "read", read)
    assert main([*DIGITS, *PLAIN]) == code
    assert stopped(capsys) == f"stopped by {name} before training had begun"
    assert not Path("runs").exists()


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_sanity_check_start"])
def test_before_the_first_step_there_is_no_checkpoint(hook: str) -> None:
    options = ["--trainer.num_sanity_val_steps=1", *PLAIN]
    assert main([*DIGITS, sending("SIGTERM", hook), *options]) == 143
    assert exit_code(run_folder()) == 143
    assert not (run_folder() / "checkpoints").exists()


def test_linear_regression_stops_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told in the middle of a stretch of a few seconds, which has no state of its own."""
    stop = sending("SIGTERM", "on_train_batch_start", calls=60)
    with monkeypatch.context() as patch:
        patch.setattr(janus_pl.linear.replicas, "PIECE", 10_000)
        assert main([*LINEAR, stop, *PLAIN, "--trainer.max_epochs=5000"]) == 143
    saved = last_checkpoint()
    done = saved["linear"]["training"]["done"]
    epochs = [row["epoch"] for row in read_rows(run_folder())]
    assert epochs == sorted(set(epochs))
    looks = log_spaced(5000, 5)
    records = [epoch for epoch in log_spaced(5000, 50) if epoch <= done]
    assert done in looks
    assert done < 5000
    assert max(epochs) > max(look for look in looks if look < done)
    assert epochs[-1] == records[-1]
    assert exit_code(run_folder()) == 143

    assert main([*LINEAR, callbacks(), *PLAIN, f"--trainer.max_epochs={done}", "--run_dir=w"]) == 0
    (whole,) = Path("w/janus_pl").iterdir()
    with np.load(whole / "final.npz") as final:
        assert np.array_equal(saved["state_dict"]["weight"][0].numpy(), final["W"])


@pytest.mark.parametrize("subcommand", ["validate", "predict"])
def test_without_training_a_signal_ends_at_once(subcommand: str) -> None:
    hook = {"validate": "on_validation_batch_start", "predict": "on_predict_batch_start"}
    args = [subcommand, *DIGITS[1:], sending("SIGINT", hook[subcommand]), *PLAIN]
    assert main(args) == 130
    assert not Path("runs").exists()


def test_without_checkpoints_none_is_made(capsys: pytest.CaptureFixture) -> None:
    options = {"signal_name": "SIGTERM", "hook": "on_train_batch_start", "calls": 1}
    send = [{"class_path": "troublemakers.SendSignal", "init_args": options}]
    none = [f"--trainer.callbacks={json.dumps(send)}", "--trainer.enable_checkpointing=false"]
    assert main([*DIGITS, *none, *PLAIN]) == 143
    assert stopped(capsys) == "stopped by SIGTERM after step 2"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environment of a job; returns the file with what `scontrol` was asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    job = {"JOB_ID": "77", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**job, "NTASKS_PER_NODE": "1", "JOB_NAME": "janus"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return tmp_path / "asked"


def test_slurms_requeue_goes_on_from_a_whole_step(
    slurm: Path, capsys: pytest.CaptureFixture
) -> None:
    """SIGUSR1 in a step: when it is done it is saved, Lightning requeues, and the run goes on."""
    used = [
        {
            "class_path": "troublemakers.SendSignal",
            "init_args": {"signal_name": name, "hook": hook, "calls": calls},
        }
        for name, hook, calls in [
            ("SIGUSR1", "on_before_optimizer_step", 1),
            ("SIGTERM", "on_train_batch_start", 4),
        ]
    ]
    epochs = "--trainer.max_epochs=50"
    looks = '{"class_path": "troublemakers.KeepCheckpoints"}'
    everything = [*json.loads(callbacks(*used).partition("=")[2]), json.loads(looks)]
    args = [*DIGITS, f"--trainer.callbacks={json.dumps(everything)}", *PLAIN, epochs]
    assert main(args) == 143
    assert slurm.read_text() == "requeue 77\n"
    # At the requeue, after the epoch's third and last step, at SIGTERM.
    assert sorted(set(troublemakers.KeepCheckpoints.steps)) == [2, 3, 5]
    assert not list(Path().rglob("hpc_ckpt*"))
    assert "after step 5;" in stopped(capsys)
    assert main([*args, "--ckpt_path=last", "--trainer.max_epochs=2", "--allow_config_change"]) == 0
    (run,) = read([run_folder()]).runs
    assert run.rows["epoch"].tolist() == [0, 1, 2]


def test_under_slurm_a_checkpoint_in_the_working_directory_is_nobodys(slurm: Path) -> None:
    """Lightning would go on from it, whatever run it is of."""
    two = [*DIGITS, callbacks(), *PLAIN, "--trainer.max_epochs=2"]
    assert main([*two, "--project=first"]) == 0
    (checkpoint,) = Path("runs/first").glob("*/checkpoints/last.ckpt")
    shutil.copy(checkpoint, "hpc_ckpt_1.ckpt")
    assert main([*two, "--seed_everything=7"]) == 0
    assert [row["epoch"] for row in read_rows(run_folder())] == [0, 1, 2]


def start(*args: str, path: str | Path = PACKAGE) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "janus_pl", *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PACKAGE, str(path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.soak
def test_a_signal_to_one_rank_stops_all_at_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ranks = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    process = start(*DIGITS, callbacks(), *PLAIN, *ranks, "--trainer.max_epochs=1000000")
    try:
        wait_until(lambda: any(Path().glob("runs/janus_pl/*/checkpoints/last.ckpt")), LIMIT)
        process.terminate()  # the first rank alone
        err = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == 143
    finally:
        process.kill()
    (line,) = (x for x in err.splitlines() if x.startswith("stopped"))
    assert f"after step {last_checkpoint()['global_step']};" in line
    assert "Traceback" not in err
    assert exit_code(run_folder()) == 143


@pytest.mark.soak
@pytest.mark.parametrize("rank", [0, 1])
def test_before_the_first_step_a_signal_to_one_rank_stops_all(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"signal_name": "SIGTERM", "hook": "on_train_start", "rank": rank}
    early = callbacks({"class_path": "troublemakers.SendSignal", "init_args": options})
    ranks = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp"]
    process = start(*DIGITS, early, *PLAIN, *ranks, path=ROOT / "tests")
    try:
        err = process.communicate(timeout=LIMIT)[1]
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert last_checkpoint()["global_step"] == 3, "several processes stop when an epoch ends"
    assert exit_code(run_folder()) == 143


def test_a_second_sigint_ends_at_once(tmp_path: Path) -> None:
    """In a process of its own: the first one waits for a step that never ends."""
    (tmp_path / "endless.py").write_text(
        "import threading\n"
        "from lightning.pytorch import Callback\n"
        "class Endless(Callback):\n"
        "    def on_train_batch_start(self, *args):\n"
        "        if args[0].global_step == 4:\n"
        "            print('waiting', flush=True)\n"
        "            threading.Event().wait()\n"
    )
    process = start(*DIGITS, *PLAIN, callbacks({"class_path": "endless.Endless"}), path=tmp_path)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "waiting" in line:
                break
        # W&B writes a row to disk within half a second.
        wait_until(lambda: len(read_rows(run_folder())) == 2, LIMIT)
        process.send_signal(signal.SIGINT)
        for line in process.stderr:
            if "another one ends at once" in line:
                break
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
    finally:
        process.kill()
        process.communicate()
    assert [row["epoch"] for row in read_rows(run_folder())] == [0, 1]
