"""W&B's credentials, and the ids and folder names of runs; imports no trainer."""

from __future__ import annotations

import netrc
import os
import secrets
import string
from urllib.parse import urlsplit

import wandb

from janus_pl.errors import UsageError


def has_account() -> bool:
    """Tell whether W&B finds credentials in its variables or the netrc file, and ask nobody."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
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


def new_id() -> str:
    """Return an id of eight random letters and digits, as W&B's own."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
