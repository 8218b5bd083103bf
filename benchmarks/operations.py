"""The operations of a training step, by part: how often PyTorch is asked to compute something.

A view computes nothing and is left out. A list of tensors that goes through one call, as in
`torch._foreach_norm`, counts once.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import images
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerVelocity, UpdateSplit
from janus_pl.data import InMemoryBatches

NO_WORK = ("aten._unsafe_view", "profiler.")  # a view by another name, and marks of a profiler
STEP = 3  # the step that is counted; the first ones make the optimizer's state


class Operations(TorchDispatchMode):
    """Counts the operations within its block, by the part of the step under way.

    Attributes:
        found: The operations, by part and name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()
        self._part = ["network and loss"]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and not str(func).startswith(NO_WORK):
            self.found[self._part[-1], str(func)] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the operations of the block for this part."""
        self._part.append(name)
        try:
            yield
        finally:
            self._part.pop()

    def by_part(self) -> dict[str, int]:
        """Return the number of operations of each part."""
        counts: Counter[str] = Counter()
        for (part, _), count in self.found.items():
            counts[part] += count
        return dict(counts)


class CountedStep(Callback):
    """Counts the operations of one training step with everything that callbacks do in it."""

    def __init__(self, step: int = STEP) -> None:
        self.operations = Operations()
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == self._step - 1:
            for owner, name, part in _parts(trainer, module):
                _name_part(self.operations, owner, name, part)
            self.operations.__enter__()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self._step:
            self.operations.__exit__(None, None, None)


def _parts(trainer: Any, module: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield the functions that make up a step: the owner, the name, and the part it belongs to."""
    yield module.guard, "begin", "guard"
    yield module.guard, "step", "guard"
    yield module.guard, "settle", "guard"
    yield module.parametrization, "after_step", "normalization"
    if (once := getattr(module.parametrization, "_once", None)) is not None:
        yield once, "_forward", "normalization"
        yield once, "_backward", "normalization"
    yield trainer.optimizers[0], "step", "optimizer"
    for callback in trainer.callbacks:
        if isinstance(callback, LayerVelocity | UpdateSplit):
            yield callback, "on_before_optimizer_step", type(callback).__name__


def _name_part(operations: Operations, owner: Any, name: str, part: str) -> None:
    """Count a method of one object for a part."""
    method: Callable[..., Any] = getattr(owner, name)

    @wraps(method)  # the scheduler looks for its mark on the optimizer's step
    def counted(*args: Any, **kwargs: Any) -> Any:
        with operations.part(part):
            return method(*args, **kwargs)

    setattr(owner, name, counted)


def counted(
    callbacks: Sequence[Callback] = (),
    batch_size: Any = 16,
    micro_batch_size: int | None = None,
    samples: int = 64,
    **options: Any,
) -> Operations:
    """Return the operations of a step of the default network with cheap strides, in a fit.

    Args:
        callbacks: The callbacks.
        batch_size: The samples of a batch, or "full".
        micro_batch_size: The samples that go through the network at a time.
        samples: N.
        options: Options of the model.
    """
    torch.manual_seed(0)
    x, y = images(samples)
    step = CountedStep()
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=STEP,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=Path(folder),
            callbacks=[*callbacks, step],
        )
        options = {"strides": (2, 2, 2, 2), **options}
        loader = InMemoryBatches(x, y, batch_size, micro_batch_size)
        trainer.fit(DeepReLUClassifier(**options), loader)
    return step.operations


def main() -> None:
    """Print the operations of a step by part."""
    warnings.simplefilter("ignore")
    velocity: Callable[[], list[Callback]] = lambda: [LayerVelocity()]  # noqa: E731
    runs = {
        "SGD, default callbacks": counted(velocity()),
        "SGD, and UpdateSplit": counted([*velocity(), UpdateSplit()]),
        "GD, four micro-batches": counted(velocity(), "full", 16),
        "per_layer": counted(velocity(), normalization="per_layer"),
        "lagrange": counted(velocity(), normalization="lagrange", learning_rate=1e-4),
        "none": counted(velocity(), normalization="none"),
    }
    for name, operations in runs.items():
        parts = operations.by_part()
        told = ", ".join(f"{part} {number}" for part, number in parts.items())
        print(f"{name:<24} {sum(parts.values()):4}  {told}")


if __name__ == "__main__":
    main()
