"""The pages: each command in a box is run, and tables of keys and options are the program's.

A page is a session: its boxes are run from top to bottom, in a folder of its own. A box that needs
more than a test has says what, in a comment above it; of such commands the options are checked.

A fit is shortened by options behind it: two epochs, a small network, digits in place of CIFAR-10.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from page_boxes import BOX, DOCS, MINE, PAGES, boxes, words_of
from PIL import Image

from janus_pl.cli.main import main

# As on the pages: a warning is a line on the screen.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")
OTHERS = {
    "docs/extending.md": "tests/test_extending.py runs its blocks",
    "docs/results.md": "its sweeps take days; tests/test_results.py computes it again",
}
QUIET = "--trainer.enable_progress_bar false --trainer.enable_model_summary false"
EPOCHS = f"--trainer.max_epochs 2 {QUIET}"
SMALL = f"{EPOCHS} --model.channels [2,3,4,4] --model.hidden 8"
DIGITS = "--data janus_pl.data.DigitsPair"
ELSEWHERE = ("make", "source", "xdg-open", "wandb", "torchrun", "srun", "pip", "janus-pl")
TRIED = [page for page in PAGES if page not in OTHERS and boxes(page)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with images for DIR, a module, the recorded runs, and no runs yet."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "DIR" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results").symlink_to(DOCS / "results")
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    yield tmp_path
    sys.modules.pop("mine", None)


def shortened(args: list[str]) -> list[str]:
    """A command line of `fit` or `sweep`, made short in the way that docs/start.md says."""
    text = " ".join(args)
    if args[0] == "sweep" and "linear" not in text:
        return [*args, *([] if "--" in args else ["--"]), *SMALL.split()]
    if args[0] != "fit" or any(word in text for word in ("help", "print_config", "mine.")):
        return args
    if "linear/" in text:
        return [*args, *f"--trainer.max_epochs 50 {QUIET}".split()]
    if "low_rank/" in text:
        return [*args, *EPOCHS.split()]
    if "ImageFolderPair" in text:
        return [*args, *SMALL.split(), "--data.num_train", "16", "--data.batch_size", "4"]
    own = [] if "quickstart" in text else DIGITS.split()
    epochs = ["--trainer.max_epochs", "3"] if "--trainer.max_epochs" in args else []
    return [*args, *own, *SMALL.split(), *epochs]


def newest_run() -> Path:
    """The folder of the run that began last."""
    return max(Path("runs").glob("*/*/config.yaml"), key=lambda path: path.stat().st_mtime).parent


def run(command: str) -> None:
    """Run a command of a page in this process; it has to end well."""
    words = words_of(command)
    if not words or words[0] in ELSEWHERE:
        check_elsewhere(words)
        return
    assert words[:3] == ["python", "-m", "janus_pl"], command
    args = shortened(words[3:])
    if any("ID" in word or "RUN" in word for word in args):
        found = newest_run()
        args = [re.sub(r"\bRUN\b", str(found), word) for word in args]
        args = [re.sub(r"\bID\b", found.name, word) for word in args]
    assert ended_with(args) == 0, command


def ended_with(args: list[str]) -> int:
    """The exit code of a command line; help and --print_config may end the parser."""
    try:
        return main(args)
    except SystemExit as ended:
        return int(ended.code or 0)


def check_elsewhere(words: list[str]) -> None:
    """Check a command of another program as far as that is ours."""
    if words[:1] == ["make"]:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, words
    if words[:1] == ["source"]:
        assert words[1] == ".venv/bin/activate"


@pytest.mark.parametrize("page", [page for page in TRIED if page != "README.md"])
def test_the_commands_of_a_page_run_in_order(page: str, place: Path) -> None:
    run_count = 0
    for box in boxes(page):
        for command in box.commands if box.needs is None else []:
            run(command)
            run_count += 1
    assert run_count or all(box.needs for box in boxes(page))


@pytest.mark.parametrize("page", TRIED)
def test_commands_that_need_more_have_options_that_exist(page: str, place: Path) -> None:
    """And name configs and sweeps that exist, and targets of the Makefile."""
    for box in boxes(page):
        for command in box.commands if box.needs is not None else []:
            words = words_of(command)
            if "janus_pl" in words and "fit" in words:
                args = words[words.index("janus_pl") + 1 :]
                assert ended_with([*args, "--print_config"]) == 0, command
            elif words:
                assert words[0] in (*ELSEWHERE, "python"), command
                check_elsewhere(words)


def test_the_commands_of_the_readme_lead_to_a_figure_of_a_sweep(place: Path) -> None:
    """From a clone: nothing but these commands, in this order."""
    commands = [c for box in boxes("README.md") if box.needs is None for c in box.commands]
    assert sum(" sweep " in command for command in commands) == 1
    for command in commands:
        if " sweep " in command:  # control: before it nothing is over lambda
            assert main(["report", "runs/janus_pl", "--out", "before"]) == 0
        run(command)
    assert not (place / "before" / "claims.png").exists()
    assert "lam0.001" not in (place / "before" / "fig1a.csv").read_text()
    assert {path.name for path in place.glob("report/*.png")} >= {"claims.png", "fig2a.png"}
    assert "lam0.001" in (place / "report" / "fig1a.csv").read_text()
    assert (place / "report" / "index.html").stat().st_size > 1_000_000


def test_a_wrong_command_on_a_page_is_found(place: Path) -> None:
    for wrong in (
        "python -m janus_pl fit --config quickstart.yaml --model.weight_decai 1",
        "python -m janus_pl fit --config quickstart.yml",
        "python -m janus_pl verify docs/result",
        "make quickstat",
        "rm -rf runs",
    ):
        with pytest.raises(AssertionError):
            run(wrong)


def test_every_box_is_run_or_says_what_it_needs() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(BOX.findall(text)) == text.count("```bash"), page
        for needs in re.findall(r"<!-- needs:(.*?)-->(.*)", text):
            assert needs[0].strip() and not needs[1], page


def test_configs_and_sweeps_that_pages_name_exist() -> None:
    names = set()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        names |= set(re.findall(r"janus_pl sweep ([\w./]+\.yaml)", text))
        names |= {f"../{n}" for n in re.findall(r"--config ([\w/]+\.yaml)", text)}
    names = {name for name in names if "/ID/" not in name}
    names -= {"../mine.yaml", "../janus.yaml", "../tail.yaml", "../npz.yaml", "../base.yaml"}
    assert len(names) > 15
    assert [name for name in names if not (ROOT / "configs" / "sweeps" / name).is_file()] == []


# The tables of the record's keys and of options


def cells(page: str, title: str, column: int = 0) -> list[str]:
    """The names in code spans of a column of the tables below a title of a page."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2]
    text = text.partition("\n## ")[0]
    assert text, title
    rows = [line.split(" | ")[column] for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def pattern_of(key: str) -> str:
    """A regular expression for a key of the table: LAYER, K, T and WHAT stand for any name."""
    words = {"LAYER": r"[\w.-]+", "K": r"\d+", "T": r"[\d.e-]+", "WHAT": r"\w+"}
    return re.sub("|".join(words), lambda found: words[found[0]], re.escape(key))


def in_table(key: str, table: list[str]) -> bool:
    """Tell whether a key is one of the table's; quantiles over replicas are of their key."""
    key = re.sub("/q(05|95)$", "", key)
    return any(re.fullmatch(pattern_of(name), key) for name in table)


def table_of_keys() -> list[str]:
    return [*cells("record.md", "Rows"), *cells("record.md", "Rows of linear regression")]


AXES = {"epoch", "trainer/global_step", "eta_t"}  # in the text above the table


def recorded_keys() -> set[str]:
    """Every key of the recorded runs and of the golden ones."""
    import json

    from janus_pl.records.read import read

    found: set[str] = set()
    for run in read([DOCS / "results"]).runs:
        found |= {str(key) for key in run.rows.columns if run.rows[key].notna().any()}
        found |= {*run.histograms}
    for path in (ROOT / "tests" / "golden").glob("*.json"):
        for columns in json.loads(path.read_text()).values():
            found |= {str(key) for key in columns} if isinstance(columns, dict) else set()
    return {key.partition(".")[0] for key in found if "/" in key or key in AXES}


def test_every_recorded_key_is_in_the_table() -> None:
    keys, table = recorded_keys(), table_of_keys()
    assert len(keys) > 100
    assert [key for key in sorted(keys - AXES) if not in_table(key, table)] == []
    # Control: a key that nobody described.
    assert not in_table("margin/median", table) and not in_table("velocity", table)


def possible_keys() -> set[str]:
    """Every key that a callback or a task of ours may put on a row."""
    from janus_pl import callbacks
    from janus_pl.deep.trains import Trains
    from janus_pl.linear.regressor import LinearRegressor

    found = {*Trains.keys, *LinearRegressor.keys}
    for name in callbacks.__all__:
        found |= {*(getattr(getattr(callbacks, name), "keys", None) or ())}
    return {key for key in found if not key.endswith(("/q05", "/q95"))}


LOGGED = {  # by the modules themselves, or histograms and tables of the callbacks
    *("val/loss", "val/error", "margin/hist", "spectrum/LAYER", "spectrum_table"),
    *(f"margin_raw/{name}" for name in ("mean", "std", "min", "hist")),
    "velocity/fc1",
}


def test_every_possible_key_is_in_the_table_and_no_other() -> None:
    possible, table = possible_keys(), table_of_keys()
    named = {key.replace("_*/", "_T/").replace("/*", "/K") for key in possible} - {"noise/K"}
    assert named - {*table} == set()
    own = {key for key in table if not key.startswith("noise/WHAT")}
    assert own - named - LOGGED - {"replicas"} == set()


def test_options_of_the_tables_exist_and_no_option_is_left_out() -> None:
    """Those of the paper's classes: a data module or a model has each option that is named."""
    import inspect

    from janus_pl import data
    from janus_pl.deep.classifier import DeepReLUClassifier
    from janus_pl.linear.regressor import LinearRegressor

    def options(*classes: Any) -> set[str]:
        return {
            name
            for each in classes
            for base in each.__mro__
            if "__init__" in vars(base)
            for name in inspect.signature(base.__init__).parameters
        }

    deep = {"model": options(DeepReLUClassifier)}
    images = (data.ImagePair, data.CIFAR10Pair, data.ImageFolderPair, data.ImageClasses)
    deep["data"] = options(*images)
    linear = {"model": options(LinearRegressor), "data": options(data.LinearProblem)}
    for page, title, known in (
        ("experiments.md", "Options of the deep experiment", deep),
        ("linear.md", "Options", linear),
    ):
        named = {name for name in cells(page, title) if "." in name}
        assert len(named) > 15
        for name in named:
            part, _, option = name.partition(".")
            assert option in known[part], name


def test_the_figures_of_the_readme_are_those_of_the_verdicts() -> None:
    import json

    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Does the paper hold?")[2]
    text = text.partition("\n## ")[0]
    verdicts = json.loads((DOCS / "results" / "verdicts.json").read_text())
    theorems = {theorem["name"] for theorem in verdicts["theorems"]}
    lines = [line for line in verdicts["lines"] if line["name"] not in theorems]
    primary = [line for line in lines if line["primary"]]
    counts = Counter(line["answer"] for line in primary)
    said = re.search(r"Of its (\d+) primary claims ", text)
    assert said and int(said[1]) == len(primary)
    said = re.search(
        r"(\d+) are \*\*undecided\*\*, with five seeds, and (\d+) is \*\*not testable\*\*", text
    )
    assert said and (int(said[1]), int(said[2])) == (counts["undecided"], counts["not testable"])
    for line in primary:
        if line["answer"] == "undecided":
            assert "; 5 seeds, " in line["sentence"]
    open_still = {"not testable": lines, "undecided": primary}  # these are counted, others named
    named = {
        line["name"]: line["answer"]
        for line in lines
        if line not in open_still.get(line["answer"], [])
    }
    assert dict(re.findall(r"`(\w+)` is (supported|contradicted|undecided)", text)) == named
    assert sum(line["primary"] for line in lines if line["name"] in named) == (
        len(primary) - counts["undecided"] - counts["not testable"]
    )
    said = re.search(r"The (\d+) theorems hold", text)
    assert said and int(said[1]) == len(theorems)
    assert {each["answer"] for each in verdicts["theorems"]} == {"holds"}
    first = next(each for each in verdicts["theorems"] if each["name"] == "Theorem 1")
    number = re.search(r"off by ([\d.e-]+) of its start", text)
    assert number and f"off by {number[1]} of its start" in first["sentence"]


def test_what_the_readme_says_of_the_large_runs_is_in_the_table_of_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Does the paper hold?")[2]
    page = (DOCS / "results" / "scale.md").read_text(encoding="utf-8")
    table = page.partition("<!-- scale_verdicts -->")[2].partition("<!-- end -->")[0]
    answers = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|", table, re.MULTILINE)
    said = re.search(r"over (\w+) seeds, (\d+) of the (\d+) claims of .* are supported", text)
    assert said and said[1] == "five" and int(said[3]) == len(answers)
    supported = [sentence for answer, sentence in answers if answer == "supported"]
    assert int(said[2]) == len(supported)
    assert all(sentence.endswith("; 5 seeds") for sentence in supported)
    numbers = re.findall(r"([\d.]+ \[[\d.]+, [\d.]+\] x)", text)
    assert len(numbers) == 3
    for number, what in zip(numbers, ("velocity is", "std/mean is", "ranks are"), strict=True):
        assert any(sentence.startswith(f"{what} {number}") for sentence in supported), number


def test_the_readme_is_short_and_every_page_is_in_its_table_and_in_the_site() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    alone = {"index", "api", "contributing", "changes"}  # of the site
    for path in DOCS.glob("*.md"):
        assert f": {path.name}\n" in site, path.name
        assert path.stem in alone or f"(docs/{path.name})" in text, path.name
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / link).exists(), link
