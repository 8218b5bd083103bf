"""The optimizer, the schedule and the controls of a task, as its options have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from janus_pl.data.images import ImagePair
from janus_pl.deep.checks import batches_in, check_restored, check_run, fixed_options
from janus_pl.deep.compiled import check_compiler
from janus_pl.deep.growing import (
    GROWING,
    check_growing,
    check_growth,
    check_unchanged,
    fill_buffers,
    growing_scheduler,
    steps_ahead,
    without_decay,
)
from janus_pl.deep.held_out import HoldsOut
from janus_pl.deep.optimizers import OptimizerFactory, build_optimizer
from janus_pl.deep.parametrization import Decay, Groups, Parametrization
from janus_pl.errors import UsageError
from janus_pl.training.schedules import (
    Interval,
    Schedule,
    build_scheduler,
    check_schedule,
    planned,
)


class Descends(HoldsOut):
    """A task with an optimizer and a schedule; it knows what goes together.

    Attributes:
        parametrization: What the network learns.
        normalization: The parametrization's name.
        learning_rate: The learning rate eta at the start.
        weight_decay: The paper's lambda.
        decay: The parameters that lambda acts on.
        schedule: The schedule; `growing` takes the decay of the v_k.
        schedule_interval: What any other schedule steps after.
        make_optimizer: Makes the optimizer.
        hold_norms: The factor of the norms that are held; None if none are.
        compiled: Whether the passes of training steps go through `torch.compile`.
    """

    parametrization: Parametrization
    normalization: str
    learning_rate: float
    weight_decay: float
    decay: Decay
    schedule: Schedule
    schedule_interval: Interval
    make_optimizer: OptimizerFactory
    hold_norms: float | None
    compiled = False

    @property
    def grows(self) -> bool:
        """Whether a growing rate stands in for the decay on the v_k."""
        return self.schedule == GROWING

    def check_options(self) -> None:
        """Refuse an optimizer and a schedule that do not work, or not together.

        Raises:
            UsageError: They do not.
        """
        optimizer = self._build_optimizer()
        check_schedule(self.schedule, optimizer)
        if self.grows:
            check_growing(optimizer, self.normalization, self.weight_decay, self.decay)
            if self.hold_norms is not None:
                allowed = "another one, for model.hold_norms: it holds the rate that is to grow"
                raise UsageError("model.schedule", GROWING, allowed)

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        check_run(trainer, data, self.schedule, self.image_size)
        if self.compiled:
            check_compiler(trainer.strategy.root_device.type)
        # Only the first process of a node has read the data by now; the others ask when they train.
        if self.grows and isinstance(data, ImagePair) and trainer.local_rank == 0:
            options = batches_in(data)
            steps = steps_ahead(trainer, options["data.num_train"], options["data.batch_size"])
            check_growth(self._build_optimizer(), self.weight_decay, steps)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, interval = self._build_optimizer(), self.schedule_interval
        scheduler: LRScheduler
        if self.grows:
            check_growth(optimizer, self.weight_decay, planned(self.trainer, "step"))
            scheduler, interval = growing_scheduler(optimizer, self.weight_decay), "step"
        else:
            scheduler = build_scheduler(self.schedule, optimizer, self.trainer, interval)
        config: Any = {"scheduler": scheduler, "interval": interval}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def fixed_options(self, training: bool) -> dict[str, Any]:
        return fixed_options(self.hparams, training)

    def check_restored(
        self,
        checkpoint: Mapping[str, Any],
        trainer: Trainer,
        data: object = None,
        resumes: bool = True,
    ) -> None:
        super().check_restored(checkpoint, trainer, data, resumes)
        optimizer = self._build_optimizer()
        momentum = optimizer.param_groups[0].get("momentum", 0.0)
        check_unchanged(checkpoint, self.schedule, self.hparams, momentum)
        check_restored(checkpoint, data, optimizer, self.schedule)

    def _start(self, optimizer: Optimizer) -> None:
        """Prepare the optimizer for the first step of all."""
        if self.grows:
            fill_buffers(optimizer, self.weight_decay, self.parametrization.weights.values())

    def other_groups(self) -> Groups:
        """Return groups of the learned parameters that the parametrization does not know."""
        return []

    def _build_optimizer(self) -> Optimizer:
        """Build the optimizer over groups of learned parameters, each with its own weight decay."""
        groups = self.parametrization.groups(self.weight_decay, self.decay) + self.other_groups()
        if self.grows:
            groups = without_decay(groups)
        return build_optimizer(self.make_optimizer, groups, self.learning_rate)
