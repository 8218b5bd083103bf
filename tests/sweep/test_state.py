"""What a sweep knows of its runs from one look to the next; no process, and no clock."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from janus_pl.errors import STOPPING
from janus_pl.run.folder import RunFolder
from janus_pl.sweep import launchers, progress, scheduler, states, view
from janus_pl.sweep.launchers import Processes
from janus_pl.sweep.plan import PlannedRun
from janus_pl.sweep.progress import RowReader, last_line
from janus_pl.sweep.scheduler import GRACE, Scheduler, StopRequest, unfinished
from janus_pl.sweep.states import Entry, State, exit_code, look, seconds_left
from janus_pl.sweep.view import View

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL


class Clock:
    """Stands still, but for `sleep`, in which the world goes on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.meanwhile: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def strftime(self, text: str) -> str:
        return "12:00:00"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (launchers, progress, scheduler, states, view):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Process:
    """A run under way; its code is None until it is told to end.

    Attributes:
        on_poll: what happens just before the system is asked whether it has ended.
    """

    started: list[Process] = []  # noqa: RUF012

    def __init__(self, command: list[str], env: dict[str, str], stdout: Any, **_: Any) -> None:
        self.id, self.env, self.pid = env["WANDB_RUN_ID"], env, 1000 + len(Process.started)
        self.code: int | None = None
        self.signals: list[int] = []
        self.on_poll: Callable[[], None] = lambda: None
        stdout.write(f"started {self.id}\n".encode())
        Process.started.append(self)

    def poll(self) -> int | None:
        self.on_poll()
        return self.code

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes, in the order in which they were started; no real one is."""
    Process.started = []

    def kill(pid: int, signum: int) -> None:
        process = Process.started[pid - 1000]
        process.signals.append(signum)
        process.code = -signum if process.code is None else process.code

    monkeypatch.setattr(launchers.subprocess, "Popen", Process)
    monkeypatch.setattr(scheduler.os, "killpg", kill)
    return Process.started


def planned(folder: Path, name: str, epochs: int | None = 10) -> PlannedRun:
    (folder / name).mkdir(exist_ok=True)
    config = {"trainer": {"max_epochs": epochs}}
    files = folder / f"{name}.json", folder / f"{name}.log"
    return PlannedRun(name, name, {"seed": 1}, config, ["fit"], folder / name, *files)


def entries_of(folder: Path, names: str) -> list[Entry]:
    return [look(planned(folder, name)) for name in names]


def rows(run: PlannedRun, *epochs: int, mode: str = "a", **values: float) -> None:
    with (run.folder / "rows.jsonl").open(mode) as file:
        file.writelines(json.dumps({"epoch": epoch, **values}) + "\n" for epoch in epochs)


def begun(run: PlannedRun) -> None:
    (run.folder / "config.yaml").write_text("model: {}\n")


def ended(run: PlannedRun, code: int) -> None:
    begun(run)
    (run.folder / "outcome.json").write_text(json.dumps({"exit_code": code}))


class Sweep:
    """A scheduler whose world goes on by a script: one function for each look.

    Attributes:
        changes: run and state, whenever one was told.
    """

    def __init__(
        self,
        entries: list[Entry],
        clock: Clock,
        jobs: int = 1,
        devices: Any = (),
        launcher: Any = None,
    ) -> None:
        self.entries, self.clock = entries, clock
        self.stop = StopRequest()
        self.changes: list[tuple[str, State]] = []
        launcher = launcher or Processes()
        self._scheduler = Scheduler(entries, jobs, devices, self._changed, self.stop, launcher)

    def _changed(self, entry: Entry | None) -> None:
        if entry is not None:
            self.changes.append((entry.run.label, entry.state))

    def run(self, *script: Callable[[], Any]) -> None:
        """An AssertionError where the script has ended and the sweep has not."""
        left: Iterator[Callable[[], Any]] = iter(script)

        def meanwhile() -> None:
            step = next(left, None)
            assert step is not None, "it goes on after all has been said"
            step()

        self.clock.meanwhile = meanwhile
        self._scheduler.run()
        assert next(left, None) is None, "it has ended early"


def end(number: int, code: int) -> Callable[[], None]:
    return lambda: setattr(Process.started[number], "code", code)


def nothing() -> None:
    """Time goes by."""


# An entry


def test_a_start_forgets_the_time_of_an_earlier_one(tmp_path: Path, clock: Clock) -> None:
    """A run that is started again, in one sweep, has its own rows, pace and time."""
    entry = Entry(planned(tmp_path, "a"))
    entry.start()
    rows(entry.run, 0)
    entry.tick()
    clock.now += 10
    rows(entry.run, 2)
    entry.tick()
    assert (entry.seconds, entry.rows.progress.per_epoch, entry.left) == (10.0, 5.0, 40.0)
    clock.now += 1000
    entry.start()
    assert entry.left is None
    entry.tick()
    assert (entry.seconds, entry.rows.progress.epoch) == (0.0, 2)
    assert entry.rows.progress.per_epoch is None, "rows from before tell no time"
    clock.now += 3
    rows(entry.run, 3)
    entry.tick()
    assert (entry.seconds, entry.rows.progress.per_epoch) == (3.0, 3.0)
    rows(entry.run, 12)
    entry.tick()
    assert entry.left == 0, "a run that is longer than planned has no less than nothing left"


@pytest.mark.parametrize(
    ("code", "state", "before"),
    [
        (None, State.WAITING, False),
        (0, State.DONE, True),
        (1, State.WAITING, False),
        (3, State.DIVERGED, True),
        (5, State.BROKEN, True),
        (143, State.WAITING, False),
    ],
)
def test_what_a_folder_says_before_the_start(
    code: int | None, state: State, before: bool, tmp_path: Path
) -> None:
    run = planned(tmp_path, "a")
    fresh = look(run)
    assert (fresh.state, fresh.before, fresh.resumed) == (State.WAITING, False, False)
    begun(run)
    rows(run, 0, 1, 2)
    if code is not None:
        ended(run, code)
    entry = look(run)
    assert (entry.state, entry.before, entry.resumed) == (state, before, not before)
    assert entry.rows.progress.epoch == 2
    held = RunFolder(run.folder)
    assert look(run).state is State.ELSEWHERE
    held.let_go()


def test_the_worst_state_is_the_code_and_a_broken_theorem_is_worse_than_divergence(
    tmp_path: Path,
) -> None:
    def code(*states: State) -> int:
        entries = entries_of(tmp_path, "abcdefgh"[: len(states)])
        for entry, state in zip(entries, states, strict=True):
            entry.state = state
        return exit_code(entries)

    assert code(State.DONE, State.ELSEWHERE) == 0
    assert code(State.DONE, State.DIVERGED, State.ELSEWHERE) == 3
    assert code(State.DIVERGED, State.BROKEN, State.DIVERGED) == 5
    for bad in (State.FAILED, State.INTERRUPTED, State.WAITING):
        assert code(State.BROKEN, bad, State.DONE) == 1


def test_only_what_was_made_here_from_its_start_tells_the_pace(tmp_path: Path) -> None:
    done, before, resumed, waiting = entries_of(tmp_path, "abcd")
    for entry, seconds in ((done, 20.0), (before, 0.0), (resumed, 1.0)):
        rows(entry.run, 10)
        entry.rows.read()
        entry.state, entry.seconds = State.DONE, seconds
    before.before, resumed.resumed = True, True
    rows(waiting.run, 4)
    waiting.rows.read()
    assert seconds_left([before, resumed, waiting], 1) is None
    assert seconds_left([done, before, resumed, waiting], 1) == 2.0 * 6  # four are behind it
    long = entries_of(tmp_path, "e")[0]
    rows(long.run, 0)
    long.start()
    long.rows.read()
    long.rows.progress.per_epoch = 50.0
    assert seconds_left([long], 8) == 500.0, "no run is divided among jobs"


# Rows


def test_a_file_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    """In place, without another file of its name."""
    run = planned(tmp_path, "a")
    reader = RowReader(run.folder)
    rows(run, *range(9), loss=1.0)
    assert reader.read().epoch == 8
    rows(run, 0, 1, mode="w")
    assert reader.read().epoch == 1
    rows(run, 2)
    assert reader.read().epoch == 2


def test_the_pace_is_over_all_rows_seen(tmp_path: Path, clock: Clock) -> None:
    run = planned(tmp_path, "a")
    reader = RowReader(run.folder)
    rows(run, 0)
    reader.read()
    for epoch, (later, pace) in enumerate([(2.0, 2.0), (4.0, 3.0), (0.0, 2.0)], start=1):
        clock.now += later
        rows(run, epoch)
        assert reader.read().per_epoch == pace
    clock.now += 50
    assert reader.read().per_epoch == 2.0, "no row, no news"


def test_each_byte_is_read_once_and_half_a_row_waits(tmp_path: Path) -> None:
    run = planned(tmp_path, "a")
    reader = RowReader(run.folder)
    rows(run, 0, 1)
    assert len(reader._new_lines()) == 2
    with (run.folder / "rows.jsonl").open("a") as file:
        file.write('{"epoch"')
    assert reader._new_lines() == []
    with (run.folder / "rows.jsonl").open("a") as file:
        file.write(": 2}\n{")
    assert reader._new_lines() == [b'{"epoch": 2}']
    assert reader._new_lines() == []


def test_rows_from_before_a_resumption_tell_no_time(tmp_path: Path, clock: Clock) -> None:
    run = planned(tmp_path, "a")
    reader = RowReader(run.folder)
    rows(run, *range(6))
    reader.read()
    clock.now += 50
    rows(run, 0, 1, mode="w")
    assert reader.read().epoch == 1
    clock.now += 6
    rows(run, 4)
    assert reader.read().per_epoch == 2.0


def test_numbers_stay_until_a_row_has_newer_ones(tmp_path: Path) -> None:
    run = planned(tmp_path, "a")
    reader = RowReader(run.folder)
    rows(run, 3, **{"train/loss": 0.5, "margin/mean": 1e-8})
    rows(run, 4)
    with (run.folder / "rows.jsonl").open("a") as file:
        file.write('{"other": 1}\n')
    seen = reader.read()
    assert (seen.epoch, seen.loss, seen.margin) == (4, 0.5, 1e-8)


def test_the_newest_line_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\nlast but one\n last \n\n \n")
    assert last_line(log) == "last"


# The scheduler


def test_so_many_at_a_time_in_their_order_each_in_the_first_free_place(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    """And with the GPU of its place."""
    sweep = Sweep(entries_of(tmp_path, "abcde"), clock, jobs=2, devices=["gpu0", "gpu1"])
    sweep.run(end(1, 0), end(2, 0), end(0, 0), lambda: (end(3, 0)(), end(4, 0)()))
    assert [process.id for process in started] == [*"abcde"]
    places = [process.env["CUDA_VISIBLE_DEVICES"] for process in started]
    assert places == ["gpu0", "gpu1", "gpu1", "gpu1", "gpu0"]
    assert [state for name, state in sweep.changes if name == "c"] == [State.RUNNING, State.DONE]
    assert {entry.state for entry in sweep.entries} == {State.DONE}
    assert unfinished(sweep.entries) == []
    for entry in sweep.entries:
        assert json.loads(entry.run.values_file.read_text()) == {"seed": 1}


def test_a_row_that_came_with_the_end_is_read(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "a"), clock)
    (entry,) = sweep.entries

    def last_row() -> None:
        def write() -> None:
            rows(entry.run, 10, **{"train/loss": 0.25})
            started[0].code = 0

        started[0].on_poll = write

    sweep.run(lambda: rows(entry.run, 1), last_row)
    assert (entry.rows.progress.epoch, entry.rows.progress.loss) == (10, 0.25)
    assert entry.seconds == pytest.approx(2 * scheduler.POLL)


ENDINGS: dict[str, tuple[int, int | None, State, str]] = {
    "done": (0, 0, State.DONE, ""),
    "diverged": (3, 3, State.DIVERGED, "why"),
    "a broken theorem": (5, 5, State.BROKEN, "why"),
    "failed": (1, 1, State.FAILED, "why"),
    "stopped from outside": (143, 143, State.INTERRUPTED, ""),
    "killed": (-9, None, State.FAILED, "killed by SIGKILL; the last line of its output: why"),
    "another process had done it": (2, 0, State.DONE, ""),
    "another process had seen it diverge": (2, 3, State.DIVERGED, "why"),
    "done, whatever an older word says": (0, 1, State.DONE, ""),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_how_a_run_ends(name: str, tmp_path: Path, clock: Clock) -> None:
    code, outcome, state, note = ENDINGS[name]
    sweep = Sweep(entries_of(tmp_path, "a"), clock)
    (entry,) = sweep.entries

    def ends() -> None:
        with entry.run.log.open("a") as log:
            log.write("something\nwhy\n")
        if outcome is not None:
            ended(entry.run, outcome)
        end(0, code)()

    sweep.run(ends)
    assert (entry.state, entry.note) == (state, note)


def test_the_output_of_an_earlier_start_stays(tmp_path: Path, clock: Clock) -> None:
    for _ in range(2):
        Sweep(entries_of(tmp_path, "a"), clock).run(end(-1, 143))
    assert (tmp_path / "a.log").read_text() == "started a\nstarted a\n"


def test_a_run_that_had_begun_is_resumed_and_one_that_ended_meanwhile_is_not_made_again(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    """Between the first look of the sweep and the turn of the run."""
    sweep = Sweep(entries_of(tmp_path, "abc"), clock)
    _, second, third = sweep.entries

    def others() -> None:
        begun(second.run)
        ended(third.run, 3)
        rows(third.run, 7)
        end(0, 0)()

    sweep.run(others, end(1, 0))
    assert [process.id for process in started] == ["a", "b"]
    assert [entry.resumed for entry in sweep.entries] == [False, True, False]
    assert (third.state, third.before) == (State.DIVERGED, True)
    assert third.rows.progress.epoch == 7
    assert sweep.changes[-2:] == [("b", State.DONE), ("c", State.DIVERGED)]


def test_a_run_of_another_process_is_waited_for_when_nothing_else_is_left(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    """However long the others took before that; and it is taken when it is let go of."""
    run = planned(tmp_path, "b")
    held = RunFolder(run.folder)
    sweep = Sweep(entries_of(tmp_path, "ab"), clock)
    assert sweep.entries[1].state is State.ELSEWHERE
    long = lambda: setattr(clock, "now", clock.now + 3 * GRACE)  # noqa: E731
    sweep.run(long, end(0, 0), nothing, held.let_go, end(1, 0))
    assert [process.id for process in started] == ["a", "b"]
    assert [entry.state for entry in sweep.entries] == [State.DONE] * 2


def test_a_run_of_another_process_is_not_waited_for_for_ever(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    held = RunFolder(planned(tmp_path, "a").folder)
    sweep = Sweep(entries_of(tmp_path, "a"), clock)
    sweep.run(nothing, lambda: setattr(clock, "now", clock.now + GRACE))
    assert (sweep.entries[0].state, started) == (State.ELSEWHERE, [])
    assert exit_code(sweep.entries) == 0
    held.let_go()


class Slow(Processes):
    """A launcher that is ready after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def is_ready(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_a_launcher_that_is_not_ready_is_waited_for(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "a"), clock, launcher=Slow(3))
    sweep.run(nothing, nothing, nothing, end(0, 0))
    assert [process.id for process in started] == ["a"]


