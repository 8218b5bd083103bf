"""W&B's config and summary: flat columns, no option twice, some twenty numbers of hundreds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from record_reader import inspect
from run.small_runs import only_run
from test_golden import frozen
from wandb.sdk.wandb_config import Config

from janus_pl.cli.main import main
from janus_pl.records.wandb_file import read_wandb_file
from janus_pl.run.columns import COLUMNS, columns, described, without_columns
from janus_pl.run.commit import commit
from janus_pl.run.compared import COMPARED, DETAILS, FAMILIES, OF_LAYERS, is_detail
from janus_pl.run.description import Description
from janus_pl.run.rows import AXES
from janus_pl.run.sent import received, sent

SGD = Description(
    *("janus_pl.DeepReLUClassifier", "network", "normalized", "SGD", False, ()),
    **{"weight_decay": 0.001, "batch_size": 128, "num_train": 10000, "eta": 0.03, "seed": 3},
    data={"pool": "0123456789abcdef"},
    versions={"janus_pl": "0.1.0"},
)
CONFIG = {
    "tags": ["fig1"],
    "model": {
        "class_path": "a.B",
        "init_args": {
            "weight_decay": 0.1,
            "optimizer": {"class_path": "c.D", "init_args": {"momentum": 0.9}},
        },
    },
    "data": {"class_path": "e.F", "init_args": {"batch_size": 8, "num_train": None}},
    "trainer": {"max_epochs": 2},
}
OF_SWEEP = {
    "tags": ["fig1"],
    "model.weight_decay": 0.1,
    "model.optimizer.momentum": 0.9,
    "data.class_path": "e.F",
    "data.init_args.batch_size": 8,
    "data.num_train": None,
    "trainer.max_epochs": 2,
}


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


# Columns


def test_the_columns_are_the_measured_facts() -> None:
    found = columns(SGD)
    assert tuple(found) == COLUMNS
    assert found == {
        **{"lambda": 0.001, "B": 128, "N": 10000, "eta": 0.03, "dynamics": "SGD", "loss": None},
        **{"normalization": None, "network": "DeepReLUClassifier", "seed": 3},
        **{"decay": None, "schedule": None},
        **{"fingerprint": "01234567", "code": "0.1.0"},
    }


def test_a_key_of_somebody_elses_stays_theirs_and_a_column_of_ours_follows_the_run() -> None:
    theirs = {"seed": 17, "mine": 1}
    first = described(SGD, theirs)
    assert "seed" not in first and first["lambda"] == 0.001
    config = {**theirs, **first}
    changed = Description.of({**SGD.to_plain(), "weight_decay": 0.5, "seed": 4})
    again = described(changed, config)
    assert again["lambda"] == 0.5 and "seed" not in again
    assert without_columns({**config, **again}) == {**theirs, "description": again["description"]}


def test_the_commit_is_that_of_the_clone_and_says_if_files_have_changed(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    commit.cache_clear()
    made = git("rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == made
    (tmp_path / "file").write_text("2")
    commit.cache_clear()
    assert commit(tmp_path) == f"{made}-dirty"
    (tmp_path / "below").mkdir()
    assert commit(tmp_path / "below") is None, "not of a repository further up"


# No option twice


def test_an_option_of_the_sweep_is_sent_once_and_comes_back_to_its_place() -> None:
    news = sent(CONFIG, OF_SWEEP)
    both = {**OF_SWEEP, **news}
    names = [key.replace("init_args.", "") for key in flat(both)]
    assert sorted(names) == sorted({*names}), "each once"
    assert received(both) == CONFIG


def test_what_is_not_of_the_sweep_is_sent_whole() -> None:
    """The negative control; a value that came after the sweep's is no copy of it."""
    assert sent(CONFIG, {}) == CONFIG
    later = {"model.weight_decay": 0.2, "model.unknown.deeper": 1, "own": 1}
    assert sent(CONFIG, later) == CONFIG
    assert received({**CONFIG, **later})["model"] == CONFIG["model"]


def test_wandb_does_not_warn_of_a_key_that_the_agent_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's own config, locked as under an agent; an offline run says nothing of it by itself."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({key: {"value": value} for key, value in OF_SWEEP.items()}))
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))
    warned: list[str] = []
    monkeypatch.setattr(wandb, "termwarn", warned.append)
    config = Config()
    config.update_locked(OF_SWEEP, user="sweep")
    more = {**CONFIG, "tags": ["fig1", "later"]}
    for _ in range(2):  # a run that goes on
        config.update(sent(more, config), allow_val_change=True)
        config.update(described(SGD, config), allow_val_change=True)
    assert warned == [] and config["tags"] == ["fig1"]
    assert received(dict(config)) == {**CONFIG, "description": SGD.to_plain()}
    config.update(more, allow_val_change=True)  # the negative control
    assert warned == ["Config item 'tags' was locked by 'sweep' (ignored update)."]


# The record of W&B


def table_of(folder: Path) -> tuple[dict[str, Any], set[str], set[str]]:
    """The config, the keys of the summary and those of all rows, as W&B's own file has them."""
    config: dict[str, Any] = {}
    rows: set[str] = set()
    summary: set[str] = set()
    (file,) = folder.rglob("run-*.wandb")
    for record in inspect(file.parent):
        kind = record["type"]
        if kind in ("run", "config"):
            config |= (record[kind].get("config", record[kind]) or {}).get("update", {})
        elif kind == "history":
            rows |= record["history"]["item"].keys()
        elif kind == "summary":
            told = record["summary"]
            summary |= told.get("update", told).keys()
    return config, {key.split(".")[0] for key in summary}, {key.split(".")[0] for key in rows}


def test_the_table_of_runs_has_some_twenty_numbers_and_the_rows_have_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    config = frozen("theory")
    config["trainer"] |= {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}
    Path("all.yaml").write_text(json.dumps(config))
    assert main(["fit", "--config", "all.yaml", "--run_dir", "runs"]) == 0
    wandb.finish()
    folder = only_run("runs/" + str(config.get("project") or "janus_pl"))
    held, summary, rows = table_of(folder)
    numbers = {key for key in summary if not key.startswith("_")}
    own = {key for key in rows if not key.startswith("_")}
    assert len(own) > 100
    assert len(numbers) <= 25, sorted(numbers)
    assert {*AXES, "train/loss", "margin/mean", "rho", *OF_LAYERS} <= numbers
    assert own & COMPARED <= numbers
    described_ = json.loads((folder / "description.json").read_text())
    assert {key: held[key] for key in COLUMNS} == columns(Description.of(described_))
    (file,) = folder.rglob("run-*.wandb")
    part: Any = read_wandb_file(file)
    options = yaml.safe_load((folder / "config.yaml").read_text())
    assert {k: v for k, v in part.config.items() if k in options} == options
    assert not {*COLUMNS} & part.config.keys()
    recorded = {k for line in part.rows for k in line if not k.startswith("_")}
    assert own == {key.split(".")[0] for key in recorded}


def test_every_key_of_the_record_is_compared_or_a_detail() -> None:
    """No key of ours is left to W&B by an oversight."""
    for name in ("theory", "quickstart_sgd", "linear_sgd", "lagrange"):
        recorded = json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
        keys = {key.split(".")[0] for key in recorded["float64"]}  # a table has columns
        assert keys & COMPARED
        left = {key for key in keys - COMPARED - {*AXES} if not is_detail(key)}
        assert left <= {"spectrum_table"}, name
    assert not COMPARED & DETAILS
    assert {key.partition("/")[0] for key in COMPARED} & FAMILIES
