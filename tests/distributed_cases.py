"""Small problems that one process and several of them solve alike, for test_distributed.py.

`run_all(world)` starts so many processes and lets each go through all cases. They are forked from a
process that has imported everything once.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.multiprocessing
from conftest import ROOT, SMALL
from environments import PACKAGE
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lockstep import announced, leave
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import janus_pl.training.row
from janus_pl import Classifier, DeepReLUClassifier
from janus_pl.callbacks import (
    EquilibriumResidual,
    GradientNoise,
    LayerRank,
    LayerVelocity,
    MarginCSV,
    MarginHistogram,
    NeuralCollapse,
    NoiseTime,
    RankBound,
    Sharpness,
    UpdateSplit,
)
from janus_pl.data import InMemoryBatches
from janus_pl.deep import MLP
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.run.rows import plain_row
from janus_pl.training.any_module import AnyModule

DEADLINE = 240.0  # seconds for all cases of one number of processes
WAIT = 120.0  # seconds that a process waits for the others in a collective

Result = dict[str, Any]


def problem(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Random images of unit norm with random labels of both kinds."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 3, 16, 16, generator=generator, dtype=torch.float64)
    x = x / x.flatten(1).norm(dim=1)[:, None, None, None]
    y = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
    return x.to(dtype), y.to(dtype)


def task_of(dtype: torch.dtype = torch.float64, **options: Any) -> DeepReLUClassifier:
    torch.manual_seed(0)
    defaults = {**SMALL, "schedule": "constant", "init_scale": 0.8, "learning_rate": 0.003}
    return DeepReLUClassifier(**{**defaults, **options}).to(dtype)


def any_task(dtype: torch.dtype = torch.float64, **options: Any) -> Classifier:
    """A classifier of any network: a multilayer perceptron, weight-normalized."""
    torch.manual_seed(0)
    network = MLP(3 * 16 * 16, 2, depth=3, width=5, batch_norm=options.pop("batch_norm", False))
    options = {"normalization": "weight_norm", "learning_rate": 0.1, **options}
    return Classifier(network.to(dtype), **options).to(dtype)


def batch_norm_refused(world: int) -> Result:
    """Statistics of a share of the minibatch would be those of fewer samples."""
    try:
        fit(world, n=8, batch_size=4, make=any_task, batch_norm=True)
    except UsageError as error:
        return {"error": str(error)}
    return {"error": ""}


def plain_sgd(parameters: Any, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr)


class Watch(Callback):
    """Keeps the gradients of every step, the labels of every minibatch, and the rates."""

    def __init__(self) -> None:
        self.gradients: list[list[Tensor]] = []
        self.labels: list[Tensor] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.labels.append(batch[1].clone())

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        self.gradients.append([p.grad.clone() for p in trained if p.grad is not None])
        self.rates.append(optimizer.param_groups[0]["lr"])


def trainer_of(world: int, folder: Path, **options: Any) -> Trainer:
    return Trainer(
        **{
            "accelerator": "cpu",
            "devices": world,
            "strategy": "auto" if world == 1 else DDPStrategy(timeout=timedelta(seconds=WAIT)),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": folder,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            **options,
        }
    )


def fit(
    world: int,
    n: int = 21,
    batch_size: Any = 8,
    micro: int | None = None,
    order: Any = "shuffle",
    epochs: int = 2,
    dtype: torch.dtype = torch.float64,
    callbacks: Callable[[], list[Callback]] = list,
    held_out: int = 0,
    spoil: int | None = None,
    make: Callable[..., Any] = task_of,
    **options: Any,
) -> Result:
    """A real fit, and what is left of it: weights, gradients, labels, rows."""
    rows: list[dict[str, Any]] = []
    x, y = problem(n, dtype)
    if spoil is not None:
        x[spoil, 0, 0, 0] = torch.inf
    loader = InMemoryBatches(x, y, batch_size, micro, order, seed=3)
    task, watch = make(dtype, **options), Watch()
    validation = loader_of(*problem(held_out, dtype)) if held_out else None
    error = ""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # What rank 0 writes, on every process.
        patch.setattr(
            janus_pl.training.row, "write_row", lambda trainer, row: rows.append(dict(row))
        )
        trainer = trainer_of(
            world,
            Path(folder),
            max_epochs=epochs,
            callbacks=[*callbacks(), watch],
            limit_val_batches=1.0 if held_out else 0,
        )
        try:
            trainer.fit(task, loader, validation)
        except DivergenceError as diverged:
            error = str(diverged)
    return {
        "weights": [p.detach().clone() for p in task.parameters()],
        "gradients": watch.gradients,
        "labels": watch.labels,
        "rates": watch.rates,
        "rows": rows,
        "steps": trainer.global_step,
        "error": error,
    }


def loader_of(x: Tensor, y: Tensor) -> InMemoryBatches:
    return InMemoryBatches(x, y, min(5, len(y)), order="sequential")


def predict(world: int) -> Result:
    """Margins of 7 samples, in batches of 5 and 2, as handed to callbacks and as a file."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "margins.csv"
        trainer = trainer_of(world, Path(folder), callbacks=[MarginCSV(str(file))])
        margins = trainer.predict(task_of(), loader_of(*problem(7)))
        lines = file.read_text().splitlines() if file.exists() else None
    return {"margins": torch.cat(margins), "file": lines}


