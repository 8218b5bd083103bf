"""The commands in captions, run as they stand where `report` ran: of a folder, of an archive."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
from wandb import finish

from janus_pl.cli import subcommands as tools
from janus_pl.cli.config_files import find_configs
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.records.archive import write_archive
from janus_pl.records.parts import Part
from janus_pl.records.read import read, read_parts
from janus_pl.records.run import Run

SHORT = [
    "--trainer.max_epochs=8",
    "--model.learning_rate=0.05",
    "--run_dir=some runs",
]  # a name that a shell would split


def fit(args: list[str]) -> Run:
    """Train, and return the newest record."""
    before = {path.parent for path in Path().rglob("config.yaml")}
    JanusCLI(find_configs(args))
    finish()
    (new,) = {path.parent for path in Path().rglob("config.yaml")} - before
    return read([new]).runs[0]


def said(caption: Path, what: str) -> list[str]:
    """The arguments of a command in a caption, without `python -m janus_pl`."""
    (line,) = re.findall(rf"^{what} again: python -m janus_pl (.*)$", caption.read_text(), re.M)
    return shlex.split(line.partition(" (with ")[0])


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_the_commands_of_a_caption_make_the_run_and_the_figure_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "where report runs").mkdir()
    monkeypatch.chdir(tmp_path / "where report runs")
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    runs = [
        fit(["fit", "--config", "linear/a1.yaml", f"--data.batch_size={size}", *SHORT])
        for size in (1, "full")
    ]
    given = "some runs"
    if kind == "archive":
        given = "kept.jsonl.xz"
        parts = [part for part in read_parts(["some runs"]) if isinstance(part, Part)]
        write_archive(Path(given), parts)
    assert tools.main(["report", given, "--out", "out here"]) == 0
    caption = Path("out here/a1.txt")
    table = Path("out here/a1.csv").read_bytes()

    command = said(caption, "The first of these runs")
    assert (Path(command[-1]).parts[0] == "out here") == (kind == "archive")
    made = fit(command)
    (like,) = [run for run in runs if run.dynamics == made.dynamics]
    keys = [key for key in like.rows if not key.startswith(("time", "_"))]
    pd.testing.assert_frame_equal(made.rows[keys], like.rows[keys], check_exact=True)
    # Control: the other run has other numbers.
    (other,) = [run for run in runs if run is not like]
    assert not other.rows["train/mse_per_sample"].equals(made.rows["train/mse_per_sample"])

    if kind == "folder":  # the new run is in it, too, and would be a second seed
        return
    Path("out here/a1.csv").unlink()
    assert tools.main(said(caption, "This figure")) == 0
    assert Path("out here/a1.csv").read_bytes() == table
