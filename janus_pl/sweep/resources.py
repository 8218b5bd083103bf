"""Cores and GPUs, divided among runs that go on side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    The count makes no context on any of them.
    """
    import torch  # by far more than all the rest of this file

    count = torch.cuda.device_count()
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        return names[:count]
    return [str(index) for index in range(count)]


def default_jobs(gpu_count: int, core_count: int, per_gpu: int = 1) -> int:
    """Return the number of runs at a time: so many a GPU; without GPUs, one for two cores.

    Runs side by side use cores better than threads within one run, because small layers and the
    steps of SGD leave little to share. Two cores each leave room for W&B's process and the memory.

    >>> default_jobs(4, 32), default_jobs(4, 32, 3), default_jobs(0, 32), default_jobs(0, 1)
    (4, 12, 16, 1)
    """
    return gpu_count * per_gpu or max(1, core_count // 2)


def environment_of(
    slot: int, jobs: int, devices: Sequence[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the variables for a run's cores and GPUs; numbers of threads set by the user stay.

    Those that the user has not set are as OMP_NUM_THREADS. PyTorch takes MKL_NUM_THREADS for its
    own threads, so a larger one would undo what the user has asked for.

    Args:
        slot: The index of the run among those side by side, from 0 to jobs - 1.
        jobs: The number of runs side by side.
        devices: The GPUs; if there are several, each run gets one, in turn.
        environment: The environment of this process.
    """
    asked = environment.get(THREADS[0], "").partition(",")[0].strip()
    threads = asked if asked.isdecimal() and int(asked) else str(max(1, cores() // jobs))
    told = {name: threads for name in THREADS if name not in environment}
    if len(devices) > 1:
        told[VISIBLE] = devices[slot % len(devices)]
    return told
