"""Small regression problems, and what the tests of the closed forms do with arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def data(d: int = 6, n: int = 4, m: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, n)), rng.standard_normal((m, n))


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


def tensors(*arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(a)) for a in arrays]
