"""The pages: boxes that are no commands are run, and each option that a sentence names exists."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer
from page_boxes import CODE, DOCS, MINE, PAGES, ROOT, boxes, snippets, words_of
from training.crashing import CONTEXT, code_of

import janus_pl.callbacks as callbacks
from janus_pl.cli import subcommands as tools
from janus_pl.cli.config_checks import EXTRA_FLAGS, EXTRA_TEXTS, OPTIONS, RUN_OPTIONS
from janus_pl.cli.config_files import CONFIGS
from janus_pl.cli.main import main
from janus_pl.records.read import read
from janus_pl.run.columns import COLUMNS
from janus_pl.run.compared import COMPARED, OF_LAYERS
from janus_pl.run.extras import Extras
from janus_pl.run.logger import RunLogger
from janus_pl.run.rows import AXES
from janus_pl.training.callback_checks import REFUSED, REFUSED_OURS

# As on the pages: a warning is a line on the screen.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")
# Pages with boxes that are no commands, and the test that runs them.
RUN_BY = {
    "README.md": "test_three_callbacks_look_at_a_module_of_somebody_elses",
    "docs/callbacks.md": "test_three_callbacks_look_at_a_module_of_somebody_elses",
    "docs/record.md": "test_pandas_reads_the_rows",
    "docs/extending.md": "tests/test_extending.py",
}
MAIN = """
from lightning.pytorch.cli import LightningCLI
from mine import Data, Module

if __name__ == "__main__":
    LightningCLI(Module, Data)
