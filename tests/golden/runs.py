"""Eight short runs with frozen configs: how they are trained, written down and compared.

A run is a frozen config beside this file and a dtype. Its rows come from `rows.jsonl` in its
folder, the product's own journal. They are kept by columns: the values of one key in all rows, None
where a row lacks it. A histogram makes two columns, `KEY.counts` and `KEY.edges`; a table makes one
for each of its own columns.

Ten digits on every machine need the same start on every machine, and two parts of the start are
float32: the weights, which PyTorch draws in the default dtype with a kernel that rounds as the
processor does, and the images, whose norms are float32 sums. So a float64 run draws its weights in
float64, and its images are DigitsPair's before they are rounded. Float32 runs take both as they
are.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import yaml
from threadpoolctl import threadpool_limits

from janus_pl.cli.main import main
from janus_pl.data import DigitsPair

FOLDER = Path(__file__).resolve().parent
MACHINE = "machine.json"
DEEP = ("quickstart_sgd", "quickstart_gd", "theory", "per_layer", "lagrange", "none")
LINEAR = ("linear_sgd", "linear_gd")
NAMES = (*DEEP, *LINEAR)
PRECISION = {"float64": "64-true", "float32": "32-true"}
# No key of a row is a time or a fact of the machine today. One that is gets named here, and why.
LEFT_OUT: frozenset[str] = frozenset()

# Relative. Other kernels of PyTorch, oneDNN, MKL and OpenBLAS move a number by 2e-14 at most.
TOLERANCE = 1e-10
# What a zero is compared in. The smallest other number of all records is 3e-8.
FLOOR = 1e-20
# What decides float32 rounding, beside the processor: these choose other kernels.
CHOOSERS: tuple[str, ...] = (
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
)
CHOOSERS += ("MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "NUMBA_CPU_NAME")
ARITHMETIC = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve", "bf16", "fphp")

Columns = dict[str, list[Any]]


class Run(NamedTuple):
    """A finished run: its rows by columns, and the resolved config of its folder."""

    columns: Columns
    config: dict[str, Any]


def dtypes(name: str) -> tuple[str, ...]:
    """Give the dtypes that a run is recorded in; linear regression is float64 whatever is asked."""
    return ("float64",) if name in LINEAR else ("float64", "float32")


def train(name: str, dtype: str, folder: Path) -> Run:
    """Train a frozen config through the command line, in this process and in one thread.

    Args:
        name: One of `NAMES`.
        dtype: One of `dtypes(name)`.
        folder: An empty folder, where the run goes.
    """
    args = ["fit", "--config", str(FOLDER / f"{name}.yaml"), "--run_dir", str(folder)]
    with _alone(), _unrounded_start(dtype == "float64"):
        code = main([*args, "--trainer.precision", PRECISION[dtype]])
    if code != 0:
        raise RuntimeError(f"{name} in {dtype} ended with exit code {code}")
    (journal,) = folder.glob("*/*/rows.jsonl")
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    rows = [{key: value for key, value in row.items() if key != "_seal"} for row in rows]
    config = yaml.safe_load(journal.with_name("config.yaml").read_text(encoding="utf-8"))
    return Run(columns(rows), config)


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Turn the rows of a journal into columns, sorted by key.

    >>> columns([{"a": 1}, {"a": 2, "h": ["histogram", [3], [0.0, 0.5]]}])
    {'a': [1, 2], 'h.counts': [None, [3]], 'h.edges': [None, [0.0, 0.5]]}
    """
    flat = [dict(_flat(row)) for row in rows]
    keys = sorted({key for row in flat for key in row})
    return {key: [row.get(key) for row in flat] for key in keys}


def differences(recorded: Columns, now: Columns, exact: bool) -> list[str]:
    """Name each key that differs, with the first row where it does; empty where none does.

    Args:
        recorded: The columns of the file.
        now: The columns of a run.
        exact: Whether floats have to be equal bit for bit; else to `TOLERANCE`.
    """
    found = [f"{key}: not recorded" for key in sorted(now.keys() - recorded.keys())]
    for key, old in recorded.items():
        new = now.get(key)
        if new is None:
            found.append(f"{key}: missing")
        elif len(new) != len(old):
            found.append(f"{key}: {len(new)} rows, {len(old)} recorded")
        else:
            pairs = enumerate(zip(old, new, strict=True))
            wrong = [row for row, (a, b) in pairs if not _equal(a, b, exact)]
            if wrong:
                row = wrong[0]
                found.append(f"{key}: row {row} is {new[row]!r}, {old[row]!r} recorded")
    return found


def deviation(recorded: Any, now: Any) -> float:
    """Give the difference of two values in the units of `TOLERANCE`; inf where one is no number.

    The unit is the recorded number. For a list, such as edges or singular values, it is the largest
    of its numbers: they are computed together, and so is their rounding.

    >>> deviation([2.0, 0.5], [2.0, 0.75]), deviation(4, 5), deviation(None, 1.0)
    (0.125, 0.25, inf)
    """
    if isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        size = max((abs(value) for value in recorded if _is_number(value)), default=0.0)
        pairs = zip(recorded, now, strict=True)
        return max((_deviation(a, b, size) for a, b in pairs), default=0.0)
    return _deviation(recorded, now, abs(recorded) if _is_number(recorded) else 0.0)


