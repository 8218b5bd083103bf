"""The older spelling of our callbacks, `callbacks.X`, on the command line and in config files.

It is read as `janus_pl.callbacks.X`. Nothing named `callbacks` is imported for it, so a file of
that name in the working directory is the user's own; its other classes are found there.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

from janus_pl.run.spelling import OLDER, OPTION, PACKAGE

MODE = "yaml, both spellings"  # of the parser
PATH = re.compile(rf"(?<![\w.]){re.escape(OLDER)}(\w+)")
# The keys whose values are class paths, of which a list of callbacks may have bare ones.
KEYS = ("class_path", "callbacks", "callbacks+", OPTION, f"{OPTION}+", f"{OPTION}.class_path")


def add_mode() -> str:
    """Add the mode in which the parser reads both spellings, and return its name."""
    set_loader(MODE, _load, (YAMLError,))
    return MODE


def _load(text: str) -> Any:
    try:
        return copy.deepcopy(_loaded(text))
    except RecursionError:  # too deep for a copy
        return get_loader("yaml")(text)


@lru_cache(maxsize=16)
def _loaded(text: str) -> Any:
    """Return the value of a text, which nobody changes; base.yaml is read for each line."""
    value = get_loader("yaml")(text)
    try:
        return in_package(value)
    except RecursionError:  # it contains itself, which no option's type takes
        return value


def in_package(value: Any) -> Any:
    """Return nested plain values in which our callbacks have the package's spelling.

    >>> in_package({"trainer": {"callbacks": [{"class_path": "callbacks.LayerRank"}]}})
    {'trainer': {'callbacks': [{'class_path': 'janus_pl.callbacks.LayerRank'}]}}
    """
    if isinstance(value, dict):
        return {k: _at(k, each) for k, each in value.items()}
    if isinstance(value, list):
        return [in_package(each) for each in value]
    return value


def spell(args: Sequence[str]) -> list[str]:
    """Return a command line in which our callbacks have the package's spelling.

    >>> spell(["fit", "--trainer.callbacks+=callbacks.Sharpness", "--name", "callbacks.Sharpness"])
    ['fit', '--trainer.callbacks+=janus_pl.callbacks.Sharpness', '--name', 'callbacks.Sharpness']
    """
    spelled: list[str] = []
    option = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if arg.startswith("--"):
            option = name.removeprefix("--")
            spelled.append(name + equals + (_in_text(value) if _takes_callbacks(option) else value))
        else:
            spelled.append(_in_text(arg) if _takes_callbacks(option) else arg)
            option = ""
    return spelled


def _at(key: object, value: Any) -> Any:
    """Return the value of a key; a value that has keys of its own is looked through."""
    if key not in KEYS:
        return in_package(value)
    if isinstance(value, list):
        return [_in_text(each) if isinstance(each, str) else in_package(each) for each in value]
    return _in_text(value) if isinstance(value, str) else in_package(value)


def _takes_callbacks(option: str) -> bool:
    return option.rstrip("+") in (OPTION, f"{OPTION}.class_path")


def _in_text(text: str) -> str:
    return PATH.sub(lambda match: _new(match[0], match[1]), text)


def _new(path: str, name: str) -> str:
    """Return the path below the package if the name after `callbacks.` is one of ours."""
    from janus_pl import callbacks  # the parser imports it a moment later

    ours = hasattr(callbacks, name) and not name.startswith("__")
    return PACKAGE + path.removeprefix(OLDER) if ours else path
