"""Reads a W&B record back with W&B's own reader, as nested rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from janus_pl.run.files import settle

Rows = list[dict[str, Any]]


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of the only run below a folder, in the order they were written."""
    (run,) = (path for kind in ("offline-run-*", "run-*") for path in folder.glob(f"**/{kind}/"))
    return inspect(run)


def inspect(run: Path) -> list[dict[str, Any]]:
    """All records in a run's own W&B directory."""
    settle(run)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def read_rows(folder: Path) -> Rows:
    """The history: one flat dictionary a row, nested keys joined by dots."""
    records = read_records(folder)
    return [r["history"]["item"] for r in records if r["type"] == "history"]


def exit_code(folder: Path) -> int:
    """What the run told W&B when it ended."""
    (code,) = [r["exit"].get("exit_code", 0) for r in read_records(folder) if r["type"] == "exit"]
    return code


def files_of(folder: Path) -> list[Path]:
    """The files below a folder, but for the logs that W&B's service writes after a run's end."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if path.parent.name != "logs")
