"""The folder of a run: its lock, its outcome, and the interrupted runs among several.

A run has a lock on its folder while it trains. The system releases the lock when the process ends,
however it ends. A process that ends its run writes the exit code to `outcome.json`; a killed one
does not. A run counts as interrupted if it has neither a lock nor a code of
`janus_pl.errors.FINAL`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from janus_pl.errors import FINAL, UsageError
from janus_pl.run.files import write_atomically
from janus_pl.run.lines import FILE as ROWS
from janus_pl.run.lines import SPECTRA, count_in
from janus_pl.run.nested import load_yaml
from janus_pl.run.spelling import comparable

LOCK, OUTCOME, CONFIG = ".lock", "outcome.json", "config.yaml"
CHECKPOINTS, LAST = "checkpoints", "last.ckpt"
HELD = errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES  # another process has the lock
# Options that change no number of a run: names, places and display.
FREE = (
    *("name", "group", "tags", "project", "run_dir"),
    *("ckpt_path", "allow_config_change", "allow_data_change"),
    *("entity", "notes", "job_type", "log_model", "save_code", "alerts"),
)
# Records of before lack these options, and their runs (on a CPU) had these values.
ADDED = {"numerics": "ieee", "model.init_args.compile": False}
# Records of before have `auto`, which is one device on a machine that has one.
DEVICES, ONE_DEVICE = "trainer.devices", ("auto", 1, "1")
FREE_OF_TRAINER = ("enable_progress_bar", "enable_model_summary", "logger", "logger+", "profiler")


class RunFolder:
    """The folder of a run, locked by this process until `end` or `let_go`.

    Args:
        path: The folder.
        goes_on: Whether to go on with the run in it; if not, there may be none.

    Raises:
        UsageError: Another process trains in it, or it has a run that this one would overwrite.
    """

    def __init__(self, path: Path, goes_on: bool = True) -> None:
        if not goes_on:
            check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path.absolute()  # the working directory may change
        self._lock = self._hold(path)
        if self._lock is None:
            raise UsageError("--ckpt_path", str(path), "a run that no other process is at work on")
        if not goes_on:
            self._check_still_new(path)
        (path / OUTCOME).unlink(missing_ok=True)

    def _check_still_new(self, path: Path) -> None:
        """Refuse a run that another process has made since, or has ended."""
        try:
            check_new(path)
        except UsageError:
            self.let_go()
            raise

    def _hold(self, path: Path) -> IO[str] | None:
        for _ in range(20):  # `is_held` of another process may lock it for a moment
            if (lock := _lock(path, fcntl.LOCK_EX)) is not None:
                return lock
            time.sleep(0.05)
        return None

    def end(self, exit_code: int) -> None:
        """Write the exit code of the run, and its numbers of lines, and release the lock."""
        try:
            self.write_outcome(exit_code)
        finally:
            self.let_go()

    def write_outcome(self, exit_code: int) -> None:
        """Write the outcome of the run, and keep the lock: its record may still be closed."""
        if self._lock is not None:
            outcome = {"exit_code": exit_code}
            for key, file in (("rows", ROWS), ("spectra", SPECTRA)):
                if (count := count_in(self.path, file)) is not None:
                    outcome[key] = count
            text = json.dumps(outcome) + "\n"
            write_atomically(self.path / OUTCOME, lambda file: file.write(text.encode()))

    def let_go(self) -> None:
        """Release the lock without an outcome, so that others may go on with the run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def check_new(folder: Path) -> None:
    """Refuse a folder with a run in it, and one in the folder of a run that has ended.

    Raises:
        UsageError: A new run there would write into the record of another one.
    """
    ended = exit_code_of(folder) in FINAL
    if ended or (folder / ROWS).exists() or any(folder.glob(f"{CHECKPOINTS}/*.ckpt")):
        how = "has ended" if ended else "can go on by --ckpt_path last"
        allowed = f"the id of a new run; the one in {folder} {how}"
        raise UsageError("WANDB_RUN_ID", folder.name, allowed)
    check_outside("--run_dir", folder.parent)


def check_goes_on(folder: Path) -> None:
    """Refuse a folder to go on with that holds no run, or one whose run has ended.

    Raises:
        UsageError: There is no run, or its run has ended, and its record does not change any more.
    """
    if not any((folder / name).exists() for name in (CONFIG, ROWS, CHECKPOINTS)):
        raise UsageError("resumed", str(folder), "the folder of a run")
    if exit_code_of(folder) in FINAL:
        allowed = "a run that has not ended; a new run starts from a checkpoint without `resumed`"
        raise UsageError("resumed", str(folder), allowed)


