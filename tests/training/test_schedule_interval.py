"""Schedules that step after every step, and a warm-up with a cosine behind it in a config."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR
from training.rates import Rates

from janus_pl import SequentialLR
from janus_pl.callbacks import LayerRank
from janus_pl.cli.main import main
from janus_pl.errors import UsageError

FORMULAS = {
    "constant": lambda t, total: 1.0,
    "inverse_sqrt": lambda t, total: (t + 1) ** -0.5,
    "cosine": lambda t, total: math.cos(math.pi * t / (2 * total)) ** 2,
}


@pytest.fixture
def rates() -> Rates:
    Rates.seen = []
    return Rates()


@pytest.mark.parametrize("stop", [{}, {"max_steps": 8}])
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", list(FORMULAS))
def test_a_schedule_follows_its_formula_at_every_step(
    name: str,
    interval: Any,
    stop: dict[str, int],
    rates: Rates,
    fit: Any,
    rows: Any,
    small_task: Any,
    small_loader: Any,
) -> None:
    """Three steps an epoch, four epochs; or eight steps."""
    task = small_task(schedule=name, schedule_interval=interval, learning_rate=0.5)
    fit(task, small_loader(), 4, [rates, LayerRank(1)], **stop)
    steps = stop.get("max_steps", 12)
    total = steps if interval == "step" else math.ceil(steps / 3)
    times = [t if interval == "step" else t // 3 for t in range(steps)]
    expected = [0.5 * FORMULAS[name](t, total) for t in times]
    assert rates.seen == pytest.approx(expected, rel=1e-12)
    ends = [min(3 * epoch, steps) for epoch in range(1, len(rows))]
    assert [row["learning_rate"] for row in rows[1:]] == [rates.seen[end - 1] for end in ends]
    sums = [math.fsum(expected[:end]) for end in ends]
    assert [row["eta_t"] for row in rows[1:]] == pytest.approx(sums, rel=1e-12)


def warm_up(optimizer: Any) -> SequentialLR:
    parts: list[Any] = [
        lambda o: LinearLR(o, 0.25, total_iters=4),
        lambda o: CosineAnnealingLR(o, 8),
    ]
    return SequentialLR(optimizer, parts, [4])


def warm_up_rate(t: int) -> float:
    """A quarter of the rate at first, all of it at step 4, then half a cosine over 8 steps."""
    if t < 4:
        return 0.5 * (0.25 + 0.75 * t / 4)
    return 0.5 * (1 + math.cos(math.pi * (t - 4) / 8)) / 2


def test_a_warm_up_and_a_cosine_follow_their_formula(
    rates: Rates, fit: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(schedule=warm_up, schedule_interval="step", learning_rate=0.5)
    fit(task, small_loader(), 4, [rates])
    assert rates.seen == pytest.approx([warm_up_rate(t) for t in range(12)], rel=1e-6)


CONFIG = """
model:
  init_args:
    learning_rate: 0.5
    schedule_interval: step
    schedule:
      class_path: CLASS
      init_args:
        schedulers:
          - class_path: torch.optim.lr_scheduler.LinearLR
            init_args: {start_factor: 0.25, total_iters: 4}
          - class_path: torch.optim.lr_scheduler.CosineAnnealingLR
            init_args: {T_max: 8}
        milestones: [4]
trainer:
  max_epochs: 4
  enable_progress_bar: false
  callbacks:
    - class_path: training.rates.Rates
"""
LINE = ["fit", "--config=quickstart.yaml", "--config=warm.yaml", "--data.num_train=24"]
LINE += ["--data.batch_size=8"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def test_a_warm_up_and_a_cosine_can_be_written_in_yaml(rates: Rates, home: Path) -> None:
    (home / "warm.yaml").write_text(CONFIG.replace("CLASS", "janus_pl.SequentialLR"))
    assert main(LINE) == 0
    assert rates.seen == pytest.approx([warm_up_rate(t) for t in range(12)], rel=1e-6)
    # The config of the run folder is complete: it trains the same.
    (config,) = home.glob("runs/*/*/config.yaml")
    first, Rates.seen = rates.seen, []
    assert main(["fit", f"--config={config}"]) == 0
    assert Rates.seen == first


def test_pytorchs_own_is_one_line_that_says_what_to_write(home: Path, capsys: Any) -> None:
    path = "torch.optim.lr_scheduler.SequentialLR"
    (home / "warm.yaml").write_text(CONFIG.replace("CLASS", path))
    assert main(LINE) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model.schedule.schedulers.optimizer: got None, allowed: ")
    assert "janus_pl.SequentialLR" in line


@pytest.mark.parametrize("value", ["minute", None, 3])
def test_another_interval_is_refused(value: Any, small_task: Any) -> None:
    with pytest.raises(UsageError, match=r"^model\.schedule_interval: got .*allowed: epoch, step$"):
        small_task(schedule_interval=value)


def test_milestones_that_do_not_fit_are_refused(small_task: Any) -> None:
    broken = lambda o: SequentialLR(o, [lambda p: LinearLR(p)], [1, 2])  # noqa: E731
    with pytest.raises(UsageError, match=r"^model\.schedule: got .*options that it accepts"):
        small_task(schedule=broken)


def test_a_linear_run_has_no_interval(home: Path, capsys: Any) -> None:
    given = "--model.schedule_interval=step"
    assert main(["fit", "--config=linear/a2.yaml", given]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert "model.schedule_interval: unknown key" in line
