"""A run in two parts, the second by a clock that is an hour back, and harm for copies of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import wandb

EPOCHS, STOPPED, STEP = 24, 14, "trainer/global_step"
FIT = [
    *("fit", "--config", "quickstart.yaml", "--name", "a name", "--group", "a group"),
    *("--data.num_train", "64", "--model.hidden", "8", "--model.channels", "[2,3,4,4]"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.max_epochs", str(EPOCHS), "--trainer.check_val_every_n_epoch", str(EPOCHS)),
]


class Recorded(NamedTuple):
    """The folder of the run, whole and as it was interrupted, and its rows as they were written."""

    whole: Path
    interrupted: Path
    rows: list[dict[str, Any]]


def record(root: Path) -> Iterator[Recorded]:
    """Train a run, stop it by SIGTERM and go on with it an hour earlier."""
    from janus_pl import main
    from janus_pl.callbacks import RunCheckpoint

    look = RunCheckpoint.on_train_epoch_end

    def stop(self: Any, trainer: Any, module: Any) -> None:
        look(self, trainer, module)
        if trainer.current_epoch + 1 == STOPPED:
            signal.raise_signal(signal.SIGTERM)

    args = [*FIT, "--run_dir", str(root / "runs")]
    wandb.teardown()  # else W&B has the environment of its first start
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        with patch.context() as first:
            first.setattr(RunCheckpoint, "on_train_epoch_end", stop)
            assert main(args) == 143
        (folder,) = (root / "runs" / "janus_pl").iterdir()
        interrupted = root / "interrupted" / folder.name
        shutil.copytree(folder, interrupted, symlinks=True)
        clock = SimpleNamespace(**{**vars(time), "time": lambda: time.time() - 3600})
        patch.setattr("wandb.sdk.wandb_init.time", clock)
        assert main([*args, "--ckpt_path", "last"]) == 0
        wandb.finish()
    lines = (folder / "rows.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k[0] != "_"} for line in lines]
    yield Recorded(folder, interrupted, rows)


def rows_file(folder: Path) -> Path:
    return folder / "rows.jsonl"


def copies(folder: Path) -> list[Path]:
    """W&B's two files, that of the first part first: the clock has them the other way round."""
    first, second = sorted(folder.glob("wandb/off*/run-*.wandb"), key=lambda f: f.stat().st_size)
    assert first.parent.name > second.parent.name
    return [first, second]


Harm = Callable[[Path], None]


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Harm:
    """Harm the lines of rows.jsonl."""

    def harm(folder: Path) -> None:
        file = rows_file(folder)
        file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))

    return harm


def content(change: Callable[[bytearray], bytes | bytearray], of: int | None = None) -> Harm:
    """Harm the bytes of rows.jsonl, or of one of W&B's files."""

    def harm(folder: Path) -> None:
        file = rows_file(folder) if of is None else copies(folder)[of]
        file.write_bytes(change(bytearray(file.read_bytes())))

    return harm


def flipped(share: float) -> Callable[[bytearray], bytearray]:
    """Flip a bit at a share of the bytes."""

    def change(data: bytearray) -> bytearray:
        data[int(share * len(data))] ^= 4
        return data

    return change


def zeroed(share: float, size: int) -> Callable[[bytearray], bytearray]:
    """Zero a block that begins at a share of the bytes."""

    def change(data: bytearray) -> bytearray:
        at = int(share * len(data))
        data[at : at + size] = bytes(len(data[at : at + size]))
        return data

    return change


def edited(found: list[bytes]) -> list[bytes]:
    """Change a number of a row, so that the line is still good JSON."""
    row = json.loads(found[9])
    seal = row.pop("_seal")
    changed = json.dumps({**row, "rho": row["rho"] * 1.25, "_seal": seal}).encode() + b"\n"
    return [*found[:9], changed, *found[10:]]


def unsealed(found: list[bytes]) -> list[bytes]:
    """The lines as older versions wrote them."""
    rows = [json.loads(line) for line in found]
    return [json.dumps({k: v for k, v in row.items() if k != "_seal"}).encode() + b"\n"
            for row in rows]  # fmt: skip


def without_copy(folder: Path) -> None:
    shutil.rmtree(folder / "wandb")


def without(name: str) -> Harm:
    return lambda folder: (folder / name).unlink()


def both(*harms: Harm) -> Harm:
    def harm(folder: Path) -> None:
        for each in harms:
            each(folder)

    return harm


def renamed(folder: Path) -> None:
    os.rename(folder, folder.with_name("another"))
