"""`python -m janus_pl report RUN... --out DIR`: figures of the paper, and one page of the runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from janus_pl.cli.parser import ToolParser
from janus_pl.errors import Exit, StorageError, UsageError, nearest
from janus_pl.records.families import told_apart
from janus_pl.records.late import CLOCKS
from janus_pl.records.read import read, told, without_collector
from janus_pl.records.run import Run
from janus_pl.records.scans import OPTIONS, candidates, is_shown, scan, varying
from janus_pl.report.figures import SCANS, Figure, draw
from janus_pl.report.page import write
from janus_pl.run.account import check_folder_name
from janus_pl.run.files import check_folder
from janus_pl.run.folder import check_outside
from janus_pl.verify.claims import read_claims
from janus_pl.verify.judge import judge
from janus_pl.verify.lines import to_json

USAGE = "RUN... --out DIR [--by OPTION] [--x epoch|step|eta_t] [--unfinished] [--log]"
PROJECT, RUN_DIR = "janus_pl", "runs"
AXES = {"epoch": "epoch", "step": "trainer/global_step", "eta_t": "eta_t"}


@without_collector()  # which takes a tenth of the time, while little becomes garbage
def main(args: Sequence[str]) -> int:
    """Read runs, draw the figures that they allow, and say why the others are missing.

    Raises:
        UsageError: A path has no runs, no run has ended, or an option is wrong.
        StorageError: A file cannot be written.
    """
    options = _parser().read(args, needed="runs")
    check_outside("--out", options.out)
    check_folder("--out", options.out)
    _check_log(options.log, options.project, options.run_dir)
    _check_names(options.by)
    records = read(options.runs, options.unfinished)
    for line in told(records):
        print(line, file=sys.stderr)
    if not records.runs:
        allowed = "at least one run that has ended, or --unfinished for those under way"
        raise UsageError("RUN", " ".join(options.runs), allowed)
    _check_by(options.by, candidates(records.runs))
    for sentence in told_apart(records.runs):
        print(sentence, file=sys.stderr)
    out = Path(options.out)
    command = f"python -m janus_pl report {shlex.join(args)}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        figures = draw(records.runs, out, AXES[options.x], command, options.by)
    except OSError as error:
        raise StorageError(error.filename or out, error) from error
    found = to_json(judge(read_claims(), records.runs))
    drawn = [figure for figure in figures if figure.key in SCANS and figure.files]
    page = write(records.runs, out / "index.html", found, command, drawn)
    _print(figures, len(records.runs))
    print(f"Figures: {out} (PNG, SVG, the numbers as CSV, a caption each)")
    print(f"Page:    {page} (opens from disk)")
    if options.log:
        from janus_pl.report.publish import publish  # imports W&B, half a second

        place = options.project or PROJECT, options.run_dir or RUN_DIR
        print(f"W&B:     {publish(figures, page, records.runs, *place)}")
    return Exit.DONE


def _check_log(log: bool, project: str | None, run_dir: str | None) -> None:
    """Refuse a place of W&B's run that cannot be, or that is given without `--log`.

    Raises:
        UsageError: The project or the folder cannot be used.
    """
    if not log:
        for field, given in (("--project", project), ("--run_dir", run_dir)):
            if given is not None:
                raise UsageError(field, given, "with --log alone")
        return
    if project is not None:
        check_folder_name("--project", project)
    check_outside("--run_dir", run_dir or RUN_DIR)
    check_folder("--run_dir", run_dir or RUN_DIR)


def _check_names(by: Sequence[str]) -> None:
    """Refuse options of a scan that do not exist, before any run is read.

    Raises:
        UsageError: There are more than two, one twice, or an unknown one.
    """
    for name in by:
        if name not in OPTIONS:
            raise UsageError("--by", name, nearest(name, OPTIONS))
    if len(by) > 2 or len({*by}) < len(by):
        raise UsageError("--by", " ".join(by), "one option, or two that differ")


def _check_by(by: Sequence[str], runs: Sequence[Run]) -> None:
    """Refuse options of a scan that no comparable runs vary.

    Raises:
        UsageError: One is not varied, or the two are not known of the same runs.
    """
    given = varying([run for run in runs if is_shown(run)])
    for name in by:
        if name not in given:
            allowed = (
                f"an option that comparable runs vary: {', '.join(given) or 'these vary none'}"
            )
            raise UsageError("--by", name, allowed)
    for place, name in enumerate(by):
        if not any(scan(runs, [*by[place:], *by[:place]], clock) for clock in CLOCKS):
            other = "".join(each for each in by if each != name)
            allowed = f"one of them: runs that vary {name} have no known {other}"
            raise UsageError("--by", " ".join(by), allowed)


def _print(figures: Sequence[Figure], count: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title="1 run" if count == 1 else f"{count} runs", show_edge=False)
    table.add_column("figure")
    table.add_column("drawn, or why not", overflow="fold")
    for figure in figures:
        said = f"[dim]{_plain(figure.missing)}[/]" if figure.missing else f"{figure.key}.png"
        said = f"as {figure.like}.png, from the same runs" if figure.like else said
        table.add_row(_plain(figure.title), said)
    console.print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _parser() -> ToolParser:
    parser = ToolParser(
        "report",
        USAGE,
        "Every figure of the paper that the runs allow, each with its numbers and a"
        " caption, and index.html, an interactive page of all runs that opens from disk.",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="folder of a run or of many, or ENTITY/PROJECT/GROUP"
    )
    parser.add_argument("--out", default="report", metavar="DIR", help="where to (default: report)")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="OPTION",
        help="figures of a scan, scan_rank, scan_noise and scan_map, against an option:"
        f" {', '.join(OPTIONS)}; a second --by is a line for each of its values",
    )
    parser.add_argument(
        "--x", choices=AXES, default="epoch", help="x axis of time courses (default: epoch)"
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="take runs that have not ended, too"
    )
    parser.add_argument(
        "--log", action="store_true", help="put the figures into a W&B run of job type report"
    )
    parser.add_argument("--project", help=f"W&B project for --log (default: {PROJECT})")
    parser.add_argument("--run_dir", help=f"folder of runs for --log (default: {RUN_DIR})")
    return parser
