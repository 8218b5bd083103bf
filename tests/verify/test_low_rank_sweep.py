"""What `verify --claims low_rank` says of the shipped scan over B, whose runs have equal epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from report.generic import measured
from report.scanned import MIDDLE, archived, scanned

from janus_pl.cli import subcommands as tools
from janus_pl.records.run import Run

ROOT = Path(__file__).parents[2]
N, LOOK = 1437, 10  # digits; LayerRank looks at 0, 1, 2, 4, 8 and then every tenth epoch


def swept() -> list[int]:
    """The batch sizes of the shipped sweep, without the whole set."""
    plain = yaml.safe_load((ROOT / "configs/sweeps/low_rank_batch.yaml").read_text())
    return [b for b in plain["parameters"]["data.batch_size"]["values"] if b != "full"]


def recorded(batch: int, seed: int, epochs: int) -> Run:
    """A run of the sweep: a row an epoch, ranks where LayerRank looks and at the end."""
    at = np.arange(epochs + 1)
    steps = at * math.ceil(N / batch)
    run = scanned(
        batch,
        seed=seed,
        law={"b": 0.3},
        epochs=tuple(at),
        columns={"trainer/global_step": steps, "eta_t": 0.1 * steps},
    )
    looked = np.isin(at, (0, 1, 2, 4, 8, epochs)) | (at % LOOK == 0)
    for layer in MIDDLE:
        run.rows.loc[~looked, f"effective_rank/{layer}"] = np.nan
    kind: dict[str, Any] = {"kind": "classifier", "task": "janus_pl.Classifier", "network": "MLP"}
    return measured(run, **kind, num_train=N, batch_size=batch)


def said(
    runs: list[Run], folder: Path, capsys: pytest.CaptureFixture, *more: str
) -> dict[str, str]:
    """The line of each claim by its first words after the answer."""
    archive = archived(runs, folder / "scan.jsonl.xz")
    assert tools.main(["verify", str(archive), "--claims", "low_rank", *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[14:].split(":")[0]: line for line in lines if line and line[0] != " "}


def of(epochs: Callable[[int], int]) -> list[Run]:
    return [recorded(b, seed, epochs(b)) for b in swept() for seed in range(5)]


def test_at_equal_epochs_and_not_at_equal_steps_and_why(tmp_path: Path, capsys: Any) -> None:
    lines = said(of(lambda b: 100), tmp_path, capsys)
    (first, second) = list(lines.values())[:2]
    assert first.startswith("supported") and "equal epochs; 5 seeds" in first
    assert len(second) <= 100
    assert second.startswith("not testable  batch_steps: ")
    assert "-B4-" in second and "has no row in the last fifth" in second
    whole = said(of(lambda b: 100), tmp_path, capsys, "--all")
    line = next(line for name, line in whole.items() if name.startswith("batch_steps"))
    assert "of the common steps; a sweep with clock: steps has runs of equal steps" in line


def test_a_rank_that_nobody_looked_at_is_said(tmp_path: Path, capsys: Any) -> None:
    """B = 4 and 16 alone: rows are there at equal steps, the ranks of those epochs are not."""
    lengths = {4: 45, 16: 14}
    runs = [recorded(b, seed, n) for b, n in lengths.items() for seed in range(5)]
    whole = said(runs, tmp_path, capsys, "--all")
    line = next(line for name, line in whole.items() if name.startswith("batch_steps"))
    assert "nan" not in line
    assert "has no effective rank in the last fifth of the common steps" in line
    assert line.endswith("callbacks have to look more often (every_n_epochs)")


def test_runs_of_equal_steps_answer(tmp_path: Path, capsys: Any) -> None:
    """As `clock: steps` makes them: each has the steps of B = 16 in a hundred epochs."""
    steps = 100 * math.ceil(N / 16)
    lines = said(of(lambda b: steps // math.ceil(N / b)), tmp_path, capsys)
    batch, by_steps = list(lines.values())[:2]
    assert by_steps.startswith("supported") and "equal steps; 5 seeds" in by_steps
    assert batch.startswith("not testable")
