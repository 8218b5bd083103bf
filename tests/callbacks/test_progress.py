"""The progress of a fit: one line that fits the terminal, of the run, with the rows' epoch."""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rich
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.progress.rich_progress import _RefreshThread
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from run.small_runs import fit_args

import janus_pl.callbacks.progress as bar_of
from janus_pl.callbacks import ProgressBar
from janus_pl.callbacks.progress import line
from janus_pl.cli.main import main

NUMBERS = {"loss": 0.123456, "error": 0.0123, "margin": "4.5e-08", "null": "1.0e-03"}
LONG = {"loss": 1.2345e-08, "error": 0.0123, "margin": "-4.5e-08", "rho": "1.2e+03", "mine": 7.0}
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[78]")


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What rich draws on a terminal of a width; Lightning makes rich's console anew for a fit."""

    def made(width: int) -> io.StringIO:
        text = io.StringIO()
        told = {"file": text, "width": width, "height": 30, "force_terminal": True}
        monkeypatch.setattr(rich, "_console", Console(**told))
        monkeypatch.setattr(bar_of.ProgressBar, "_init_progress", _with_console(told))
        return text

    return made


def _with_console(told: dict[str, Any]) -> Any:
    def init(self: ProgressBar, trainer: Any) -> None:
        self._console_kwargs = told
        super(ProgressBar, self)._init_progress(trainer)

    return init


def drawn(text: str) -> list[str]:
    """The lines as they stood on the screen, one after the other."""
    lines = CONTROL.sub("\n", text).replace("\r", "\n").splitlines()
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.parametrize("width", [20, 40, 59, 79, 100, 200])
@pytest.mark.parametrize("numbers", [{}, NUMBERS, LONG], ids=["none", "some", "long"])
def test_a_line_is_never_longer_than_its_width(width: int, numbers: dict[str, Any]) -> None:
    for epoch, clock in (("Epoch 3/9", "0:00:20 left"), ("Epoch 1999/2000", "112:01:10 left")):
        for share in (0.0, 0.5, 1.0):
            assert len(line(epoch, clock, share, numbers, width)) <= width


def test_at_80_columns_the_numbers_of_the_experiment_have_room() -> None:
    shown = line("Epoch 1999/2000", "0:01:10 left", 0.999, LONG, 79)
    assert " loss 1.23e-08 error 0.0123 margin -4.5e-08" in shown
    assert "mine" not in shown and "mine 7" in line("Epoch 1/2", "0:01:10 left", 0.5, LONG, 120)
    assert r"\[x] 1" in line("Epoch 1", "0:01:10 left", 0.5, {"[x]": 1.0}, 80), "no markup"
    ascii = line("Epoch 1/2", "0:01:10 left", 0.5, {}, 60, bar_of.ASCII)
    assert ascii.isascii() and ascii.count("=") == ascii.count("-") == 12