def check_outside(field: str, place: str | Path) -> None:
    """Refuse a place to write to that is in the folder of a run that has ended.

    Raises:
        UsageError: It is; the record of such a run does not change any more.
    """
    path = Path(place).expanduser().resolve()
    for folder in (path, *path.parents):
        if (folder / OUTCOME).is_file() and exit_code_of(folder) in FINAL:
            allowed = f"a place outside of {folder}, whose run has ended"
            raise UsageError(field, str(place), allowed)


def interrupted(root: Path) -> list[Path]:
    """Return the runs in a folder that are interrupted (module docstring), newest first."""
    runs = [config.parent for config in root.glob(f"*/{CONFIG}")]
    return sorted(filter(_is_interrupted, runs), key=_newest_file, reverse=True)


def checkpoint_of(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run; None if it stopped before its first one.

    If `last.ckpt` is gone and others are there, its path is returned all the same: a sound one
    beside it is taken in its place.
    """
    path = folder / CHECKPOINTS / LAST
    return path if path.is_file() or any(path.parent.glob("*.ckpt")) else None


def config_of(folder: Path) -> dict[str, Any]:
    """Return the resolved config of a run."""
    config = load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the changed options that a run's numbers may depend on, one line each.

    >>> differences({"model": {"lr": 1}, "name": "a"}, {"model": {"lr": 2}, "name": "b"})
    ['model.lr: 1 in the run, now 2']
    """
    return [f"{k}: {old} in the run, now {new}" for k, (old, new) in changes(before, now).items()]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the options of `differences` with both values; "nothing" stands for a missing one.

    Values that stand for one another are equal: `trainer.devices` 1 and auto, IEEE and no numerics.

    >>> changes({"model": {"lr": 1}, "name": "a"}, {"model": {"lr": 2}, "name": "b"})
    {'model.lr': (1, 2)}
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    return {
        key: (old.get(key, ADDED.get(key, "nothing")), new.get(key, ADDED.get(key, "nothing")))
        for key in sorted(old.keys() | new.keys())
        if _of_before(key, old.get(key)) != _of_before(key, new.get(key))
    }


def is_place(option: str, value: object) -> bool:
    """Tell whether an option of the data says where they are; a fingerprint says what they are.

    >>> [is_place("data.source", source) for source in ("/d/a.csv", "toy")]
    [True, False]
    """
    if option == "data.source":
        return isinstance(value, str) and Path(value).suffix in (".npz", ".csv")
    return option in ("data.root", "data.download")


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the options that say where its data are.

    >>> without_places({"data": {"class_path": "a.B", "init_args": {"root": "/d", "seed": 1}}})
    {'data': {'class_path': 'a.B', 'init_args': {'seed': 1}}}
    """
    data = config.get("data")
    given = data.get("init_args") if isinstance(data, Mapping) else None
    if not isinstance(given, Mapping):
        return dict(config)
    kept = {k: v for k, v in given.items() if not is_place(f"data.{k}", v)}
    return {**config, "data": {**config["data"], "init_args": kept}}


def identity(config: Mapping[str, Any]) -> str:
    """Return 12 hex digits, equal for configs that differ in names, places and display alone.

    Options of a newer version at the values that older runs had change no id either.

    >>> identity({"model": {"lr": 1}, "name": "a"}) == identity({"model": {"lr": 1}, "name": "b"})
    True
    """
    options = {key: _of_before(key, value) for key, value in _flat(config)}
    text = json.dumps(options, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def exit_code_of(folder: Path) -> int | None:
    """Return the exit code that a run has written; None if it has written none."""
    try:
        ended = json.loads((folder / OUTCOME).read_text())
    except (OSError, ValueError):
        return None
    code = ended.get("exit_code") if isinstance(ended, dict) else None
    return code if isinstance(code, int) else None


def is_held(folder: Path) -> bool:
    """Tell whether a process has the lock of a folder; make no file."""
    if not (folder / LOCK).is_file():
        return False
    if (lock := _lock(folder, fcntl.LOCK_SH)) is None:
        return True
    lock.close()
    return False


def _lock(folder: Path, kind: int) -> IO[str] | None:
    """Return the open lock file; None if another process has the lock. `is_held` shares it.

    Not every file system has locks (ENOSYS, ENOLCK, EOPNOTSUPP): there the file stands for the lock
    and keeps nobody out.
    """
    file = (folder / LOCK).open("r" if kind == fcntl.LOCK_SH else "a")
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            file.close()
            return None
        if kind == fcntl.LOCK_EX:
            warnings.warn(
                f"{folder}: this file system has no locks ({error.strerror}); see to it yourself"
                " that no two processes work on one run",
                stacklevel=1,
            )
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
        elif name not in ADDED or value != ADDED[name]:
            yield name, value


def _of_before(option: str, value: Any) -> Any:
    """Return an option's value as records of before spell it."""
    if option == DEVICES:
        return ONE_DEVICE[0] if value in ONE_DEVICE else value
    return comparable(option, value)
