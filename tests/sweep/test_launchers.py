"""The forker, without training: what a forked run is, and what becomes of it without a forker."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep.driving import wait_for

from janus_pl.cli import sweep as tool
from janus_pl.errors import UsageError
from janus_pl.sweep import ahead, launchers
from janus_pl.sweep.launchers import SHOWN, Forks, Processes, Running
from janus_pl.sweep.resources import THREADS

# A program that says what it is; its module is found in the working directory.
PROGRAM = """
import json, os, signal, sys, tempfile, threading, __main__
if sys.argv[1:2] == ["wait"]:
    open("waits", "w").close()
    signal.pause()
print(json.dumps({
    "argv": sys.argv[1:], "program": os.path.basename(sys.argv[0]), "name": __name__,
    "main": __main__.__spec__.name, "own": os.environ.get("OWN"), "home": os.environ.get("HOME"),
    "session": os.getsid(0) == os.getpid() == os.getpgrp(), "parent": os.getppid(),
    "folder": os.getcwd(), "path": sys.path[0], "threads": threading.active_count(),
    "stdin": sys.stdin.read(), "mask": [int(each) for each in signal.pthread_sigmask(0, [])],
    "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "open": sorted(os.listdir("/proc/self/fd"))[:3] + [len(os.listdir("/proc/self/fd"))],
    "made": MADE.name if (MADE := getattr(sys.modules.get("making"), "FOLDER", None)) else None,
    "there": bool(MADE) and os.path.isdir(MADE.name),
}))
print("on the other stream", file=sys.stderr)
sys.exit(7 if sys.argv[1:2] == ["fails"] else 0)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "making.py").write_text("import tempfile\nFOLDER = tempfile.TemporaryDirectory()\n")
    (tmp_path / "spinning.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (tmp_path / "leaving.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.chdir(tmp_path)
    for name, value in SHOWN.items():  # as a sweep has it, so that the two streams are in order
        monkeypatch.setenv(name, value)
    if sys.flags.safe_path:  # which leaves the working directory out
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launchers, "PROGRAM", "program")
    monkeypatch.setattr(launchers, "REHEARSAL", "")
    return tmp_path


def ready(launcher: Any) -> Any:
    wait_for(launcher.is_ready)
    return launcher


def code_of(run: Running) -> int:
    wait_for(lambda: run.poll() is not None)
    code = run.poll()
    assert code is not None
    return code


def said(folder: Path, launcher: Any, *args: str, name: str = "log") -> dict[str, Any]:
    """What a run says of itself."""
    run = launcher.start(args, {**os.environ, "OWN": name}, folder / name)
    assert code_of(run) == (7 if args[:1] == ("fails",) else 0), (folder / name).read_text()
    first, second = (folder / name).read_text().splitlines()
    assert second == "on the other stream"
    return dict(json.loads(first))


def test_a_forked_run_is_as_one_with_imports_of_its_own(folder: Path) -> None:
    with ready(Forks(os.environ, ["json"])) as forks:
        forked = said(folder, forks, "fails", "--a=1", name="forked")
    apart = said(folder, Processes(), "fails", "--a=1", name="apart")
    assert apart["session"] and apart["int"] and apart["term"] and apart["threads"] == 1
    assert apart["parent"] == os.getpid(), "the sweep is the parent of both"
    assert (forked.pop("own"), apart.pop("own")) == ("forked", "apart")
    assert forked == apart


def test_output_is_appended_and_variables_of_one_run_are_not_the_next_ones(folder: Path) -> None:
    with ready(Forks(os.environ, [])) as forks:
        for value in ("1", None):
            environment = {"PATH": os.environ["PATH"], **({"OWN": value} if value else {})}
            assert code_of(forks.start([], environment, folder / "log")) == 0
    first, _, second, _ = (folder / "log").read_text().splitlines()
    assert (json.loads(first)["own"], json.loads(second)["own"]) == ("1", None)
    assert json.loads(second)["home"] is None


def test_each_run_has_a_temporary_folder_of_its_own_and_the_first_to_end_takes_none_away(
    folder: Path,
) -> None:
    with ready(Forks(os.environ, ["making"])) as forks:
        made = [said(folder, forks, name=name) for name in ("one", "two")]
    assert [each["there"] for each in made] == [True, True]
    assert made[0]["made"] != made[1]["made"]
    assert not any(os.path.exists(each["made"]) for each in made), "and it is removed at the end"


