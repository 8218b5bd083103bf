"""W&B's variables: honoured where no option says otherwise, and never ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from record_reader import read_records
from run.small_runs import fit_args, only_run

from janus_pl.cli.config_files import adds_to, begun_config
from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.cli.main import main
from janus_pl.errors import UsageError
from janus_pl.run import account
from janus_pl.run.account import begun_values, job_type, with_environment
from janus_pl.run.logger import RunLogger

NOTHING: dict[str, Any] = {"project": None, "name": None, "group": None, "tags": []}
VARIABLES = {
    "WANDB_PROJECT": "theirs",
    "WANDB_NAME": "by variable",
    "WANDB_TAGS": "a,b",
    "WANDB_RUN_GROUP": "together",
    "WANDB_JOB_TYPE": "trial",
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*VARIABLES, "WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("variables")
def test_they_fill_what_is_not_given() -> None:
    filled = {"project": "theirs", "name": "by variable", "group": "together", "tags": ["a", "b"]}
    assert with_environment(NOTHING) == filled
    assert job_type() == "trial"


@pytest.mark.usefixtures("variables")
def test_options_win() -> None:
    given = {"project": "mine", "name": "own", "group": "g", "tags": ["c"]}
    assert with_environment(given) == given


def test_without_them_it_is_as_ever() -> None:
    assert with_environment(NOTHING) == {**NOTHING, "project": "janus_pl"}
    assert job_type() == "train"


def test_the_job_type_of_figures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_JOB_TYPE", "report")
    with pytest.raises(UsageError, match="WANDB_JOB_TYPE: got 'report'"):
        RunLogger()


def test_wandbs_directory_is_where_its_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert RunLogger("p", run_id="x")._wandb_init["dir"] == str(tmp_path / "runs" / "p" / "x")
    monkeypatch.setenv("WANDB_DIR", "away")
    assert RunLogger("p", run_id="x")._wandb_init["dir"] == str(tmp_path / "away")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_directory_of_wandb_that_cannot_be_is_refused_and_nothing_is_made(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    Path("file").touch()
    monkeypatch.setenv("WANDB_DIR", place)
    assert main(fit_args()) == 2
    (said,) = filter(str.strip, capsys.readouterr().err.splitlines())
    assert said.startswith(f"error: WANDB_DIR: got '{place}', allowed: a folder; ")
    assert {path.name for path in Path().iterdir()} == {"file", "tiny.yaml"}


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("options", [False, True])
def test_a_run_has_them(options: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", "away")
    given = ["--project", "mine", "--name", "own", "--tags", "[c]", "--group", "g"]
    assert main(fit_args(*(given if options else []))) == 0
    project = "mine" if options else "theirs"
    folder = only_run(f"runs/{project}")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    named = ("own", ["c"], "g") if options else ("by variable", ["a", "b"], "together")
    assert (config["name"], config["tags"], config["group"]) == named
    assert config["project"] == project
    for name in (*VARIABLES, "WANDB_DIR"):  # W&B's own reader would heed them
        monkeypatch.delenv(name)
    heads = [record["run"] for record in read_records(Path("away")) if record["type"] == "run"]
    merged = {key: value for head in heads for key, value in head.items()}
    assert (merged["display_name"], merged["run_group"]) == (named[0], named[2])
    assert merged["project"] == project and merged["job_type"] == "trial"
    assert {*named[1], "SGD"} <= {*merged["tags"]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_TAGS", "a,,b", "--tags: got ('a', '', 'b'), allowed: what W&B takes"),
        ("WANDB_PROJECT", "a/b", "--project: got 'a/b', allowed: a name that is one folder"),
        ("WANDB_JOB_TYPE", "report", "WANDB_JOB_TYPE: got 'report', allowed: another"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_a_line(
    name: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv(name, value)
    assert main(fit_args()) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert said in line
    assert not Path("runs").exists()


@pytest.mark.usefixtures("variables")
def test_a_plan_of_a_sweep_knows_the_project() -> None:
    """It looks for the folders that its runs make."""
    args = fit_args()
    assert ConfigReader(args).resolve(args)["project"] == "theirs"


def test_a_config_of_the_user_wins_over_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    Path("mine.yaml").write_text("project: of-the-file\n")
    args = fit_args("--config", "mine.yaml")
    assert ConfigReader(args).resolve(args)["project"] == "of-the-file"


# What has begun in this process


class Begun:
    """A run of `wandb.init()`."""

    id, project = "abc", "theirs"
    config: ClassVar[dict[str, Any]] = {
        "model.weight_decay": 0.5,
        "lr": 3,
        "data": 1,
        "seed_everything": 4,
    }


def test_the_project_is_that_of_the_run_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "another")
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    monkeypatch.setattr(account, "begun_run", Begun)
    assert with_environment(NOTHING)["project"] == "theirs"
    assert with_environment({**NOTHING, "project": "theirs"})["project"] == "theirs"
    assert account.given_id() == "abc"
    with pytest.raises(UsageError, match="--project: got 'mine', allowed: theirs"):
        with_environment({**NOTHING, "project": "mine"})


def test_its_config_is_read_after_all_others_as_far_as_it_names_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with begun_config() as more:
        assert more == []
    monkeypatch.setattr(account, "begun_run", Begun)
    with begun_config() as more:
        option, file = more
        found = yaml.safe_load(Path(file).read_text())
    assert option == "--config"
    assert found == {"model.weight_decay": 0.5, "seed_everything": 4}
    assert not Path(file).exists()


def test_the_values_of_a_command_of_the_agent_are_its_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "none.yaml"))
    assert begun_values() == {}


# Loggers that are added


@pytest.mark.parametrize(
    ("args", "files", "added"),
    [
        ([], {}, False),
        (["--trainer.logger+=A"], {}, True),
        (["--trainer.logger+", "A"], {}, True),
        (["--trainer.logger=A"], {}, False),
        (["--trainer.logger", "false"], {}, False),
        (["--trainer.logger=A", "--trainer.logger+=B"], {}, False),
        (["--config", "a"], {"a": "trainer: {logger+: [A]}"}, True),
        (["--config=a"], {"a": "trainer: {logger: [A]}"}, False),
        (["--config=a", "--trainer.logger+=B"], {"a": "trainer: {logger: null}"}, True),
        (["--config=a", "--trainer.logger+=B"], {"a": "trainer: {logger: [A]}"}, False),
        (["--config=a"], {"a": "trainer: 3"}, False),
        (["--config"], {}, False),
    ],
)
def test_whether_loggers_are_added_to_the_runs_own(
    args: list[str], files: dict[str, str], added: bool
) -> None:
    for name, text in files.items():
        Path(name).write_text(text)
    assert adds_to("trainer.logger", args) is added
