"""The folder of the shipped configs, sweeps and claims: in the package, also in a wheel.

In a checkout `janus_pl/configs` is a link to the folder `configs` at the top.
"""

from __future__ import annotations

from pathlib import Path

from janus_pl.errors import UsageError

CONFIGS = Path(__file__).parents[1].joinpath("configs").resolve()


def base(configs: Path = CONFIGS) -> Path:
    """Return the file of the defaults, from which every config is a difference.

    Raises:
        UsageError: It is missing, as in a checkout without its links.
    """
    file = configs / "base.yaml"
    if not file.is_file():
        raise UsageError("configs", str(file), "a file that comes with the package: install it")
    return file
