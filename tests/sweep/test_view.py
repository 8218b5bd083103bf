"""What is shown of a sweep, and from what it is known."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from janus_pl.sweep import progress, resources
from janus_pl.sweep.plan import PlannedRun
from janus_pl.sweep.progress import RowReader, last_line
from janus_pl.sweep.resources import environment_of, gpus
from janus_pl.sweep.states import Entry, State, exit_code, seconds_left
from janus_pl.sweep.view import View, left_text, table_of


def entry(folder: Path, label: str, state: State = State.WAITING, epochs: int | None = 10) -> Entry:
    config = {"trainer": {"max_epochs": epochs}}
    run = PlannedRun(label, label, {}, config, [], folder / label, folder / "v", folder / "log")
    run.folder.mkdir(exist_ok=True)
    return Entry(run, state)


def append(folder: Path, *rows: dict[str, Any], mode: str = "a") -> None:
    with (folder / "rows.jsonl").open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


# Rows


def test_rows_are_read_as_they_come(tmp_path: Path, clock: Clock) -> None:
    reader = RowReader(tmp_path)
    assert reader.read().epoch is None
    append(tmp_path, {"epoch": 0, "train/loss": 2.0, "margin/mean": 1e-8})
    seen = reader.read()
    assert (seen.epoch, seen.loss, seen.margin, seen.per_epoch) == (0, 2.0, 1e-8, None)
    clock.now += 6
    append(tmp_path, {"epoch": 1}, {"epoch": 3, "train/loss_running": 1.0, "train/loss": 0.5})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"epoch": 4, "tra')  # in the middle of a row
    seen = reader.read()
    assert (seen.epoch, seen.loss, seen.margin, seen.per_epoch) == (3, 1.0, 1e-8, 2.0)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('in/loss": 7.0}\n')
    assert reader.read().loss == 7.0


def test_a_resumed_run_s_rows_begin_again_and_tell_no_time(tmp_path: Path, clock: Clock) -> None:
    reader = RowReader(tmp_path)
    append(tmp_path, *({"epoch": epoch} for epoch in range(6)))
    assert reader.read().epoch == 5
    clock.now += 50
    kept = [{"epoch": epoch} for epoch in range(4)]
    (tmp_path / "new").write_text("".join(json.dumps(row) + "\n" for row in kept))
    os.replace(tmp_path / "new", tmp_path / "rows.jsonl")  # as the journal does
    assert reader.read().epoch == 3
    clock.now += 4
    append(tmp_path, {"epoch": 5})
    assert reader.read().per_epoch == 2.0


def test_rows_that_are_none_are_passed_over(tmp_path: Path) -> None:
    reader = RowReader(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\n[1]\nnull\n{\n" + b'{"epoch": 2}\n')
    assert reader.read().epoch == 2


def test_the_last_line_of_a_log_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_bytes(b"one\ntwo  \r\n\xff bar 3/4\r  \n\n")
    assert last_line(log) == "\ufffd bar 3/4"


# Time left


def test_what_is_left_is_what_the_others_took(tmp_path: Path, clock: Clock) -> None:
    done, running = entry(tmp_path, "done", State.DONE), entry(tmp_path, "running", State.RUNNING)
    waiting = [entry(tmp_path, "a"), entry(tmp_path, "b", epochs=20)]
    everything = [done, running, *waiting]
    assert seconds_left(everything, 1) is None, "nothing is known yet"
    append(done.run.folder, {"epoch": 10})
    done.rows.read()
    done.seconds = 30.0  # 3 s an epoch
    append(running.run.folder, {"epoch": 4})
    running.rows.read()
    clock.now += 10
    append(running.run.folder, {"epoch": 6})
    running.rows.read()
    assert running.left == 20.0  # 4 epochs of 5 s
    assert seconds_left(everything, 1) == pytest.approx(20 + 4 * 30)  # the mean is 4 s an epoch
    assert seconds_left(everything, 2) == pytest.approx(70)
    assert seconds_left([running], 4) == 20.0
    assert left_text(everything, 2) == "3 of 4 left, about 1 min 10 s"
    assert left_text([done], 2) == "none left"
    endless = entry(tmp_path, "endless", epochs=None)
    assert seconds_left([*everything, endless], 1) is None


# The table


def shown(entries: list[Entry], **options: Any) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    with View(entries, 1, console) as view:
        for one in entries:
            view.changed(one)
        view.changed(None)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_on_a_terminal_one_table_elsewhere_a_line_a_change(tmp_path: Path, clock: Clock) -> None:
    first, second = entry(tmp_path, "lam=[0]", State.RUNNING), entry(tmp_path, "lam=[1]")
    append(first.run.folder, {"epoch": 4, "train/loss": 0.25, "margin/mean": 2e-7})
    first.rows.read()
    terminal = shown([first, second], force_terminal=True, height=30)
    for text in ("lam=[0]", "4/10", "0.25", "2.00e-07", "2 of 2 left", "Ctrl-C stops, resumably"):
        assert text in terminal
    plain = shown([first, second]).splitlines()
    assert [line.split(" ", 1)[1].split(";")[0] for line in plain] == [
        "lam=[0]: running",
        "lam=[1]: waiting",
    ]


def test_a_sweep_that_is_longer_than_the_screen_shows_where_it_is(tmp_path: Path) -> None:
    entries = [entry(tmp_path, f"run{i:03}", State.DONE) for i in range(50)]
    entries += [entry(tmp_path, "now", State.RUNNING)]
    entries += [entry(tmp_path, f"run{i:03}") for i in range(51, 100)]
    text = shown(entries, force_terminal=True, height=20)
    assert "now" in text
    assert "run049" in text
    assert "run010" not in text
    assert "87 more runs not shown" in text


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.DONE, State.ELSEWHERE], 0),
        ([State.DONE, State.DIVERGED], 3),
        ([State.DIVERGED, State.BROKEN], 5),
        ([State.BROKEN, State.FAILED], 1),
        ([State.DONE, State.INTERRUPTED], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst(states: Any, code: int, tmp_path: Path) -> None:
    assert exit_code([entry(tmp_path, str(i), s) for i, s in enumerate(states)]) == code


def test_the_table_at_the_end_has_no_time_left(tmp_path: Path) -> None:
    def columns(state: State) -> list[Any]:
        return [column.header for column in table_of([entry(tmp_path, "a", state)]).columns]

    assert "left" in columns(State.RUNNING)
    assert "left" not in columns(State.DONE)


# Cores and GPUs


def test_each_run_gets_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 16)
    told = environment_of(0, 4, [], {})
    assert set(told.values()) == {"4"}
    assert {"OMP_NUM_THREADS", "NUMBA_NUM_THREADS"} <= told.keys()
    asked = environment_of(0, 4, [], {"OMP_NUM_THREADS": "1"})  # MKL's 4 would be PyTorch's, too
    assert asked == {name: "1" for name in told if name != "OMP_NUM_THREADS"} and len(asked) == 3
    assert environment_of(0, 4, [], {"OMP_NUM_THREADS": "2,1"})["MKL_NUM_THREADS"] == "2"
    for no_number in ("", "0", "all"):
        asked = environment_of(0, 4, [], {"OMP_NUM_THREADS": no_number})
        assert {*asked.values()} == {"4"} and "OMP_NUM_THREADS" not in asked
    kept = environment_of(0, 4, [], {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"})
    assert "MKL_NUM_THREADS" not in kept and kept["NUMBA_NUM_THREADS"] == "1"
    assert environment_of(0, 32, [], {})["OMP_NUM_THREADS"] == "1"
    visible = [environment_of(s, 4, ["2", "5"], {})["CUDA_VISIBLE_DEVICES"] for s in range(4)]
    assert visible == ["2", "5", "2", "5"]
    assert "CUDA_VISIBLE_DEVICES" not in environment_of(0, 4, ["0"], {})


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpus({}) == ["0", "1"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-8932f937"}) == ["3", "GPU-8932f937"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus({}) == gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