def foreign_csv(world: int) -> Result:
    with TemporaryDirectory() as folder:
        trainer = trainer_of(world, Path(folder), callbacks=[MarginCSV("nowhere/margins.csv")])
        try:
            trainer.predict(Foreign(), DataLoader(TensorDataset(problem(7)[0])))
        except UsageError as error:
            return {"error": str(error)}
    return {"error": ""}


class Foreign(LightningModule):
    """A module that knows nothing of the contract: mean loss, automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = nn.Linear(3 * 16 * 16, 4)
        self.last = nn.Linear(4, 2, bias=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.dense(x.flatten(1))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return plain_sgd(self.parameters(), 0.1)


def foreign_fit(world: int, n: int, batch_size: int, callbacks: Any = (), **options: Any) -> Result:
    """Lightning's own way: DataLoader, DistributedSampler, DDP's mean of the processes' means."""
    rows: list[dict[str, Any]] = []
    x, y = problem(n)
    module, watch = Foreign(), Watch()
    loader = DataLoader(TensorDataset(x, (y > 0).long()), batch_size=batch_size)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            janus_pl.training.row, "write_row", lambda trainer, row: rows.append(plain_row(row))
        )
        trainer = trainer_of(
            world, Path(folder), max_epochs=1, callbacks=[*callbacks, watch], **options
        )
        trainer.fit(module, loader)
    full = foreign_gradient(n)
    weights = [p.detach().clone() for p in module.parameters()]
    return {
        "gradients": watch.gradients,
        "full": full,
        "rows": rows,
        "weights": weights,
        "margin": float(AnyModule(trainer, module).margins().mean()) if callbacks else None,
    }


def foreign_refused(world: int) -> Result:
    """A question that no layer of it answers, before training and on every process alike."""
    try:
        foreign_fit(world, 10, 4, [LayerVelocity(full_every_n_epochs=1)])
    except UsageError as error:
        return {"error": str(error)}
    return {"error": ""}


def foreign_gradient(n: int) -> list[Tensor]:
    """Of the mean over all n samples, at the initial weights."""
    x, y = problem(n)
    module = Foreign()
    loss = nn.functional.cross_entropy(module(x), (y > 0).long())
    return list(torch.autograd.grad(loss, list(module.parameters())))


def observers() -> list[Callback]:
    return [
        MarginHistogram(1),
        LayerVelocity(1, 1),
        LayerRank(1),
        EquilibriumResidual(1),
        GradientNoise(1, batch_size=4, batches=3),
        NeuralCollapse(1),
        UpdateSplit(1),
    ]


def any_observers() -> list[Callback]:
    looking = [MarginHistogram(1), LayerVelocity(1, 1), LayerRank(1), NeuralCollapse(1)]
    return [*looking, UpdateSplit(1)]


def sharpness() -> list[Callback]:
    return [Sharpness(1, samples=13, batches=3, tolerance=1e-7, products=500)]


def foreign_observers() -> list[Callback]:
    looking = [MarginHistogram(1), LayerVelocity(1), LayerRank(1), NeuralCollapse(1)]
    return [*looking, UpdateSplit(1), RankBound(1), EquilibriumResidual(1)]


