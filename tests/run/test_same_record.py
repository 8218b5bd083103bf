"""The record of a run is the same by the command line with any loggers, a script, a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
import wandb
from environments import PACKAGE
from run.small_runs import FILES, SCRIPT, facts_of, fit_args, only_run

from janus_pl.cli.main import main

CSV = ["--trainer.logger+=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=csv"]
BOTH = (
    '--trainer.logger=[{"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args":'
    ' {"save_dir": "csv"}}, {"class_path": "lightning.pytorch.loggers.WandbLogger"}]'
)
LOGGERS = {
    "false": ["--trainer.logger=false"],
    "csv": [CSV[0].replace("+=", "="), CSV[1]],
    "csv and wandb": [BOTH],
    "added": CSV,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the plain command line leaves, in a process of its own."""
    place = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run("-m", "janus_pl", *fit_args())
        found = facts_of(only_run())
    assert found["files"] == sorted(FILES)
    assert found["exit_code"] == 0
    assert [row["epoch"] for row in found["rows"]] == [0, 1, 2]
    assert found["checkpoints"] == ["best.ckpt", "last.ckpt"]
    return found


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*args: str) -> str:
    """A process of its own with this Python; it has to end well."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env |= {"WANDB_MODE": "offline", "PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("loggers", LOGGERS.values(), ids=LOGGERS)
def test_whatever_the_loggers(loggers: list[str], expected: Any) -> None:
    wandb.teardown()  # a logger of W&B's has the environment of W&B's first start
    assert main(fit_args(*loggers)) == 0
    folder = only_run()
    assert facts_of(folder) == expected
    assert [path.parent for path in Path().rglob("last.ckpt")] == [folder / "checkpoints"]
    csv = list(Path().rglob("metrics.csv"))
    assert len(csv) == (loggers != LOGGERS["false"])
    if loggers in ([BOTH], CSV):
        (file,) = Path().rglob("*.wandb")
        assert file.stem == f"run-{folder.name}", "one id"


def test_the_config_of_a_run_with_an_added_logger_adds_it_again(expected: Any) -> None:
    assert main(fit_args(*CSV)) == 0
    config = str(only_run() / "config.yaml")
    assert main(["fit", "--config", config, "--run_dir", "again"]) == 0
    again = only_run("again/janus_pl")
    assert facts_of(again) == expected
    assert len(list(again.rglob("*.wandb"))) == 1
    assert len(list(Path().rglob("metrics.csv"))) == 2


def test_a_script(expected: Any) -> None:
    code = [line for line in SCRIPT.splitlines() if line.strip()]
    assert len(code) <= 17, "of 15 lines, and two that are folded"
    Path("script.py").write_text(SCRIPT)
    run("script.py")
    folder = only_run()
    assert facts_of(folder) == expected
    (file,) = Path().rglob("*.wandb")
    assert file.stem == f"run-{folder.name}"


def test_a_script_without_a_logger_leaves_no_record() -> None:
    logger = 'logger=WandbLogger(project="janus_pl", save_dir="runs")'
    assert logger in SCRIPT
    Path("script.py").write_text(SCRIPT.replace(logger, "logger=False"))
    run("script.py")
    assert not list(Path().rglob("rows.jsonl"))
    assert not list(Path().rglob("config.yaml"))


def test_a_second_fit_of_a_script_has_a_record_of_its_own(expected: Any) -> None:
    again = SCRIPT + "\nfirst = {p: p.read_bytes() for p in __import__('pathlib').Path('runs')"
    again += ".glob('janus_pl/*/*.*')}\n"
    again += "trainer.fit_loop.max_epochs = 4; trainer.fit(model, data)\n"
    again += "assert all(p.read_bytes() == content for p, content in first.items())\n"
    Path("script.py").write_text(again)
    run("script.py")
    first, second = sorted(path.parent for path in Path("runs/janus_pl").glob("*/rows.jsonl"))
    assert facts_of(first) == expected
    assert second.name == f"{first.name}-2"
    assert (second / "outcome.json").is_file() and (second / "checkpoints/last.ckpt").is_file()


def test_after_wandb_init_in_the_same_process(expected: Any, tmp_path: Path) -> None:
    """As in a notebook: the run keeps its id and its project, and its file lies where it lies."""
    begun = wandb.init(project="mine", dir=tmp_path / "elsewhere", config={"note": "a"})
    assert main(fit_args()) == 0
    folder = only_run("runs/mine")
    assert folder.name == begun.id
    assert facts_of(folder) == expected
    (file,) = Path().rglob("*.wandb")
    assert file.parts[0] == "elsewhere" and file.stem == f"run-{begun.id}"
    assert begun.config["note"] == "a"
    names = {"name", "group"}  # of W&B's own
    said = {key: value for key, value in expected["description"].items() if key not in names}
    assert begun.config["description"] == said


def test_another_project_than_that_of_wandb_init_is_refused(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    wandb.init(project="mine", dir=tmp_path / "elsewhere")
    assert main(fit_args("--project", "other")) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error")] == [
        "error: --project: got 'other', allowed: mine, that of the run that wandb.init() has begun"
    ]
    assert not Path("runs").exists()


def test_a_notebook(expected: Any) -> None:
    lines = SCRIPT.splitlines()
    cells = ["\n".join(lines[:7]), "\n".join(lines[7:])]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PACKAGE)
        nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
    assert facts_of(only_run()) == expected
