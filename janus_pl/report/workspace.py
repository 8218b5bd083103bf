"""`python -m janus_pl workspace`: a view in the W&B UI whose panels are the paper's figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from janus_pl.errors import UsageError
from janus_pl.options import ToolParser
from janus_pl.report.figures import FIGURES
from janus_pl.runtime.account import has_account

USAGE = "--entity E --project P [--name NAME] [--json]"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
LAMBDA = "model.init_args.weight_decay"
BATCH = "data.init_args.batch_size"


def main(args: Sequence[str]) -> int:
    """Save the workspace and print its address, or print it as JSON.

    Raises:
        UsageError: an option that is missing, no account, or W&B refuses.
    """
    options = _parser().read(args, needed="project")
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        allowed = "only with wandb-workspaces: pip install wandb-workspaces"
        raise UsageError("workspace", options.project, allowed) from error
    view = build(workspaces, panels, options.entity or "", options.project, options.name)
    if options.json:
        print(json.dumps(as_json(view), indent=2))
        return 0
    if not options.entity:
        raise UsageError("--entity", options.entity, "a user or team of W&B")
    if not has_account():
        raise UsageError("--entity", options.entity, "--json, until `wandb login` was run")
    try:
        view.save()
    except Exception as error:  # of the network, of permissions: the client has no common class
        said = " ".join(str(error).split())
        raise UsageError("workspace", f"{options.entity}/{options.project}", said) from error
    print(view.url)
    return 0


def build(workspaces: Any, panels: Any, entity: str, project: str, name: str) -> Any:
    """The workspace: a section for each kind of figure, x axis the epoch, colours by run."""
    line = _lines(panels)
    by_lambda, by_batch = panels.Config(LAMBDA), panels.Config(BATCH)
    sections = {
        "Margins by lambda (Figs. 1, 2, 5)": [
            line("Margins, mean", ["margin/mean"], groupby=by_lambda),
            line("Margins, standard deviation", ["margin/std"], groupby=by_lambda, log_y=True),
            line("Margins, histogram", ["margin/hist"]),
            line("rho", ["rho"], groupby=by_lambda, log_y=True),
        ],
        "Noise by layer (Figs. 3, 4a)": [
            line(f"‖V dot‖, {k}", [f"velocity/{k}"], groupby=by_lambda, log_y=True) for k in LAYERS
        ],
        "Rank by layer (Fig. 4b)": [
            line(f"Effective rank, {k}", [f"effective_rank/{k}"], groupby=by_lambda) for k in LAYERS
        ],
        "GD against SGD": [
            line("Training loss", ["train/loss"], groupby=by_batch, log_y=True),
            line("Margins, mean", ["margin/mean"], groupby=by_batch),
            line("‖V dot‖, conv4", ["velocity/conv4"], groupby=by_batch, log_y=True),
            line("Effective rank, conv4", ["effective_rank/conv4"], groupby=by_batch),
            line(
                "Effective rank, conv4, by step", ["effective_rank/conv4"], x="trainer/global_step"
            ),
            line("Effective rank, conv4, by eta t", ["effective_rank/conv4"], x="eta_t"),
        ],
        "Linear regression (Figs. A.1 to A.7)": [
            line("Null space, and its closed form", ["null/norm", "null/predicted"], log_y=True),
            line("Smallest singular value", ["sigma_min"], log_y=True),
            line("Distance to the solution", ["solution/relative_distance"], log_y=True),
            line("Gradient norm", ["gradient_norm"], log_y=True),
        ],
        "Runs compared": [panels.RunComparer(diff_only="split")],
        "Report": [panels.MediaBrowser(media_keys=[f"figures/{key}" for key, *_ in FIGURES])],
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            workspaces.Section(name=title, panels=held, is_open=True)
            for title, held in sections.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis="epoch"),
    )


def as_json(view: Any) -> Mapping[str, Any]:
    """What would be sent to W&B."""
    model: Mapping[str, Any] = view._to_model().model_dump(mode="json", by_alias=True)
    return model


def _lines(panels: ModuleType) -> Any:
    def line(title: str, keys: Sequence[str], x: str = "epoch", **options: Any) -> Any:
        given = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        more = given if "groupby" in options else {}
        return panels.LinePlot(title=title, x=x, y=list(keys), **options, **more)

    return line


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
