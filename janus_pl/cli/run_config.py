"""The resolved config of a fit: where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from janus_pl.cli.base_values import plain
from janus_pl.run import history
from janus_pl.run.folder import config_of
from janus_pl.run.logger import RunLogger, sending_by
from janus_pl.run.record import RunRecord, record_of
from janus_pl.run.sent import sent


class SaveRunConfig(SaveConfigCallback):
    """Writes the resolved config to the run's folder, to each checkpoint and, nested, to W&B.

    Attributes:
        entry: The line of the history that the checkpoint of the start makes; None without one.
    """

    entry: Mapping[str, Any] | None = None

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The resolved config in plain values; made once, for each checkpoint holds it."""
        return dict(plain(self._whole_text))

    @cached_property
    def _whole_text(self) -> str:
        """The resolved config as YAML, which takes long to make."""
        return self._text()

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        record = record_of(trainer)
        if record is not None and not record.goes_on:
            self._write(trainer, record)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        record = record_of(trainer)
        if record is not None and record.goes_on:
            self._write(trainer, record)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[history.HELD] = self.plain

    def _write(self, trainer: Trainer, record: RunRecord) -> None:
        folder = record.folder
        assert folder is not None  # the record is open
        lines = history.read(folder)
        if self.entry is not None:
            lines = history.add(folder, self.entry)
        text = self._text(folder) if record.goes_on else self._whole_text
        config = plain(text)
        own = [each for each in trainer.loggers if isinstance(each, RunLogger)]
        if own and isinstance(config["trainer"]["logger"], list):
            text = text.replace("\n  logger:", "\n  logger+:", 1)  # beside the run's own
        record.write_config_text(text)
        noted = {history.KEY: lines} if lines else {}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with sending_by(logger):
                    known = logger.experiment.config
                    known.update(sent(config, known) | noted, allow_val_change=True)

    def _text(self, resumed: Path | None = None) -> str:
        """Return the config as YAML; of a resumed run with the checkpoint that it started from."""
        config = self.config.clone()
        config.allow_data_change = False  # allowed once, not to whoever repeats the run
        if resumed is not None:
            config.ckpt_path = config_of(resumed).get("ckpt_path")
        return str(self.parser.dump(config, skip_none=False))
