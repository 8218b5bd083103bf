"""The folder of the shipped configs, sweeps and claims: in the package, also in a wheel.

In a checkout `janus_pl/configs` is a link to the folder `configs` at the top.
"""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[1].joinpath("configs").resolve()
