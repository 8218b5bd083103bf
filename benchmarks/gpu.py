"""A training step on a GPU: time, numerics, waits, memory, several runs; eight minutes at most.

`python -m benchmarks.gpu` needs a CUDA device. `--device cpu --quick` tries the program on a tiny
network in seconds, and its numbers say nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.common import fit_seconds
from janus_pl import DeepReLUClassifier
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.data import InMemoryBatches
from janus_pl.deep import DeepReLU
from janus_pl.deep.losses import square
from janus_pl.errors import Exit, UsageError
from janus_pl.training.precision import use_numerics

LIMIT = 480.0  # seconds for all parts
WARM_UP = 3  # steps that pay for what comes once
WAITING = "called a synchronizing CUDA operation"  # PyTorch's words


class Sizes(NamedTuple):
    """How large everything is.

    Attributes:
        samples: N.
        batch: B.
        network: The options of the network.
        steps: The steps of a timed loop.
        rounds: How often the variants take turns; the least time of each counts.
        micro: The micro-batches of a full-batch step.
        runs: How many runs share the device.
    """

    samples: int
    batch: int
    network: Mapping[str, Any]
    steps: int
    rounds: int
    micro: Sequence[int]
    runs: Sequence[int]


PAPER = Sizes(10_000, 128, {}, 200, 3, (250, 1000, 10_000), (1, 2, 4))
TINY_NETWORK = {"strides": (2, 2, 2, 2), "channels": (2, 3, 4, 4), "hidden": 5}
QUICK = Sizes(24, 8, TINY_NETWORK, 2, 1, (8, 24), (1, 2))


class Bench:
    """The variants of a step on one device.

    Args:
        device: `cuda` or `cpu`.
        sizes: How large everything is.
    """

    def __init__(self, device: str, sizes: Sizes) -> None:
        self.device, self.sizes = torch.device(device), sizes
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(sizes.samples, 3, 32, 32, generator=generator)
        x /= x.flatten(1).norm(dim=1)[:, None, None, None]
        y = torch.randint(0, 2, (sizes.samples,), generator=generator) * 2.0 - 1
        self.x = x.to(self.device, memory_format=torch.channels_last)
        self.y = y.to(self.device)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, do: Callable[[], object]) -> float:
        """Return the seconds until the device has done it."""
        self.synchronize()
        start = time.perf_counter()
        do()
        self.synchronize()
        return time.perf_counter() - start

    def bare(self) -> tuple[nn.Module, Callable[[], None]]:
        """Return the network, weight-normalized by PyTorch itself, and one step of it by SGD.

        The minibatch is the same at each step, as a captured step needs it.
        """
        torch.manual_seed(0)
        network = DeepReLU(**self.sizes.network)
        for layer in network.layers:
            if hasattr(layer, "weight"):
                weight_norm(layer, dim=-1)  # one norm for the whole weight
        network.to(self.device)
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, 0.03, momentum=0.9, weight_decay=1e-3, fused=True)
        x, y = self.x[: self.sizes.batch], self.y[: self.sizes.batch]

        def step() -> None:
            optimizer.zero_grad(set_to_none=False)
            square(network(x), y).mean().backward()
            optimizer.step()

        return network, step

    def captured(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a CUDA graph of a step, or the step itself on a CPU, after its warm-up."""
        if self.device.type != "cuda":
            for _ in range(WARM_UP):
                step()
            return step
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        return graph.replay

    def loop(self, step: Callable[[], None]) -> float:
        """Return the seconds of one of many steps."""

        def steps() -> None:
            for _ in range(self.sizes.steps):
                step()

        return self.seconds(steps) / self.sizes.steps

    def task(self) -> DeepReLUClassifier:
        """Return the paper's classifier."""
        torch.manual_seed(0)
        return DeepReLUClassifier(**self.sizes.network)

    def fit(self, epochs: int = 2, callbacks: Sequence[Callback] = (), **data: Any) -> float:
        """Return the seconds of a step through the Trainer, looks between epochs not counted."""
        options: dict[str, Any] = {"batch_size": self.sizes.batch, **data}
        loader = InMemoryBatches(self.x, self.y, **options)
        clock = _Steps(self.synchronize)
        accelerator = "gpu" if self.device.type == "cuda" else "cpu"
        fit_seconds(
            *(self.task(), loader, epochs, [*callbacks, clock]), accelerator=accelerator, devices=1
        )
        return clock.least()