def test_a_stop_before_the_launcher_is_ready_starts_nothing(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "a"), clock, launcher=Slow(9))
    sweep.run(nothing, lambda: sweep.stop._handle(TERM, None))
    assert started == []
    assert [entry.state for entry in sweep.entries] == [State.WAITING]


def test_a_stop_is_told_once_and_nothing_is_started_after_it(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "abc"), clock, jobs=2)
    ask = lambda: sweep.stop._handle(TERM, None)  # noqa: E731
    sweep.run(nothing, ask, nothing, nothing, end(0, 143), nothing, end(1, 130))
    assert [process.signals for process in started] == [[TERM], [TERM]]
    assert [entry.state for entry in sweep.entries] == [
        *(State.INTERRUPTED,) * 2,
        State.WAITING,
    ]
    assert sweep.changes.count(("a", State.STOPPING)) == 1
    assert unfinished(sweep.entries) == sweep.entries


def test_a_second_ctrl_c_kills_and_what_is_killed_is_interrupted(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "ab"), clock)
    ask = lambda: sweep.stop._handle(INT, None)  # noqa: E731
    sweep.run(ask, nothing, ask, nothing)
    assert started[0].signals[:2] == [TERM, KILL]
    assert [entry.state for entry in sweep.entries] == [State.INTERRUPTED, State.WAITING]


