"""Arrays of a run as .npz files in its folder: whole, or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an .npz; a file that was there before stays until the new one is complete."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **{k: np.asarray(v) for k, v in arrays.items()})  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
