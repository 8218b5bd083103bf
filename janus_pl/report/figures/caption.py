"""What stands under a figure: what it shows, which runs, and how to make them again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby

from janus_pl.records.families import lambda_of
from janus_pl.records.run import STEP, Run
from janus_pl.report.figures.series import batch_of, seeds
from janus_pl.report.figures.style import number

NAMED = 12  # runs that are left out and named one by one


def caption(
    title: str,
    text: str,
    runs: Sequence[Run],
    left_out: Sequence[Run],
    notes: Iterable[str],
    x: str,
) -> str:
    """The caption of a figure, in paragraphs."""
    parts = [f"{title}. {text}", "Runs: " + "; ".join(_groups(runs)) + "."]
    parts += [*notes, *_uneven(runs), *_unfinished(runs)]
    if left_out:
        named = ", ".join(f"{run.name} ({run.id})" for run in left_out[:NAMED])
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        parts.append(
            "Left out, since options or data of theirs differ or they lack what is shown:"
            f" {named}{more}."
        )
    parts.append(f"The first of these runs again: {command(runs[0])}")
    shown = "step" if x == STEP else x
    parts.append(f"This figure again: python -m janus_pl report RUN... --out DIR --x {shown}")
    return "\n".join(parts)


def command(run: Run) -> str:
    """The command that trains a run once more, from the config that lies in its folder."""
    given = run.config
    folder = os.path.join(str(given.get("run_dir") or "runs"), str(given.get("project") or ""))
    return f"python -m janus_pl fit --config {os.path.join(folder, run.id, 'config.yaml')}"


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
    return run.dynamics, batch_of(run), number(lambda_of(run))


def _uneven(runs: Sequence[Run]) -> list[str]:
    counts = [
        (f"{dynamics} at lambda = {lam}", len(seeds(some)))
        for (dynamics, _, lam), some in groupby(runs, key=_what)
    ]
    most = max(count for _, count in counts)
    fewer = [f"{what} ({count})" for what, count in counts if count < most]
    return [f"Fewer seeds than the {most} of the others: {', '.join(fewer)}."] if fewer else []


def bands(runs: Sequence[Run], logarithmic: bool = True, what: str = "bands reach") -> str:
    """What lines and bands, or bars, are."""
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
