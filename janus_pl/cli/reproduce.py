"""`make reproduce`: the runs behind docs/results/, their figures and verdicts.

Each step is a command that can also be typed by hand. Finished runs are skipped and interrupted
ones go on, so it can be stopped and started again.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from janus_pl.cli import subcommands
from janus_pl.cli.parser import ToolParser
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import INTERRUPTED, Exit, UsageError, check_extras

LINEAR = ("a1", "a2", "a2_printed_schedule", "a3", "a4", "a5", "a6", "a7", "batch_sizes", "toy")


class Step(NamedTuple):
    """A sweep and its cost in minutes of one core, measured on two cores."""

    sweep: str
    minutes: float


FAST = [*(Step(f"linear_{name}", 0.7) for name in LINEAR), Step("fast", 6)]
# In the order in which figures become complete.
DEEP = [
    Step("two_cores_fig1", 60),
    Step("two_cores_fig2a", 30),
    Step("two_cores_seeds", 48),
    Step("two_cores_fig5a", 60),
    Step("two_cores_rho", 54),
    Step("two_cores_constant", 24),
    Step("two_cores_constant_seeds", 24),
    Step("two_cores_lagrange", 12),
    Step("two_cores_theory", 5),
    Step("two_cores_equal_steps_sgd", 4),
    Step("two_cores_equal_steps", 24),
    Step("two_cores_fig2b", 42),
    Step("default_network", 20),
    Step("small", 117),
    Step("whose_decay", 32),
    Step("whose_held", 24),
    Step("whose_plain", 8),
    Step("whose_plain_slow", 24),
    Step("scale_gd", 125),
    Step("scale", 450),
    Step("confirm_constant", 96),
    Step("confirm_cosine", 144),
    Step("confirm_cross_entropy", 60),
    Step("confirm_rho", 60),
    Step("confirm_gd", 70),
    Step("edge_sgd", 28),
    Step("edge_gd", 25),
    Step("dose_decay", 25),
    Step("dose_rate_double", 3),
    Step("dose_rate_half", 10),
    Step("dose_rate_quarter", 20),
    Step("dose_batch", 110),
    Step("dose_full", 70),
    Step("whose_gd", 70),
]
# Ten embedded digits, so no images of the user's.
SCANS = [Step("low_rank_batch", 40), Step("low_rank_rate", 17), Step("low_rank_decay", 25)]
FULL = [*FAST[:-1], Step("linear_seeds", 2), *DEEP, *SCANS]


@lasting_streams()
def main(args: Sequence[str] | None = None) -> int:
    """Run the sweeps, then `report` and `verify`; return the largest exit code.

    A refused or interrupted command ends all at once, with its own code.

    Args:
        args: The options, without the program's name; None takes them from the command line.
    """
    try:
        options = _parser().read(sys.argv[1:] if args is None else args)
        check_extras("linear", "report")  # lest they are found missing hours later
        _check_images(options.data)  # nor these, behind all sweeps that need no images
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    steps = FAST if options.fast else FULL
    jobs = os.cpu_count() or 1
    minutes = sum(step.minutes for step in steps) / jobs
    about = f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.0f} minutes"
    print(f"{len(steps)} sweeps, about {about} on {jobs} cores where nothing is done yet.")
    runs = Path(options.run_dir) / "janus_pl"
    shared = ["--jobs", str(jobs), "--run_dir", options.run_dir]
    commands = [["sweep", f"{s.sweep}.yaml", *shared, *_data(s, options.data)] for s in steps]
    commands.append(["report", str(runs), "--out", options.out])
    commands.append(["verify", str(runs), "--json", str(Path(options.out) / "verdicts.json")])
    worst = 0
    for command in commands:
        print(f"$ python -m janus_pl {shlex.join(command)}", flush=True)
        code = subcommands.main(command)
        if code in (Exit.USAGE, *INTERRUPTED):  # the next command would end alike
            return code
        worst = max(worst, code)
    return worst


def _check_images(folder: str | None) -> None:
    """Refuse a folder of images without its two parts.

    Raises:
        UsageError: There is no such folder.
    """
    for part in ("train", "test"):
        if folder is not None and not Path(folder, part).is_dir():
            allowed = f"a folder that holds train/ and test/; {str(Path(folder, part))!r} is none"
            raise UsageError("--data", folder, allowed)


def _data(step: Step, folder: str | None) -> list[str]:
    """Return options that give the user's images to deep runs, in place of the download."""
    if folder is None or step not in DEEP:
        return []
    return ["--", "--data", "janus_pl.data.ImageFolderPair", "--data.root", folder]


def _parser() -> ToolParser:
    parser = ToolParser(
        "reproduce",
        "[--fast] [--data DIR] [--run_dir DIR] [--out DIR]",
        "The runs behind docs/results/, their figures and verdicts. What is done is"
        " skipped, so it can be stopped and started again.",
    )
    parser.prog = "python -m janus_pl.cli.reproduce"
    parser.add_argument("--fast", action="store_true", help="in minutes: linear regression, digits")
    parser.add_argument("--data", metavar="DIR", help="folder of images in place of the download")
    parser.add_argument("--run_dir", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--out", default="report", help="of figures and verdicts (default: report)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
