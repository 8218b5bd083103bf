"""The state beyond Lightning's checkpoint that lets a run go on as if never interrupted."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from janus_pl.run.logger import RunLogger
from janus_pl.run.record import RunRecord, record_of
from janus_pl.run.rows import log_row
from janus_pl.training.generators import generators, set_generators
from janus_pl.training.lightning import end_without_steps, restore_loader_position

NO_LINES = {"rows": 0, "spectra": 0}  # in a checkpoint: how many lines the record has


class ExactResume(Callback):
    """The states of the random generators, the lines of the record, and whether the run had ended.

    Args:
        goes_on: Whether a run is resumed. A new run that starts from a checkpoint has its own rows
            and its own end.
        own: Whether the checkpoint is of the resumed run. If not, the run starts once more.
    """

    def __init__(self, goes_on: bool = False, own: bool = True) -> None:
        self.goes_on, self.own = goes_on, own
        self._state: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning converts after it reads a checkpoint, and so reads float64 into float32 weights.
        trainer.precision_plugin.convert_module(pl_module)
        if self.goes_on:
            end_without_steps(trainer)

    @property
    def had_ended(self) -> bool:
        """Whether the resumed run was killed after its last step."""
        return self.goes_on and self._state is not None and self._state["ends"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        held = generators(trainer.strategy.root_device)
        state = {"generators": held, "ends": trainer.should_stop, **NO_LINES}
        if (record := record_of(trainer)) is not None:
            state |= record.counts()
        checkpoint["exact_resume"] = state

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._state = checkpoint.get("exact_resume")
        if self._state is not None and not self.own:
            self._state = {**self._state, **NO_LINES, "ends": False}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The loaders are made later, and draw from the generators.
        if self._state is not None:
            set_generators(self._state["generators"], trainer.strategy.root_device)
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, RunRecord):
                each.open(trainer)
                self.goes_on = self.goes_on or each.goes_on
        record = record_of(trainer)
        if self.goes_on and record is not None:
            own = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
            lines = {name: (self._state or {}).get(name, 0) for name in NO_LINES}
            for row in record.keep(**lines):
                for logger in own:
                    log_row(logger, row)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.had_ended:
            trainer.should_stop = True
        restore_loader_position(trainer)
        self._state = None


def had_ended(trainer: Trainer) -> bool:
    """Tell whether the run that is resumed was killed after its last step."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(each.had_ended for each in callbacks if isinstance(each, ExactResume))