def test_each_run_calls_first_what_the_last_preparation_says(folder: Path) -> None:
    (folder / "first.py").write_text(
        "import os\ndef call():\n    os.environ['OWN'] += ' after the call'\n"
        "def wrong():\n    raise SystemExit(3)\n"
    )
    with ready(Forks(os.environ, [])) as forks:
        assert said(folder, forks, name="none")["own"] == "none"
        forks.prepare([], None, "first.call")
        assert said(folder, ready(forks), name="one")["own"] == "one after the call"
        assert said(folder, forks, name="two")["own"] == "two after the call"
        forks.prepare([], None, "first.wrong")
        assert said(folder, ready(forks), name="three")["own"] == "three"


def test_what_is_prepared_already_is_told_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    say = Forks._say

    def spied(forks: Forks, message: Any) -> None:
        told.append(message)
        say(forks, message)

    monkeypatch.setattr(Forks, "_say", spied)
    with ready(Forks(os.environ, ["json"])) as forks:
        forks.prepare(["json"])
        assert len(told) == 1 and forks.is_ready()
        forks.prepare(["json"], {"model": None})
        assert len(told) == 2 and forks._importing == 1
        ready(forks)


def test_a_folder_of_a_later_import_is_each_runs_own_as_well(folder: Path) -> None:
    with ready(Forks(os.environ, ["json"])) as forks:
        forks.prepare(["making"])
        made = [said(folder, ready(forks), name=name)["made"] for name in ("one", "two")]
        forks.prepare(["json", "making"])
        made.append(said(folder, ready(forks), name="three")["made"])
    assert len(set(made)) == 3
    assert not any(os.path.exists(each) for each in made)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit()", 0),
        ("sys.exit(5)", 5),
        ("sys.exit(-1)", 255),
        ("sys.exit(True)", 1),
        ("sys.exit('said last')", 1),
        ("raise KeyError('said last')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os._exit(9)", 9),
        ("sys.stdout.close()", 0),
    ],
)
def test_it_ends_as_a_process_does(ending: str, code: int, folder: Path) -> None:
    """All that was registered for the end is done, threads are waited for, and all is written."""
    (folder / "ends.py").write_text(
        "import atexit, os, sys, tempfile, threading\n"
        "made = tempfile.TemporaryDirectory()\n"
        "atexit.register(lambda: print('registered', os.path.isdir(made.name), file=sys.stderr))\n"
        "go = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(), open('waited', 'a').close())).start()\n"
        "atexit.register(lambda: None)\n"
        "print('x' * 100000, flush=False)\n"
        f"go.set()\n{ending}\n"
    )
    launchers.PROGRAM = "ends"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    said: dict[str, str] = {}
    with ready(Forks(environment, ["tempfile"])) as forks:
        for name, launcher in {"forked": forks, "apart": Processes()}.items():
            (folder / "waited").unlink(missing_ok=True)
            assert code_of(launcher.start([], environment, folder / name)) == code
            text = (folder / name).read_text()
            said[name] = re.sub(r"^  File.*|^    .*|^\n", "", text, flags=re.M)
            assert (folder / "waited").exists() or "_exit" in ending
    lines = {name: sorted(filter(None, text.splitlines())) for name, text in said.items()}
    assert lines["forked"] == lines["apart"]
    if "_exit" not in ending:
        assert "x" * 100000 in said["forked"] and "registered True" in said["forked"]


@pytest.mark.parametrize("name", ["spinning", "leaving"])
def test_an_import_that_forbids_a_fork_leaves_processes(name: str, folder: Path) -> None:
    """One has started a thread; one has ended the forker."""
    with ready(Forks(os.environ, [name])) as forks:
        assert said(folder, forks)["argv"] == []
        other = forks.start([], os.environ, folder / "other")
        assert isinstance(other, launchers.subprocess.Popen)
        assert code_of(other) == 0


