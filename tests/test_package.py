"""The package without its repository: what a wheel holds, what it runs, what it needs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from environments import LIMIT, closure, linked, normal, run_in
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

from janus_pl.cli.main import main
from janus_pl.errors import EXTRAS
from janus_pl.run.shipped import base

SOMEBODYS = ROOT / "tests" / "somebodys_project.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = ("janus_pl", "callbacks", "configs")
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # setuptools puts others in its place
print(build_meta.build_sdist(out), build_meta.build_wheel(out))
"""
# What the command `janus-pl` does: it loads the function that the package names.
SCRIPT = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="janus-pl")
command.load()()
"""
# What `python -m MODULE` does, with the module's name first.
MODULE = "import runpy; name = sys.argv.pop(1); runpy.run_module(name, run_name='__main__')"
WHERE = "import janus_pl.callbacks as c; print(c.__file__, c.LayerRank.__module__)"
RAISES = "raise RuntimeError('this file is not for janus_pl')\n"
OWN = {"trainer": {"callbacks+": ["callbacks.LayerRotation"]}, "data": "janus_pl.data.DigitsPair"}
SMALL = [
    "--data.num_train=40",
    "--data.batch_size=8",
    "--model.strides=[2,2,2,2]",
    "--model.channels=[2,3,4,4]",
]
SMALL += ["--model.hidden=8", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "checkout"
    for name in SOURCES:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=leave)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    out = folder / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert "would be ignored" not in done.stderr + done.stdout
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, by pip."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-deps", "--target", str(folder), str(wheel)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def plain(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and what it requires: no extra and nothing else."""
    return installed, linked(tmp_path_factory.mktemp("plain") / "site", PROJECT["dependencies"])


def files_of(folder: str) -> set[str]:
    kept = (".py", ".yaml", ".typed", ".js", ".css", ".html")
    return {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in kept or file.name == "py.typed"
    }


def test_a_wheel_holds_the_package_its_callbacks_and_its_configs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        claims = packed.read("janus_pl/configs/claims/paper.yaml")
    inside = files_of("janus_pl") - {n for n in files_of("janus_pl") if "/callbacks/" in n}
    inside = {name for name in inside if not name.startswith("janus_pl/configs/")}
    of_links = {f"janus_pl/{name}" for part in ("callbacks", "configs") for name in files_of(part)}
    assert names == inside | of_links
    assert {name.split("/")[0] for name in names} == {"janus_pl"}  # no folder callbacks on top
    # The hash of a claims file is in the records of runs, so its bytes are those of the repository.
    own = (ROOT / "configs" / "claims" / "paper.yaml").read_bytes()
    assert hashlib.sha256(claims).digest() == hashlib.sha256(own).digest()


def test_an_sdist_holds_files_and_no_links(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as packed:
        members = packed.getmembers()
    assert all(member.isfile() or member.isdir() for member in members)
    names = {member.name.partition("/")[2] for member in members}
    for part in ("callbacks", "configs"):
        assert {f"janus_pl/{name}" for name in files_of(part)} <= names


def test_a_wheel_trains_from_any_folder_whatever_is_named_callbacks_there(
    plain: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "callbacks.py").write_text(RAISES)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))  # a difference from the shipped base
    where = run_in(plain, WHERE, cwd=tmp_path)
    place = plain[0] / "janus_pl" / "callbacks" / "__init__.py"
    assert where.stdout.split() == [str(place), "janus_pl.callbacks.layer_rank"]
    fit = ["fit", "--config", "sgd.yaml", "--config", "own.yaml", *SMALL]
    done = run_in(plain, SCRIPT, [*fit, "--trainer.fast_dev_run", "true"], tmp_path)
    assert done.returncode == 0, done.stderr
    shown = run_in(plain, SCRIPT, [*fit, "--print_config"], tmp_path)
    config = yaml.safe_load(shown.stdout)
    looks = [each["class_path"] for each in config["trainer"]["callbacks"]]
    assert looks[0] == "janus_pl.callbacks.MarginHistogram"
    assert looks[-1] == "janus_pl.callbacks.LayerRotation"
    assert config["model"]["init_args"]["weight_decay"] == 1e-3  # the base's


