"""Which tests are light: those that need no fit, command line, process or browser."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Names that a heavy test uses, itself or through helpers in this folder.
STARTERS = {
    *("Trainer", "main", "JanusCLI", "ConfigReader", "Resolver", "train"),  # a fit, a command line
    *("subprocess", "Popen", "multiprocessing", "fork", "kill", "fork_test"),  # a process
    *("Forks", "Processes"),  # of a sweep
    *("NotebookClient",),  # a process, too
    *("sync_playwright", "chromium", "new_page"),  # a browser
    *("init",),  # wandb.init: a process of W&B's
    *("counted",),  # a fit of benchmarks.operations
    *("step_pass", "check_compiler"),  # a compiler, which is a process
}

EVERYWHERE = {"light_stays_light", "quiet_wandb"}  # fixtures of every test


def is_heavy(item: Any) -> bool:
    """Tell whether a collected test is heavy, from its code and that of its fixtures."""
    function = getattr(item, "function", None)
    if function is None:  # a doctest
        return False
    if hasattr(function, "hypothesis"):  # the test that hypothesis has wrapped
        function = function.hypothesis.inner_test
    fixtures = item._fixtureinfo.name2fixturedefs.items()
    functions = [function, *(defs[-1].func for name, defs in fixtures if name not in EVERYWHERE)]
    return any(_starts(function, set()) for function in functions)


def _starts(value: Callable[..., Any], seen: set[int]) -> bool:
    """Tell whether a function uses a starter, or a helper of the tests that does."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    function = inspect.unwrap(value)
    if inspect.isclass(function):
        # Python 3.13 gives dataclasses a method of its own, which uses a field's `init`.
        its = filter(inspect.isfunction, vars(function).values())
        methods = [method for method in its if _is_of_tests(method)]
        return any(_starts(method, seen) for method in methods)
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    names = {*_names(code)}
    if names & STARTERS:
        return True
    helpers = (function.__globals__.get(name) for name in names)
    return any(_starts(helper, seen) for helper in helpers if _is_of_tests(helper))


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield every global and attribute that code uses, nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_of_tests(value: object) -> bool:
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    module = inspect.getmodule(value)
    file = getattr(module, "__file__", None)
    return file is not None and HERE in Path(file).resolve().parents
