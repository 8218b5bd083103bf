"""The clock of a sweep file: every run's epochs, steps or accumulated rate are the reference's."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep.driving import COMMAND

from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.errors import UsageError
from janus_pl.sweep import clock as clocks
from janus_pl.sweep.clock import length_of, options_of
from janus_pl.sweep.file import load, points
from janus_pl.sweep.plan import PlannedRun, plan


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def write(clock: Any = None, **parameters: Any) -> None:
    """`some.yaml`, a grid, with a clock unless it is None."""
    spec = {
        name: {"values": given} if isinstance(given, list) else {"value": given}
        for name, given in parameters.items()
    }
    content = {"method": "grid", "command": [*COMMAND, "--config", "${args_json_file}"]}
    content |= {"parameters": spec} | ({} if clock is None else {"clock": clock})
    Path("some.yaml").write_text(yaml.safe_dump(content))


def config(
    batch: Any = 32, rate: Any = 0.1, epochs: Any = 40, schedule: str = "constant", **trainer: Any
) -> dict[str, Any]:
    model = {"learning_rate": rate, "schedule": schedule}
    return {
        "model": {"init_args": model},
        "data": {"init_args": {"batch_size": batch}},
        "trainer": {"max_epochs": epochs, "max_steps": -1, **trainer},
    }


N = 500


def samples(_: Any) -> int:
    return N


def made(clock: str, reference: dict[str, Any], run: dict[str, Any]) -> tuple[int, float]:
    """The steps and the accumulated rate of a run, counted as its trainer would."""
    options = options_of(length_of(clock, reference, samples), run, samples)
    batch = run["data"]["init_args"]["batch_size"]
    in_epoch = 1 if batch == "full" else math.ceil(N / batch)
    epochs, most = options["trainer.max_epochs"], options["trainer.max_steps"]
    steps, rate = 0, 0.0
    for _ in range(epochs):
        for _ in range(in_epoch):
            if most in (-1, None) or steps < most:
                steps += 1
                rate += run["model"]["init_args"]["learning_rate"]
    return steps, rate


@pytest.mark.parametrize("batch", [4, 7, 16, 32, 256, 500, "full"])
@pytest.mark.parametrize("rate", [0.03, 0.1, 0.25])
def test_each_clock_makes_equal_what_it_says(batch: Any, rate: float) -> None:
    reference, run = config(), config(batch, rate)
    steps = 40 * 16  # ceil(500/32) is 16
    epochs = options_of(length_of("epochs", reference, samples), run, samples)
    assert epochs == {"trainer.max_epochs": 40, "trainer.max_steps": -1}
    assert made("steps", reference, run)[0] == steps
    of_rate = made("eta_t", reference, run)
    assert of_rate[1] == pytest.approx(0.1 * steps, abs=0.5 * rate + 1e-9), "the nearest step"


def test_whole_epochs_are_given_as_epochs() -> None:
    """So that runs which differ in them are of other lengths for every reader."""
    length = length_of("steps", config(), samples)
    assert options_of(length, config(64), samples) == {
        "trainer.max_epochs": 80,
        "trainer.max_steps": -1,
    }
    assert options_of(length, config(256), samples)["trainer.max_epochs"] == 320
    assert options_of(length, config(24), samples) == {
        "trainer.max_epochs": 31,  # 640 steps are 30 epochs of 21, and 10 steps
        "trainer.max_steps": 640,
    }


def test_floor_in_place_of_ceil_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: an epoch's last batch is smaller, and a step all the same."""
    monkeypatch.setattr(clocks.math, "ceil", math.floor)
    with pytest.raises(AssertionError):
        test_each_clock_makes_equal_what_it_says(7, 0.1)


