"""`python -m janus_pl workspace`: a view in the W&B UI whose panels are the paper's figures."""

from __future__ import annotations

import json
from collections.abc import Sequence

from janus_pl.cli.parser import ToolParser
from janus_pl.errors import Exit, UsageError
from janus_pl.report import workspace
from janus_pl.run.account import has_account

USAGE = "--entity E --project P [--name NAME] [--json]"


def main(args: Sequence[str]) -> int:
    """Save the workspace and print its address; with `--json` only print it as JSON.

    Raises:
        UsageError: An option or an account is missing, or W&B refuses.
        ModuleNotFoundError: wandb-workspaces is missing.
    """
    options = _parser().read(args, needed="project")
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    view = workspace.build(workspaces, panels, options.entity or "", options.project, options.name)
    if options.json:
        print(json.dumps(workspace.as_json(view), indent=2))
        return Exit.DONE
    if not options.entity:
        raise UsageError("--entity", options.entity, "a user or team of W&B")
    if not has_account():
        raise UsageError("--entity", options.entity, "--json, until `wandb login` was run")
    try:
        view.save()
    except Exception as error:  # network, permissions: the client's errors share no class
        said = " ".join(str(error).split())
        raise UsageError("workspace", f"{options.entity}/{options.project}", said) from error
    print(view.url)
    return Exit.DONE


def _parser() -> ToolParser:
    parser = ToolParser(
        "workspace",
        USAGE,
        "Save a workspace in the W&B UI whose panels are the paper's figures: margins"
        " by lambda, velocities and ranks by layer, GD against SGD, the run comparer.",
    )
    parser.add_argument("--entity", help="user or team of W&B")
    parser.add_argument("--project", default="janus_pl", help="W&B project (default: janus_pl)")
    parser.add_argument("--name", default="Janus effects", help="name of the workspace")
    parser.add_argument("--json", action="store_true", help="print it, without an account")
    return parser