@pytest.mark.parametrize("width", [80, 60])
def test_a_fit_draws_one_line_that_fits(
    width: int, console: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every drawing on a recorded terminal, of a run with validations."""
    monkeypatch.chdir(tmp_path)
    clock = itertools.count(0, 2)  # two seconds from one look at it to the next
    monkeypatch.setattr(bar_of, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    joined: list[Any] = []
    monkeypatch.setattr(_RefreshThread, "join", joined.append)
    text = console(width)
    used = '[{"class_path": "callbacks.MarginHistogram"}, {"class_path": "callbacks.ProgressBar"}]'
    more = ["--trainer.callbacks", used, "--trainer.check_val_every_n_epoch", "1"]
    bar = ["--trainer.enable_progress_bar=true", "--trainer.max_epochs=4"]
    assert main(fit_args(*more, *bar)) == 0
    lines = drawn(text.getvalue())
    assert all(len(each) <= width for each in lines), max(lines, key=len)
    assert all(each.startswith("Epoch ") for each in lines), "one line, and nothing else"
    epochs = [int(re.match(r"Epoch (\d+)/4 ", each)[1]) for each in lines]  # type: ignore[index]
    assert epochs == sorted(epochs) and {*epochs} == {0, 1, 2, 3, 4}
    assert re.search(r" in \d:\d\d:\d\d loss \S+", lines[-1])
    assert any(re.search(r" \d:\d\d:\d\d left", each) for each in lines)
    assert joined == [], "the end waits for no thread, which would sleep for a second"


def test_in_a_terminal_the_run_says_nothing_of_flops(tmp_path: Path) -> None:
    """A terminal of 80 columns, with the shipped defaults of the base config."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(tmp_path)
        os.environ |= {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
        args = [*fit_args("--trainer.enable_progress_bar=true"), "--trainer.callbacks+"]
        text = Path("tiny.yaml").read_text().replace("  enable_model_summary: false\n", "")
        Path("tiny.yaml").write_text(text)
        command = [sys.executable, "-m", "janus_pl", *args, "callbacks.ProgressBar"]
        os.execv(sys.executable, command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    told = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        told += piece
    _, status = os.waitpid(child, 0)
    said = told.decode()
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert "FLOPs" not in said
    # Lightning's own line comes by stderr, where the cursor stands.
    bars = [each.partition("`Trainer.fit`")[0] for each in drawn(said)]
    bars = [each for each in bars if each.startswith("Epoch")]
    assert bars and all(len(each) <= 80 for each in bars)
    assert "Epoch 2/2" in bars[-1]


# The time


def trainer_at(epoch: int, batch: int, epochs: int | None = 10, steps: int = -1) -> Any:
    """A trainer within an epoch of five batches."""
    current = SimpleNamespace(ready=epoch + 1, processed=epoch)
    progress = SimpleNamespace(current=SimpleNamespace(ready=batch), total=SimpleNamespace(ready=9))
    return SimpleNamespace(
        fit_loop=SimpleNamespace(
            epoch_progress=SimpleNamespace(current=current),
            epoch_loop=SimpleNamespace(batch_progress=progress),
        ),
        num_training_batches=5,
        max_epochs=epochs,
        max_steps=steps,
        accumulate_grad_batches=1,
        callbacks=[],
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        progress_bar_metrics={},
        loggers=[],
    )


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module whose subject has completed as many epochs as the trainer."""

    def subject_of(trainer: Any, module: Any) -> Any:
        epochs = trainer.fit_loop.epoch_progress.current.processed
        row = SimpleNamespace(numbers={})
        return SimpleNamespace(planned=None, completed=lambda: epochs, row=row)

    monkeypatch.setattr(bar_of, "subject_of", subject_of)
    return object()


def test_the_run_is_measured_in_its_batches(module: Any) -> None:
    for epoch, batch, done in ((0, 0, 0), (0, 5, 5), (3, 2, 17)):
        assert bar_of._done(trainer_at(epoch, batch), module) == done
    ended = trainer_at(4, 5)
    ended.fit_loop.epoch_progress.current.processed = 5  # the hooks of an epoch's end
    assert bar_of._done(ended, module) == 25
    assert bar_of._total(ended, module) == 50
    assert bar_of._total(trainer_at(0, 0, steps=12), module) == 12
    assert bar_of._total(trainer_at(0, 0, epochs=-1), module) == float("inf")


def test_the_time_left_is_that_of_the_run(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds for the first fifth of what this fit has to do; it went on from epoch 5 of 10."""
    said: list[dict[str, Any]] = []
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(bar_of.time, "monotonic", lambda: clock.now)
    bar = ProgressBar()
    screen = SimpleNamespace(width=80, options=SimpleNamespace(ascii_only=False))
    update = lambda task, **given: said.append(given)  # noqa: E731
    bar.progress = SimpleNamespace(console=screen, update=update)  # type: ignore[assignment]
    monkeypatch.setattr(bar, "_add_task", lambda total, text: 0)
    monkeypatch.setattr(bar, "_update", lambda *args, **options: None)
    bar.on_train_epoch_start(trainer_at(5, 0), module)
    assert "-:--:-- left" in said[-1]["description"]
    clock.now += 10
    bar.on_train_batch_end(trainer_at(6, 0), module)
    assert said[-1]["description"].startswith("Epoch 6/10 ")
    assert " 0:00:40 left" in said[-1]["description"]
    limited = trainer_at(6, 0)
    timer = Timer("00:00:00:07")
    limited.callbacks = [timer]
    clock.now += 1
    bar.on_train_batch_end(limited, module)
    assert " 0:00:07 left" in said[-1]["description"], "max_time ends the run before"