WRONG = [
    ("steps", {"epochs": -1}, {}, "trainer.max_epochs: got -1, allowed: an integer from 1 up"),
    ("eta_t", {"max_steps": 90}, {}, "trainer.max_steps: got 90, allowed: -1, for clock: eta_t"),
    ("eta_t", {"schedule": "cosine"}, {}, "model.schedule: got 'cosine', allowed: constant, for"),
    ("eta_t", {}, {"schedule": "cosine"}, "model.schedule: got 'cosine', allowed: constant, for"),
    ("eta_t", {}, {"rate": "auto"}, "model.learning_rate: got 'auto', allowed: a number above 0"),
    ("steps", {}, {"batch": None}, "clock: got 'steps', allowed: epochs, for N and B of these"),
    ("steps", {}, {"limit_train_batches": 5}, "trainer.limit_train_batches: got 5, allowed: 1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("clock", "reference", "run", "said"), WRONG)
def test_what_has_no_such_length_is_refused(
    clock: str, reference: dict[str, Any], run: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        options_of(length_of(clock, config(**reference), samples), config(**run), samples)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_data_without_a_number_of_samples_are_refused_but_for_epochs() -> None:
    with pytest.raises(UsageError, match=r"^clock: got 'steps', allowed: epochs, for N and B"):
        length_of("steps", config(), lambda _: None)
    assert length_of("epochs", config(), lambda _: None).epochs == 40
    whole = config("full")
    assert length_of("steps", whole, lambda _: None).steps == 40, "one step an epoch, whatever N"


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ("step", "clock: got 'step', allowed: a valid key, the nearest is steps"),
        ("eta", "clock: got 'eta', allowed: a valid key, the nearest is eta_t"),
        (7, "clock: got 7, allowed: one of epochs, eta_t, steps"),
    ],
)
def test_a_clock_that_is_none_is_refused(clock: Any, said: str) -> None:
    write(clock, **{"data.batch_size": [8, 16]})
    with pytest.raises(UsageError) as caught:
        load("some.yaml")
    assert str(caught.value) == said


def test_a_length_that_the_file_varies_is_refused() -> None:
    write("steps", **{"trainer.max_epochs": [2, 3], "data.batch_size": [8, 16]})
    with pytest.raises(UsageError, match=r"^parameters.trainer.max_epochs: got 'several values'"):
        load("some.yaml")


def planned(*more: str) -> list[PlannedRun]:
    sweep, resolve = load("some.yaml"), Resolver()
    return plan(sweep, points(sweep), more, resolve, resolve.data_of, resolve.samples_of)


def lengths(runs: list[PlannedRun]) -> list[tuple[int, int]]:
    return [
        (run.config["trainer"]["max_epochs"], run.config["trainer"]["max_steps"]) for run in runs
    ]


SCAN = {
    "data.batch_size": [8, 16, 24, "full"],
    "model.learning_rate": 0.01,
    "model.schedule": "constant",
    "data.num_train": 100,
    "trainer.max_epochs": 6,
}


def test_the_reference_has_the_batch_size_of_the_configs_and_ids_follow() -> None:
    """quickstart.yaml has B = 8: 13 steps an epoch of 100 images, 78 in 6 epochs."""
    write(**SCAN)
    plain = planned()
    write("epochs", **SCAN)
    same = planned()
    assert lengths(same) == lengths(plain) == [(6, -1)] * 4
    assert [run.id for run in same] == [run.id for run in plain]
    write("steps", **SCAN)
    runs = planned()
    assert lengths(runs) == [(6, -1), (12, 78), (16, 78), (78, -1)]
    assert runs[0].id == plain[0].id, "the reference itself"
    assert not {run.id for run in runs[1:]} & {run.id for run in plain}
    for run, length in zip(runs, lengths(runs), strict=True):
        told = run.args[run.args.index(f"--trainer.max_epochs={length[0]}") + 1]
        assert told == f"--trainer.max_steps={length[1]}"
        assert run.values["trainer.max_epochs"] == length[0]
    assert [run.label for run in runs] == [run.label for run in plain]


def test_equal_eta_t_over_rates() -> None:
    write("eta_t", **{**SCAN, "data.batch_size": 10, "model.learning_rate": [0.01, 0.02, 0.003]})
    base = planned()
    (rate,) = {run.config["model"]["init_args"]["learning_rate"] for run in base[:1]}
    assert rate == 0.01
    of_configs = Resolver()(["fit", "--config", "quickstart.yaml"])["model"]["init_args"]
    eta_t = 60 * of_configs["learning_rate"]  # 10 steps an epoch, 6 epochs
    for run, (epochs, steps) in zip(base, lengths(base), strict=True):
        own = run.config["model"]["init_args"]["learning_rate"]
        taken = steps if steps > 0 else 10 * epochs
        assert own * taken == pytest.approx(eta_t, abs=own / 2)


def test_an_option_behind_two_dashes_is_of_the_reference_too() -> None:
    write("steps", **SCAN)
    runs = planned("--trainer.max_epochs", "3")
    assert lengths(runs) == [(3, -1), (6, 39), (8, 39), (39, -1)]


def test_the_plan_shows_the_lengths(capsys: pytest.CaptureFixture) -> None:
    write("steps", **SCAN)
    assert main(["sweep", "some.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "trainer.max_epochs" in said
    assert all(number in said for number in ("78", "16", "12"))


def test_runs_of_equal_steps_take_equal_steps() -> None:
    """Real fits: the last row of each has the reference's step."""
    write("steps", **{**SCAN, "data.batch_size": [8, 40, "full"], "trainer.max_epochs": 2})
    small = [
        "--model.channels=[2,3,4,4]",
        "--model.hidden=8",
        "--trainer.enable_progress_bar=false",
    ]
    assert main(["sweep", "some.yaml", "--jobs", "1", "--", *small]) == 0
    ends = []
    for file in Path("runs").rglob("rows.jsonl"):
        last = json.loads(file.read_text().splitlines()[-1])
        ends.append(last["trainer/global_step"])
    assert ends == [26, 26, 26]
