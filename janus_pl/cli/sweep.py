"""`python -m janus_pl sweep FILE`: the runs of a sweep file on this machine."""

from __future__ import annotations

import json
import re
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from janus_pl.cli.checks import check_run_dir
from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.cli.parser import ToolParser
from janus_pl.data.fingerprint import DataFacts
from janus_pl.errors import Exit, UsageError, check_integer, is_integer
from janus_pl.run.folder import CONFIG
from janus_pl.run.service import may_begin
from janus_pl.run.shipped import CONFIGS
from janus_pl.sweep import ahead
from janus_pl.sweep.file import SweepFile, load, points
from janus_pl.sweep.launchers import FIRST, Launcher, Processes
from janus_pl.sweep.plan import PlannedRun, check_data, plan, shown, varied_names
from janus_pl.sweep.resources import cores, default_jobs, environment_of, gpus
from janus_pl.sweep.scheduler import Scheduler, StopRequest, unfinished
from janus_pl.sweep.states import Entry, State, exit_code, look
from janus_pl.sweep.view import View, epoch_text, state_text, table_of

USAGE = (
    "FILE [--jobs N | --jobs-per-gpu K] [--dry-run] [--run_dir DIR] [--count N] [--seed N]"
    " [--allow_data_change] [-- OPTION...]"
)
# Options of the data that decide which samples are in a batch, and when.
OF_ORDER = ("batch_size", "micro_batch_size", "order", "seed")
# Their classes in the runs' configs are imported once for all; those of others in each run.
PACKAGES = ("janus_pl", "callbacks", "torch", "lightning")
WIDTH = 140  # of a table if the output is not a terminal


def main(args: Sequence[str]) -> int:
    """Run the runs of a sweep file, except those that have ended already.

    Returns:
        The exit code: 0 if all are done, 3 if some diverged, 5 if a theorem broke in some, 1 if
        some failed; 128 + signal if a signal stopped the sweep.

    Raises:
        UsageError: The file or one of its runs is wrong; nothing is started then.
    """
    end = list(args).index("--") if "--" in args else len(args)
    options, more = _options(args[:end]), args[end + 1 :]
    sweep = load(options.sweep, (CONFIGS / "sweeps", CONFIGS))
    if options.seed is not None and sweep.method == "grid":
        raise UsageError("--seed", options.seed, "with method: random alone; a grid draws nothing")
    values = points(sweep, options.count, options.seed or 0)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    moved = [] if options.run_dir is None else ["--run_dir", options.run_dir]
    runs = _planned(sweep, values, [*more, *moved], options)
    if len(runs) < len(values):
        _say(console, f"{len(values) - len(runs)} of {len(values)} runs have another's numbers.")
    entries = [look(run) for run in runs]
    devices, jobs = _share(runs, options.jobs_per_gpu)
    # Count finished runs too: jobs decide the threads of a run, and threads decide its numbers.
    jobs = min(options.jobs or jobs, len(runs))
    if options.dry_run:
        _print_plan(console, entries)
        return Exit.DONE
    return _run(
        console, entries, jobs, devices, shlex.join(["python", "-m", "janus_pl", "sweep", *args])
    )


class Resolver:
    """A function that resolves command lines, with one parser for all of them.

    Args:
        fetch: Whether data that are missing are downloaded; if not, they are not known.
    """

    def __init__(self, fetch: bool = False) -> None:
        self.fetch = fetch
        self._reader: ConfigReader | None = None
        self._seen: dict[str, DataFacts | None] = {}

    def __call__(self, args: Sequence[str]) -> dict[str, Any]:
        first = self._reader is None
        self._reader = self._reader or ConfigReader(args)
        config = self._reader.resolve(args)
        if first:  # the other runs have its classes, or `_launcher` tells more
            ahead.rehearse(*_in_common([config]))
        return config

    def data_of(self, config: Mapping[str, Any]) -> str | None:
        """Return the fingerprint of the data of the config that was resolved last.

        It is without what the seed decides, and None of somebody else's data. Data are read once
        for all runs that share them.

        Raises:
            UsageError: The data cannot be read, and are to be fetched.
        """
        facts = self._facts(config)
        return None if facts is None else facts.pool

    def samples_of(self, config: Mapping[str, Any]) -> int | None:
        """Return the number of training samples of the config that was resolved last.

        Data that are not there have as many as `data.num_train` says; None if it says nothing.

        Raises:
            UsageError: The data cannot be read, and are to be fetched.
        """
        if (facts := self._facts(config)) is not None and "train" in facts.samples:
            return sum(facts.samples["train"].values())
        number = ((config.get("data") or {}).get("init_args") or {}).get("num_train")
        return number if is_integer(number, 1) else None

    def _facts(self, config: Mapping[str, Any]) -> DataFacts | None:
        given = config["data"]["init_args"] if config.get("data") else {}
        kept = {k: v for k, v in (given or {}).items() if k not in OF_ORDER}
        key = json.dumps([(config.get("data") or {}).get("class_path"), kept], sort_keys=True)
        if key not in self._seen:
            assert self._reader is not None
            self._seen[key] = self._reader.data_facts(self.fetch)
        return self._seen[key]


