"""Which tests are light, by the code that they use."""

from __future__ import annotations

import dataclasses
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from weight import is_heavy

# Asks each field for its `init`; a method of dataclasses from Python 3.13 on.
ASKING: Any = getattr(dataclasses, "_replace", dataclasses.replace)


class Given:
    """A class with a method of the library's, as Python 3.13 gives to dataclasses."""

    again = ASKING


class Runs:
    """A class with a method of the tests' own that starts a process."""

    def run(self) -> None:
        subprocess.run(["true"], check=True)


def uses_given() -> Any:
    return Given()


def uses_runs() -> Any:
    return Runs()


@pytest.mark.parametrize(("function", "heavy"), [(uses_given, False), (uses_runs, True)])
def test_a_class_is_heavy_by_the_methods_of_the_tests_alone(function: Any, heavy: bool) -> None:
    of_none = SimpleNamespace(name2fixturedefs={})
    assert is_heavy(SimpleNamespace(function=function, _fixtureinfo=of_none)) is heavy
    assert "init" in ASKING.__code__.co_names or heavy, "else no case of it"
