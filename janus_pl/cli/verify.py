"""`python -m janus_pl verify RUN...`: the paper's claims, answered from records alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from janus_pl.cli.parser import ToolParser
from janus_pl.errors import Exit, UsageError
from janus_pl.records.read import read, told
from janus_pl.run.folder import check_outside
from janus_pl.verify.claims import PAPER, find_claims, read_claims
from janus_pl.verify.judge import Verdicts, judge
from janus_pl.verify.lines import details, table, to_json

USAGE = "RUN... [--all] [--claims FILE] [--unfinished] [--json FILE], a RUN is a folder"


def main(args: Sequence[str]) -> int:
    """Read runs, print the answers, and say whether a theorem is violated.

    Returns:
        BROKEN_THEOREM if a theorem fails, else DONE, whatever the answers to the claims are.

    Raises:
        UsageError: A path has no runs, the claims cannot be used, or the file cannot be written.
    """
    options = _parser().read(args, needed="runs")
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        raise UsageError("--json", options.json, "a file in an existing folder, or -")
    if options.json not in (None, "-"):
        check_outside("--json", options.json)
    claims = read_claims(find_claims(options.claims))
    records = read(options.runs, options.unfinished)
    for line in told(records):
        print(line, file=sys.stderr)
    found = judge(claims, records.runs)
    if options.json != "-":
        print("\n".join(details(found) if options.all else table(found)))
    if options.json is not None:
        _write(options.json, found)
    for sentence in found.notes:
        print(sentence, file=sys.stderr)
    return Exit.BROKEN_THEOREM if found.violated else Exit.DONE


def _write(target: str, found: Verdicts) -> None:
    text = json.dumps(to_json(found), indent=2, allow_nan=False) + "\n"
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
        "Every claim of the paper against run records, one line each: supported, contradicted,"
        " undecided or not testable. Exit code 5 only where a theorem is violated.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or of many")
    parser.add_argument("--all", action="store_true", help="every claim in every setting")
    parser.add_argument(
        "--claims",
        metavar="FILE",
        default=str(PAPER),
        help="the claims, a file or a name in configs/claims (default: the paper's)",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="take runs that have not ended, for the theorems"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON, - to stdout")
    return parser
