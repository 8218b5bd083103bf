"""Room on the disk, asked for before a run is made."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from janus_pl.run.files import check_room


def check_room_for_checkpoint(trainer: Trainer, module: LightningModule) -> None:
    """Refuse a run whose first checkpoint cannot fit: its weights alone take more than is free.

    Raises:
        StorageError: There is less room than the weights take.
    """
    if trainer.checkpoint_callbacks:
        tensors = [v for v in module.state_dict().values() if isinstance(v, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        check_room(Path(trainer.default_root_dir), size, "a checkpoint")
