"""Publication of figures in a W&B run of job type `report`, in the group of their runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import wandb

from janus_pl.errors import StorageError, UsageError
from janus_pl.records.run import Run
from janus_pl.report.figures import Figure
from janus_pl.run.account import check_folder_name, has_account, new_id
from janus_pl.run.files import settle


def publish(
    figures: Sequence[Figure], page: Path, runs: Sequence[Run], project: str, run_dir: str
) -> Path:
    """Publish figures as a W&B run, and return its folder, `RUN_DIR/PROJECT/ID`.

    Without an account the run is offline, unless `WANDB_MODE` is set.

    Args:
        figures: The figures; each that was drawn becomes `figures/KEY`, with its caption.
        page: The file of the interactive page, which becomes `page`.
        runs: The runs that the figures show; if they share a group, the new run joins it.
        project: The project of W&B, and a folder's name.
        run_dir: The folder of all runs.

    Raises:
        UsageError: The project is not a folder's name, or W&B refuses the run.
        StorageError: The folder cannot be made.
    """
    check_folder_name("--project", project)
    groups = {run.group for run in runs}
    group = groups.pop() if len(groups) == 1 else None
    run_id = new_id()
    folder = Path(run_dir) / project / run_id
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(folder, error) from error
    mode = None if "WANDB_MODE" in os.environ or has_account() else "offline"
    try:
        run = wandb.init(
            project=project,
            id=run_id,
            name=f"report-{group}" if group else "report",
            group=group,
            job_type="report",
            tags=["report"],
            dir=str(folder.absolute()),
            mode=mode,  # type: ignore[arg-type]
            config={"runs": [f"{run.name} ({run.id})" for run in runs]},
            settings=wandb.Settings(silent=True),
        )
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        raise UsageError("--log", project, f"what W&B takes ({error})") from error
    drawn = {f"figures/{figure.key}": _image(figure) for figure in figures if figure.files}
    html = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
    run.log({**drawn, "page": html})
    run.finish()
    settle(folder)
    return folder


def _image(figure: Figure) -> wandb.Image:
    (png,) = (file for file in figure.files if file.suffix == ".png")
    return wandb.Image(str(png), caption=figure.caption)