def _planned(
    sweep: SweepFile, values: Sequence[Mapping[str, Any]], more: Sequence[str], options: Any
) -> list[PlannedRun]:
    """Plan the runs and check their data; the data are let go of with the resolver."""
    resolve = Resolver(fetch=not options.dry_run)
    runs = plan(sweep, values, more, resolve, resolve.data_of, resolve.samples_of)
    check_data(runs, options.allow_data_change)
    for folder in dict.fromkeys(str(run.config["run_dir"]) for run in runs):
        check_run_dir(folder)
    return runs


def _run(console: Console, entries: list[Entry], jobs: int, devices: list[str], again: str) -> int:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a sweep handles signals, which Python has in the main thread alone")
    _say(console, _start_text(entries, jobs, devices))
    view = View(entries, jobs, console)
    with StopRequest() as stop, view, _launcher(entries, jobs) as launcher:
        Scheduler(entries, jobs, devices, view.changed, stop, launcher).run()
    console.print(table_of(entries))
    for entry in entries:
        if entry.note:
            _say(console, f"{entry.state}: {entry.run.label}: {entry.note}")
            _say(console, f"  output: {entry.run.log}")
    _say(console, _end_text(entries))
    for text in next_commands(entries):
        _say(console, text)
    if left := unfinished(entries):
        failed = all(entry.state is State.FAILED for entry in left)
        what = "tries the failed ones again" if failed else "goes on from here"
        _say(console, f"The same command {what}: {again}")
    return 128 + stop.signum if stop.signum else exit_code(entries)


def _launcher(entries: Sequence[Entry], jobs: int) -> Launcher:
    """Return the launcher of the runs; if none is to be made, one that costs nothing."""
    if not unfinished(entries) and all(e.state is not State.ELSEWHERE for e in entries):
        return Processes()
    return ahead.take(jobs, *_in_common([entry.run.config for entry in entries]))


def _in_common(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[str, Any] | None, str | None]:
    """Return what is done once for runs with these configs, or first in each, as `take` has it."""
    classes = [name for config in configs for name in _class_paths(config)]
    names = [name for name in dict.fromkeys(classes) if name.split(".")[0] in PACKAGES]
    single = all(may_begin(config["trainer"]) for config in configs)
    return names, _rehearsed(configs[0]), FIRST if single else None