def test_an_import_that_fails_is_the_business_of_the_run_that_needs_it(folder: Path) -> None:
    with ready(Forks(os.environ, ["nowhere.Nothing", "json.nothing", "1 / 0"])) as forks:
        said(folder, forks)
        other = forks.start([], os.environ, folder / "other")
        assert isinstance(other, launchers.Fork)
        assert code_of(other) == 0


def test_a_forker_that_is_killed_takes_no_run_with_it_and_the_next_one_is_a_process(
    folder: Path,
) -> None:
    with ready(Forks(os.environ, [])) as forks:
        run = forks.start(["wait"], os.environ, folder / "log")
        wait_for((folder / "waits").exists)
        os.kill(forks._process.pid, signal.SIGKILL)
        forks._process.wait()
        assert run.poll() is None
        assert said(folder, forks, name="other")["parent"] == os.getpid()
        run.send_signal(signal.SIGTERM)
        assert code_of(run) == -signal.SIGTERM
        run.send_signal(signal.SIGTERM)  # it has ended, and its id may be somebody else's


def test_the_end_of_the_launcher_is_not_that_of_its_runs(folder: Path) -> None:
    with ready(Forks(os.environ, [])) as forks:
        run = forks.start(["wait"], os.environ, folder / "log")
    wait_for((folder / "waits").exists)
    assert forks._process.poll() is not None
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    assert code_of(run) == -signal.SIGKILL


def test_whoever_has_waited_for_the_run_is_no_harm(folder: Path) -> None:
    with ready(Forks(os.environ, [])) as forks:
        run = forks.start([], os.environ, folder / "log")
        os.waitpid(run.pid, 0)
        assert run.poll() == 1, "its folder says how it ended"


def test_a_log_that_cannot_be_written_is_said_before_the_run(folder: Path) -> None:
    with ready(Forks(os.environ, [])) as forks, pytest.raises(OSError):
        forks.start([], os.environ, folder / "nowhere" / "log")


@pytest.mark.parametrize("subreaper", [False, True])
def test_this_process_is_left_as_it_was(subreaper: bool, folder: Path) -> None:
    from janus_pl.sweep.launch import is_subreaper, make_subreaper

    make_subreaper(subreaper)
    try:
        with ready(Forks(os.environ, [])) as forks:
            said(folder, forks)
            assert is_subreaper() is subreaper
    finally:
        make_subreaper(False)