def test_whatever_goes_wrong_nothing_is_left_behind(
    tmp_path: Path, clock: Clock, started: list[Process]
) -> None:
    sweep = Sweep(entries_of(tmp_path, "ab"), clock, jobs=2)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep.run(nothing, fail)
    assert [process.signals for process in started] == [[KILL], [KILL]]


@pytest.mark.parametrize(
    ("signals", "first", "kill"),
    [
        ([TERM], TERM, False),
        ([INT], INT, False),
        ([TERM, TERM], TERM, False),
        ([INT, TERM], INT, False),
        ([TERM, INT], TERM, True),
        ([INT, INT], INT, True),
        ([INT, INT, TERM], INT, True),
        ([HUP, INT], HUP, True),
        ([signal.SIGUSR2], signal.SIGUSR2, False),
    ],
)
def test_the_first_signal_asks_and_a_later_ctrl_c_kills(
    signals: list[int], first: int, kill: bool
) -> None:
    before = [signal.getsignal(signum) for signum in STOPPING]
    with StopRequest() as stop:
        assert [signal.getsignal(signum) for signum in STOPPING] == [stop._handle] * 6
        for signum in signals:
            os.kill(os.getpid(), signum)
    assert (stop.signum, stop.kill) == (first, kill)
    assert [signal.getsignal(signum) for signum in STOPPING] == before


