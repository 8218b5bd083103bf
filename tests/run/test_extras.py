"""What W&B gets beside the record: off by default, honoured if asked for, or refused."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from record_reader import read_records
from run.small_runs import fit_args, only_run

from janus_pl.cli.main import main
from janus_pl.errors import DivergenceError, Exit, TheoremError, UsageError
from janus_pl.run import extras
from janus_pl.run.extras import Extras, code_files
from janus_pl.run.folder import differences, identity
from janus_pl.training.signals import Interrupted

ALL = ["--entity", "a-team", "--notes", "as in Fig. 1", "--job_type", "sweep"]
FLAGS = ["--log_model", "--save_code", "--alerts"]
GIVEN = {
    **{"entity": "e", "notes": "n", "job_type": "j"},
    **dict.fromkeys(("log_model", "save_code", "alerts"), True),
}


class Run:
    """W&B's run: the messages, and the files of each artifact with its aliases."""

    id, name = "x", "a run"

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.artifacts: list[tuple[str, Any, list[str]]] = []
        self.notes = ""

    def alert(self, **given: Any) -> None:
        self.alerts.append(given)

    def log_artifact(self, artifact: Any, aliases: Any) -> None:
        self.artifacts.append((artifact.name, aliases, [*artifact.manifest.entries]))


