"""What the loggers of a run are asked and told about the run as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.loggers import Logger, WandbLogger

from janus_pl.run.columns import described
from janus_pl.run.description import Description
from janus_pl.run.logger import RunLogger
from janus_pl.run.name import run_name
from janus_pl.run.service import NoRun


def known_as(loggers: Sequence[Logger], description: Description) -> dict[str, str | None]:
    """Return the name and the group of a run: those of its first W&B logger, where it has them."""
    name = group = None
    for logger in loggers:
        if isinstance(logger, WandbLogger) and not isinstance(logger.experiment, NoRun):
            made = isinstance(logger, RunLogger) and not logger.named
            name, group = None if made else logger.experiment.name, logger.experiment.group
            break
    return {"name": name or run_name(description), "group": group or None}


def record_description(loggers: Sequence[Logger], description: Description) -> None:
    """Put a description into W&B by each of its loggers; the first process alone calls it."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.describe(description)
        elif isinstance(logger, WandbLogger):
            config = logger.experiment.config
            config.update(described(description, config), allow_val_change=True)