# The table


class Live:
    """Counts how often a table is drawn."""

    def __init__(self, **_: Any) -> None:
        self.drawn, self.on = 0, False

    def start(self) -> None:
        self.on = True

    def stop(self) -> None:
        self.on = False

    def update(self, table: Any, refresh: bool) -> None:
        assert refresh
        self.drawn += 1


def test_a_change_is_drawn_at_once_and_time_now_and_then(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "Live", Live)
    entries = entries_of(tmp_path, "a")
    shown = View(entries, 1, Console(file=io.StringIO(), force_terminal=True))
    live: Any = shown._live
    with shown:
        assert live.on
        for change, later, drawn in [
            (None, 1.0, 1),
            (None, 0.3, 1),
            (None, 0.3, 2),
            (entries[0], 0.0, 3),
            (entries[0], 0.0, 4),
            (None, 0.3, 4),
            (None, 0.3, 5),
        ]:
            clock.now += later
            shown.changed(change)
            assert live.drawn == drawn
    assert not live.on
    lines = SimpleNamespace(file=io.StringIO())
    plain = View(entries, 1, Console(file=lines.file))
    plain.changed(None)
    assert lines.file.getvalue() == ""


def test_a_long_table_is_about_the_first_run_that_has_not_ended(tmp_path: Path) -> None:
    entries = entries_of(tmp_path, "abcdefghij")
    for count in range(11):
        for number, entry in enumerate(entries):
            entry.state = State.DONE if number < count else State.WAITING
        shown, hidden = view._window(entries, 4)
        names = "".join(entry.run.label for entry in shown)
        start = min(max(0, count - 2), 6) if count < 10 else 0
        assert (names, hidden) == ("abcdefghij"[start : start + 4], 6)