# Ahead of the sweep


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The forkers, in the order in which they were started; no real one is."""
    made: list[Any] = []

    class Double:
        def __init__(self, environment: Any, names: Any, *_: Any) -> None:
            self.environment, self.names, self.ended = environment, [*names], False
            made.append(self)

        def prepare(self, names: Any, config: Any = None, first: Any = None) -> None:
            self.names += names
            self.config, self.first = config, first

        def __exit__(self, *_: object) -> None:
            self.ended = True

    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ahead, "Forks", Double)
    monkeypatch.setattr(ahead, "can_fork", lambda: True)
    monkeypatch.setattr(ahead, "cores", lambda: 8)
    monkeypatch.setattr(ahead.glob, "glob", lambda pattern: [])
    monkeypatch.setattr("janus_pl.sweep.resources.cores", lambda: 8)
    yield made
    ahead._begun.clear()


@pytest.mark.parametrize(
    ("args", "jobs"), [([], 4), (["--jobs", "2"], 2), (["--jobs=8"], 8), (["--", "--jobs=8"], 4)]
)
def test_the_one_that_was_begun_is_taken_if_the_threads_are_right(
    args: list[str], jobs: int, begun: list[Any]
) -> None:
    ahead.begin(["a.yaml", *args])
    taken: Any = ahead.take(jobs, ["a.B"], {"model": "a.B"}, "a.first")
    assert taken is begun[0] and (taken.config, taken.first) == ({"model": "a.B"}, "a.first")
    assert begun[0].environment["OMP_NUM_THREADS"] == str(8 // jobs)
    assert begun[0].names == [*launchers.IMPORTED, "a.B"] and not begun[0].ended


def test_another_one_is_started_if_they_are_wrong(begun: list[Any]) -> None:
    ahead.begin(["a.yaml"])
    taken: Any = ahead.take(1, ["a.B"], {"model": "a.B"}, "a.first")
    assert taken is begun[1] and (taken.config, taken.first) == ({"model": "a.B"}, "a.first")
    assert begun[0].ended and not begun[1].ended
    assert begun[1].environment["OMP_NUM_THREADS"] == "8"
    assert begun[1].names == [*launchers.IMPORTED, "a.B"]
    again: Any = ahead.take(1, [])
    assert again is begun[2], "it is taken once"


def test_the_one_that_was_begun_prepares_beside_the_plan(begun: list[Any]) -> None:
    ahead.rehearse(["a.B"], None, None)  # by a sweep that has begun none
    ahead.begin(["a.yaml"])
    ahead.rehearse(["a.B"], {"model": "a.B"}, "a.first")
    (forker,) = begun
    assert forker.names == [*launchers.IMPORTED, "a.B"]
    assert (forker.config, forker.first) == ({"model": "a.B"}, "a.first")


def test_an_import_ahead_collects_no_garbage_and_nothing_later_looks_through_it(
    begun: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[bool] = []
    monkeypatch.setattr(ahead, "import_all", lambda names: during.append(gc.isenabled()))
    frozen = gc.get_freeze_count()
    try:
        ahead.begin(["a.yaml"])
        assert during == [False] and gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_one_that_was_begun_for_nothing_ends_with_the_sweep(begun: list[Any]) -> None:
    ahead.begin(["a.yaml"])
    ahead._end_unused()
    assert begun[0].ended
    ahead.begin(["a.yaml"])
    ahead.take(4, [])
    ahead._end_unused()
    assert not begun[1].ended, "its runs are the launcher's"


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["a.yaml", "--dry-run"]])
def test_nothing_is_begun_for_a_sweep_that_starts_nothing(
    args: list[str], begun: list[Any]
) -> None:
    ahead.begin(args)
    assert begun == []


def test_with_gpus_the_sweep_looks_first(begun: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.glob, "glob", lambda pattern: ["/dev/nvidia0"])
    ahead.begin(["a.yaml"])
    assert begun == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ahead.begin(["a.yaml"])
    assert len(begun) == 1


def test_elsewhere_each_run_is_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for system in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", system)
        ahead.begin(["a.yaml"])
        assert isinstance(ahead.take(1, []), Processes)
    assert ahead._begun == []


# A forker that is a fork of the sweep

SWEEP = """
import json, os, select, sys
from pathlib import Path
from janus_pl.sweep import ahead, launchers
launchers.PROGRAM, launchers.REHEARSAL, ahead.IMPORTED = "program", "", ("making", *sys.argv[1:])
ahead.cores = lambda: 2
ahead.begin(["a.yaml"])
print("the sweep goes on")
assert "OMP_NUM_THREADS" not in os.environ
forks = ahead.take(1, ["json"])
while not forks.is_ready():
    forks.wait([], 60)
told = {"forker": type(forks._process).__name__, "sweep": os.getpid()}
for name, launcher in (("forked", forks), ("apart", launchers.Processes())):
    run = launcher.start(["fails"], {**os.environ, **launchers.SHOWN}, Path(name))
    while run.poll() is None:
        select.select([], [], [], 0.01)
    told[name] = run.poll()
told["children"] = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
forks.__exit__()
told["ended"] = forks._process.poll()
print(json.dumps(told))
"""


def run_sweep(folder: Path, *imports: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a sweep of two runs says of its forker, and what the runs say."""
    environment = {k: v for k, v in os.environ.items() if k not in (*THREADS, *SHOWN)}
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, *imports],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = done.stdout.splitlines()
    assert (first, done.stderr) == ("the sweep goes on", "")
    told = dict(json.loads(last))
    assert (told["forked"], told["apart"]) == (7, 7)
    runs = []
    for name in ("forked", "apart"):
        line, second = (folder / name).read_text().splitlines()
        assert second == "on the other stream", "in order"
        runs.append(dict(json.loads(line)))
        assert runs[-1].pop("parent") == told["sweep"]
    return told, runs


