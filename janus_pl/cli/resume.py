"""The interrupted run that `--ckpt_path last` goes on with; all processes agree on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from janus_pl.errors import FINAL, UsageError
from janus_pl.run.description import UNKNOWN, read_description
from janus_pl.run.folder import (
    CONFIG,
    checkpoint_of,
    config_of,
    differences,
    exit_code_of,
    interrupted,
    without_places,
)
from janus_pl.training.same_data import data_in

TOLD = "JANUS_PL_GOES_ON"  # tells the processes started by the first one which run to go on with


class Resumed(NamedTuple):
    """The folder of the run to go on with, and its checkpoint; both None without such a run.

    A run that was started from another run's checkpoint, and has none of its own, starts from that
    one once more.
    """

    folder: Path | None = None
    checkpoint: str | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on where it was, and not from its start."""
        if self.folder is None or self.checkpoint is None:
            return self.folder is not None
        return Path(self.checkpoint).absolute().is_relative_to(self.folder.absolute())


def find(root: Path, config: Mapping[str, Any], may_differ: bool) -> Resumed:
    """Find the interrupted run to go on with, and say so.

    The first process alone looks, for it alone holds a run's lock; `agree` tells the others.

    Args:
        root: The folder of the project's runs.
        config: The resolved config.
        may_differ: Whether the run's config may be another one.

    Raises:
        UsageError: As `interrupted_run`.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        return Resumed()
    folder = interrupted_run(root, config, may_differ)
    if folder is None:
        rank_zero_info("No interrupted run to go on with: this is a new one.")
        return Resumed()
    checkpoint = checkpoint_of(folder)
    start = "its newest checkpoint" if checkpoint else "its start, for it has no checkpoint"
    rank_zero_info(f"Going on with {folder} from {start}.")
    if checkpoint is None:
        checkpoint = config_of(folder).get("ckpt_path")
    return Resumed(folder, None if checkpoint is None else str(checkpoint))


def interrupted_run(root: Path, config: Mapping[str, Any], may_differ: bool) -> Path | None:
    """Return the newest interrupted run of this config; None if there is no interrupted run.

    If none has this config and it may differ, return the newest of all. If WANDB_RUN_ID is set,
    only that run counts. Arguments as in `find`.

    Raises:
        UsageError: The run of WANDB_RUN_ID has ended or its config cannot be read, or all
            interrupted runs have another config and it may not differ.
    """
    runs = interrupted(root)
    if run_id := os.environ.get("WANDB_RUN_ID"):
        if exit_code_of(root / run_id) in FINAL:
            raise UsageError("WANDB_RUN_ID", run_id, "a run to go on with; that one has ended")
        runs = [run for run in runs if run.name == run_id]
    changed = {}
    for run in runs:
        try:
            changed[run] = _changes(run, config)
        except (OSError, ValueError):
            if run_id:
                allowed = f"a run to go on with; {run / CONFIG} cannot be read"
                raise UsageError("WANDB_RUN_ID", run_id, allowed) from None
            rank_zero_warn(f"{run} is left out: its {CONFIG} cannot be read")
    if same := [run for run, lines in changed.items() if not lines]:
        return next((run for run in same if not differences(config_of(run), config)), same[0])
    newest = next(iter(changed), None)
    if newest is None or may_differ:
        return newest
    listed = "; ".join(changed[newest])
    allowed = f"the config of {newest}, or --allow_config_change; changed: {listed}"
    raise UsageError("--ckpt_path", "last", allowed)


def _changes(run: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the changed options of a run.

    If the run has the fingerprint of its data, their place does not count: whether the data at the
    place of now are equal is checked once they are read.
    """
    then = config_of(run)
    if data_in(read_description(run)).get("sha256", UNKNOWN) != UNKNOWN:
        then, config = without_places(then), without_places(config)
    return differences(then, config)


def agree(trainer: Trainer, resumed: Resumed) -> Resumed:
    """Return, on every process, the run that the first process has found."""
    if trainer.world_size == 1:
        return resumed
    strategy = trainer.strategy
    found = [None if resumed.folder is None else str(resumed.folder), resumed.checkpoint]
    if not strategy.cluster_environment.creates_processes_externally:  # type: ignore[attr-defined]
        os.environ[TOLD] = json.dumps(found)
    elif TOLD in os.environ:
        found = json.loads(os.environ[TOLD])
    else:  # torchrun, SLURM: this process has not started the others
        strategy.setup_environment()
        found = strategy.broadcast(found)
    return Resumed(None if found[0] is None else Path(found[0]), found[1])
