"""Training framework for the Janus effects of SGD against GD: high noise and low rank.

A name is imported when it is first used, because reading records needs neither PyTorch nor
Lightning. Their import takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from janus_pl.version import __version__

if TYPE_CHECKING:
    from janus_pl.cli.main import main
    from janus_pl.deep.any_classifier import Classifier
    from janus_pl.deep.classifier import DeepReLUClassifier
    from janus_pl.linear.regressor import LinearRegressor
    from janus_pl.run.rows import Histogram, Table
    from janus_pl.training.schedules import SequentialLR
    from janus_pl.training.task import JanusTask

__all__ = [
    "Classifier",
    "DeepReLUClassifier",
    "Histogram",
    "JanusTask",
    "LinearRegressor",
    "SequentialLR",
    "Table",
    "__version__",
    "main",
]
HOMES = {
    "Classifier": "janus_pl.deep.any_classifier",
    "DeepReLUClassifier": "janus_pl.deep.classifier",
    "Histogram": "janus_pl.run.rows",
    "JanusTask": "janus_pl.training.task",
    "LinearRegressor": "janus_pl.linear.regressor",
    "SequentialLR": "janus_pl.training.schedules",
    "Table": "janus_pl.run.rows",
    "main": "janus_pl.cli.main",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
