"""One policy for float32: IEEE everywhere, unless a run asks for TF32.

PyTorch convolves in TF32 on NVIDIA GPUs since Ampere: a relative error of about 1e-4 in a margin.
Both its new settings (`fp32_precision`) and its old ones (`allow_tf32`, `matmul_precision`) are set
here, for PyTorch raises an error where one reads what the other contradicts.

On the command line `--numerics` decides. In a script a task of ours sets IEEE in `setup`, unless
the script has called `use_numerics` or has lowered a setting of its own: PyTorch's
`torch.backends.fp32_precision`, or the precision of products. The settings are of the process: they
stay after a script's fit, and are put back after a command line. Looks at the weights are in IEEE
float32 or better in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from janus_pl.errors import UsageError, check_name

Numerics = Literal["ieee", "tf32"]
IEEE: Numerics = "ieee"
TF32: Numerics = "tf32"
INHERITED = "none"  # a setting that takes the value of the one above it
LOWERED = ("tf32", "bf16")


def use_numerics(numerics: Numerics) -> None:
    """Compute float32 from now on by IEEE, or in TF32 where a CUDA device can.

    CPUs compute by IEEE either way.

    Args:
        numerics: `ieee` or `tf32`.

    Raises:
        UsageError: It is neither.
    """
    check_name("numerics", numerics, get_args(Numerics))
    # The old settings first: they write some of the new ones.
    torch.backends.cudnn.allow_tf32 = numerics == TF32
    torch.set_float32_matmul_precision("high" if numerics == TF32 else "highest")
    above, of_cuda, of_cpu = _settings()
    for part in (*above, *of_cpu):
        part.fp32_precision = IEEE
    for part in of_cuda:
        part.fp32_precision = numerics


def prefer_ieee() -> None:
    """Compute float32 by IEEE, unless the script has said otherwise (module docstring)."""
    said = (torch.backends, torch.backends.cuda.matmul)
    if not any(part.fp32_precision in LOWERED for part in said):
        use_numerics(IEEE)


def numerics_of(device: torch.device) -> str:
    """Return the numerics in force on a device: `ieee`, `tf32`, or both by operation.

    Of PyTorch's own settings on a CUDA device it is `convolutions tf32, products ieee`.
    """
    values = [_in_force(part) for part in _on(device)[:2]]
    if len(set(values)) == 1:
        return values[0]
    return ", ".join(f"{k} {v}" for k, v in zip(("convolutions", "products"), values, strict=True))


def check_numerics(numerics: Numerics, device: torch.device, wide: bool) -> None:
    """Refuse TF32 where it would change nothing.

    Args:
        numerics: The option.
        device: The device of the run.
        wide: Whether the run computes in float64.

    Raises:
        UsageError: The device has no TF32, or the run has no float32.
    """
    if numerics != TF32:
        return
    if wide:
        raise UsageError("numerics", numerics, f"{IEEE}, for a run in float64")
    if device.type != "cuda" or not torch.cuda.is_tf32_supported():
        raise UsageError("numerics", numerics, f"{IEEE}: the device {device.type} has no TF32")


@contextmanager
def kept_numerics() -> Iterator[None]:
    """Put PyTorch's settings back after the block."""
    parts = [part for group in _settings() for part in group]
    before = [part.fp32_precision for part in parts]
    old = _old_settings()
    try:
        yield
    finally:
        for name, value in old.items():
            _OLD[name][1](value)
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = INHERITED
            if part.fp32_precision != value:
                part.fp32_precision = value


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute in the dtype of the weights within the block: no autocast, no TF32.

    Training goes on afterwards as before.

    Args:
        device: The device of the weights.
    """
    with torch.autocast(device.type, enabled=False):
        if all(_in_force(part) == IEEE for part in _on(device)):
            yield
            return
        with kept_numerics():
            use_numerics(IEEE)
            yield


def _settings() -> tuple[list[Any], list[Any], list[Any]]:
    """Return PyTorch's settings: those above others, those of CUDA, and those of the CPU."""
    backends: Any = torch.backends
    cuda, cpu = _on(torch.device("cuda")), _on(torch.device("cpu"))
    return [backends, backends.cudnn, backends.mkldnn], cuda, cpu


def _on(device: torch.device) -> list[Any]:
    """Return the settings of convolutions, products and recurrences on a device."""
    backends: Any = torch.backends
    if device.type == "cuda":
        return [backends.cudnn.conv, backends.cuda.matmul, backends.cudnn.rnn]
    return [backends.mkldnn.conv, backends.mkldnn.matmul, backends.mkldnn.rnn]


def _in_force(part: Any) -> str:
    """Return the precision of a setting; with none at all PyTorch computes by IEEE."""
    return IEEE if part.fp32_precision == INHERITED else str(part.fp32_precision)


def _set_cudnn(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed


_OLD: dict[str, tuple[Any, Any]] = {
    "cudnn": (lambda: torch.backends.cudnn.allow_tf32, _set_cudnn),
    "products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
}


def _old_settings() -> dict[str, Any]:
    """Return the values of the old settings, except where a new one contradicts them."""
    found = {}
    for name, (read, _) in _OLD.items():
        try:
            found[name] = read()
        except RuntimeError:
            continue
    return found
