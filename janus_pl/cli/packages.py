"""Loggers, callbacks and profilers whose packages are missing: a mistake of one line."""

from __future__ import annotations

from typing import Any

from jsonargparse import add_instantiator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from janus_pl.errors import UsageError

FIELDS: dict[type, str] = {
    Logger: "trainer.logger",
    Callback: "trainer.callbacks",
    Profiler: "trainer.profiler",
}


def name_missing_packages() -> None:
    """Let the parser refuse a class of these kinds in one line if a package of it is missing."""
    for kind, field in FIELDS.items():
        add_instantiator(_maker(field), kind)


def _maker(field: str) -> Any:
    """Return the function by which the parser makes an object of an option."""

    def make(class_type: type, *args: Any, **options: Any) -> Any:
        options.pop("applied_instantiation_links", None)  # the parser's own
        try:
            return class_type(*args, **options)
        except ModuleNotFoundError as error:
            why = " ".join(str(error).split())
            allowed = f"a class whose packages are installed ({why})"
            raise UsageError(
                field, f"{class_type.__module__}.{class_type.__name__}", allowed
            ) from error

    return make
