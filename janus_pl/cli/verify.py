"""`python -m janus_pl verify RUN...`: the paper's predictions, from records alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from janus_pl.cli.parser import ToolParser
from janus_pl.errors import Exit, UsageError
from janus_pl.records.families import is_untrained, told_apart, why_untrained
from janus_pl.records.read import read
from janus_pl.verify.table import verdicts
from janus_pl.verify.verdicts import Outcome, Verdict

USAGE = "RUN... [--unfinished] [--json FILE], a RUN is a folder"
COLOURS = {Outcome.HOLDS: "green", Outcome.FAILS: "red", Outcome.UNTESTABLE: "dim"}


def main(args: Sequence[str]) -> int:
    """Read runs, print the table, and say whether a theorem is violated.

    Returns:
        BROKEN_THEOREM if a theorem fails, else DONE, whatever the verdicts of predictions are.

    Raises:
        UsageError: A path has no runs, or the file cannot be written.
    """
    options = _parser().read(args, needed="runs")
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        raise UsageError("--json", options.json, "a file in an existing folder, or -")
    records = read(options.runs, options.unfinished)
    for path, reason in records.skipped:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    found = verdicts(records.runs)
    if options.json != "-":
        _print(found, len(records.runs))
    if options.json is not None:
        _write(options.json, found)
    for sentence in told_apart(records.runs):
        print(sentence, file=sys.stderr)
    for run in filter(is_untrained, records.runs):
        why = why_untrained(run)
        print(f"left out of the predictions: {run.name} ({run.id}): {why}", file=sys.stderr)
    return Exit.BROKEN_THEOREM if any(v.violated for v in found) else Exit.DONE


def _print(found: Sequence[Verdict], count: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    runs = "1 run" if count == 1 else f"{count} runs"
    table = Table(title=f"Predictions of the paper in {runs}", show_lines=True)
    table.add_column("prediction", width=14)
    table.add_column("claim", ratio=3)
    table.add_column("in the paper", width=14)
    table.add_column("measured", ratio=5)
    table.add_column("verdict", width=8)
    for verdict in found:
        measured = verdict.measured or f"missing: {verdict.missing}"
        said = f"[{COLOURS[verdict.verdict]}]{verdict.verdict}[/]"
        cells = (verdict.prediction, verdict.claim, verdict.source, measured)
        table.add_row(*(cell.replace("[", r"\[") for cell in cells), said)
    console.print(table)
    counts = {o: sum(v.verdict is o for v in found) for o in Outcome}
    console.print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    if broken := [verdict.prediction for verdict in found if verdict.violated]:
        console.print(f"A theorem is violated: {', '.join(dict.fromkeys(broken))}")


def _write(target: str, found: Sequence[Verdict]) -> None:
    text = json.dumps([verdict.to_json() for verdict in found], indent=2, allow_nan=False) + "\n"
    if target == "-":
        print(text, end="")
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--json", target, f"a file to write to ({error.strerror})") from error


def _parser() -> ToolParser:
    parser = ToolParser(
        "verify",
        USAGE,
        "Every prediction of the paper against run records: what was measured, and"
        " whether it holds. Exit code 5 only where a theorem is violated.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or of many")
    parser.add_argument(
        "--unfinished",
        action="store_true",
        help="take runs that have not ended, for controls and theorems",
    )
    parser.add_argument("--json", metavar="FILE", help="write the verdicts as JSON, - to stdout")
    return parser
