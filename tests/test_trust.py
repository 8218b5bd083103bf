"""What a file of somebody else's may not do: run code that no class of a config stands for."""

from __future__ import annotations

import ast
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from janus_pl.cli.main import main

CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
CALLS |= {"subprocess.getoutput", "subprocess.getstatusoutput"}
CALLS |= {f"yaml.{name}" for name in ("load", "load_all", "full_load", "unsafe_load")}
CALLS |= {f"pickle.{name}" for name in ("load", "loads", "Unpickler")}
MODULES = {"dill", "cloudpickle", "shelve", "marshal", "joblib"}
KEYWORDS = {"shell": True, "allow_pickle": True}
DEEP = ["fit", "--config=sgd.yaml", "--data=janus_pl.data.DigitsPair"]


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute, else what is known of it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def given(call: ast.Call, keyword: str) -> object:
    """The constant that a call gives a keyword."""
    values = [k.value for k in call.keywords if k.arg == keyword]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def dangers(code: str) -> list[str]:
    """What in a file may run code that comes from elsewhere."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += names & CALLS or [str(node.module)] * (str(node.module) in MODULES)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            found += [name] * (name in CALLS)
            found += [f"{name}({k}=True)" for k, bad in KEYWORDS.items() if given(node, k) is bad]
            if name == "torch.load" and given(node, "weights_only") is not True:
                found.append("torch.load without weights_only=True")
    return found


FILES = sorted(f for part in ("janus_pl", "callbacks") for f in (ROOT / part).rglob("*.py"))


def test_no_file_of_the_package_runs_what_it_reads() -> None:
    assert len(FILES) > 40
    assert {str(f): bad for f in FILES if (bad := dangers(f.read_text()))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "x = eval(text)",
        "exec(text)",
        "pickle.loads(data)",
        "from pickle import loads",
        "import dill",
        "def f():\n    from joblib import load",
        "os.system('ls')",
        "subprocess.run(line, shell=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_every_danger_is_found(code: str) -> None:
    assert dangers(code)


@pytest.mark.parametrize(
    "code",
    ["torch.load(path, weights_only=True)", "np.load(path)", "module.eval()", "yaml.safe_load(t)"],
)
def test_what_is_no_danger_is_not(code: str) -> None:
    assert not dangers(code)


class Payload:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("ran"),)


TAG = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [ran]]"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def refused(args: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(args) == 2
    assert not Path("ran").exists()
    assert not Path("runs").exists()
    (line,) = filter(str.strip, capsys.readouterr().err.splitlines())
    return line


@pytest.mark.parametrize("key", ["name", "model", "trainer"])
def test_a_tag_in_a_config_constructs_nothing(key: str, capsys: pytest.CaptureFixture) -> None:
    Path("tag.yaml").write_text(f"{key}: {TAG}\n")
    assert "tag.yaml" in refused([*DEEP, "--config=tag.yaml"], capsys)


@pytest.mark.parametrize("option", ["trainer.callbacks", "model", "data.seed"])
def test_a_tag_on_the_command_line_constructs_nothing(
    option: str, capsys: pytest.CaptureFixture
) -> None:
    assert option in refused([*DEEP, f"--{option}={TAG}"], capsys)


def test_a_pickle_in_a_problem_is_not_opened(capsys: pytest.CaptureFixture) -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert Path("ran").exists()  # the control: it would run
    Path("ran").unlink()
    np.savez("bad.npz", X=np.array([[Payload()]], dtype=object), Y=np.ones((1, 1)))
    line = refused(["fit", "--config=linear/a2.yaml", "--data.source=bad.npz"], capsys)
    assert "allow_pickle=False" in line
    with zipfile.ZipFile("raw.npz", "w") as file:
        file.writestr("X", pickle.dumps(Payload()))  # no array at all
        file.writestr("Y", pickle.dumps(Payload()))
    refused(["fit", "--config=linear/a2.yaml", "--data.source=raw.npz"], capsys)


def test_a_class_has_to_be_of_the_kind_that_its_place_is_for(
    capsys: pytest.CaptureFixture,
) -> None:
    Path("call.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: pathlib.Path.touch\n"
        "      init_args: {self: ran}\n"
    )
    assert "trainer.callbacks" in refused([*DEEP, "--config=call.yaml"], capsys)
