"""Arrays of a run as .npz files in its folder: whole, or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from janus_pl.runtime.files import write_atomically


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an .npz; a file that was there before stays until the new one is complete.

    Raises:
        StorageError: the file cannot be written.
    """
    named = {k: np.asarray(v) for k, v in arrays.items()}
    write_atomically(path, lambda file: np.savez(file, **named))  # type: ignore[arg-type]
