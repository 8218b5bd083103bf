"""`make quickstart`: SGD, SGD without weight decay, and GD on the embedded data, side by side.

All runs take `quickstart.yaml`; the second sets `model.weight_decay: 0`, the third
`data.batch_size: full`. Their epochs are equal, so GD takes fewer steps.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from janus_pl.cli import subcommands
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.cli.main import guarded
from janus_pl.errors import check_extras
from janus_pl.run.logger import RunLogger, finish
from janus_pl.training.precision import kept_numerics
from janus_pl.training.signals import StopSignals

RUNS = {
    "SGD": (),
    "SGD without decay": ("--model.weight_decay", "0"),
    "GD": ("--data.batch_size", "full"),
}
REPORT = "report-quickstart"


def main(extra: Sequence[str] = ()) -> int:
    """Train the runs, compare them in a table, and draw them in one picture and a page.

    Args:
        extra: Further arguments for all runs, as on the command line.
    """
    return guarded(lambda signals: _compare(extra, signals))


def _compare(extra: Sequence[str], signals: StopSignals) -> int:
    check_extras("report")  # lest they are found missing once the runs are done
    from janus_pl.cli.quickstart_table import sentences, table
    from janus_pl.records.read import read

    folders = [train(name, (*given, *extra), signals) for name, given in RUNS.items()]
    runs = [read([folder]).runs[0] for folder in folders]
    Console().print(table(RUNS, runs))
    for sentence in sentences(*runs):
        print(sentence)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # the table of figures is for a report of its own
        code = subcommands.main(["report", *folders, "--out", REPORT])
    if code:
        print(said.getvalue(), end="")
        return code
    print(f"Picture: {Path(REPORT, 'janus.png')}")
    print(f"Page:    {Path(REPORT, 'index.html')} (opens from disk; the paper's figures beside it)")
    return code


def train(name: str, extra: Sequence[str], signals: StopSignals) -> str:
    """Train one run, and return its folder."""
    named = f"quickstart-{name.lower().replace(' ', '-')}"
    args = ["fit", "--config", "quickstart.yaml", "--name", named]
    with kept_numerics():
        cli = JanusCLI([*args, "--trainer.enable_model_summary", "false", *extra], signals)
    finish()
    logger = cli.trainer.logger
    assert isinstance(logger, RunLogger)
    return str(logger.folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
