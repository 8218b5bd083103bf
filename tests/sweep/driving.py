"""Sweeps in processes of their own, which a test may kill."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from environments import PACKAGE
from training.crashing import CONTEXT

STAND_IN = "stand_in"  # the module beside this one
LIMIT = 300  # seconds
PATH = os.pathsep.join([PACKAGE, str(Path(__file__).parent)])
COMMAND = ["python", "-m", "janus_pl", "fit", "--config", "quickstart.yaml"]


def write_sweep(folder: Path, **parameters: Any) -> None:
    """`some.yaml`, a grid; every parameter with one value or a list of values."""
    spec = {
        name: {"values": given} if isinstance(given, list) else {"value": given}
        for name, given in parameters.items()
    }
    command = [*COMMAND, "--config", "${args_json_file}"]
    content = {"method": "grid", "command": command, "parameters": spec}
    (folder / "some.yaml").write_text(yaml.safe_dump(content))


def behave(folder: Path, **by_seed: dict[str, Any]) -> None:
    """What the stand-in does at a seed, given as `s1={...}`."""
    told = {seed[1:]: how for seed, how in by_seed.items()}
    (folder / "behaviour.json").write_text(json.dumps(told))


class Sweep:
    """A sweep in a folder, under way in another process.

    Args:
        folder: the working directory.
        args: after `some.yaml`.
        program: the module that stands in for `janus_pl`; None: nothing does.
        forget: whether runs get no id, and so nothing is known of those before.

    Attributes:
        forks: whether runs are forked, or processes with imports of their own.
    """

    forks = True

    def __init__(
        self,
        folder: Path,
        *args: str,
        program: str | None = STAND_IN,
        forget: bool = False,
    ) -> None:
        self.folder = folder
        self.out = folder / f"out{len(list(folder.glob('out*')))}"
        self.out.touch()
        everything = str(folder), str(self.out), ["some.yaml", *args], program, forget, self.forks
        self.process = CONTEXT.Process(target=_main, args=everything)
        self.process.start()

    def kill_when(self, condition: Callable[[], bool], signum: int) -> None:
        """Send a signal once something is so."""
        wait_for(condition, self.process.is_alive)
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def end(self) -> int:
        """Its exit code."""
        self.process.join(LIMIT)
        code = self.process.exitcode
        self.process.kill()
        assert code is not None, f"the sweep hangs: {self.text}"
        return code

    @property
    def text(self) -> str:
        """What it has said."""
        return self.out.read_text()


def wait_for(condition: Callable[[], bool], alive: Callable[[], bool] = lambda: True) -> None:
    """Until something is so; an error where it never is."""
    begin = time.monotonic()
    while not condition():
        assert alive(), "the sweep has ended"
        assert time.monotonic() < begin + LIMIT, "it never comes"
        time.sleep(0.01)


def ledger(folder: Path, key: str = "epoch") -> list[dict[str, Any]]:
    """What the stand-ins have noted: epochs, starts or ends."""
    file = folder / "ledger"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [entry for entry in map(json.loads, lines) if key in entry]


def _main(
    folder: str, out: str, args: Sequence[str], program: str | None, forget: bool, forks: bool
) -> None:
    from janus_pl.cli import sweep as tool
    from janus_pl.cli.main import main
    from janus_pl.sweep import ahead, launchers, plan

    os.chdir(folder)
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    for name in ("WANDB_SERVICE", "WANDB_RUN_ID", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": PATH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["janus_pl"]
    told: Any = ahead
    if program is not None:
        told_tool: Any = tool
        launchers.PROGRAM, told.IMPORTED, told_tool.PACKAGES = program, (), ()
        launchers.REHEARSAL, told_tool.FIRST = "", None  # it has no run of W&B
    if not forks:
        told.can_fork = lambda: False
    if forget:
        plan.identity = lambda config: os.urandom(6).hex()
    code = main(["sweep", *args])
    sys.stdout.flush()
    os._exit(code)
