"""Imports point down only: who may know whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from conftest import ROOT

TORCH_ONLY = {"torch", "numpy"}
OURS = {"janus_pl", "callbacks"}
# For each part: the packages of others and the modules of ours that it may import.
ALLOWED = {
    "janus_pl/errors.py": (set(), set()),
    "janus_pl/linalg.py": (TORCH_ONLY, set()),
    "janus_pl/limits.py": (set(), {"janus_pl.errors"}),
    "janus_pl/losses.py": (TORCH_ONLY, set()),
    "janus_pl/minimal.py": (TORCH_ONLY | {"sklearn"}, set()),
    "janus_pl/linear": (TORCH_ONLY | {"numba"}, {"janus_pl.linear", "janus_pl.theory"}),
    "janus_pl/theory": (TORCH_ONLY, {"janus_pl.theory"}),
    "janus_pl/nn": (
        TORCH_ONLY,
        {
            "janus_pl.nn",
            "janus_pl.linalg",
            "janus_pl.errors",
            "janus_pl.limits",
            "janus_pl.theory",
        },
    ),
    "janus_pl/observables": (TORCH_ONLY, {"janus_pl.observables", "janus_pl.linalg"}),
    "janus_pl/data/loader.py": (TORCH_ONLY, {"janus_pl.errors"}),
    "janus_pl/data": (
        TORCH_ONLY | {"lightning", "torchvision", "sklearn", "PIL", "threadpoolctl"},
        {"janus_pl.data", "janus_pl.errors", "janus_pl.limits"},
    ),
    "janus_pl/tools.py": (set(), {"janus_pl.errors"}),
    "janus_pl/options.py": (set(), {"janus_pl.errors"}),
    "janus_pl/command_line.py": ({"yaml"}, {"janus_pl.errors"}),
    "janus_pl/runtime/account.py": ({"wandb"}, {"janus_pl.errors"}),
    "janus_pl/runtime/files.py": (set(), {"janus_pl.errors"}),
    "janus_pl/runtime/arrays.py": (TORCH_ONLY, {"janus_pl.runtime.files"}),
    "janus_pl/runtime/checkpoint_io.py": (
        TORCH_ONLY | {"lightning"},
        {"janus_pl.errors", "janus_pl.runtime.files"},
    ),
    "janus_pl/runtime/ranks.py": (TORCH_ONLY | {"lightning"}, set()),
    "janus_pl/task.py": (
        TORCH_ONLY | {"lightning"},
        {
            "janus_pl.data.loader",
            "janus_pl.nn",
            "janus_pl.runtime.ranks",
            "janus_pl.runtime.record",
        },
    ),
    "janus_pl/report/page": (
        {"numpy", "pandas", "plotly"},
        {"janus_pl.report", "janus_pl.runtime.files"},
    ),
    "janus_pl/report": (
        {
            "numpy",
            "pandas",
            "scipy",
            "rich",
            "wandb",
            "plotly",
            "matplotlib",
            "PIL",
            "wandb_workspaces",
        },
        {
            "janus_pl.report",
            "janus_pl.errors",
            "janus_pl.runtime.files",
            "janus_pl.runtime.account",
            "janus_pl.options",
        },
    ),
    "janus_pl/sweep/launch.py": (set(), set()),
    "janus_pl/sweep": (
        {"numpy", "scipy", "torch", "rich", "yaml"},
        {
            "janus_pl.sweep",
            "janus_pl.cli",
            "janus_pl.cli_errors",
            "janus_pl.command_line",
            "janus_pl.options",
            "janus_pl.errors",
            "janus_pl.runtime.files",
            "janus_pl.runtime.journal",
            "janus_pl.runtime.run_folder",
        },
    ),
    "callbacks": (
        TORCH_ONLY | {"lightning"},
        {
            "callbacks",
            "janus_pl.runtime.files",
            "janus_pl.task",
            "janus_pl.observables",
            "janus_pl.errors",
            "janus_pl.linalg",
            "janus_pl.theory",
        },
    ),
}


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at the top or within a function."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def violations(file: Path, packages: set[str], modules: set[str]) -> list[str]:
    wrong = []
    for name in imports(file):
        root = name.split(".")[0]
        if root in OURS:
            if not any(name == module or name.startswith(f"{module}.") for module in modules):
                wrong.append(name)
        elif root not in packages:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down(part: str) -> None:
    path = ROOT / part
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files
    found = {str(f.relative_to(ROOT)): violations(f, *ALLOWED[part]) for f in files}
    assert {file: wrong for file, wrong in found.items() if wrong} == {}


def test_the_package_never_imports_the_callbacks() -> None:
    for file in (ROOT / "janus_pl").rglob("*.py"):
        assert not [name for name in imports(file) if name.split(".")[0] == "callbacks"], file


def test_an_arrow_that_points_up_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from janus_pl.task import JanusTask\n    import lightning\n")
    assert sorted(violations(bad, *ALLOWED["janus_pl/observables"])) == [
        "janus_pl.task",
        "lightning",
    ]
