"""What is on the disk at every moment of a run: a cut of the power leaves a run to go on from.

`Disk` stands for the disk: of a file it has what the last fsync found in it, of a folder the names
that its last fsync found. Everything else is in memory and would be lost.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from janus_pl.callbacks import LayerRank, RunCheckpoint
from janus_pl.run import files
from janus_pl.run import logger as wandb_run
from janus_pl.run.journal import Journal
from janus_pl.run.logger import RunLogger
from janus_pl.training.checkpoints import VerifiedCheckpointIO
from janus_pl.training.resume import ExactResume

NAMES = ("last.ckpt", "previous.ckpt", "best.ckpt", "rows.jsonl")


class Disk:
    """Files of a run below a folder as a cut of the power would leave them.

    A new file's name counts as on the disk with its first fsync, as common file systems have it;
    a name that another file had before changes with the fsync of its folder alone.

    Attributes:
        cuts: every moment that was looked at, by what had just been done.
        faults: what would have been lost, by the moment.
    """

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.cuts: list[str] = []
        self.faults: list[str] = []
        self._content: dict[int, bytes] = {}  # by inode, as of its last fsync
        self._names: dict[Path, int] = {}  # as of the last fsync of their folder
        self._calls = {name: getattr(os, name) for name in ("fsync", "replace")}
        patch.setattr(os, "fsync", self._fsync)
        patch.setattr(os, "replace", self._replace)

    def _fsync(self, descriptor: int) -> None:
        self._calls["fsync"](descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not path.is_relative_to(self.root):
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            for name in (path / name for name in NAMES):
                self._names.pop(name, None)
                if name.exists():
                    self._names[name] = name.stat().st_ino
        else:
            inode = os.fstat(descriptor).st_ino
            self._content[inode] = path.read_bytes()
            if path.name in NAMES:
                self._names.setdefault(path, inode)
        self._look(f"fsync {path.name}")

    def _replace(self, source: Any, target: Any) -> None:
        self._calls["replace"](source, target)
        # The name may be on the disk from now on, or not until the folder is synced.
        if Path(target).is_relative_to(self.root) and Path(target).name in NAMES:
            before = dict(self._names)
            self._names[Path(target)] = Path(target).stat().st_ino
            self._look(f"replace {Path(target).name}, and its name went at once")
            self._names = before
            self._look(f"replace {Path(target).name}, and its name did not")

    def read(self, name: str) -> bytes | None:
        """The content that a file of this name has on the disk; None where there is none."""
        found = [inode for path, inode in self._names.items() if path.name == name]
        return self._content.get(found[0], b"") if found else None

    def _look(self, moment: str) -> None:
        self.cuts.append(moment)
        rows = (self.read("rows.jsonl") or b"").count(b"\n")
        for name in NAMES[:3]:
            content = self.read(name)
            if content is None:
                continue
            try:
                saved = torch.load(io.BytesIO(content), weights_only=True)
            except Exception as error:
                self.faults.append(f"{moment}: {name} is cut off ({type(error).__name__})")
                continue
            if saved["exact_resume"]["rows"] > rows:
                counted = saved["exact_resume"]["rows"]
                self.faults.append(f"{moment}: {name} counts {counted} rows of {rows}")


@pytest.fixture
def train(
    fit: Any, small_task: Any, small_loader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Disk]:
    """A run of four epochs with a checkpoint each."""

    def run() -> Disk:
        with monkeypatch.context() as patch:
            disk = Disk(patch, tmp_path)
            fit(
                small_task(),
                small_loader(),
                4,
                [LayerRank(1), RunCheckpoint(1), ExactResume()],
                logger=RunLogger(run_dir=tmp_path),
                plugins=[VerifiedCheckpointIO()],
                enable_checkpointing=True,
            )
            wandb_run.finish()
        wandb.teardown()
        return disk

    return run


def test_a_cut_at_any_moment_leaves_a_sound_checkpoint_and_the_rows_that_it_counts(
    train: Any,
) -> None:
    disk = train()
    assert disk.faults == []
    assert len([cut for cut in disk.cuts if cut.startswith("replace last.ckpt")]) >= 2 * 4
    saved = torch.load(io.BytesIO(disk.read("last.ckpt") or b""), weights_only=True)
    before = torch.load(io.BytesIO(disk.read("previous.ckpt") or b""), weights_only=True)
    assert (saved["global_step"], before["global_step"]) == (12, 9)
    assert saved["exact_resume"]["rows"] == 5


def _not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "sync", lambda self: None)


def _counted_before(patch: pytest.MonkeyPatch) -> None:
    """A row that comes between the fsync of the journal and the count."""
    sync = Journal.sync

    def early(self: Journal) -> None:
        sync(self)
        self.append({"epoch": 0, "trainer/global_step": 0})

    patch.setattr(Journal, "sync", early)


def _folder_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "_sync_folder", lambda folder: None)


@pytest.mark.parametrize("fault", [_not_synced, _counted_before])
def test_rows_that_are_not_safe_before_the_checkpoint_are_found(
    fault: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative controls."""
    fault(monkeypatch)
    assert any("counts" in found for found in train().faults)


def test_content_that_is_not_safe_before_its_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the disk itself: a rename, and then an fsync."""
    disk = Disk(monkeypatch, tmp_path)
    part, path = tmp_path / "part", tmp_path / "last.ckpt"
    part.write_bytes(b"something")
    os.replace(part, path)
    assert disk.faults == [
        "replace last.ckpt, and its name went at once: last.ckpt is cut off (EOFError)"
    ]


def test_without_the_folders_fsync_the_name_is_still_that_of_the_old_file(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the last checkpoint is nowhere on the disk."""
    _folder_forgotten(monkeypatch)
    assert train().read("last.ckpt") is None
