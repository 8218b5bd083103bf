"""The description of a run, measured from the objects of its fit."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from janus_pl.data.fingerprint import DataFacts
from janus_pl.data.loader import InMemoryBatches
from janus_pl.observables.update import momentum_of
from janus_pl.run.claims import claims_there
from janus_pl.run.description import Description, seed_in_force, task_of
from janus_pl.training.clock import steps_of
from janus_pl.training.precision import numerics_of
from janus_pl.training.same_data import facts_of
from janus_pl.training.subject import Subject
from janus_pl.version import __version__


def measure(trainer: Trainer, subject: Subject, module: object) -> Description:
    """Measure the description of a run whose training starts now.

    Args:
        trainer: The trainer, with its loader and optimizers.
        subject: The answers for the module.
        module: The module.
    """
    of_loader = _of_loader(trainer)
    optimizers = trainer.optimizers
    momentum = momentum_of(optimizers[0]) if optimizers else None
    measured: dict[str, Any] = {
        "task": task_of(module),
        "margin": subject.margin,
        "optimizer": "+".join(type(each).__name__ for each in optimizers) or "none",
        "momentum": momentum,
        "layers": tuple(subject.layers()),
        "skipped": dict(subject.skipped()),
        "classes": _classes(trainer),
        "data": data_of(trainer).to_plain(),
        "seed": seed_in_force(),
        "precision": str(trainer.precision),
        "observed": "float64" if trainer.precision == "64-true" else "float32",
        "numerics": numerics_of(trainer.strategy.root_device),
        "device": _device(trainer),
        "processes": trainer.world_size,
        "versions": _versions(trainer.strategy.root_device),
        "claims": claims_there(),
    }
    return Description(**measured | of_loader | subject.facts())


def _of_loader(trainer: Trainer) -> dict[str, Any]:
    """Return what the loader of the training set is: N, B, steps, the seed, one step for all."""
    loader: Any = trainer.train_dataloader
    if isinstance(loader, InMemoryBatches):
        return {
            "num_train": loader.num_samples,
            "batch_size": loader.batch_size,
            "steps_per_epoch": steps_of(trainer),
            "whole": loader.whole,
            "data_seed": loader.seed,
        }
    batches = trainer.num_training_batches
    steps = steps_of(trainer)
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return {"whole": False, "steps_per_epoch": steps}
    count, size = len(loader.dataset), loader.batch_size  # type: ignore[arg-type]
    of_step = size and size * trainer.world_size * trainer.accumulate_grad_batches
    replacement = bool(getattr(loader.sampler, "replacement", False))
    even = batches == 1 or (size or 0) * batches == count  # unequal batches have unequal weights
    return {
        "num_train": count,
        "batch_size": min(of_step, count) if of_step else None,
        "steps_per_epoch": steps,
        "whole": steps == 1 and (of_step or 0) >= count and even and not replacement,
    }


def _classes(trainer: Trainer) -> Mapping[str, int] | None:
    """Return the signs of two classes, or the indices that a data set names; None if unknown."""
    if (known := facts_of(getattr(trainer, "datamodule", None)).classes) is not None:
        return known
    names = getattr(getattr(trainer, "datamodule", None), "class_names", None)
    if isinstance(names, tuple | list) and len(names) == 2:
        return {str(name): sign for name, sign in zip(names, (-1, 1), strict=True)}
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    found = getattr(dataset, "class_to_idx", None)
    return {str(k): int(v) for k, v in found.items()} if isinstance(found, Mapping) else None


def data_of(trainer: Trainer) -> DataFacts:
    """Return the facts of the data module, or what somebody else's loader tells."""
    facts = facts_of(getattr(trainer, "datamodule", None))
    if facts != DataFacts():
        return facts
    count = _of_loader(trainer).get("num_train")
    root = getattr(getattr(trainer.train_dataloader, "dataset", None), "root", None)
    return DataFacts(
        samples={} if count is None else {"train": {"all": count}},
        classes=_classes(trainer),
        source=os.path.abspath(root) if isinstance(root, str | os.PathLike) else None,
    )


def _device(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions(device: torch.device) -> dict[str, str]:
    """Return the versions of the packages; on a GPU those of CUDA and cuDNN, too."""
    of_device: dict[str, Any] = {}
    if device.type == "cuda":
        of_device = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {
        "python": platform.python_version(),
        "janus_pl": __version__,
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        **{name: str(version) for name, version in of_device.items() if version is not None},
    }
