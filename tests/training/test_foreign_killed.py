"""Somebody else's module, killed and resumed: one record, by our command line and by another."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from lightning.pytorch.cli import LightningCLI
from record_reader import inspect
from training.crashing import CONTEXT, code_of
from training.foreign import Classifier, Samples

from janus_pl.cli.main import main

EPOCHS, STEPS = 6, 5  # steps of an epoch
LOOKS = ["MarginHistogram", "LayerVelocity", "LayerRank", "UpdateSplit"]
Rows = list[dict[str, Any]]


def config(folder: Path) -> str:
    """The options of the trainer, for both command lines."""
    callbacks: list[Any] = [{"class_path": f"callbacks.{name}"} for name in LOOKS]
    saves = {"every_n_epochs": 2}
    callbacks.append({"class_path": "janus_pl.callbacks.RunCheckpoint", "init_args": saves})
    often = {"max_epochs": EPOCHS, "check_val_every_n_epoch": 1}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    path = folder / "trainer.yaml"
    path.write_text(yaml.safe_dump({"trainer": {**often, **quiet, "callbacks": callbacks}}))
    return str(path)


def ours(folder: Path, run: Path | None) -> None:
    """A fit by `python -m janus_pl`."""
    args = ["fit", "--config", config(folder), "--model", "training.foreign.Classifier"]
    args += ["--data", "training.foreign.Samples", "--seed_everything", "3"]
    sys.exit(main([*args, *(["--ckpt_path", "last"] if run else [])]))


def own(folder: Path, run: Path | None) -> None:
    """A fit by a LightningCLI that knows nothing of ours but the logger and the callbacks."""
    logger: dict[str, Any] = {"class_path": "janus_pl.run.logger.RunLogger"}
    if run is not None:
        logger["init_args"] = {"resumed": str(run)}
    args = ["fit", "--config", config(folder), "--seed_everything", "3"]
    args += ["--trainer.logger", json.dumps(logger)]
    if run is not None:
        args += ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    LightningCLI(Classifier, Samples, args=args, save_config_callback=None)
    wandb.finish()  # as at the end of a script; a forked process has no such end


COMMAND_LINES = {"ours": ours, "own": own}


def _in_folder(folder: Path, which: str, kill_at: int | None, run: Path | None) -> None:
    os.chdir(folder)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    sys.argv = ["own"]
    if kill_at is not None:
        _kill_at(kill_at)
    COMMAND_LINES[which](folder, run)


def _kill_at(step: int) -> None:
    """Let this process kill itself before a step, counted from 1."""

    def kill(module: Classifier, optimizer: Any) -> None:
        if module.trainer.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Classifier.on_before_optimizer_step = kill  # type: ignore[assignment]


def fit_in(folder: Path, which: str, kill_at: int | None = None, run: Path | None = None) -> int:
    """The exit code of a fit in a process of its own."""
    folder.mkdir(exist_ok=True)
    process = CONTEXT.Process(target=_in_folder, args=(folder, which, kill_at, run))
    process.start()
    return code_of(process)


def run_of(folder: Path) -> Path:
    (run,) = (folder / "runs" / "janus_pl").iterdir()
    return run


def rows_of(run: Path) -> Rows:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def parts_of(run: Path) -> set[Path]:
    """W&B's files of a run, one of each process."""
    return set((run / "wandb").glob("offline-run-*"))


# In mid-epoch, before the first step after a checkpoint, and before the last step. Killed before
# its first checkpoint, a run begins anew in its folder.
@pytest.mark.parametrize(
    ("which", "kill_at"),
    [
        *(("ours", 2), ("ours", 4 * STEPS + 3), ("ours", EPOCHS * STEPS)),
        *(("own", 4 * STEPS + 3), ("own", 4 * STEPS + 1), ("own", EPOCHS * STEPS)),
    ],
)
def test_a_killed_run_of_a_foreign_module_is_one_record(
    which: str, kill_at: int, tmp_path: Path
) -> None:
    assert fit_in(tmp_path / "whole", which) == 0
    whole = rows_of(run_of(tmp_path / "whole"))
    broken = tmp_path / "broken"
    assert fit_in(broken, which, kill_at) == -signal.SIGKILL
    run = run_of(broken)
    assert len(rows_of(run)) == 1 + (kill_at - 1) // STEPS
    before = parts_of(run)
    assert fit_in(broken, which, run=run) == 0
    assert run_of(broken) == run
    rows = rows_of(run)
    assert [row["epoch"] for row in rows] == list(range(EPOCHS + 1))
    assert [row["trainer/global_step"] for row in rows] == [
        epoch * STEPS for epoch in range(EPOCHS + 1)
    ]
    keys = {"own/loss", "own/val", "velocity/network_0", "update/decay/network_3", "eta_t"}
    assert all(keys <= row.keys() for row in rows[1:])
    (newest,) = parts_of(run) - before
    sent = [r["history"]["item"] for r in inspect(newest) if r["type"] == "history"]
    assert [row["epoch"] for row in sent] == list(range(EPOCHS + 1))
    assert rows == whole
    spectra = [(r / "spectra.jsonl").read_bytes() for r in (run, run_of(tmp_path / "whole"))]
    assert spectra[0] == spectra[1] != b""
