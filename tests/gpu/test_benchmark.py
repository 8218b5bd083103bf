"""The benchmark of a GPU on a CPU: each part runs, and without a GPU it is refused in one line."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

import pytest
import torch

from benchmarks import gpu
from janus_pl.errors import Exit


def test_without_a_gpu_it_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --device: got 'cuda', allowed: a machine with a CUDA device")


def test_every_part_runs_on_a_cpu(capsys: pytest.CaptureFixture) -> None:
    assert gpu.main(["--device", "cpu", "--quick"]) == Exit.DONE  # a fit in each of its parts
    text = capsys.readouterr().out
    for title in gpu.PARTS:
        assert f"\n{title}\n" in text
    ratio = re.search(r"fit / captured loop (\d+\.\d+)", text)
    assert ratio and float(ratio[1]) > 0
    assert "within 6 steps 0, between them 0" in text, "a CPU waits for nothing"
    assert re.search(r"2 runs: +\d+\.\d steps a second together", text)


def test_when_its_time_is_over_it_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def part(bench: Any) -> Any:
        yield "one line"
        raise AssertionError("it went on")

    monkeypatch.setattr(gpu, "LIMIT", -1.0)
    monkeypatch.setattr(gpu, "PARTS", {"A part": part})
    assert gpu.main(["--device", "cpu", "--quick"]) == Exit.DONE
    assert capsys.readouterr().out.endswith("the rest is left out: -1 s are over\n")


def test_waits_are_counted_within_and_between_steps() -> None:
    counter = gpu.Waits()
    with counter.listening(torch.device("cpu")):
        warnings.warn(gpu.WAITING, stacklevel=1)
        counter.on_train_batch_start()
        warnings.warn(gpu.WAITING, stacklevel=1)
        warnings.warn("another", stacklevel=1)
        counter.on_train_batch_end()
    assert (counter.within, counter.between, counter.steps) == (1, 1, 1)


def test_it_leaves_messages_and_warnings_as_they_were() -> None:
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level, warnings.filters[:]
    with gpu.quiet():
        assert logger.level == logging.ERROR
    assert (logger.level, warnings.filters) == before
