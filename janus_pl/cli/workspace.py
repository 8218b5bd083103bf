"""`python -m janus_pl workspace`: a view in the W&B UI whose panels are the paper's figures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from janus_pl.cli.parser import ToolParser
from janus_pl.errors import Exit, UsageError
from janus_pl.records.read import read, told
from janus_pl.report.workspace import Views, as_json
from janus_pl.run.account import check_folder_name, has_account
from janus_pl.run.columns import LOSS, NORMALIZATION
from janus_pl.run.extras import ENTITY
from janus_pl.verify.claims import PAPER, find_claims, read_claims
from janus_pl.verify.judge import judge
from janus_pl.verify.lines import to_json

USAGE = (
    "--entity E --project P [--name NAME] [--loss LOSS] [--normalization NORMALIZATION]"
    " [--module MODULE] [--report [RUN...]] [--json]"
)


def main(args: Sequence[str]) -> int:
    """Save the workspace, or the report, and print its address; with `--json` only print it.

    Raises:
        UsageError: An option or an account is missing, a loss or a normalization is not known, a
            RUN cannot be read, or W&B refuses.
        ModuleNotFoundError: wandb-workspaces is missing.
    """
    options = _parser().read(args)
    _check_place(options.entity, options.project, options.name)
    _check_names(options.loss, options.normalization, options.module)
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    if not options.json:
        _check_account(options.entity)
    given = {LOSS: options.loss, NORMALIZATION: options.normalization}
    views = Views(workspaces, panels, {key: value for key, value in given.items() if value})
    # A run set asks W&B for the project by its entity, so JSON has none.
    entity = "" if options.json and options.report is not None else options.entity or ""
    place = entity, options.project, options.name
    build: Callable[[], Any] = partial(views.workspace, *place)
    if options.report is not None:
        build = partial(views.report, *place, _verdicts(options.report))
    if options.json:
        print(json.dumps(as_json(build()), indent=2))
        return Exit.DONE
    try:
        view = build()
        view.save()
    except Exception as error:  # network, permissions: the client's errors share no class
        said = " ".join(str(error).split())
        raise UsageError("workspace", f"{options.entity}/{options.project}", said) from error
    print(view.url)
    return Exit.DONE


def _check_place(entity: str | None, project: str, name: str) -> None:
    """Refuse a team, a project or a title that W&B does not take.

    Raises:
        UsageError: One of them cannot be.
    """
    check_folder_name("--project", project)
    if entity is not None and not re.fullmatch(ENTITY, entity):
        raise UsageError("--entity", entity, "a user or team of W&B")
    if not name.strip():
        raise UsageError("--name", name, "the title of the workspace or the report")


def _check_names(loss: str | None, normalization: str | None, module: str | None) -> None:
    """Refuse a loss or a normalization that is not registered, for its panels would be empty.

    Args:
        loss: The loss; None for all of them.
        normalization: The normalization; None for all of them.
        module: The module that registers others; None for those of this package.
    """
    if module is not None:
        try:
            import_module(module)
        except ImportError as error:
            said = " ".join(str(error).split())
            raise UsageError("--module", module, f"a module that Python finds ({said})") from error
    if (loss, normalization) == (None, None):
        return  # without torch
    from janus_pl.deep import PARAMETRIZATIONS
    from janus_pl.deep.class_losses import CLASS_LOSSES
    from janus_pl.deep.losses import LOSSES

    for field, name, known in (
        ("--loss", loss, {**LOSSES, **CLASS_LOSSES}),
        ("--normalization", normalization, PARAMETRIZATIONS),
    ):
        if name is not None and name not in known:
            others = "or one that --module MODULE registers"
            raise UsageError(field, name, f"{', '.join(known)}, {others}")


def _check_account(entity: str | None) -> None:
    if not entity:
        raise UsageError("--entity", entity, "a user or team of W&B, or --json")
    if not has_account():
        raise UsageError("account of W&B", "none", "`wandb login` before, or --json in its place")


def _verdicts(runs: Sequence[str]) -> list[Any]:
    """Return the answers of `verify` for runs; none without runs."""
    if not runs:
        return []
    claims = read_claims(find_claims(str(PAPER)))
    records = read(runs)
    for line in told(records):
        print(line, file=sys.stderr)
    return [line for line in to_json(judge(claims, records.runs))["lines"] if line["primary"]]


def _parser() -> ToolParser:
    parser = ToolParser(
        "workspace",
        USAGE,
        "Save a workspace in the W&B UI whose panels are the paper's figures: margins"
        " by lambda, velocities and ranks by layer, SGD and GD, parallel coordinates. A line is the"
        " mean of runs that differ in the seed alone.",
    )
    parser.add_argument("--entity", help="user or team of W&B")
    parser.add_argument("--project", default="janus_pl", help="W&B project (default: janus_pl)")
    parser.add_argument("--name", default="Janus effects", help="name of the workspace or report")
    parser.add_argument("--loss", help="runs of this loss alone, as square")
    parser.add_argument("--normalization", help="runs of this one alone, as weight_norm")
    parser.add_argument(
        "--module", help="module that registers a loss or a normalization of your own"
    )
    parser.add_argument(
        "--report",
        nargs="*",
        metavar="RUN",
        help="save a W&B report in place of a workspace: SGD and GD in run sets of their own, and"
        " the verdicts on RUN..., folders or ENTITY/PROJECT[/GROUP]",
    )
    parser.add_argument("--json", action="store_true", help="print it, without an account")
    return parser