def test_a_run_of_a_fork_of_the_sweep_is_as_one_with_imports_of_its_own(folder: Path) -> None:
    told, (forked, apart) = run_sweep(folder)
    assert told["forker"] == "Forker"
    assert told["ended"] in (0, -signal.SIGKILL), "it ends once nobody asks, or is killed before"
    assert len(told["children"]) == 1, "the forker; no run is left over"
    assert forked.pop("there") and not os.path.exists(forked.pop("made"))
    assert not apart.pop("there") and apart.pop("made") is None
    # The paths of `python -c` and `python -m`.
    assert forked.pop("path") == (str(folder) if sys.flags.safe_path else "")
    assert apart.pop("path") == str(folder)
    assert forked == apart


def test_a_sweep_that_has_started_threads_is_not_forked(folder: Path) -> None:
    told, (forked, apart) = run_sweep(folder, "spinning")
    assert told["forker"] == "Popen"
    assert forked == apart


# Several runs on a GPU


def planned(**trainer: Any) -> Any:
    from types import SimpleNamespace

    options = {"devices": "auto", "accelerator": "auto", **trainer}
    return [SimpleNamespace(config={"trainer": options})]


def test_so_many_runs_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "gpus", lambda: ["3", "5"])
    assert tool._share(planned(), None) == (["3", "5"], 2)
    assert tool._share(planned(), 3) == (["3", "5"], 6)
    places = [tool.environment_of(slot, 6, ["3", "5"])["CUDA_VISIBLE_DEVICES"] for slot in range(6)]
    assert places == ["3", "5"] * 3


@pytest.mark.parametrize("trainer", [{"accelerator": "cpu"}, {"devices": 2}, {}])
def test_without_a_gpu_for_each_run_it_is_refused(
    trainer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "gpus", lambda: ["0"] if trainer else [])
    with pytest.raises(UsageError, match=r"--jobs-per-gpu: got 2, allowed: --jobs N, for"):
        tool._share(planned(**trainer), 2)
    tool._share(planned(**trainer), None)


# Waiting for a run's end
FOREVER = 60.0  # seconds, in which a test does not end


def test_the_end_of_any_run_ends_the_wait_for_it(folder: Path) -> None:
    with ready(Forks(os.environ, [])) as forks:
        runs = [forks.start(["wait"], os.environ, folder / name) for name in ("one", "two")]
        begin = time.monotonic()
        forks.wait(runs, 0.05)
        assert time.monotonic() - begin >= 0.05, "all go on"
        open_before = len(os.listdir("/proc/self/fd"))
        runs[1].send_signal(signal.SIGKILL)
        forks.wait(runs, FOREVER)
        assert runs[1].poll() == -signal.SIGKILL and runs[0].poll() is None
        assert time.monotonic() - begin < FOREVER / 2
        assert len(os.listdir("/proc/self/fd")) == open_before
        runs[0].send_signal(signal.SIGKILL)
        assert code_of(runs[0]) == -signal.SIGKILL


def test_a_launcher_that_becomes_ready_ends_the_wait_for_it(folder: Path) -> None:
    begin = time.monotonic()
    with Forks(os.environ, []) as forks:
        while not forks.is_ready():
            forks.wait([], FOREVER)
        assert time.monotonic() - begin < FOREVER / 2
        forks.wait([], 0.01)  # there is no more news, which is no error


def test_replies_that_came_together_are_read_one_by_one() -> None:
    """Else the second one waits in a buffer, where no look at the socket finds it."""

    class Nobody:
        def kill(self) -> None: ...

        def wait(self) -> None: ...

    def start(environment: Any, ours: Any, theirs: Any) -> Any:
        theirs.sendall(b'{"ready": true}\n' * 2)
        kept.append(theirs.dup())
        return Nobody()

    kept: list[Any] = []
    with Forks({}, ["json"], start) as forks:
        forks.prepare(["json"])
        assert forks.is_ready()
    kept[0].close()


def test_where_the_system_tells_no_ends_time_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready(Forks(os.environ, [])) as forks:
        run = forks.start(["wait"], os.environ, folder / "log")
        run.send_signal(signal.SIGKILL)
        assert code_of(run) == -signal.SIGKILL
        slept: list[float] = []
        monkeypatch.setattr(launchers.time, "sleep", slept.append)
        forks.wait([run], 0.25)  # there is no such process any more
        monkeypatch.delattr(os, "pidfd_open")
        forks.wait([run], 0.5)
        assert slept == [0.25, 0.5]
