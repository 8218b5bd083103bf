"""The checks of options that a classifier cannot run with, made before a run."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from janus_pl.data.regression import LinearProblem
from janus_pl.errors import UsageError
from janus_pl.training.schedules import Schedule, check_end


def check_run(trainer: Trainer, data: object, schedule: Schedule, image_size: int) -> None:
    """Refuse options of the trainer and of the data that a classifier cannot run with.

    Args:
        trainer: The trainer before its fit.
        data: The data module, or None.
        schedule: The schedule of the learning rate.
        image_size: Height and width of the network's images.

    Raises:
        UsageError: The options do not go together.
    """
    check_end(schedule, trainer)
    if isinstance(data, LinearProblem):
        allowed = "a data module of images, for a DeepReLUClassifier"
        raise UsageError("data", "janus_pl.data.LinearProblem", allowed)
    if trainer.val_check_interval != 1.0:
        allowed = "1.0: a row is an epoch, and so are its val/loss and val/error"
        raise UsageError("trainer.val_check_interval", trainer.val_check_interval, allowed)
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        allowed = "auto or ddp: every process holds the whole network"
        raise UsageError("trainer.strategy", type(trainer.strategy).__name__, allowed)
    size = getattr(data, "image_size", image_size)
    if size != image_size:
        raise UsageError("model.image_size", image_size, f"{size}, as the data")