def recorded(*more: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The head of W&B's record, the artifacts and the messages of a fit."""
    wandb.teardown()
    assert main(fit_args(*more)) == 0
    records = read_records(only_run())
    by_kind = {kind: [r[kind] for r in records if r["type"] == kind] for kind in ("run", "alert")}
    artifacts = [r["artifact"] for r in records if r["type"] == "artifact"]
    return by_kind["run"][0], artifacts, by_kind["alert"]


def test_every_option_reaches_the_record_of_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head, artifacts, alerts = recorded(*ALL, *FLAGS)
    assert (head["entity"], head["notes"], head["job_type"]) == ("a-team", "as in Fig. 1", "sweep")
    run_id = only_run().name
    sent = {(each["name"], alias) for each in artifacts for alias in each.get("aliases", [])}
    assert {(f"model-{run_id}", "best"), (f"model-{run_id}", "last")} <= sent
    assert f"code-{run_id}" in {each["name"] for each in artifacts}
    (alert,) = alerts
    assert (alert["title"], alert["level"]) == ("Run finished", "INFO")


def test_without_an_option_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control; W&B itself has an artifact for each table."""
    monkeypatch.chdir(tmp_path)
    head, artifacts, alerts = recorded()
    assert alerts == [] and head["job_type"] == "train" and not head.get("notes")
    assert {each["type"] for each in artifacts} <= {"run_table", "wandb-history"}


def test_no_option_changes_the_id_of_a_run() -> None:
    config = {"model": {"lr": 1}}
    assert identity(config) == identity({**config, **GIVEN})
    assert differences(config, {**config, **GIVEN}) == []


@pytest.mark.parametrize("option", [*ALL[::2], *FLAGS])
@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.CSVLogger"])
def test_an_option_without_the_logger_that_takes_it_is_refused(
    option: str, logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    value = [ALL[ALL.index(option) + 1]] if option in ALL else []
    place = [] if logger == "false" else ["--trainer.logger.save_dir", "csv"]
    assert main(fit_args("--trainer.logger", logger, *place, option, *value)) == Exit.USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {option}: got ")
    assert "trainer.logger" in error and not Path("runs").exists()


# The messages


@pytest.mark.parametrize(
    ("error", "title", "level"),
    [
        (DivergenceError("the loss is nan"), "Run diverged", "ERROR"),
        (DivergenceError("the loss is nan", recorded=True), "Run diverged", "ERROR"),
        (Interrupted(15), "Run stopped", "WARN"),
        (KeyboardInterrupt(), "Run stopped", "WARN"),
        (TheoremError("a bound"), "Run failed", "ERROR"),
        (RuntimeError("a\ndefect"), "Run failed", "ERROR"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_message_says_how_the_run_ended(error: BaseException, title: str, level: str) -> None:
    run = Run()
    try:
        raise error
    except BaseException:  # as Lightning calls it
        Extras(alerts=True).end(run, "failed", [])
        Extras().end(run, "failed", [])
    (alert,) = run.alerts
    assert (alert["title"], alert["level"]) == (title, level)
    said = " ".join(str(error).split()) or type(error).__name__
    assert alert["text"] == f"a run (x): {said}" and len(title) < 64


# Files


def test_the_newest_files_of_the_checkpoints_are_sent(tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / f"{name}.ckpt").write_text(name)
    saved = SimpleNamespace(
        best_model_path=str(tmp_path / "best.ckpt"), last_model_path=str(tmp_path / "last.ckpt")
    )
    gone = SimpleNamespace(best_model_path=str(tmp_path / "gone.ckpt"), last_model_path="")
    run = Run()
    Extras(log_model=True).end(run, "success", [saved, gone])
    assert run.artifacts == [
        ("model-x", ["best"], ["model.ckpt"]),
        ("model-x", ["last"], ["model.ckpt"]),
    ]


def test_the_code_is_this_package_and_the_modules_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = ("own_net.py", "lib/site-packages/theirs.py", ".venv/hidden.py", "unused.py")
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    for place in places[:-1]:
        module = SimpleNamespace(__file__=str(tmp_path / place))
        monkeypatch.setitem(sys.modules, f"of_the_test.{Path(place).stem}", module)
    names = {str(name) for name in code_files()}
    assert {"janus_pl/run/extras.py", "own_net.py"} <= names
    assert not names & {*places[1:]}
    run = Run()
    Extras(save_code=True, notes="why").begin(run)
    ((name, _, files),) = run.artifacts
    assert name == "code-x" and {*files} == names and run.notes == "why"


@pytest.mark.parametrize("linked", [False, True])
def test_a_strangers_callbacks_beside_the_package_are_not_sent(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    site = tmp_path / "site"
    own = "callbacks/own.py" if linked else "janus_pl/callbacks/own.py"
    strangers = ("others/x.py", "callbacks_2/x.py", *(() if linked else ("callbacks/theirs.py",)))
    for place in ("janus_pl/__init__.py", own, *strangers):
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).touch()
    if linked:  # as in a checkout
        (site / "janus_pl" / "callbacks").symlink_to("../callbacks")
    names = {str(name) for name in code_files(site / "janus_pl")}
    assert names == {"janus_pl/__init__.py", own}


def test_the_callbacks_of_this_package_are_sent() -> None:
    import janus_pl.callbacks.layer_rank as ours

    file = Path(ours.__file__).resolve()
    assert file in {each.resolve() for each in code_files().values()}


# Refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"log_model": "all"}, "--log_model: got 'all', allowed: true, false"),
        ({"alerts": 1}, "--alerts: got 1"),
        ({"job_type": "report"}, "--job_type: got 'report', allowed: another one than"),
    ],
)
def test_a_value_that_is_none_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Extras(**given)


def test_a_run_that_has_begun_keeps_its_entity_and_job_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = SimpleNamespace(entity="theirs", settings=SimpleNamespace(run_job_type="eval"))
    monkeypatch.setattr(extras, "begun_run", lambda: begun)
    Extras(entity="theirs", job_type="eval", notes="n")
    for given in ({"entity": "mine"}, {"job_type": "train"}):
        with pytest.raises(UsageError, match=r"wandb.init\(\) has begun"):
            Extras(**given)


def test_a_run_of_a_sweep_is_its_entitys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "begun_run", lambda: None)
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_ENTITY", "theirs")
    assert "entity" not in Extras(entity="theirs").for_init()
    with pytest.raises(UsageError, match="--entity: got 'mine', allowed: that of the sweep"):
        Extras(entity="mine")
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert Extras(entity="mine").for_init() == {"job_type": "train", "entity": "mine"}
