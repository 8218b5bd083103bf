"""The git commit of the code that runs."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
LIMIT = 10  # seconds, on a file system that is far away


@cache
def commit(clone: Path = CLONE) -> str | None:
    """Return the commit of a clone, with `-dirty` if tracked files have changed; None without one.

    Args:
        clone: The folder of the repository; that of this package unless it is given.
    """
    if not (clone / ".git").exists():  # else a repository further up would be asked
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12"]
    command += ["--exclude", "*"]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # somebody may commit meanwhile
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=env)
    except (OSError, subprocess.TimeoutExpired):  # no git
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
