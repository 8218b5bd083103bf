"""W&B's credentials and variables, and the ids and folder names of runs; imports no trainer."""

from __future__ import annotations

import netrc
import os
import secrets
import string
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from janus_pl.errors import UsageError


def has_account() -> bool:
    """Tell whether W&B finds credentials in its variables or the netrc file, and ask nobody."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb  # half a second, for this question alone

    host = urlsplit(wandb.setup().settings.base_url).hostname or ""
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for file in map(os.path.expanduser, files):
        try:
            if host in netrc.netrc(file).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def check_folder_name(field: str, value: str | None) -> None:
    """Refuse a project or an id that could lead out of the folder that it is in.

    Raises:
        UsageError: The value is not the name of one folder.
    """
    if value in (None, "", ".", "..") or {"/", os.sep} & set(str(value)):
        raise UsageError(field, value, "a name that is one folder below --run_dir")


def check_names(
    project: str, run_id: str, name: str | None, group: str | None, tags: Sequence[str]
) -> None:
    """Refuse names that W&B refuses, or that are not the name of one folder.

    Raises:
        UsageError: W&B or the file system does not take a name.
    """
    import wandb

    check_folder_name("--project", project)
    check_folder_name("WANDB_RUN_ID", run_id)
    given: dict[str, tuple[str, object]] = {
        "--project": ("project", project),
        "WANDB_RUN_ID": ("run_id", run_id),
        "--name": ("run_name", name),
        "--group": ("run_group", group),
        "--tags": ("run_tags", tuple(tags)),
        "WANDB_MODE": ("mode", os.environ.get("WANDB_MODE", "online")),
    }
    for field, (key, setting) in given.items():
        try:
            wandb.Settings.model_validate({key: setting})
        except (wandb.errors.UsageError, ValueError) as error:
            details = getattr(error, "errors", None)  # pydantic's own text has several lines
            reason = details()[0]["msg"] if details else str(error)
            raise UsageError(field, setting, f"what W&B takes ({reason})") from error


def new_id() -> str:
    """Return an id of eight random letters and digits, as W&B's own."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def begun_run() -> Any:
    """Return the run that `wandb.init()` has begun in this process; None if there is none."""
    import wandb

    return wandb.run


def begun_values() -> dict[str, Any]:
    """Return the config of the run that `wandb.init()` or `wandb.agent(function=...)` has begun.

    The agent runs its function in a thread of its own and leaves the values of the sweep in a file.
    `wandb agent` starts a command instead, which has the values among its arguments.
    """
    if (begun := begun_run()) is not None:
        return dict(begun.config)
    return {} if threading.current_thread() is threading.main_thread() else sweep_values()


def sweep_values() -> dict[str, Any]:
    """Return the values that W&B's agent gives to the run of this process; empty without one.

    W&B's config takes no others for these keys.
    """
    file = Path(os.environ.get("WANDB_SWEEP_PARAM_PATH") or "")
    if not file.is_file():
        return {}
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: each["value"] for key, each in found.items() if isinstance(each, dict)}


def given_id() -> str | None:
    """Return the id of the run that has begun in this process, or WANDB_RUN_ID; None without."""
    begun = begun_run()
    return begun.id if begun is not None else os.environ.get("WANDB_RUN_ID") or None


def job_type(given: str | None = None) -> str:
    """Return the job type of a run: the given one, or WANDB_JOB_TYPE, or else `train`.

    Raises:
        UsageError: It is `report`, by which the readers of records know figures.
    """
    field = "--job_type" if given else "WANDB_JOB_TYPE"
    found = given or os.environ.get("WANDB_JOB_TYPE") or "train"
    if found == "report":
        raise UsageError(field, found, "another one than that of figures, as train")
    return found


def with_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run, and for those that are not given W&B's variables.

    Args:
        options: `project`, `name`, `group` and `tags`; None or empty if they are not given.

    Raises:
        UsageError: A project is given, and a run of another one has begun in this process.
    """
    filled = dict(options)
    for key, variable in (("name", "WANDB_NAME"), ("group", "WANDB_RUN_GROUP")):
        filled[key] = options[key] if options[key] is not None else os.environ.get(variable) or None
    tags = os.environ.get("WANDB_TAGS")
    filled["tags"] = options["tags"] or (tags.split(",") if tags else [])
    begun = begun_run()
    if begun is not None and begun.project:
        if options["project"] not in (None, begun.project):
            allowed = f"{begun.project}, that of the run that wandb.init() has begun"
            raise UsageError("--project", options["project"], allowed)
        filled["project"] = begun.project
    elif options["project"] is None:
        filled["project"] = os.environ.get("WANDB_PROJECT") or "janus_pl"
    return filled
