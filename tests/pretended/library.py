"""Builds the pretended device once, whichever of several processes comes first."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("device.cpp")
COMPILER = "g++"
OPTIONS = ("-O0", "-std=c++20", "-shared", "-fPIC")
LIMIT = 600  # seconds


def missing() -> str | None:
    """Say what a build lacks here; None if it lacks nothing."""
    if shutil.which(COMPILER) is None:
        return f"{COMPILER} is not installed, so there is no pretended device"
    if not (headers() / "ATen" / "ATen.h").is_file():
        return "this PyTorch has no C++ headers, so there is no pretended device"
    return None


def headers() -> Path:
    """Return the folder of PyTorch's C++ headers."""
    return Path(torch.__file__).parent / "include"


def built(folder: Path) -> Path:
    """Return the library in a folder, built there if this source and this PyTorch have none yet.

    Args:
        folder: A folder that may outlast the tests. Other processes may build there as well.

    Raises:
        RuntimeError: The compiler refuses the source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = (SOURCE.read_text(), torch.__version__, *OPTIONS)
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    library = folder / f"pretended-{key}.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _build(library)
    return library


def _build(library: Path) -> None:
    include, lib = headers(), headers().parent / "lib"
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = [
        *(COMPILER, *OPTIONS, str(SOURCE), "-o", str(unfinished)),
        *(f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}"),
        *(f"-L{lib}", "-lc10", "-ltorch_cpu", "-ltorch", f"-Wl,-rpath,{lib}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode != 0:
        raise RuntimeError(f"{COMPILER} refuses {SOURCE.name}:\n{done.stderr[:4000]}")
    unfinished.replace(library)
