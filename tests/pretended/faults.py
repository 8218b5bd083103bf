"""Faults to plant, and questions to the pretended device; each runs in a process of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pretended.device import NAME, Device
from pretended.watch import Watch
from torch import Tensor, nn

from janus_pl.training.guard import UpdateGuard


def number_in_a_step() -> None:
    """Let the guard take the number of each loss, as one who prints it would."""
    taken = UpdateGuard.step

    def step(self: UpdateGuard, optimizer: Any, *losses: Tensor) -> None:
        float(losses[0])
        taken(self, optimizer, *losses)

    into: Any = UpdateGuard
    into.step = step


def host_tensor_in_the_guard() -> None:
    """Let the guard keep its flags on the host."""
    made = UpdateGuard.__init__

    def init(self: UpdateGuard, *args: Any) -> None:
        made(self, *args)
        self._noted = self._noted.cpu()

    into: Any = UpdateGuard
    into.__init__ = init


def place_of(fault: Callable[[], None], code: str) -> str:
    """Return `FILE:LINE` of the line of a fault that holds some code."""
    lines, first = inspect.getsourcelines(fault)
    (number,) = [first + n for n, line in enumerate(lines) if line.strip() == code]
    return f"tests/pretended/{Path(__file__).name}:{number}"


def unset(device: Device, watch: Watch) -> dict[str, bool]:
    """Tell whether memory that nobody has written is NaN."""
    floats = {str(t): t for t in (torch.float64, torch.float32, torch.bfloat16)}
    return {
        name: bool(torch.empty(5, dtype=t, device=NAME).isnan().all()) for name, t in floats.items()
    }


def waited(device: Device, watch: Watch) -> dict[str, list[str]]:
    """Return what the host waits for, by what it does."""
    x = torch.ones(3, 3, device=NAME)
    host = torch.arange(2)
    done: dict[str, Callable[[], object]] = {
        "number": lambda: float(x[0, 0]),
        "list": x.tolist,
        "truth": lambda: bool((x > 0).all()),
        "mask": lambda: x[x > 0],
        "written by a mask": lambda: x.index_put_((x > 0,), x.flatten()),
        "equal": lambda: torch.equal(x, x),
        "to the device": lambda: host.to(NAME),
        "to the device, unwaited": lambda: host.to(NAME, non_blocking=True),
        "host index": lambda: x[host],
        "eigenvalues": lambda: torch.linalg.eigvalsh(x),
        "arithmetic": lambda: (x * 2 + 1).sum(),
        "view": lambda: x.T[1:].reshape(-1),
        "in a backward pass": lambda: _Reading.apply(x.clone().requires_grad_()).sum().backward(),
    }
    found = {}
    for name, do in done.items():
        watch.waits.clear()
        do()
        found[name] = [wait.why for wait in watch.waits]
    return found


class _Reading(torch.autograd.Function):
    """Reads a number in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float(gradient[0, 0])


def mixed(device: Device, watch: Watch) -> dict[str, str]:
    """Return the errors of operations that mix tensors of two devices; empty without one."""
    x, host = torch.ones(3, device=NAME), torch.ones(3)
    done: dict[str, Callable[[], object]] = {
        "sum": lambda: x + host,
        "cat": lambda: torch.cat([x, host]),
        "foreach": lambda: torch._foreach_add([x, x], [x, host]),
        "linear": lambda: nn.functional.linear(x, host[None]),
        "convolution": lambda: nn.functional.conv1d(x.view(1, 1, 3), host.view(1, 1, 3)),
        "a number": lambda: x + torch.tensor(2.0),
        "own": lambda: x + x,
    }
    found = {}
    for name, do in done.items():
        try:
            do()
            found[name] = ""
        except RuntimeError as error:
            found[name] = str(error)
    return found


def counted(device: Device, watch: Watch) -> dict[str, int]:
    """Return the operations of a few lines, by name."""
    tensors = [torch.ones(2, 2, device=NAME) for _ in range(4)]
    before = device.operations()
    torch._foreach_norm(tensors)
    tensors[0].T.mul_(3)
    return dict(device.operations() - before)


def without_float64(device: Device, watch: Watch) -> dict[str, str]:
    """Return the errors of float64 on a device that has none."""
    x = torch.ones(3, device=NAME)
    device.has_float64(False)
    done: dict[str, Callable[[], object]] = {
        "double": x.double,
        "made": lambda: torch.zeros(2, dtype=torch.float64, device=NAME),
        "summed": lambda: x.sum(dtype=torch.float64),
        "float32": lambda: x.sum() * 2.5,
        "on the host": lambda: x.cpu().double(),
    }
    found = {}
    for name, do in done.items():
        try:
            do()
            found[name] = ""
        except TypeError as error:
            found[name] = str(error)
    return found


def running_statistics(device: Device, watch: Watch) -> float:
    """Return how far batch normalization's running statistics are from the CPU's."""
    x = torch.arange(24.0).view(2, 3, 4)
    layers = [nn.BatchNorm1d(3), nn.BatchNorm1d(3).to(NAME)]
    for layer in layers:
        layer(x.to(layer.weight.device))
    statistics = [dict(layer.named_buffers()) for layer in layers]
    names = ("running_mean", "running_var")
    one, other = (torch.cat([each[name].cpu() for name in names]) for each in statistics)
    return float((one - other).abs().max())
