"""Runs of the command line on the pretended device, each in a process of its own.

The processes are forked from one that has imported everything, so that each starts at once.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from pretended.device import NAME, Device
from pretended.watch import Watch
from training.crashing import CONTEXT, code_of

ON_DEVICE = (f"--trainer.accelerator={NAME}", f"--trainer.strategy={NAME}")
WAITING = "called a synchronizing CUDA operation"  # PyTorch's words
SAID = "stderr"
ROWS = "runs/*/*/rows.jsonl"


class Report(NamedTuple):
    """What a run left.

    Attributes:
        code: The exit code of the command.
        rows: The rows of its record, without their seals.
        watch: What it asked of the device.
        error: The traceback of an exception that the command let through; else empty.
        said: What it wrote to stderr.
    """

    code: int
    rows: list[dict[str, Any]]
    watch: Watch
    error: str
    said: str


class Request(NamedTuple):
    """A command and how it is run.

    Attributes:
        folder: The working directory.
        args: The command line.
        library: The library of the device; None runs on the CPU.
        float64: Whether the device has float64.
        before: Called in the process before the command; plants faults.
        accelerator: Lightning's name of a device that is none of the pretended ones.
    """

    folder: Path
    args: Sequence[str]
    library: Path | None = None
    float64: bool = True
    before: Callable[[], None] | None = None
    accelerator: str = "cpu"


def run(request: Request) -> Report:
    """Run a command in a process of its own, and return its report."""
    left = request.folder / "report.pickle"
    left.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_main, args=(request, left))
    process.start()
    code = code_of(process)
    assert left.exists(), f"the process ended with {code} and left no report"
    watch, error = pickle.loads(left.read_bytes())
    lines = [x for file in request.folder.glob(ROWS) for x in file.read_text("utf-8").splitlines()]
    rows = [{k: v for k, v in json.loads(line).items() if k != "_seal"} for line in lines]
    return Report(code, rows, watch, error, (request.folder / SAID).read_text("utf-8"))


@contextmanager
def cuda_waits(
    watch: Watch, mode: Callable[[str], Any] = torch.cuda.set_sync_debug_mode
) -> Iterator[None]:
    """Note every wait for a CUDA device within the block, of which PyTorch warns.

    Args:
        watch: Notes them.
        mode: Turns PyTorch's warnings on and off.
    """

    def hear(message: Any, *args: Any, **options: Any) -> None:
        if WAITING in str(message):
            watch.note("wait")

    with warnings.catch_warnings(), mock.patch.object(warnings, "showwarning", hear):
        warnings.filterwarnings("always", message=f".*{WAITING}")
        mode("warn")
        try:
            yield
        finally:
            mode("default")


def ask(library: Path, folder: Path, question: Callable[[Device, Watch], Any]) -> Any:
    """Return what a function answers in a process that has the device.

    Args:
        library: The library of the device.
        folder: An empty folder.
        question: A function of a module; the watch notes the waits that it causes.
    """
    left = folder / "answer.pickle"
    process = CONTEXT.Process(target=_answer, args=(library, left, question))
    process.start()
    assert code_of(process) == 0
    return pickle.loads(left.read_bytes())


def _answer(library: Path, left: Path, question: Callable[[Device, Watch], Any]) -> None:
    device = Device(library)
    watch = Watch(device.operations)
    device.listen(watch.note)
    left.write_bytes(pickle.dumps(question(device, watch)))


def _main(request: Request, left: Path) -> None:
    from janus_pl.cli.main import main

    os.chdir(request.folder)
    with open(SAID, "wb") as said:
        os.dup2(said.fileno(), 2)
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process, which would outlive this one
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    sys.argv = ["janus_pl"]
    torch.set_num_threads(1)
    args, watch = [*request.args, f"--trainer.accelerator={request.accelerator}"], Watch()
    if request.library is not None:
        device = Device(request.library)
        device.has_float64(request.float64)
        args, watch = [*request.args, *ON_DEVICE], Watch(device.operations)
        device.listen(watch.note)
    if request.before is not None:
        request.before()
    code, error = 1, ""
    told = cuda_waits(watch) if request.accelerator == "gpu" else nullcontext()
    try:
        with watch.watching(), told:
            code = main(args)
    except BaseException:
        error = traceback.format_exc()
    left.write_bytes(pickle.dumps((watch, error)))
    os._exit(code) if error else sys.exit(code)
