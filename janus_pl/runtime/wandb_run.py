"""One W&B run in one folder, `RUN_DIR/PROJECT/ID/`; online with an account, else offline."""

from __future__ import annotations

import netrc
import os
import secrets
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from janus_pl.errors import UsageError


class RunLogger(WandbLogger):
    """W&B logger whose run lies in a folder of its own.

    The folder holds the resolved config, the checkpoints and W&B's own directory. It is made when
    the run starts and not before. Without an account (no WANDB_API_KEY, no entry in the netrc file)
    the run is offline and says so in one line; WANDB_MODE decides where it is set.

    Of several processes the first one alone has a run, and its folder is that of the checkpoints.

    Args:
        project: the W&B project, also the name of the folder.
        name: the name of the run.
        group: the W&B group, which a report reads as one experiment.
        tags: W&B tags.
        run_dir: the folder of all runs.
    """

    def __init__(
        self,
        project: str = "janus_pl",
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        run_dir: str | Path = "runs",
    ) -> None:
        run_id = os.environ.get("WANDB_RUN_ID") or _new_id()
        self.folder = Path(run_dir) / project / run_id
        super().__init__(
            project=project,
            name=name,
            save_dir=str(run_dir),
            id=run_id,
            group=group,
            tags=list(tags),
            config={},
        )
        # WandbLogger hands it over even where it is not set, and W&B then warns.
        del self._wandb_init["anonymous"]
        # Absolute, for W&B's service may have been started in another working directory.
        self._wandb_init["dir"] = str(self.folder.absolute())

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            if os.environ.get("WANDB_MODE") == "online" and not has_account():
                # W&B would ask for a key and wait.
                raise UsageError("WANDB_MODE", "online", "offline, until `wandb login` was run")
            self.folder.mkdir(parents=True, exist_ok=True)
            if "WANDB_MODE" not in os.environ and not has_account():
                self._wandb_init["mode"] = "offline"
                rank_zero_info(
                    "W&B: no account is configured, so this run is recorded offline; "
                    "`wandb login` and `wandb sync` bring it online later."
                )
            if os.environ.get("WANDB_MODE", self._wandb_init.get("mode")) == "offline":
                import wandb

                # The end of `fit` says where the run lies; 60 sparklines beside it say less.
                self._wandb_init["settings"] = wandb.Settings(silent=True)
        return WandbLogger.experiment.fget(self)  # type: ignore[attr-defined]

    @property
    def record(self) -> Path:
        """W&B's own directory of this run, which `wandb leet` opens and `wandb sync` uploads."""
        return Path(self.experiment.settings.sync_dir)


def has_account() -> bool:
    """Whether W&B finds credentials, without asking anybody: its variables or the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    host = urlsplit(wandb.setup().settings.base_url).hostname or ""
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for file in map(os.path.expanduser, files):
        try:
            if host in netrc.netrc(file).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@rank_zero_only
def finish(exit_code: int = 0) -> None:
    """End the W&B run of this process, if there is one: every exit code but 0 reads as failed."""
    import wandb

    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def _new_id() -> str:
    """Eight letters and digits, as W&B's own."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
