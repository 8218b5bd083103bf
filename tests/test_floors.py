"""The floors of the house: who may import whom, and where a line may live."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

# From the bottom to the top. A file imports files of lower floors and of its own room.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "version", "theory", "observables"),
    ("data", "run"),
    ("training", "sweep", "records"),
    ("deep", "linear", "callbacks", "verify", "report"),
    ("cli",),
    ("__init__",),  # the public names, imported lazily
    ("__main__",),
)
APART = ("minimal",)  # imports nothing of ours, and nobody imports it
# The packages of others that a room may import.
PACKAGES = {
    "errors": set[str](),
    "version": set[str](),
    "__init__": set[str](),
    "__main__": set[str](),
    "theory": {"torch", "numpy"},
    "observables": {"torch", "numpy"},
    "minimal": {"torch", "numpy", "sklearn"},
    "data": {
        "torch",
        "numpy",
        "lightning",
        "torchvision",
        "sklearn",
        "PIL",
        "threadpoolctl",
        "numba",
    },
    "run": {"lightning", "numpy", "wandb", "yaml"},
    "training": {"torch", "numpy", "lightning"},
    "sweep": {"torch", "numpy", "scipy", "rich", "yaml"},
    "records": {"numpy", "pandas", "scipy", "wandb"},
    "deep": {"torch", "lightning", "torchmetrics", "torchvision"},
    "linear": {"torch", "numpy", "numba", "lightning"},
    "callbacks": {"torch", "numpy", "lightning", "rich"},
    "verify": {"numpy", "pandas", "scipy"},
    "report": {"numpy", "pandas", "matplotlib", "plotly", "PIL", "wandb"},
    "cli": {"lightning", "jsonargparse", "yaml", "rich", "wandb_workspaces"},
}
LONGEST_FILE, LONGEST_CLASS, LOOSE = 420, 300, 4
READERS = ("verify", "report", "workspace")
# Private by their spelling, and promised all the same: of named tuples, and of the system.
PROMISED = {"_replace", "_asdict", "_exit"}
# The named subclass of LightningCLI, whose overrides `janus_pl.training.lightning` lists; and two
# names of others than Lightning that have no public form.
ELSEWHERE = {
    "janus_pl/cli/lightning_cli.py": ["LightningCLI._set_seed", "LightningCLI._run_subcommand"],
    "janus_pl/report/workspace.py": ["view._to_model"],  # of wandb-workspaces
    "janus_pl/training/guard.py": ["getattr _step_supports_amp_scaling"],  # of torch.optim
}


def files(root: Path = ROOT) -> list[Path]:
    """Every Python file; `janus_pl/callbacks` is a link to the folder at the top."""
    return sorted([*(root / "janus_pl").rglob("*.py"), *(root / "callbacks").rglob("*.py")])


def room_of(file: Path, root: Path = ROOT) -> str:
    """The folder of a file below `janus_pl`, or the name of a loose module."""
    package, *rest = file.relative_to(root).parts
    return package if package == "callbacks" else rest[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or within a function, as a dotted name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file} imports relatively"
            whole = node.module == "janus_pl"
            yield from ([f"{node.module}.{a.name}" for a in node.names] if whole else [node.module])


def room_named(module: str) -> str:
    """The room that a dotted name of ours lies in."""
    _, *rest = module.split(".")
    return rest[0] if rest and rest[0] in {*PACKAGES} else "__init__"


def floor_of(room: str) -> int | None:
    """Counted from 0 at the bottom; None of a room on no floor."""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def faults(root: Path = ROOT) -> list[str]:
    """Every import against the floors, and every file on none of them."""
    found = []
    for file in files(root):
        room, place = room_of(file, root), file.relative_to(root)
        floor = floor_of(room)
        if floor is None and room not in APART:
            found.append(f"{place} is on no floor")
            continue
        for name in imports(file):
            package = name.split(".")[0]
            if package != "janus_pl":
                if package not in PACKAGES[room] and package not in sys.stdlib_module_names:
                    found.append(f"{place} imports {package}")
                continue
            other = room_named(name)
            below = floor_of(other)
            if other != room and (floor is None or below is None or below >= floor):
                found.append(f"{place} imports {name}")
    return found


def private_names(file: Path) -> list[str]:
    """What a file takes of private names that are not its own."""
    tree = ast.parse(file.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
            found += [alias.name for alias in node.names if alias.name.startswith("_")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            dunder = node.attr.startswith("__")
            owner = node.value
            named = owner.id if isinstance(owner, ast.Name) else ""
            own = named in ("self", "cls", "torch") or isinstance(owner, ast.Call)
            if not (dunder or own or node.attr in PROMISED):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            name = node.args[1]
            text = str(name.value) if isinstance(name, ast.Constant) else ""
            if text.startswith("_") and not text.startswith("__"):
                found.append(f"{ast.unparse(node.func)} {text}")
    return found


def planted(tmp_path: Path, place: str, code: str) -> Path:
    """A copy of the house with one more file."""
    for file in files():
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    return file


def test_every_file_is_on_a_floor_and_imports_point_down() -> None:
    assert faults() == []


def test_every_room_is_known_once() -> None:
    rooms = [room for floor in FLOORS for room in floor] + [*APART]
    assert len(rooms) == len({*rooms})
    assert {*rooms} == {*PACKAGES}
    assert {room_of(file) for file in files()} == {*rooms}


@pytest.mark.parametrize(
    ("place", "code", "fault"),
    [
        ("janus_pl/observables/bad.py", "from janus_pl.training.task import JanusTask", "imports"),
        ("janus_pl/run/bad.py", "def f():\n    import janus_pl.training.signals", "imports"),
        ("janus_pl/report/bad.py", "from janus_pl.verify.decide import Answer", "imports"),
        ("janus_pl/deep/bad.py", "from janus_pl.callbacks import LayerRank", "imports"),
        ("janus_pl/cli/bad.py", "from callbacks import LayerRank", "imports callbacks"),
        ("callbacks/bad.py", "from callbacks._observer import Observer", "imports callbacks"),
        ("janus_pl/minimal.py", "from janus_pl.errors import Exit", "imports"),
        ("janus_pl/data/bad.py", "from janus_pl import minimal", "imports"),
        ("janus_pl/theory/bad.py", "import pandas", "imports pandas"),
        ("janus_pl/new.py", "", "is on no floor"),
        ("janus_pl/new/file.py", "", "is on no floor"),
    ],
)
def test_a_planted_fault_is_found(place: str, code: str, fault: str, tmp_path: Path) -> None:
    planted(tmp_path, place, code)
    (found,) = faults(tmp_path)
    assert found.startswith(place)
    assert fault in found


def test_lightnings_private_names_are_in_one_file() -> None:
    own = ROOT / "janus_pl" / "training" / "lightning.py"
    taken = {str(file.relative_to(ROOT)): private_names(file) for file in files() if file != own}
    assert {file: names for file, names in taken.items() if names} == ELSEWHERE


@pytest.mark.parametrize(
    "code",
    [
        "from lightning.pytorch.loops.fit_loop import _FitLoop",
        "def f(trainer):\n    trainer._signal_connector.signals = 1",
        "def f(trainer):\n    return getattr(trainer, '_checkpoint_connector')",
    ],
)
def test_a_planted_private_name_is_found(code: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(code)
    assert private_names(file)


def test_few_modules_lie_loose() -> None:
    loose = {file.stem for file in (ROOT / "janus_pl").glob("*.py")}
    assert len(loose - {"__init__", "__main__"}) <= LOOSE


def test_files_and_classes_can_be_read_in_one_go() -> None:
    long = []
    for file in files():
        text = file.read_text()
        lines = len(text.splitlines())
        if lines > LONGEST_FILE:
            long.append(f"{file.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > LONGEST_CLASS:
                    long.append(f"{file.relative_to(ROOT)}: {node.name} of {size} lines")
    assert long == []


@pytest.mark.parametrize("tool", READERS)
def test_tools_that_read_records_start_without_torch(tool: str) -> None:
    code = f"import sys, janus_pl.cli.{tool}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {name.split(".")[0] for name in done.stdout.split()}
    assert "janus_pl" in names
    assert not names & {"torch", "lightning"}


def bare_exits(file: Path) -> list[str]:
    """Exit codes that a file writes as numbers."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("SystemExit", "sys.exit"):
            found += [ast.unparse(node) for arg in node.args if _is_number(arg)]
        elif isinstance(node, ast.Compare) and _speaks_of_a_code(node.left):
            if isinstance(node.ops[0], ast.Lt):  # below 0: killed by a signal
                continue
            numbers = [n for other in node.comparators for n in ast.walk(other) if _is_number(n)]
            found += [ast.unparse(node)] * bool(numbers)
        elif isinstance(node, ast.FunctionDef) and node.name in ("main", "_run", "run"):
            returns = [n for n in ast.walk(node) if isinstance(n, ast.Return) and n.value]
            found += [ast.unparse(n) for n in returns if _is_number(n.value)]
        elif isinstance(node, ast.keyword) and node.arg == "exit_code" and _is_number(node.value):
            found.append(ast.unparse(node))
    return found


def _is_number(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _speaks_of_a_code(node: ast.AST) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("code", "exit_code")


def test_no_exit_code_is_a_bare_number() -> None:
    own = ROOT / "janus_pl" / "errors.py"
    found = {str(f.relative_to(ROOT)): bare_exits(f) for f in files() if f != own}
    assert {file: codes for file, codes in found.items() if codes} == {}


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(2)",
        "def main():\n    return 1",
        "def f(run):\n    return run.exit_code != 5",
        "def f(code):\n    return code in (130, 143)",
        "def f(wandb):\n    wandb.finish(exit_code=1)",
    ],
)
def test_a_planted_exit_code_is_found(code: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(code)
    assert bare_exits(file)