def _rehearsed(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the part of a config that names classes; None if some are not imported for all."""
    if any(name.split(".")[0] not in PACKAGES for name in _class_paths(config)):
        return None
    named = {part: config[part] for part in ("model", "data") if config.get(part)}
    return {**named, "trainer": {"callbacks": config["trainer"]["callbacks"]}}


def _class_paths(config: Any) -> Iterator[str]:
    """Yield the class paths anywhere in a config."""
    if isinstance(config, Mapping):
        if isinstance(path := config.get("class_path"), str):
            yield path
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _class_paths(part)


def _share(runs: Sequence[PlannedRun], per_gpu: int | None = None) -> tuple[list[str], int]:
    """Return the GPUs to hand out, and the default number of runs at a time.

    If a run asks for several devices, each run gets all devices, and the default is one at a time.

    Raises:
        UsageError: Several runs are to share a GPU, and none is handed out.
    """
    options = [run.config["trainer"] for run in runs]
    several = any(trainer["devices"] not in ("auto", "1", 1) for trainer in options)
    wanted = not several and any(trainer["accelerator"] != "cpu" for trainer in options)
    devices = gpus() if wanted else []
    if per_gpu is not None and not devices:
        why = "the runs have several devices each" if several else "the runs have no GPU here"
        raise UsageError("--jobs-per-gpu", per_gpu, f"--jobs N, for {why}")
    return devices, 1 if several else default_jobs(len(devices), cores(), per_gpu or 1)


def _start_text(entries: Sequence[Entry], jobs: int, devices: Sequence[str]) -> str:
    told = environment_of(0, jobs, [])
    threads = told.get("OMP_NUM_THREADS", "as OMP_NUM_THREADS has it")
    each = f"threads each: {threads}"
    if len(devices) > 1:
        shared = -(-jobs // len(devices))
        number = "one each" if shared == 1 else f"up to {shared} runs on each"
        each += f"; GPUs: {', '.join(devices)}, {number}"
    before = Counter(
        state_text(e) for e in entries if e.before or e.resumed or e.state is State.ELSEWHERE
    )
    found = "".join(f", {number} {text}" for text, number in before.items())
    return f"{_runs(entries)}{found}; {jobs} at a time, {each}"


def _runs(entries: Sequence[Entry]) -> str:
    return "1 run" if len(entries) == 1 else f"{len(entries)} runs"


def _end_text(entries: Sequence[Entry]) -> str:
    counts = Counter(entry.state for entry in entries)
    text = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    folders = dict.fromkeys(str(entry.run.folder.parent) for entry in entries)
    return f"{text}. Runs lie in {', '.join(folders)}"


def next_commands(entries: Sequence[Entry]) -> list[str]:
    """Return the commands that look at the runs that are done, a line each; none without one.

    A folder that holds other runs, too, is not named as a whole, but its runs are.
    """
    done = [entry.run.folder for entry in entries if entry.state is State.DONE]
    if not done:
        return []
    named: list[str] = []
    for parent in dict.fromkeys(folder.parent for folder in done):
        own = [folder for folder in done if folder.parent == parent]
        of_sweep = {entry.run.folder for entry in entries}
        others = {config.parent for config in parent.glob(f"*/{CONFIG}")} - of_sweep
        named += [str(folder) for folder in own] if others else [str(parent)]
    runs = shlex.join(named)
    return [
        f"Figures:  python -m janus_pl report {runs} --out report",
        f"Verdicts: python -m janus_pl verify {runs}",
    ]


def _print_plan(console: Console, entries: Sequence[Entry]) -> None:
    values = [entry.run.values for entry in entries]
    varied = varied_names(values)
    table = Table()
    table.add_column("id", no_wrap=True)
    for name in varied:
        table.add_column(name, overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("epoch", no_wrap=True, justify="right")
    for entry in entries:
        cells = [shown(entry.run.values[name]).replace("[", r"\[") for name in varied]
        state = "new" if state_text(entry) == "waiting" else state_text(entry)
        table.add_row(entry.run.id, *cells, state, epoch_text(entry))
    console.print(table)
    if fixed := [f"{k}={shown(v)}" for k, v in values[0].items() if k not in varied]:
        _say(console, f"The same in all: {', '.join(fixed)}")
    left = len(unfinished(entries))
    _say(console, f"{_runs(entries)}, {left} to be made; nothing was started.")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _options(args: Sequence[str]) -> Any:
    for name in args:
        if re.match(
            r"--(config|name|group|tags|project|data|model|trainer|seed_everything)\b", name
        ):
            allowed = f"options of `fit` behind --, as `sweep FILE -- {name} ...`"
            raise UsageError("sweep", name, allowed)
    options = _parser().read(args, needed="sweep")
    for name in ("jobs", "jobs_per_gpu", "count"):
        if (value := getattr(options, name)) is not None:
            check_integer(f"--{name.replace('_', '-')}", value, 1)
    if options.jobs is not None and options.jobs_per_gpu is not None:
        given = options.jobs_per_gpu
        raise UsageError("--jobs-per-gpu", given, "one of --jobs, for all runs, and --jobs-per-gpu")
    if options.seed is not None:
        check_integer("--seed", options.seed, 0)
    return options


def _parser() -> ToolParser:
    parser = ToolParser(
        "sweep",
        USAGE,
        "The runs of a W&B sweep file (method grid or random) on this machine, without"
        " an account. What is done is skipped and what was interrupted goes on, so that the same"
        " command finishes a sweep that was stopped; with the same --jobs the results are bitwise"
        " those of one that was not.",
        epilog="Options of `fit` after -- hold for every run and win over the file, as in"
        " `sweep FILE -- --data.root DIR`. Runs lie in RUN_DIR/PROJECT/ID, their output in"
        " RUN_DIR/PROJECT/sweeps/NAME/ID.log."
        " Exit codes: 0 all done, 1 some failed, 2 usage, 3 some diverged, 5 a theorem broke in"
        " some; 128 + signal stopped by a signal, after checkpoints: 129 SIGHUP, 130 SIGINT"
        " (Ctrl-C; a second one kills), 143 SIGTERM.",
    )
    parser.add_argument(
        "sweep", nargs="?", metavar="FILE", help="a path, or a name in configs/sweeps"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs side by side, which share the cores; default: one a GPU, or one for two cores",
    )
    parser.add_argument(
        "--jobs-per-gpu",
        type=int,
        metavar="K",
        help="runs side by side on each GPU, in place of one; small networks leave room for more,"
        " and CUDA's MPS (nvidia-cuda-mps-control -d) lets them calculate at the same time",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the runs and their states, start nothing"
    )
    parser.add_argument("--run_dir", metavar="DIR", help="folder of runs, in place of the config's")
    parser.add_argument(
        "--count", type=int, metavar="N", help="runs of a random sweep, in place of run_cap"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of a random sweep (default: 0)")
    parser.add_argument(
        "--allow_data_change",
        action="store_true",
        help="train runs again whose data have changed, in new folders beside the old ones",
    )
    return parser
