"""A workspace of the W&B UI whose panels are the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from janus_pl.report.figures import FIGURES
from janus_pl.run.description import KEY

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
LAMBDA = f"{KEY}.weight_decay"
DYNAMICS = f"{KEY}.dynamics"


def build(workspaces: Any, panels: Any, entity: str, project: str, name: str) -> Any:
    """Build the workspace: a section for each kind of figure, x axis the epoch, colours by run."""
    line = _lines(panels)
    by_lambda, by_dynamics = panels.Config(LAMBDA), panels.Config(DYNAMICS)
    sections = {
        "Margins by lambda (Figs. 1, 2, 5)": [
            line("Margins, mean", ["margin/mean"], groupby=by_lambda),
            line("Margins, standard deviation", ["margin/std"], groupby=by_lambda, log_y=True),
            line("Margins, histogram", ["margin/hist"]),
            line("rho", ["rho"], groupby=by_lambda, log_y=True),
        ],
        "Raw margins, in units of the outputs": [
            line("Raw margins, mean", ["margin_raw/mean"], groupby=by_dynamics),
            line("Raw margins, standard deviation", ["margin_raw/std"], groupby=by_dynamics),
            line("Raw margins, histogram", ["margin_raw/hist"]),
        ],
        "Noise by layer (Figs. 3, 4a)": [
            line(f"‖V dot‖, {k}", [f"velocity/{k}"], groupby=by_lambda, log_y=True) for k in LAYERS
        ],
        "Rank by layer (Fig. 4b)": [
            line(f"Effective rank, {k}", [f"effective_rank/{k}"], groupby=by_lambda) for k in LAYERS
        ],
        "Dynamics, as measured": [
            line("Training loss", ["train/loss"], groupby=by_dynamics, log_y=True),
            line("Margins, mean", ["margin/mean"], groupby=by_dynamics),
            line("‖V dot‖, conv4", ["velocity/conv4"], groupby=by_dynamics, log_y=True),
            line("Effective rank, conv4", ["effective_rank/conv4"], groupby=by_dynamics),
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
    """Return the JSON that would be sent to W&B."""
    model: Mapping[str, Any] = view._to_model().model_dump(mode="json", by_alias=True)
    return model


def _lines(panels: ModuleType) -> Any:
    def line(title: str, keys: Sequence[str], x: str = "epoch", **options: Any) -> Any:
        given = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        more = given if "groupby" in options else {}
        return panels.LinePlot(title=title, x=x, y=list(keys), **options, **more)

    return line
