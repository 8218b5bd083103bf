"""The claims files that are there when a run starts, by their hashes.

A claim that was written down before a run can be tested by it. Each run records the SHA-256 of the
claims files of that moment, so that a reader knows which claims are older than the run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from janus_pl.run.shipped import CONFIGS

CLAIMS = Path("configs", "claims")  # below the working directory, and beside the shipped configs
SHIPPED = CONFIGS / "claims"
ENDING = ".yaml"


def digest(content: bytes) -> str:
    """Return the SHA-256 of a claims file, in hex."""
    return hashlib.sha256(content).hexdigest()


def claims_there() -> dict[str, str]:
    """Return the digests of the claims files by their names, of the working directory by path."""
    found = {file.name: digest(file.read_bytes()) for file in _files(SHIPPED)}
    if CLAIMS.resolve() != SHIPPED:
        found |= {file.as_posix(): digest(file.read_bytes()) for file in _files(CLAIMS)}
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{ENDING}")) if folder.is_dir() else []
