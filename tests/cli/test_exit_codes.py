"""One table of exit codes: errors, help, documentation and the states of a sweep agree."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from janus_pl import errors
from janus_pl.cli import help as texts
from janus_pl.cli import subcommands
from janus_pl.cli.main import _ending
from janus_pl.errors import (
    FINAL,
    INTERRUPTED,
    SOUND,
    STOPPING,
    DivergenceError,
    Exit,
    StorageError,
    TheoremError,
    UsageError,
)
from janus_pl.run.folder import RunFolder, interrupted
from janus_pl.sweep.states import ENDS, State
from janus_pl.training.signals import Interrupted

FULL = OSError(28, "No space left on device", "runs/a.png")
# Each error class, its exit code, and the state of a sweep's run that ends with it.
TABLE: list[tuple[BaseException, int, State | None]] = [
    (UsageError("data.batch_size", 0, "1 up"), 2, None),
    (DivergenceError("loss not finite"), 3, State.DIVERGED),
    (DivergenceError("loss not finite", recorded=True), 0, State.DONE),
    (StorageError("runs/last.ckpt", FULL), 4, None),
    (TheoremError("the tail bound is broken"), 5, State.BROKEN),
    (Interrupted(signal.SIGHUP), 129, None),
    (Interrupted(signal.SIGINT), 130, None),
    (Interrupted(signal.SIGUSR1), 138, None),
    (Interrupted(signal.SIGUSR2), 140, None),
    (Interrupted(signal.SIGTERM), 143, None),
    (Interrupted(signal.SIGXCPU), 152, None),
]


@pytest.mark.parametrize(("error", "code", "state"), TABLE, ids=lambda v: type(v).__name__)
def test_an_error_its_exit_code_and_the_state_of_a_sweep_agree(
    error: BaseException, code: int, state: State | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error.exit_code == code  # type: ignore[attr-defined]
    assert _ending(error) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert ENDS.get(code) == state


def test_every_error_class_and_every_code_is_in_the_table() -> None:
    classes = {c for c in vars(errors).values() if isinstance(c, type) and "exit_code" in vars(c)}
    assert classes | {Interrupted} == {type(error) for error, *_ in TABLE}
    assert {Exit(code) for _, code, _ in TABLE} == {*Exit} - {Exit.DEFECT}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (argparse.ArgumentError(None, "unrecognized arguments: --x"), Exit.USAGE),
        (OSError(28, "No space left on device", "runs/a.png"), Exit.STORAGE),
        (OSError(2, "No such file or directory", "runs/a.png"), None),
        (ValueError("a defect"), None),
        (RuntimeError("a defect"), None),
    ],
)
def test_errors_of_others(error: BaseException, code: int | None) -> None:
    assert _ending(error) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(e, c) for e, c, _ in TABLE if isinstance(e, UsageError | StorageError)]
    + [(KeyboardInterrupt(), 130)],
)
def test_tools_without_torch_end_with_the_same_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: list[str]) -> int:
        raise error

    module = ModuleType("tool")
    module.main = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tool", module)
    monkeypatch.setitem(subcommands.TOOLS, "verify", "tool")
    assert subcommands.main(["verify"]) == code


def test_help_and_the_page_say_the_codes() -> None:
    told = re.findall(r"(\d+) ([^,.]+)", texts.EXIT_CODES)
    assert told == [(str(int(code)), code.meaning) for code in Exit]
    assert " ".join(texts.EXIT_CODES.split()) in " ".join(texts.HELP.split())
    page = (ROOT / "docs" / "resuming.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", page, re.MULTILINE)
    assert rows == [(str(int(code)), code.meaning) for code in Exit]


def test_signals_that_are_handled_have_codes() -> None:
    assert {Exit(128 + signum) for signum in STOPPING} == {*INTERRUPTED}
    assert all(code > 128 for code in INTERRUPTED) and all(
        c in INTERRUPTED for c in Exit if c > 128
    )


@pytest.mark.parametrize("code", [*Exit])
def test_a_run_goes_on_unless_its_end_is_final(code: Exit, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "abc")
    (tmp_path / "abc" / "config.yaml").write_text("a: 1\n")
    folder.end(code)
    assert (interrupted(tmp_path) == []) == (code in FINAL)
    assert (code in FINAL) == (code in ENDS)
    assert {*SOUND} <= {*FINAL}