"""
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of somebody else's, and no runs yet."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "main.py").write_text(MAIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_every_page_with_other_boxes_has_a_test_that_runs_them() -> None:
    found = {
        page
        for page in PAGES
        for kind, _ in CODE.findall((ROOT / page).read_text(encoding="utf-8"))
        if kind != "bash"
    }
    assert found == {*RUN_BY}
    for test in RUN_BY.values():
        assert test in globals() or (ROOT / test).is_file()


@pytest.mark.parametrize("page", ["README.md", "docs/callbacks.md"])
def test_three_callbacks_look_at_a_module_of_somebody_elses(page: str, place: Path) -> None:
    """The rows are those of all epochs that the box asks for; Lightning's own default is 1000."""
    (code,) = snippets(page, "python")
    mine = import_module("mine")
    module, loader = mine.Module(), mine.Data().train_dataloader()
    made = Trainer.__init__

    def quiet(self: Trainer, **options: Any) -> None:
        made(self, **options, enable_progress_bar=False, enable_model_summary=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", quiet)
        exec(code, {"module": module, "loader": loader})
    (run,) = read(["lightning_logs"]).runs
    assert run.rows["epoch"].tolist() == [*range(11)]
    assert {"margin_raw/mean", "velocity/first", "rank/last"} <= {*run.rows.columns}


def test_a_lightning_cli_of_ones_own_records_as_ours(place: Path) -> None:
    """By the file of the page; and the config of a run is one that its `--config` takes."""
    (text,) = snippets("docs/callbacks.md", "yaml")
    command = text.splitlines()[0]
    assert command == "# python main.py fit --config janus.yaml"
    (place / "janus.yaml").write_text(text)
    assert _exit_code(place, "janus.yaml") == 0
    (first,) = Path("runs/janus_pl").iterdir()
    assert _exit_code(place, str(first / "cli.yaml")) == 0
    assert len([*Path("runs/janus_pl").iterdir()]) == 2
    for run in read(["runs"]).runs:
        assert run.rows["epoch"].tolist() == [0, 1, 2]
        assert {"margin_raw/mean", "velocity/first", "rank/last"} <= {*run.rows.columns}
    named = yaml.safe_load(text)["trainer"]["callbacks"]
    kept = yaml.safe_load((first / "cli.yaml").read_text())["trainer"]["callbacks"]
    assert [each["class_path"] for each in kept] == [each["class_path"] for each in named]


def _exit_code(folder: Path, config: str) -> int:
    """The exit code of the page's command in a process of its own, for two epochs."""
    line = ["main.py", "fit", "--config", config, "--trainer.max_epochs=2", *QUIET]
    process = CONTEXT.Process(target=_run, args=(folder, line))
    process.start()
    return code_of(process)


def _run(folder: Path, line: list[str]) -> None:
    import wandb

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.pop("WANDB_SERVICE", None)  # of the tests' own process
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    sys.argv = line
    runpy.run_path("main.py", run_name="__main__")
    wandb.finish()


def test_pandas_reads_the_rows(place: Path) -> None:
    """The columns that the box names are there, a row an epoch."""
    (code,) = snippets("docs/record.md", "python")
    small = ["--model.channels=[2,3,4,4]", "--model.hidden=8", "--trainer.max_epochs=2", *QUIET]
    assert main(["fit", "--config", "quickstart.yaml", *small]) == 0
    (run,) = Path("runs/janus_pl").iterdir()
    *lines, last = code.replace("/ID/", f"/{run.name}/").strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    table = eval(last, names)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table.notna().all().all()


# Options


def options_of_tools() -> set[str]:
    parsers = [import_module(module)._parser() for module in tools.TOOLS.values()]
    return {name for parser in parsers for name in parser._option_string_actions}


def exists(option: str) -> bool:
    """Tell whether an option is one of `fit` or of a tool."""
    name = option.removeprefix("--").removesuffix("+")
    part, _, inner = name.partition(".")
    if part == "trainer" and inner:
        return inner in inspect.signature(Trainer.__init__).parameters
    if part in ("model", "data") and inner:
        return inner == "help" or inner in known_of(part)
    return part in (*OPTIONS, "help") or option in options_of_tools()


def known_of(part: str) -> set[str]:
    """The options of our models or of our data modules."""
    import janus_pl
    import janus_pl.data as data

    places = {"model": [janus_pl.DeepReLUClassifier, janus_pl.LinearRegressor], "data": []}
    classes: list[Any] = places[part] or [getattr(data, name) for name in data.__all__]
    classes = [base for each in classes for base in getattr(each, "__mro__", ())]
    inits = [vars(each)["__init__"] for each in classes if "__init__" in vars(each)]
    return {name for init in inits for name in inspect.signature(init).parameters}


@pytest.mark.parametrize("page", PAGES)
def test_an_option_that_a_sentence_names_exists(page: str) -> None:
    text = CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    spans = re.findall(r"`([^`\n]+)`", text)
    named = {option for span in spans for option in re.findall(r"(?<![\w-])--[a-z][\w.+-]*", span)}
    assert [option for option in sorted(named) if not exists(option)] == []
    assert not exists("--log_modle") and not exists("--trainer.device")  # controls
    assert not exists("--model.lerning_rate")


def test_the_options_of_wandb_are_all_on_their_page() -> None:
    text = (DOCS / "wandb.md").read_text(encoding="utf-8").partition("\n## Options\n")[2]
    table = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    named = set(re.findall(r"--(\w+)", " ".join(table)))
    assert named == {*RUN_OPTIONS, *EXTRA_TEXTS, *EXTRA_FLAGS} - {"run_dir"}


def spans_of(page: str, title: str) -> list[str]:
    """The names in code spans below a title of a page, up to the next title."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    return re.findall(r"`([^`\n]+)`", text.partition("\n## ")[0])


def test_columns_of_wandb_are_those_of_the_page() -> None:
    text = (DOCS / "wandb.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (`.*?) \|", text.partition("## Columns of the summary")[0], re.MULTILINE
    )
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {*COLUMNS}
    named = spans_of("wandb.md", "Columns of the summary")
    known = {*COMPARED, *OF_LAYERS, *AXES}
    assert [name for name in named if not any(fnmatch(key, name) for key in known)] == []
    in_words = ("train/", "val/", "margin/", "margin_raw/")  # losses, errors, margins
    left = {key for key in known if not any(fnmatch(key, name) for name in named)}
    assert [key for key in sorted(left) if not key.startswith(in_words)] == []


def test_callbacks_of_lightning_that_are_refused_are_those_of_the_page() -> None:
    text = (DOCS / "callbacks.md").read_text(encoding="utf-8").partition("own callbacks\n")[2]
    said = dict(
        re.findall(r"^- Refused (everywhere|with the paper's tasks): (.*)", text, re.MULTILINE)
    )
    for where, table, in_words in (
        (
            "everywhere",
            REFUSED,
            {"averages of weights": {"StochasticWeightAveraging", "WeightAveraging"}},
        ),
        ("with the paper's tasks", REFUSED_OURS, {"finetuning": {"BaseFinetuning"}}),
    ):
        named = set(re.findall(r"`(\w+)`", said[where]))
        for words, classes in in_words.items():
            assert words in said[where]
            named |= classes
        assert named == {each.__name__ for each in table}, where


def test_callbacks_that_ask_for_more_are_ours() -> None:
    named = {
        name for name in spans_of("callbacks.md", "Callbacks that ask for more") if "_" not in name
    }
    assert len(named) > 5 and named <= {*callbacks.__all__}


def test_sweeps_that_their_page_names_exist() -> None:
    text = (DOCS / "sweeps.md").read_text(encoding="utf-8").partition("\n## ")[0]
    names = re.findall(r"`([\w*]+)`", text)
    assert len(names) > 5
    assert [name for name in names if not [*(CONFIGS / "sweeps").glob(f"{name}.yaml")]] == []


def test_a_logger_of_a_script_is_as_the_page_makes_it(place: Path) -> None:
    text = (DOCS / "wandb.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"`(RunLogger\(.*?\))`", text)
    logger = eval(made, {"RunLogger": RunLogger, "Extras": Extras})
    assert logger.extras == Extras(log_model=True)


def test_tools_on_the_page_of_wandb_are_refused_for_the_account_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Each command of its boxes that is ours; `report` is refused for the runs alone."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(place / "none"))
    needing = [box for box in boxes("docs/wandb.md") if box.needs]
    lines = [words for box in needing for line in box.commands if (words := words_of(line))]
    ours = [words[3:] for words in lines if words[:3] == ["python", "-m", "janus_pl"]]
    assert len(ours) == 3
    for args in ours:
        assert tools.main(args) == 2
        said = capsys.readouterr().err
        field = "account of W&B" if args[0] == "workspace" else "RUN"
        assert said.startswith(f"error: {field}: got "), said