class _Steps(Callback):
    """Times the steps of each epoch; the host waits at the ends of an epoch alone."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.synchronize = synchronize
        self.epochs: list[float] = []
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.synchronize()
        self.start, self.count = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.count += 1
        if self.count == trainer.num_training_batches:
            self.synchronize()
            self.epochs.append((time.perf_counter() - self.start) / self.count)

    def least(self) -> float:
        """Return the seconds of a step of the fastest epoch: the first one pays for the start."""
        return min(self.epochs)


def default_callbacks() -> list[Callback]:
    """Return the callbacks of the shipped configs that look."""
    return [MarginHistogram(), LayerVelocity(), LayerRank()]


def step_time(bench: Bench) -> Iterator[str]:
    """Compare a step of `fit` with a bare loop and a captured one, in IEEE float32."""
    use_numerics("ieee")
    (_, bare), (_, other) = bench.bare(), bench.bare()
    graph = bench.captured(other)
    variants: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bench.loop(bare),
        "captured loop": lambda: bench.loop(graph),
        "fit": lambda: bench.fit(callbacks=default_callbacks()),
    }
    seconds = least(variants, bench.sizes.rounds)
    for name, value in seconds.items():
        yield f"{name:<14} {1e3 * value:8.3f} ms a step"
    yield f"fit / bare loop     {seconds['fit'] / seconds['bare loop']:.3f}"
    yield f"fit / captured loop {seconds['fit'] / seconds['captured loop']:.3f}"


def numerics(bench: Bench) -> Iterator[str]:
    """Compare TF32 with IEEE: the time of a bare step, and the error of a margin."""
    network, step = bench.bare()
    double = copy.deepcopy(network).double()
    x = bench.x[: 8 * bench.sizes.batch]
    with torch.no_grad():
        right = double(x.double())
    errors: dict[str, float] = {}
    variants: dict[str, Callable[[], float]] = {}
    for name in ("ieee", "tf32"):
        use_numerics(name)
        with torch.no_grad():
            errors[name] = float(((network(x) - right).abs() / right.abs()).median())
        variants[name] = _under(name, lambda: bench.loop(step))
    seconds = least(variants, bench.sizes.rounds)
    use_numerics("ieee")
    for name, value in seconds.items():
        error = f"median error of a margin {errors[name]:.1e}"
        yield f"{name} {1e3 * value:8.3f} ms a bare step, {error}"
    yield f"tf32 / ieee {seconds['tf32'] / seconds['ieee']:.3f}"


def _under(name: Any, do: Callable[[], float]) -> Callable[[], float]:
    def timed() -> float:
        use_numerics(name)
        return do()

    return timed


def waits(bench: Bench) -> Iterator[str]:
    """Count what the host waits for in two epochs with all looks, within steps and between."""
    counter = Waits()
    with counter.listening(bench.device):
        bench.fit(2, [*default_callbacks(), counter])
    yield f"within {counter.steps} steps {counter.within}, between them {counter.between}"


class Waits(Callback):
    """Counts PyTorch's warnings of waits, within training steps and between them."""

    def __init__(self) -> None:
        self.within = self.between = self.steps = 0
        self._in_step = False

    def on_train_batch_start(self, *args: Any) -> None:
        self._in_step = True

    def on_train_batch_end(self, *args: Any) -> None:
        self._in_step = False
        self.steps += 1

    def hear(self, message: Any, *args: Any) -> None:
        """Count a warning if it is one of a wait."""
        if WAITING in str(message):
            self.within += self._in_step
            self.between += not self._in_step

    @contextmanager
    def listening(self, device: torch.device) -> Iterator[None]:
        """Let PyTorch warn of every wait within the block."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self.hear  # type: ignore[assignment]
            if device.type != "cuda":
                yield
                return
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")


def memory(bench: Bench) -> Iterator[str]:
    """Measure the peak of a full-batch step above what the run holds, by micro-batch."""
    for size in bench.sizes.micro:
        peak = _Peak(bench.device)
        seconds = bench.fit(2, [peak], batch_size="full", micro_batch_size=size)
        yield f"micro-batch {size:>6}: {peak.megabytes:8.1f} MB, {1e3 * seconds:9.1f} ms a step"


class _Peak(Callback):
    """Measures the most memory of a step above what is held before it; 0 on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.megabytes = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def on_train_batch_end(self, *args: Any) -> None:
        if self.cuda:
            above = torch.cuda.max_memory_allocated() - self.before
            self.megabytes = max(self.megabytes, above / 1e6)