@pytest.mark.parametrize(
    ("line", "package"),
    [
        (["report", "runs", "--out", "page"], "matplotlib"),
        (["verify", "runs"], "pandas"),
        (["workspace", "--json"], "pandas"),
        (["fit", "--config", "linear/a2.yaml"], "numba"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    line: list[str], package: str, plain: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run_in(plain, SCRIPT, line, tmp_path)
    extra = EXTRAS[package]
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert told.endswith(f"the extra {extra}: pip install 'janus-pl[{extra}]'")
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        (["janus_pl.cli.quickstart"], "report"),
        (["janus_pl.cli.reproduce", "--fast"], "linear"),
        (["janus_pl", "sweep", "linear_a2.yaml"], "linear"),
        (["janus_pl", "sweep", "linear_a2.yaml", "--dry-run"], "linear"),
    ],
)
def test_a_missing_extra_is_said_before_the_first_of_many_runs(
    line: list[str], extra: str, plain: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run_in(plain, MODULE, line, tmp_path)
    assert done.returncode == 2, done.stderr
    (told,) = done.stderr.splitlines()
    assert told.startswith("error: ")
    assert told.endswith(f"the extra {extra}: pip install 'janus-pl[{extra}]'")
    assert not [*tmp_path.iterdir()]


def test_jpeg_images_name_the_extra_that_checks_them_and_not_their_folder(
    plain: tuple[Path, Path], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    images = tmp_path_factory.mktemp("images")
    for split, name, number in product(("train", "test"), ("a", "b"), range(4)):
        file = images / split / name / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(file)
    fit = ["fit", "--config", "sgd.yaml", "--trainer.fast_dev_run", "true"]
    fit += ["--data", "janus_pl.data.ImageFolderPair", "--data.root", str(images)]
    done = run_in(plain, SCRIPT, fit, tmp_path)
    assert done.returncode == 2, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("error: package numba: got 'not installed', allowed: the extra linear")
    assert not [*tmp_path.iterdir()]


def test_three_callbacks_need_torch_lightning_and_numpy_alone(
    installed: Path, tmp_path: Path
) -> None:
    three = linked(tmp_path / "site", ("torch", "lightning", "numpy"))
    (tmp_path / "work").mkdir()
    done = run_in([installed, three], SOMEBODYS.read_text(), cwd=tmp_path / "work")
    assert done.returncode == 0, done.stderr
    (*_, last) = done.stdout.splitlines()
    loaded = {name.split(".")[0] for name in last.split()}
    assert not loaded & {"wandb", "jsonargparse", "rich", "pandas", "scipy", "sklearn", "numba"}
    head, *rows = (tmp_path / "work/logs/lightning_logs/one/metrics.csv").read_text().splitlines()
    assert {"margin_raw/mean", "velocity/one", "rank/two"} <= {*head.split(",")}
    assert len(rows) >= 2


def test_an_environment_of_links_lacks_what_it_was_not_given(tmp_path: Path) -> None:
    folder = linked(tmp_path / "site", ["numpy"])
    there = run_in([folder], "import numpy; print(numpy.__file__)")
    assert there.returncode == 0, there.stderr
    assert str(folder) in there.stdout
    lacking = run_in([folder], "import yaml")
    assert "No module named 'yaml'" in lacking.stderr


def test_each_package_of_an_extra_is_required_by_that_extra_alone() -> None:
    extras = {
        extra: {normal(Requirement(text).name) for text in texts}
        for extra, texts in PROJECT["optional-dependencies"].items()
    }
    needed = closure(PROJECT["dependencies"])
    for package, extra in EXTRAS.items():
        assert normal(package) in extras[extra]
    # scikit-learn brings threadpoolctl; it is named all the same.
    assert not needed & {normal(package) for package in EXTRAS} - {"threadpoolctl"}


def test_the_oldest_versions_are_those_that_the_project_allows() -> None:
    lines = (ROOT / "requirements.lowest").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line.partition("#")[0]) for line in lines if line[0] != "#"]
    lowest = {normal(each.name): str(each.specifier).removeprefix("==") for each in pinned}
    lowest["lightning"] = lowest.pop("pytorch-lightning")  # two packages of one version
    for with_another in ("llvmlite", "pyparsing", "pytz"):  # numba's, matplotlib's, pandas's
        del lowest[with_another]
    extras = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *extras["linear"], *extras["report"]]
    allowed = {}
    for each in map(Requirement, texts):
        (bound,) = (s.version for s in each.specifier if s.operator == ">=")
        allowed[normal(each.name)] = Version(bound)
    of_torch = {"torch", "torchvision"}  # as pinned: 5 GB
    assert {name: Version(text) for name, text in lowest.items()} == {
        name: bound for name, bound in allowed.items() if name not in of_torch
    }


def test_a_package_without_its_configs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("janus_pl.cli.lightning_cli.base", lambda: base(tmp_path))
    assert main(["fit", "--config", "quickstart.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"configs: got '{tmp_path / 'base.yaml'}'" in line