def text_of(record: Mapping[str, Columns]) -> str:
    """Write columns as JSON, a key a line, with all digits of every float."""
    parts = []
    for dtype, held in record.items():
        lines = [f"    {json.dumps(key)}: {json.dumps(_short(held[key]))}" for key in sorted(held)]
        parts.append(f'  "{dtype}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def record_of(text: str) -> dict[str, Columns]:
    """Read what `text_of` has written."""
    return {
        dtype: {key: _long(held) for key, held in part.items()}
        for dtype, part in json.loads(text).items()
    }


def matches(key: str, pattern: str) -> bool:
    """Whether a column, or the key that it is a part of, matches a shell pattern.

    >>> matches("spectrum/fc1.edges", "spectrum/fc?"), matches("rho", "r")
    (True, False)
    """
    return any(fnmatchcase(name, pattern) for name in (key, key.rpartition(".")[0] or key))


def machine() -> dict[str, Any]:
    """Give what decides the bits of a run: processor, kernels in use, versions.

    OpenBLAS is not part of it: NumPy's matrix products are in no row.
    """
    processor = _processor()
    known = processor.pop("flags", "").split()
    return {
        "architecture": platform.machine(),
        **processor,
        "flags": sorted(flag for flag in known if flag.startswith(ARITHMETIC)),
        "kernels of torch": torch.backends.cpu.get_cpu_capability(),
        "environment": {name: os.environ[name] for name in CHOOSERS if name in os.environ},
        **{name: version(name) for name in ("torch", "numpy", "numba")},
    }


def other_machine(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how a machine differs from the recorded one; empty where it does not.

    >>> other_machine({"torch": "2.14.1", "flags": ["avx", "fma"]}, {"torch": "3.0"})
    "torch is '3.0', '2.14.1' recorded; flags without avx, fma"
    """
    said = []
    for key in sorted(recorded.keys() | now.keys(), reverse=True):
        old, new = recorded.get(key), now.get(key)
        if key == "flags":
            more, less = (sorted({*(a or ())} - {*(b or ())}) for a, b in ((new, old), (old, new)))
            said += [f"flags with {', '.join(more)}"] if more else []
            said += [f"flags without {', '.join(less)}"] if less else []
        elif old != new:
            said.append(f"{key} is {new!r}, {old!r} recorded")
    return "; ".join(said)


def _equal(recorded: Any, now: Any, exact: bool) -> bool:
    if exact:
        return _bits(recorded) == _bits(now)
    return deviation(recorded, now) <= TOLERANCE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bits(value: Any) -> Any:
    """A number's digits, whether it is written as 3 or as 3.0."""
    if isinstance(value, list):
        return [_bits(part) for part in value]
    return float(value).hex() if _is_number(value) else value


def _deviation(recorded: Any, now: Any, size: float) -> float:
    if _is_number(recorded) and _is_number(now):
        difference = abs(recorded - now) / max(size, FLOOR)
        return difference if math.isfinite(difference) else math.inf
    return 0.0 if recorded == now else math.inf


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if key in LEFT_OUT:
            continue
        if not isinstance(value, list):
            yield key, value
        elif value[0] == "histogram":
            yield from zip((f"{key}.counts", f"{key}.edges"), value[1:], strict=True)
        else:
            for k, name in enumerate(value[1]):
                yield f"{key}.{name}", [line[k] for line in value[2]]


def _short(column: list[Any]) -> Any:
    """Lists that are the same in each of several rows are written once."""
    same = isinstance(column[0], list) and len(column) > 1 and column == column[:1] * len(column)
    return {"rows": len(column), "each": column[0]} if same else column


def _long(held: Any) -> list[Any]:
    return [held["each"]] * held["rows"] if isinstance(held, dict) else held


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, nothing sent or recorded elsewhere, and no word of this process's own options."""
    environment = mock.patch.dict(os.environ, WANDB_MODE="disabled", WANDB_SILENT="true")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with environment, mock.patch.object(sys, "argv", ["janus_pl"]), threadpool_limits(1):
            os.environ.pop("WANDB_RUN_ID", None)
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _unrounded_start(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    rounded = DigitsPair.setup

    def setup(data: DigitsPair, stage: str = "fit") -> None:
        rounded(data, stage)
        raw = data.read()
        for split in ("train", "test"):
            images = getattr(raw, split).images
            exact = _unit_images(images, raw.mean, raw.std)
            setattr(data, f"{split}_x", _counterparts(getattr(data, f"{split}_x"), exact))
            setattr(data, f"{split}_y", getattr(data, f"{split}_y").double())

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(DigitsPair, "setup", setup):
            yield
    finally:
        torch.set_default_dtype(before)


def _unit_images(images: Any, mean: Any, std: Any) -> torch.Tensor:
    """Standardized images of unit norm in float64, (n, C, H, W) in channels_last memory."""
    standard = (torch.from_numpy(images).double() - torch.from_numpy(mean)) / torch.from_numpy(std)
    norms = torch.linalg.vector_norm(standard.flatten(1), dim=1)
    return (standard / norms[:, None, None, None]).permute(0, 3, 1, 2)


def _counterparts(x: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """For each image, the exact one that it is but for its rounding."""
    nearest = (x.double().flatten(1) @ exact.flatten(1).T).argmax(1)
    found = exact[nearest].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x.double(), found, rtol=1e-5, atol=1e-7)
    return found


def _processor() -> dict[str, str]:
    """The processor as Linux tells it; on other systems nothing that would match."""
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer")
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {"processor": platform.processor()}
    pairs = (line.partition(":") for line in first.splitlines())
    told = {name.strip(): value.strip() for name, _, value in pairs}
    found = {name: told[name] for name in wanted if name in told}
    if "Features" in found:  # as ARM's are called
        found["flags"] = found.pop("Features")
    return found
