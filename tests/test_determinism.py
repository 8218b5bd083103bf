"""Same config and seed in fresh processes: bitwise equal weights and records on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from environments import LIMIT, PACKAGE
from record_reader import read_rows

SCRIPT = """
import sys
from janus_pl import main
plain = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
digits = ["fit", "--config=quickstart.yaml", "--trainer.max_epochs=3", "--model.hidden=256"]
linear = ["fit", "--config=linear/a3.yaml", "--data.order=shuffle", "--data.batch_size=2"]
seed = [f"--seed_everything={sys.argv[1]}", f"--data.seed={sys.argv[1]}"]
sys.argv = ["janus_pl"]
codes = [
    main([*digits, *plain, *seed, "--project=digits"]),
    main([*linear, *plain, *seed, "--project=linear"]),
]
raise SystemExit(max(codes))
"""


def run(folder: Path, threads: int, seed: int = 3) -> None:
    """Both tasks in a process of its own; Python's hashes differ from one to the next."""
    folder.mkdir()
    settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    settings |= {"NUMBA_NUM_THREADS": str(threads), "PYTHONPATH": PACKAGE}
    command = [sys.executable, "-c", SCRIPT, str(seed)]
    env = {**os.environ, **settings}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr


def weights(folder: Path) -> dict[str, np.ndarray]:
    (checkpoint,) = folder.glob("runs/digits/*/checkpoints/last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    arrays = {name: w.numpy() for name, w in saved["state_dict"].items()}
    momenta = saved["optimizer_states"][0]["state"]
    arrays |= {f"momentum {k}": s["momentum_buffer"].numpy() for k, s in momenta.items()}
    (final,) = folder.glob("runs/linear/*/final.npz")
    with np.load(final) as held:
        return arrays | {"W": held["W"]}


def rows(folder: Path, project: str) -> list[dict[str, Any]]:
    """The record but for W&B's own columns and the names of its files."""
    own = ("_", "spectrum_table")
    found = read_rows(folder / "runs" / project)
    return [{k: v for k, v in row.items() if not k.startswith(own)} for row in found]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    equal = all(first[k].tobytes() == second[k].tobytes() for k in first)
    return equal and all(rows(a, p) == rows(b, p) for p in ("digits", "linear"))


@pytest.mark.soak
def test_two_processes_of_one_thread_are_bitwise_equal_and_another_seed_is_another_run(
    tmp_path: Path,
) -> None:
    for name, seed in {"a": 3, "b": 3, "other": 4}.items():
        run(tmp_path / name, threads=1, seed=seed)
    assert len(rows(tmp_path / "a", "digits")) == 4
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "other"), "the negative control"


@pytest.mark.soak
def test_two_processes_of_two_threads_are_bitwise_equal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, threads=2)
    assert same(tmp_path / "a", tmp_path / "b")
