"""What stands under a figure: what it shows, which runs, and how to make them again."""

from __future__ import annotations

import json
import math
import re
import shlex
import zlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from janus_pl.records.families import is_zero_function, lambda_of
from janus_pl.records.run import STEP, Run
from janus_pl.report.figures.series import batch_of, seeds
from janus_pl.report.figures.style import number
from janus_pl.run.folder import CONFIG
from janus_pl.run.lines import FILE as ROWS


class Again(NamedTuple):
    """How a figure is made again.

    Attributes:
        command: The command that draws it.
        folder: The folder of the figures, in which configs that are nowhere else are written.
    """

    command: str
    folder: Path


NO_OPTIONS = ("description", "history", "claims")  # beside the options in W&B's config
NAMED = 12  # runs that are left out and named one by one


def caption(
    title: str,
    text: str,
    runs: Sequence[Run],
    left_out: Sequence[Run],
    notes: Iterable[str],
    again: Again,
) -> str:
    """Write the caption of a figure, in paragraphs."""
    parts = [f"{title}. {text}", "Runs: " + "; ".join(_groups(runs)) + "."]
    parts += [*notes, *_uneven(runs), *_unfinished(runs), *_damaged(runs)]
    parts += [*_collapsed(runs), *_left_out(left_out)]
    parts.append(f"The first of these runs again: {command(runs[0], again.folder)}")
    parts.append(f"This figure again: {again.command}")
    return "\n".join(parts)


def report_command(runs: Iterable[Run], folder: Path, x: str) -> str:
    """Return the command that draws all figures of some runs, from where they were read."""
    places = dict.fromkeys(str(folder_of(run) or run.path) for run in runs)
    shown = "step" if x == STEP else x
    given = [*places, "--out", str(folder), "--x", shown]
    return f"python -m janus_pl report {shlex.join(given)}"


def command(run: Run, folder: Path) -> str:
    """Return the command that trains a run once more, from the config in its folder.

    The config of a run without such a folder, as in archives, is written to `FOLDER/configs`.
    """
    own = folder_of(run)
    config = (
        own / CONFIG if own else _written(run, folder / "configs" / f"{_file_name(run.id)}.yaml")
    )
    said = f"python -m janus_pl fit --config {shlex.quote(str(config))}"
    data = run.options.get("data.root")
    if own is None and isinstance(data, str):
        said += f" (with --data.root DIR if the data are not in {data})"
    return said


def folder_of(run: Run) -> Path | None:
    """Return the folder of a run with its rows and its config; None of other records."""
    folder = run.path.parent
    return folder if run.path.name == ROWS and (folder / CONFIG).is_file() else None


def _file_name(text: str) -> str:
    """Return a name of a file for an id, which in somebody else's record may be any text."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:100]
    return name if name == text else f"{name}-{zlib.crc32(text.encode()):08x}"


def _written(run: Run, path: Path) -> Path:
    """Write the options of a run as a config; what W&B's config has beside them is left out."""
    kept = {k: v for k, v in run.config.items() if k[0] != "_" and k not in NO_OPTIONS}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Plain values alone, so JSON says them as YAML does, without a library of its own.
    text = json.dumps(kept, indent=2, default=str) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _collapsed(runs: Sequence[Run]) -> list[str]:
    """Name the runs that ended as f = 0."""
    ended = ", ".join(f"{run.name} ({run.id})" for run in runs if is_zero_function(run))
    if not ended:
        return []
    return [f"Ended as f = 0, and in no axis' range and no mean over seeds for it: {ended}."]


def _left_out(runs: Sequence[Run]) -> list[str]:
    """Name the runs that a figure does not show, with the reason."""
    ended = [run for run in runs if is_zero_function(run)]
    others = [run for run in runs if run not in ended]
    reasons = {
        "options or data of theirs differ or they lack what is shown": others,
        "they ended as f = 0 or lack what is shown": ended,
    }
    found = []
    for reason, some in reasons.items():
        named = ", ".join(f"{run.name} ({run.id})" for run in some[:NAMED])
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        found += [f"Left out, since {reason}: {named}{more}."] if some else []
    return found


def _groups(runs: Sequence[Run]) -> list[str]:
    said = []
    for (dynamics, batch, lam), some in groupby(runs, key=_what):
        same = list(some)
        named = ", ".join(f"{run.name} ({run.id})" for run in same)
        word = "seed" if len(seeds(same)) == 1 else "seeds"
        said.append(
            f"{dynamics}, B = {batch}, lambda = {lam}: {named}, {word} {', '.join(seeds(same))}"
        )
    return said


def _what(run: Run) -> tuple[str, str, str]:
    lam = lambda_of(run)
    return run.dynamics, batch_of(run), "unknown" if math.isnan(lam) else number(lam)


def _uneven(runs: Sequence[Run]) -> list[str]:
    counts = [
        (f"{dynamics} at lambda = {lam}", len(seeds(some)))
        for (dynamics, _, lam), some in groupby(runs, key=_what)
    ]
    most = max(count for _, count in counts)
    fewer = [f"{what} ({count})" for what, count in counts if count < most]
    return [f"Fewer seeds than the {most} of the others: {', '.join(fewer)}."] if fewer else []


def bands(runs: Sequence[Run], logarithmic: bool = True, what: str = "bands reach") -> str:
    """Say what the lines and the bands, or bars, show."""
    linear = [run for run in runs if run.description.kind == "linear"]
    if any((run.options.get("data.replicas") or 1) > 1 for run in linear):
        return "Lines are medians over seeds, bands reach from the 5% to the 95% quantile."
    if all(len(seeds(some)) < 2 for _, some in groupby(runs, key=_what)):
        return "One seed each."
    mean = "geometric means" if logarithmic else "means"
    return f"Lines are {mean} over seeds, {what} from the smallest to the largest seed."


def _unfinished(runs: Sequence[Run]) -> list[str]:
    early = [run for run in runs if not run.finished]
    if not early:
        return []
    ends = [f"{run.name} (epoch {run.last('epoch'):g})" for run in early]
    return [f"Not finished, shown as far as they got: {', '.join(ends)}."]


def _damaged(runs: Sequence[Run]) -> list[str]:
    told = [f"{run.name} ({'; '.join(run.notes)})" for run in runs if run.notes]
    return [f"Damaged records: {', '.join(told)}."] if told else []
