"""Training framework for the Janus effects of SGD against GD: high noise and low rank.

The classes are imported when they are asked for: reading records needs neither PyTorch nor
Lightning, whose import takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from janus_pl.version import __version__

if TYPE_CHECKING:
    from janus_pl.classifier import DeepReLUClassifier
    from janus_pl.regressor import LinearRegressor
    from janus_pl.task import JanusTask

__all__ = ["DeepReLUClassifier", "JanusTask", "LinearRegressor", "__version__"]
HOMES = {
    "DeepReLUClassifier": "janus_pl.classifier",
    "JanusTask": "janus_pl.task",
    "LinearRegressor": "janus_pl.regressor",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