def several(bench: Bench) -> Iterator[str]:
    """Compare the steps a second of k runs side by side with those of one run."""
    alone = 0.0
    for count in bench.sizes.runs:
        rate = sum(side_by_side(bench, count))
        alone = alone or rate
        yield f"{count} runs: {rate:9.1f} steps a second together, {rate / alone:.2f} of one run"


def side_by_side(bench: Bench, count: int) -> list[float]:
    """Return the steps a second of each of several processes, which start together."""
    quick = bench.sizes is QUICK
    code = f"from benchmarks.gpu import one_run; one_run({bench.device.type!r}, {quick})"
    runs = [_started(code) for _ in range(count)]
    try:
        for _, _, said in runs:
            said.readline()  # it is ready
        for _, tell, _ in runs:
            tell.write("go\n")
            tell.flush()
        return [float(json.loads(said.readline())) for _, _, said in runs]
    finally:
        for run, _, _ in runs:
            run.kill()
            run.communicate()


def _started(code: str) -> tuple[subprocess.Popen[str], IO[str], IO[str]]:
    """Start a process of Python; return it, what it reads and what it says."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    run = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert run.stdin is not None and run.stdout is not None
    return run, run.stdin, run.stdout


def one_run(device: str, quick: bool) -> None:
    """Say when a run is ready, wait for a line, and print its steps a second."""
    use_numerics("ieee")
    bench = Bench(device, QUICK if quick else PAPER)
    _, step = bench.bare()
    for _ in range(WARM_UP):
        step()
    bench.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(1 / bench.loop(step)), flush=True)


def least(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the least seconds of each variant; they take turns."""
    found = [{name: run() for name, run in variants.items()} for _ in range(rounds)]
    return {name: min(each[name] for each in found) for name in variants}


PARTS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "A step, B of SGD, IEEE float32": step_time,
    "Numerics": numerics,
    "Waits of the host, two epochs with the default callbacks": waits,
    "Memory of a full-batch step above what the run holds": memory,
    "Several runs on one device": several,
}


def options_of(args: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line.

    Raises:
        UsageError: There is no such device.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program")
    options = parser.parse_args(args)
    if options.device == "cuda" and not torch.cuda.is_available():
        allowed = "a machine with a CUDA device; --device cpu --quick tries the program"
        raise UsageError("--device", "cuda", allowed)
    return options


def main(args: Sequence[str] | None = None) -> int:
    try:
        options = options_of(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return Exit.USAGE
    with quiet():
        return measure(options)


@contextmanager
def quiet() -> Iterator[None]:
    """Print the measurements alone, without Lightning's messages and warnings."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def measure(options: argparse.Namespace) -> int:
    """Print the measurements until the time is over; return the exit code."""
    bench = Bench(options.device, QUICK if options.quick else PAPER)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, N = {bench.sizes.samples}, B = {bench.sizes.batch}")
    end = time.monotonic() + LIMIT
    for title, part in PARTS.items():
        print(title)
        for line in part(bench):
            print(f"  {line}", flush=True)
            if time.monotonic() > end:
                print(f"  the rest is left out: {LIMIT:g} s are over")
                return Exit.DONE
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
