"""The folder of a run: who is at work in it, how the run ended, and which run to go on with.

A run holds a lock on its folder while it trains, which the system lets go of when the process ends,
however it ends. `outcome.json` is there once a run has ended by itself. A run without either was
interrupted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from janus_pl.errors import FINAL, UsageError
from janus_pl.run.files import write_atomically

LOCK, OUTCOME, CONFIG = ".lock", "outcome.json", "config.yaml"
CHECKPOINTS, LAST = "checkpoints", "last.ckpt"
# What a run is called and how it is shown is no part of what it computes.
FREE = ("name", "group", "tags", "project", "run_dir", "ckpt_path", "allow_config_change")
FREE_OF_TRAINER = ("enable_progress_bar", "enable_model_summary", "logger", "profiler")


class RunFolder:
    """A run's folder, held by this process until `end`.

    Raises:
        UsageError: another process trains in it.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path.absolute()  # whatever the working directory is in the end
        self._lock = self._hold(path)
        if self._lock is None:
            raise UsageError("--ckpt_path", str(path), "a run that no other process is at work on")
        (path / OUTCOME).unlink(missing_ok=True)

    def _hold(self, path: Path) -> IO[str] | None:
        for _ in range(20):  # another process may be looking, which takes no time
            if (lock := _lock(path, fcntl.LOCK_EX)) is not None:
                return lock
            time.sleep(0.05)
        return None

    def end(self, exit_code: int) -> None:
        """Write how the run ended and let go of the folder."""
        if self._lock is not None:
            text = json.dumps({"exit_code": exit_code}) + "\n"
            try:
                write_atomically(self.path / OUTCOME, lambda file: file.write(text.encode()))
            finally:
                self.let_go()

    def let_go(self) -> None:
        """Others may go on with the run, of whose end nothing is written."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def interrupted(root: Path) -> list[Path]:
    """Runs below a folder that did not end by themselves and are not under way, newest first."""
    runs = [config.parent for config in root.glob(f"*/{CONFIG}")]
    return sorted(filter(_is_interrupted, runs), key=_newest_file, reverse=True)


def checkpoint_of(folder: Path) -> Path | None:
    """The newest state of a run; None where it was broken off before its first checkpoint."""
    path = folder / CHECKPOINTS / LAST
    return path if path.is_file() else None


def config_of(folder: Path) -> dict[str, Any]:
    """The resolved config that a run was given."""
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a config has changed that a run's numbers may depend on, a line each.

    >>> differences({"model": {"lr": 1}, "name": "a"}, {"model": {"lr": 2}, "name": "b"})
    ['model.lr: 1 in the run, now 2']
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: {old.get(key, 'nothing')} in the run, now {new.get(key, 'nothing')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def identity(config: Mapping[str, Any]) -> str:
    """An id that configs share where they compute the same numbers, and no others: 12 hex digits.

    >>> identity({"model": {"lr": 1}, "name": "a"}) == identity({"model": {"lr": 1}, "name": "b"})
    True
    """
    text = json.dumps(dict(_flat(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def exit_code_of(folder: Path) -> int | None:
    """How a run ended; None where it has not, or not by itself."""
    try:
        ended = json.loads((folder / OUTCOME).read_text())
    except (OSError, ValueError):
        return None
    code = ended.get("exit_code") if isinstance(ended, dict) else None
    return code if isinstance(code, int) else None


def is_held(folder: Path) -> bool:
    """Whether a process is at work in a folder; looking makes no file."""
    if not (folder / LOCK).is_file():
        return False
    if (lock := _lock(folder, fcntl.LOCK_SH)) is None:
        return True
    lock.close()
    return False


def _lock(folder: Path, kind: int) -> IO[str] | None:
    """The open lock file; None where another process holds it. Those who look share it."""
    file = (folder / LOCK).open("a")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _is_interrupted(folder: Path) -> bool:
    return exit_code_of(folder) not in FINAL and not is_held(folder)


def _newest_file(folder: Path) -> float:
    files = [folder / CONFIG, *folder.glob(f"{CHECKPOINTS}/*")]
    return max(file.stat().st_mtime for file in files)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in FREE or name in {f"trainer.{option}" for option in FREE_OF_TRAINER}:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
