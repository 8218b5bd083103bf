"""Environments made of links: some packages of this one, what they require, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import janus_pl

# Where the package under test lies: the checkout, or the packages of an environment with its wheel.
PACKAGE = str(Path(janus_pl.__file__).parents[1])
LIMIT = 570  # seconds of a process, on a machine that has much else to do
# Starts Python without the packages of this environment, but for the folders that are named first.
START = "import sys; n = int(sys.argv[1]); sys.path += sys.argv[2:2 + n]; del sys.argv[1:2 + n]; "


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: Iterable[str]) -> set[str]:
    """The installed packages that some need, and themselves, by their normal names.

    Args:
        names: Requirements, as `jsonargparse[signatures]>=4`; those whose marker is not true here
            and those that are not installed are left out.
    """
    found: dict[str, set[str]] = {}
    waiting = [Requirement(name) for name in names]
    while waiting:
        asked = waiting.pop()
        name = normal(asked.name)
        known = found.get(name)
        if known is not None and asked.extras <= known:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found[name] = extras = (known or set()) | asked.extras
        for text in required:
            other = Requirement(text)
            given = [{"extra": extra} for extra in ("", *extras)]
            if other.marker is None or any(other.marker.evaluate(each) for each in given):
                waiting.append(other)
    return {*found}


def linked(folder: Path, names: Iterable[str]) -> Path:
    """Fill a folder with links to some packages and all that they need."""
    folder.mkdir(parents=True)
    for name in closure(names):
        distribution = metadata.distribution(name)
        tops = {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            here, there = folder / top, Path(str(distribution.locate_file(top)))
            if not here.is_symlink() and there.exists():
                here.symlink_to(there)
    return folder


def run_in(
    folders: Sequence[Path], code: str, args: Sequence[str] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code with the packages of some folders alone; its output is captured.

    The working directory is on the path, as it is for `python -m`.
    """
    keep = ("HOME", "LANG", "PATH", "TMPDIR", "WANDB_MODE", "WANDB_SILENT")
    env: Mapping[str, str] = {k: v for k, v in os.environ.items() if k in keep}
    command = [sys.executable, "-S", "-s", "-W", "ignore", "-c", START + code]
    command += [str(len(folders)), *map(str, folders), *args]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
