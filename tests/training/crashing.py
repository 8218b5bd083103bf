"""Runs in processes of their own that kill themselves at a chosen moment.

The processes are forked from one that has imported everything, so that each starts at once.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from environments import LIMIT
from lightning.pytorch import Callback

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["janus_pl.cli.main", "janus_pl.callbacks", "sklearn.datasets", "wandb.apis.public"]
CONTEXT.set_forkserver_preload(PRELOADED)


class Jitter(Callback):
    """Noise on the samples of SGD, from PyTorch's global generator."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.train_dataloader.whole:  # its batch is the data set itself
            batch.x.add_(0.01 * torch.randn_like(batch.x))


def run(
    folder: Path,
    args: Sequence[str],
    moment: str | None = None,
    delay: float | None = None,
    forget: bool = False,
    converts: bool = True,
) -> int:
    """The exit code of `main(args)` in a process in a folder; -9 where it was killed.

    Args:
        folder: its working directory.
        args: the command line.
        moment: KIND:COUNT, the so manyth call of something, at which it kills itself.
        delay: seconds after the start of training until it is killed from outside.
        forget: leave the random generators as they are when a run is resumed.
        converts: convert the model to the trainer's precision before a checkpoint is read.
    """
    process = CONTEXT.Process(
        target=_main, args=(str(folder), list(args), moment, forget, converts)
    )
    process.start()
    if delay is not None:
        waited = time.monotonic()
        while not (folder / "training").exists() and process.is_alive():
            assert time.monotonic() < waited + LIMIT, "training did not start"
            time.sleep(0.01)  # looks for the file that says so
        process.join(delay)
        process.kill()
    return code_of(process)


def code_of(process: Any, limit: float = LIMIT) -> int:
    """The exit code of a process that must end within so many seconds; -9 where it was killed."""
    process.join(limit)
    code = process.exitcode
    process.kill()
    assert code is not None, "the run hangs"
    return code


def _main(folder: str, args: list[str], moment: str | None, forget: bool, converts: bool) -> None:
    from janus_pl.cli.main import main
    from janus_pl.training import resume as exact_resume

    os.chdir(folder)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process, which would outlive this one
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    sys.argv = ["janus_pl"]
    torch.set_num_threads(1)
    _say_when_training_starts(Path(folder) / "training")
    if moment is not None:
        arm(moment)
    if forget:
        exact_resume.set_generators = lambda *_: None
    if not converts:
        exact_resume.ExactResume.setup = Callback.setup
    sys.exit(main(args))


def arm(moment: str) -> None:
    """Let this process kill itself at a moment of its training."""
    import janus_pl.linear.regressor
    import janus_pl.training.task
    from janus_pl import LinearRegressor
    from janus_pl.callbacks import RunCheckpoint
    from janus_pl.deep.trains import Trains
    from janus_pl.run.journal import Journal

    kind, _, count = moment.partition(":")
    if kind == "half":
        _kill_in_half_a_checkpoint(int(count))
        return
    places: dict[str, list[tuple[Any, str, bool]]] = {
        "step": [(task, "training_step", False) for task in (Trains, LinearRegressor)],
        "border": [(RunCheckpoint, "on_train_epoch_end", False)],
        "validation": [(Trains, "validation_step", False)],
        "row": [(janus_pl.training.row, "write_row", False)],
        "save": [(torch, "save", False)],
        "saved": [(RunCheckpoint, "_save_checkpoint", True)],
        "end": [(RunCheckpoint, "on_train_end", False)],
        "ended": [(RunCheckpoint, "on_train_end", True)],
        # Of any file: its content is written, and not safe yet; it is safe, and has no name yet.
        "fsync": [(os, "fsync", False)],
        "replace": [(os, "replace", False)],
        "keep": [(Journal, "keep", True)],  # a run goes on: rows too many are dropped
    }
    # A signal that can be handled comes in the middle of a step.
    signum = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(kind, signal.SIGKILL)
    for owner, name, after in places["step" if signum != signal.SIGKILL else kind]:
        _kill_at_call(owner, name, int(count), after, signum)


def _kill_at_call(owner: Any, name: str, count: int, after: bool, signum: int) -> None:
    wrapped: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            os.kill(os.getpid(), signum)
        result = wrapped(*args, **kwargs)
        if calls == count and after:
            os.kill(os.getpid(), signum)
        return result

    setattr(owner, name, call)


def _kill_in_half_a_checkpoint(count: int) -> None:
    from janus_pl.training import checkpoints as checkpoint_io

    write_whole = checkpoint_io.write_atomically
    calls = 0

    def write_atomically(path: Path, write: Callable[[Any], object], keep: Path | None) -> None:
        nonlocal calls
        calls += 1

        def write_half(file: Any) -> None:
            write(content := io.BytesIO())
            file.write(content.getbuffer()[: content.tell() // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_whole(path, write_half if calls == count else write, keep)

    into: Any = checkpoint_io
    into.write_atomically = write_atomically


def _say_when_training_starts(file: Path) -> None:
    from janus_pl.callbacks import RunCheckpoint

    started = RunCheckpoint.on_train_start

    def start(*args: Any) -> None:
        file.touch()
        started(*args)

    file.unlink(missing_ok=True)
    into: Any = RunCheckpoint
    into.on_train_start = start