CASES: dict[str, Callable[[int], Result]] = {
    # The gradient of the full batch, N odd and even, also where the numbers of micro-batches differ
    "gd_odd": lambda w: fit(w, n=21, batch_size="full", micro=4),
    "gd_even": lambda w: fit(w, n=20, batch_size="full"),
    "gd_ragged_micro": lambda w: fit(w, n=25, batch_size="full", micro=12),
    "gd_1001_by_7": lambda w: fit(w, n=1001, batch_size="full", micro=7, epochs=1),
    "gd_1001_by_250": lambda w: fit(w, n=1001, batch_size="full", micro=250, epochs=1),
    "gd_as_sgd": lambda w: fit(w, n=21, batch_size=21, micro=4),
    "gd_float32": lambda w: fit(w, n=21, batch_size="full", micro=4, dtype=torch.float32),
    "gd_cosine": lambda w: fit(w, n=9, batch_size="full", micro=2, epochs=4, schedule="cosine"),
    # Minibatches that the processes do not divide, and that leave some without a sample
    "sgd_ragged": lambda w: fit(w, n=21, batch_size=8, micro=3),
    "sgd_float32": lambda w: fit(w, n=21, batch_size=8, dtype=torch.float32),
    "sgd_last_of_one": lambda w: fit(w, n=17, batch_size=8),
    "sgd_single": lambda w: fit(w, n=5, batch_size=1),
    "sgd_replacement": lambda w: fit(w, n=10, batch_size=4, order="with_replacement"),
    "sgd_sequential": lambda w: fit(w, n=10, batch_size=3, order="sequential"),
    **{
        f"{normalization}_{loss}": (
            partial(fit, n=11, batch_size=5, normalization=normalization, loss=loss)
        )
        for normalization in ("weight_norm", "per_layer", "lagrange", "none")
        for loss in ("square", "cross_entropy", "logistic", "exponential")
    },
    # The record
    "looked_at": lambda w: fit(w, n=21, batch_size=8, callbacks=observers, held_out=7),
    "noise_time": lambda w: fit(w, n=21, epochs=4, callbacks=lambda: [NoiseTime(3, 8, 9)]),
    "gd_looked_at": lambda w: fit(w, n=21, batch_size="full", micro=4, callbacks=observers),
    "tail_bound": lambda w: fit(
        w,
        n=5,
        batch_size=2,
        epochs=3,
        optimizer=plain_sgd,
        weight_decay=0.3,
        callbacks=lambda: [RankBound()],
    ),
    "sharpness": lambda w: fit(w, n=21, batch_size=8, callbacks=sharpness),
    "sharpness_preconditioned": lambda w: fit(
        w, n=9, batch_size="full", optimizer=torch.optim.Adam, callbacks=sharpness
    ),
    "any_network": lambda w: fit(
        w, n=21, batch_size=8, micro=3, make=any_task, callbacks=any_observers, held_out=7
    ),
    "any_network_gd": lambda w: fit(w, n=21, batch_size="full", micro=4, make=any_task),
    # The sample that is not finite lies with one process alone
    "diverged": lambda w: fit(w, n=9, batch_size=4, order="sequential", spoil=5),
    "predict": predict,
    "foreign_csv": lambda w: foreign_csv(w) if w > 1 else {},
    # Modules of others, and what Lightning does by itself
    "foreign": lambda w: foreign_fit(w, 10, 4, foreign_observers()),
    "foreign_refused": foreign_refused,
    "batch_norm_refused": batch_norm_refused,
    "foreign_noise": lambda w: foreign_fit(
        w, 10, 4, [GradientNoise(9, batch_size=4, batches=3, gram=3), NeuralCollapse(9, ["dense"])]
    ),
    "sampler": lambda w: foreign_fit(w, 1001, 1001),
}


class Extra(Callback):
    """A collective of the second process alone, at the end of the first epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_rank == 1 and trainer.current_epoch == 0:
            torch.distributed.all_reduce(torch.ones(3))


class AtTheEnd(Callback):
    """The second process waits for the first one, which has ended."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_rank == 1:
            torch.distributed.barrier()


# What hangs until a timeout where nobody compares the calls.
EXTRA: dict[str, Callable[[int], Result]] = {
    "extra": lambda w: fit(w, n=9, callbacks=lambda: [Extra()])
}
AT_THE_END: dict[str, Callable[[int], Result]] = {
    "end": lambda w: fit(w, n=9, epochs=1, callbacks=lambda: [AtTheEnd()])
}
GROUPS = {"cases": CASES, "extra": EXTRA, "at the end": AT_THE_END}


def run_all(world: int, group: str = "cases") -> list[dict[str, Result]]:
    """The results of all cases of a group, one dictionary a process, each with `collectives`."""
    if world == 1:
        return [{name: case(1) for name, case in GROUPS[group].items()}]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([PACKAGE, str(ROOT / "tests")]))
        multiprocessing.set_forkserver_preload([__name__])
        ports = free_ports(2)
        processes = torch.multiprocessing.start_processes(
            _process, (world, ports, folder, group), world, join=False, start_method="forkserver"
        )
        end = time.monotonic() + DEADLINE
        try:
            while not processes.join(timeout=1):
                if time.monotonic() > end:
                    raise TimeoutError(f"{world} processes are not done after {DEADLINE} s")
        finally:
            for process in processes.processes:
                process.kill()
        return [torch.load(Path(folder) / f"{r}.pt", weights_only=False) for r in range(world)]


def free_ports(count: int) -> list[int]:
    """Of this machine, for processes that are about to start."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _process(rank: int, world: int, ports: list[int], folder: str, group: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(ports[0]),
        "WORLD_SIZE": str(world),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
    }
    store = torch.distributed.TCPStore(
        "127.0.0.1", ports[1], world, rank == 0, timedelta(seconds=WAIT)
    )
    results: dict[str, Result] = {}
    for name, case in GROUPS[group].items():
        with announced(store, rank, world, name) as calls:
            result = case(world)
        results[name] = result | {"collectives": [tuple(call) for call in calls]}
    torch.save(results, Path(folder) / f"{rank}.pt")
    leave(store, rank, world, "done")
