"""The command line, run in-process through `main`."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from record_reader import exit_code, read_records, read_rows

from janus_pl.cli import help as usage
from janus_pl.cli import subcommands as tools
from janus_pl.cli.config_files import CONFIGS
from janus_pl.cli.main import main

SHIPPED = sorted(CONFIGS.glob("*.yaml"))
DIGITS = ["--data", "janus_pl.data.DigitsPair"]
SMALL = [
    "--model.strides",
    "[2, 2, 2, 2]",
    "--model.hidden",
    "8",
    "--model.channels",
    "[2, 3, 4, 4]",
]
NO_BAR = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
# A list on the command line replaces the one of base.yaml, and with it the progress bar.
OBSERVERS = (
    "--trainer.callbacks="
    '[{"class_path": "janus_pl.callbacks.MarginHistogram"},'
    ' {"class_path": "janus_pl.callbacks.LayerVelocity"},'
    ' {"class_path": "janus_pl.callbacks.LayerRank"},'
    ' {"class_path": "janus_pl.callbacks.RunCheckpoint"},'
    ' {"class_path": "janus_pl.callbacks.MarginCSV"}]'
)
FIT = ["fit", "--config", "sgd.yaml", *DIGITS, *SMALL, OBSERVERS, *NO_BAR]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def run_folder(base: str = "runs/janus_pl") -> Path:
    (folder,) = Path(base).iterdir()
    return folder


# What works


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
def test_fast_dev_run_of_every_shipped_config(config: Path) -> None:
    embedded = [*DIGITS, "--data.num_train", "null"]  # there are fewer of them
    assert main(["fit", "--config", config.name, *embedded, "--trainer.fast_dev_run", "true"]) == 0
    assert not Path("runs").exists()


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_says_claim_cost_and_command(config: Path) -> None:
    head = config.read_text().splitlines()[:3]
    assert all(line.startswith("# ") for line in head)
    if config.stem != "base":
        assert [line.split(":")[0] for line in head] == ["# Claim", "# Cost", "# Command"]
        assert f"python -m janus_pl fit --config {config.name}" in head[2]


def test_gd_differs_from_sgd_in_the_batch_size_and_the_name_alone() -> None:
    sgd, gd = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("sgd", "gd"))
    assert sgd.pop("name") == "sgd"
    assert gd.pop("name") == "gd"
    assert sgd["data"]["init_args"].pop("batch_size") == 128
    assert gd["data"]["init_args"].pop("batch_size") == "full"
    assert sgd == gd


def test_the_papers_setting() -> None:
    """Figures 1 to 5, as the notes have them; resolved, with base.yaml below."""

    def resolved(name: str) -> dict[str, Any]:
        base = yaml.safe_load((CONFIGS / "base.yaml").read_text())
        return merge(base, yaml.safe_load((CONFIGS / name).read_text()))

    sgd = resolved("sgd.yaml")
    assert sgd["trainer"]["max_epochs"] == 2000
    assert sgd["model"]["init_args"]["weight_decay"] == 1e-3
    assert sgd["model"]["init_args"]["learning_rate"] == 0.03
    assert sgd["model"]["init_args"]["schedule"] == "cosine"
    assert sgd["model"]["init_args"]["optimizer"]["init_args"]["momentum"] == 0.9
    converged = resolved("gd_converged.yaml")
    assert converged["trainer"]["max_epochs"] == 5000
    assert converged["data"]["init_args"]["batch_size"] == "full"
    assert converged["model"]["init_args"]["learning_rate"] == 0.05
    assert converged["model"]["init_args"]["schedule"] == "constant"
    assert resolved("sgd_cross_entropy.yaml")["model"]["init_args"]["loss"] == "cross_entropy"


def merge(base: Any, difference: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(difference, dict)):
        return difference
    return {
        k: merge(base.get(k), difference[k]) if k in difference else base[k]
        for k in base.keys() | difference.keys()
    }


def test_fit_leaves_config_checkpoint_and_record(capsys: pytest.CaptureFixture) -> None:
    assert main([*FIT, "--trainer.max_epochs", "3", "--model.weight_decay", "0.002"]) == 0
    folder = run_folder()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["weight_decay"] == 0.002
    assert config["model"]["init_args"]["learning_rate"] == 0.03  # of base.yaml
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert [row["epoch"] for row in read_rows(folder)] == [0, 1, 2, 3]
    assert exit_code(folder) == 0
    out = capsys.readouterr().out
    assert f"Run folder: {folder}" in out
    assert "wandb leet" in out

    updates = [r["config"]["update"] for r in read_records(folder) if r["type"] == "config"]
    sent = [update for update in updates if "model" in update]
    assert len(sent) == 1
    assert sent[0]["model"]["init_args"]["weight_decay"] == 0.002
    keys = {key for update in updates for key in update} - {"_wandb"}
    assert not [key for key in keys if "/" in key or "." in key or key.startswith("__")]
    assert str(ROOT) not in json.dumps(sent)


def test_a_run_can_be_repeated_from_its_own_config() -> None:
    assert main([*FIT, "--trainer.max_epochs", "2"]) == 0
    first = run_folder()
    assert main(["fit", "--config", str(first / "config.yaml"), "--run_dir", "again"]) == 0
    second = run_folder("again/janus_pl")

    def numbers(folder: Path) -> list[dict[str, Any]]:
        # W&B's own columns and the names of its files differ from run to run.
        own = ("_", "spectrum_table")
        return [
            {k: v for k, v in row.items() if not k.startswith(own)} for row in read_rows(folder)
        ]

    assert numbers(first) == numbers(second)


def test_predict_writes_every_margin() -> None:
    assert main([*FIT, "--trainer.max_epochs", "2"]) == 0
    folder = run_folder()
    checkpoint = folder / "checkpoints" / "last.ckpt"
    config = str(folder / "config.yaml")
    assert main(["predict", "--config", config, "--ckpt_path", str(checkpoint)]) == 0
    with Path(f"margins-{folder.name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = [float(row["margin"]) for row in rows if row["split"] == "train"]
    assert [row["index"] for row in rows[: len(train)]] == [str(i) for i in range(len(train))]
    assert (len(train), len(rows)) == (285, 357)
    last = read_rows(folder)[-1]
    assert sum(train) / len(train) == pytest.approx(last["margin/mean"], rel=1e-5)
    assert min(train) == pytest.approx(last["margin/min"], rel=1e-5)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_validate_and_test_print_loss_and_error(
    subcommand: str, capsys: pytest.CaptureFixture
) -> None:
    args = [arg for arg in FIT[1:] if arg != "fit"]
    assert main([subcommand, *args]) == 0
    out = capsys.readouterr().out
    name = {"validate": "val", "test": "test"}[subcommand]
    assert f"{name}/loss" in out
    assert f"{name}/error" in out
    assert not Path("runs").exists()


def test_full_batch_is_one_step_an_epoch() -> None:
    assert main([*FIT, "--data.batch_size", "full", "--trainer.max_epochs", "4"]) == 0
    rows = read_rows(run_folder())
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3, 4]


def test_a_limit_in_steps_ends_the_cosine() -> None:
    """40 steps are 13 1/3 epochs of 3 steps; the rate of the last is that of a cosine over 14."""
    assert main([*FIT, "--trainer.max_epochs", "-1", "--trainer.max_steps", "40"]) == 0
    last = read_rows(run_folder())[-1]
    assert last["trainer/global_step"] == 40
    assert last["epoch"] == pytest.approx(40 / 3, rel=1e-12)
    assert last["learning_rate"] == pytest.approx(0.03 * (1 + math.cos(math.pi * 13 / 14)) / 2)


def test_double_precision() -> None:
    assert main([*FIT, "--trainer.max_epochs", "2", "--trainer.precision", "64-true"]) == 0
    rows = read_rows(run_folder())
    assert rows[-1]["margin/mean"] * rows[-1]["rho"] < 1


def test_callbacks_can_be_appended_and_optimizers_replaced() -> None:
    """The list of base.yaml stays; the optimizer and the scheduler come from the command line."""
    Path("more.yaml").write_text(
        "trainer:\n  callbacks+:\n    - class_path: janus_pl.callbacks.NeuralCollapse\n"
        "      init_args: {every_n_epochs: 1}\n"
    )
    args = ["fit", "--config", "sgd.yaml", *DIGITS, *SMALL, *NO_BAR[2:], "--config", "more.yaml"]
    args += ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.eps", "1e-6"]
    args += [
        "--model.schedule",
        "torch.optim.lr_scheduler.StepLR",
        "--model.schedule.step_size",
        "1",
    ]
    assert main([*args, "--trainer.max_epochs", "3"]) == 0
    folder = run_folder()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    names = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert names[0] == "janus_pl.callbacks.MarginHistogram"
    assert names[-1] == "janus_pl.callbacks.NeuralCollapse"
    assert names.count("janus_pl.callbacks.LayerRank") == 1
    assert config["model"]["init_args"]["optimizer"]["init_args"]["eps"] == 1e-6
    rates = [row["learning_rate"] for row in read_rows(folder)[1:]]
    assert rates == pytest.approx([0.03, 0.003, 0.0003])


def test_without_an_account_the_run_is_offline_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main([*FIT, "--trainer.max_epochs", "1"]) == 0
    assert len(read_rows(run_folder())) == 2
    said = [r.getMessage() for r in caplog.records if "no account" in r.getMessage()]
    (line,) = said
    assert "\n" not in line
    assert "wandb sync" in line
    # Of Lightning's lines, those that tell nothing are left out.
    assert "TPU" not in caplog.text and "GPU available: " in caplog.text


def test_model_help_lists_the_options(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--model.help"]) == 0
    assert "--model.weight_decay" in capsys.readouterr().out


def test_without_a_logger_runs_do_not_overwrite_each_other() -> None:
    for _ in range(2):
        assert main([*FIT, "--trainer.max_epochs", "1", "--trainer.logger", "false"]) == 0
    assert len(list(Path("runs/janus_pl").glob("*/checkpoints/last.ckpt"))) == 2
    assert not Path("checkpoints").exists()


def test_online_without_an_account_never_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main([*FIT, "--trainer.max_epochs", "1"]) == 2
    assert "WANDB_MODE: got 'online'" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_help_names_the_subcommands() -> None:
    """The one test of `python -m janus_pl` itself, in a process of its own."""
    command = [sys.executable, "-m", "janus_pl", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == usage.HELP
    assert [line for line in output.splitlines() if len(line) > 80] == []
    for name in (*usage.TRAINING, *tools.TOOLS):
        assert re.search(rf"^  (\w+, )?{name}\b", output, re.MULTILINE), name
    assert "Exit codes: 0 done, 1 defect, 2 usage" in output


def test_every_subcommand_says_what_it_does(capsys: pytest.CaptureFixture) -> None:
    for name in (*usage.TRAINING, *tools.TOOLS):
        with suppress(SystemExit):
            main([name, "--help"])
        begin = capsys.readouterr().out[:700]
        assert begin.startswith(f"usage: python -m janus_pl {name} ")
        paragraph = begin.split("\n\n")[1]
        assert paragraph.rstrip().endswith("."), "a sentence"


def test_the_help_of_fit_begins_with_options_that_exist(capsys: pytest.CaptureFixture) -> None:
    with suppress(SystemExit):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    used = text[: text.index("\noptions:")]
    assert len(usage.USED) == 20 and len(used.splitlines()) < 40
    assert [line for line in used.splitlines() if len(line) > 80] == []
    assert all(re.search(rf"^  {re.escape(option)} ", used, re.M) for option in usage.USED)
    values = {
        **{"FILE": "quickstart.yaml", "CLASS": "janus_pl.DeepReLUClassifier", "NAME": "a"},
        **{"PROJECT": "p", "SEED": "1", "DIR": "d", "N": "4", "B": "full", "LOSS": "logistic"},
        **{"ETA": "0.1", "LAMBDA": "0.1", "last": "last"},
    }
    own = {
        "--data": "janus_pl.data.DigitsPair",
        "--model.schedule": "constant",
        "--model.normalization": "none",
        "--trainer.accelerator": "cpu",
        "--trainer.callbacks+": "janus_pl.callbacks.Sharpness",
    }
    line = ["fit"]
    for option in usage.USED:
        name, value = option.replace("=", " ").split()
        line.append(f"{name}={own.get(name, values[value])}")
    with suppress(SystemExit):
        main([*line, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["batch_size"] == "full"
    assert config["model"]["init_args"]["normalization"] == "none"
    assert config["trainer"]["callbacks"][-1]["class_path"] == "janus_pl.callbacks.Sharpness"
    assert "the options that people use" not in help_of("test", capsys)


def help_of(name: str, capsys: pytest.CaptureFixture) -> str:
    with suppress(SystemExit):
        main([name, "--help"])
    return capsys.readouterr().out


# What bad input gets: see test_mistakes.py too


@pytest.mark.parametrize("args", [[], ["fitt"], ["fit", "--config"]])
def test_a_line_that_is_no_command(args: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(args) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert "fit" in line or "--config" in line


def test_divergence_exits_3_and_marks_the_run_failed(capsys: pytest.CaptureFixture) -> None:
    args = [*FIT, "--trainer.max_epochs", "30", "--model.learning_rate", "1e20"]
    assert main(args) == 3
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    for part in ("not finite", "epoch", "step", "learning rate 1e+20", "lambda 0.001"):
        assert part in line
    assert exit_code(run_folder()) == 3
