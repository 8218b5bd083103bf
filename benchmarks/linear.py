"""Linear regression: Fig. A.2 whole, a thousand replicas, a stream of ten million samples."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial, wraps
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import seconds_of, side_by_side
from janus_pl.cli.config_files import find_configs
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.data import LinearProblem
from janus_pl.linear.replicas import LinearTraining
from janus_pl.run.logger import finish

EPOCHS, REPLICAS, REPLICA_EPOCHS = 50_000, 1000, 5000
LAM = 0.01
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def numpy_loop(batch_size: int, epochs: int) -> NDArray[np.float64]:
    """The obvious loop over the steps of A.2, which records nothing."""
    x, y, w = (a[0] for a in problem().problem)
    eta = 0.5 / np.linalg.norm(x, 2)
    for epoch in range(epochs):
        rate = eta / np.sqrt(epoch + 1)
        for start in range(0, x.shape[1], batch_size):
            xs, ys = x[:, start : start + batch_size], y[:, start : start + batch_size]
            slope = 2 / xs.shape[1] * (w @ xs - ys) @ xs.T
            w = (1 - 2 * rate * LAM) * w - rate * slope
    return w


def problem(**options: Any) -> LinearProblem:
    data = LinearProblem(**options)
    data.setup()
    return data


def fit_time(config: str, *args: str, started: bool = True) -> float:
    """Seconds of the `fit` of a shipped config, with its callbacks and an offline W&B record.

    W&B's run is started before the clock is, unless `started` is False.
    """
    seconds = []
    fit = Trainer.fit

    @wraps(fit)  # the command line takes its options from the signature
    def timed(trainer: Trainer, *a: Any, **k: Any) -> None:
        if started:
            _ = trainer.logger.experiment  # type: ignore[union-attr]
        seconds.append(seconds_of(partial(fit, trainer, *a, **k)))

    with patch.object(Trainer, "fit", timed), TemporaryDirectory() as folder:
        line = ["fit", "--config", f"linear/{config}.yaml", "--run_dir", folder, *PLAIN, *args]
        JanusCLI(find_configs(line))
        finish()
    return seconds[0]


class PlainModule(LightningModule):
    """The plain Lightning loop: automatic optimization, a batch a step."""

    def __init__(self, w0: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(w0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (batch.x @ self.weight.T - batch.y).square().sum() / len(batch.y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], 0.01, weight_decay=2 * LAM)


def plain_lightning(epochs: int = 100) -> float:
    """Seconds of so many epochs of 10 steps."""
    data = problem()
    module = PlainModule(torch.from_numpy(data.w0()[0]))
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=folder,
        )
        return seconds_of(lambda: trainer.fit(module, datamodule=data))


def replicas(batch_size: Any) -> Callable[[], float]:
    """5,000 epochs of A.2 for 1,000 seeds, with the numbers of every record."""

    def run() -> float:
        data = problem(replicas=REPLICAS, batch_size=batch_size)
        weight = torch.from_numpy(data.w0())
        training = LinearTraining(
            data, [LAM], ["auto"], "inverse_sqrt", "paper", REPLICA_EPOCHS, 50, 5, weight
        )
        start = time.perf_counter()
        while training.plan.done < training.plan.total:
            for piece in training.plan:
                training.run(piece)
            training.landscape.measure(training.weight, training.log_decay)
        return time.perf_counter() - start

    return run


def stream(num_train: int) -> tuple[float, float]:
    """Seconds of the `fit` and the process's peak memory in MiB, from a process of its own."""
    code = f"from benchmarks.linear import stream_here; stream_here({num_train})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    seconds, memory = output.stdout.split()[-2:]
    return float(seconds), float(memory)


def stream_here(num_train: int) -> None:
    fit_time("online", "--data.num_train=1000")  # compile
    seconds = fit_time("online", f"--data.num_train={num_train}")
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rounds: int = 3) -> None:
    warnings.simplefilter("ignore")
    for twin in ([], ["--data.batch_size=full"]):
        fit_time("a2", "--trainer.max_epochs=3", *twin)  # compile
    seconds = side_by_side(
        {
            "fit, SGD": lambda: fit_time("a2"),
            "fit, GD": lambda: fit_time("a2", "--data.batch_size=full"),
            "fit, SGD, no W&B": lambda: fit_time("a2", "--trainer.logger=false", started=False),
            "fit, GD, no W&B": lambda: fit_time(
                "a2", "--data.batch_size=full", "--trainer.logger=false", started=False
            ),
            "fit, SGD, and W&B's start": lambda: fit_time("a2", started=False),
            "NumPy, SGD": lambda: seconds_of(lambda: numpy_loop(1, EPOCHS)),
            "NumPy, GD": lambda: seconds_of(lambda: numpy_loop(10, EPOCHS)),
            "plain Lightning, 100 epochs": plain_lightning,
            "1,000 replicas, SGD": replicas(1),
            "1,000 replicas, GD": replicas("full"),
        },
        rounds,
    )
    fits = seconds["fit, SGD"] + seconds["fit, GD"]
    loops = seconds["NumPy, SGD"] + seconds["NumPy, GD"]
    plain_step = seconds["plain Lightning, 100 epochs"] / 1000
    print(f"A.2 whole: 550,000 steps, {torch.get_num_threads()} threads")
    for name, value in seconds.items():
        print(f"  {name:<28} {value:7.3f} s")
    bare = seconds["fit, SGD, no W&B"] + seconds["fit, GD, no W&B"]
    print(f"  two fits / NumPy loop              {fits / loops:.3f}  (at most 0.25)")
    print(f"  the same without W&B               {bare / loops:.3f}")
    ratio = fits / 550_000 / plain_step
    print(f"  a step of them / plain Lightning   {ratio:.5f}  (at most 0.005)")
    for name, per_epoch, loop in (("SGD", 10, "NumPy, SGD"), ("GD", 1, "NumPy, GD")):
        step = seconds[f"1,000 replicas, {name}"] / (REPLICAS * REPLICA_EPOCHS * per_epoch)
        numpy_step = seconds[loop] / (EPOCHS * per_epoch)
        print(
            f"  a replica-step of {name} / NumPy    1/{numpy_step / step:.0f}"
            f"  ({1e9 * step:.0f} ns; at most 1/30 for SGD)"
        )
    print("A stream, d = m = 10, B = 1")
    for n in (2_500_000, 5_000_000, 10_000_000):
        elapsed, memory = stream(n)
        print(f"  N = {n:>10,}  {elapsed:6.1f} s  {1e9 * elapsed / n:5.0f} ns a sample", end="")
        print(f"  {memory:.0f} MiB (below 1024)")


if __name__ == "__main__":
    main()
