"""`python -m janus_pl report`: what it makes, what it says, and the W&B run with the figures."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from conftest import ROOT
from records.test_records import record
from wandb.util import get_core_path

from janus_pl.cli import subcommands as tools
from janus_pl.records.read import read

GD = {
    "seed_everything": 0,
    "model": {
        "class_path": "janus_pl.DeepReLUClassifier",
        "init_args": {"weight_decay": 0.001, "loss": "square"},
    },
    "data": {"class_path": "janus_pl.data.DigitsPair", "init_args": {"batch_size": "full"}},
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one run of three rows, of which one figure can be drawn."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "epoch": epoch,
            "trainer/global_step": 2 * epoch,
            "eta_t": 0.5 * epoch,
            "margin/mean": 0.5,
            "margin/std": 0.1,
            "margin/hist": wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0])),
            "velocity/fc1": 1.0 / (1 + epoch),
        }
        for epoch in range(3)
    ]
    record(tmp_path / "runs", rows, group="small", config=GD)
    yield tmp_path / "runs"


def printed(capsys: pytest.CaptureFixture) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_it_draws_what_it_can_and_says_why_it_draws_no_more(
    runs: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tools.main(["report", "runs", "--out", "out/there"]) == 0
    said = printed(capsys)
    assert "Figure 2a: margins under GD" in said
    assert "fig2a.png" in said
    assert "fig1a.png" not in said
    drawn = {path.name for path in Path("out/there").iterdir()}
    assert {"index.html", "fig2a.png", "fig2a.svg", "fig2a.csv", "fig2a.txt"} <= drawn
    assert "fig1a.png" not in drawn
    page = Path("out/there/index.html").read_text()
    assert "python -m janus_pl report runs --out out/there" in page


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: report: got ''"),
        (["nowhere"], "error: RUN: got 'nowhere', allowed: a folder"),
        (["runs", "--x", "day"], "error: --x: got 'day', allowed: 'epoch', 'step', 'eta_t'"),
        (
            ["runs", "--ot", "x"],
            "error: report: got '--ot', allowed: a valid option, the nearest is --out",
        ),
        (["runs", "--out", "runs/file/x"], "error: --out: got 'runs/file/x', allowed: a folder"),
        (["runs", ""], "error: RUN: got '', allowed: a folder"),
        (["runs", "--out", ""], "error: --out: got '', allowed: a folder"),
        (["runs", "--log", "--run_dir", " "], "error: --run_dir: got ' ', allowed: a folder"),
        (["runs", "--log", "--project", "../x"], "error: --project: got '../x'"),
        (["runs", "--log", "--run_dir", "runs/file"], "error: --run_dir: got 'runs/file'"),
    ],
)
def test_a_mistake_is_one_line(
    args: list[str], said: str, runs: Path, capsys: pytest.CaptureFixture
) -> None:
    (runs / "file").touch()
    assert tools.main(["report", *args]) == 2
    output, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert line.startswith(said)
    assert not output and not Path("report").exists()


def test_a_folder_that_the_system_does_not_make_is_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(self: Path, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert tools.main(["report", "runs", "--out", "there"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: there: cannot be written: No space left on device"


def test_a_run_that_has_not_ended_is_named_and_taken_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"epoch": 0, "trainer/global_step": 0, "margin/mean": 1.0}
    record(tmp_path / "runs", [row], code=143)
    assert tools.main(["report", "runs"]) == 2
    left_out, error = capsys.readouterr().err.splitlines()
    assert left_out.startswith("left out: ")
    assert "--unfinished" in error
    assert not Path("report").exists()
    assert tools.main(["report", "runs", "--unfinished"]) == 0
    assert Path("report/index.html").exists()


def inspected(folder: Path) -> list[dict]:
    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file"]
    (file,) = folder.rglob("run-*.wandb")
    done = subprocess.run([*command, file, file.parent.parent], capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_figures_go_into_a_run_of_job_type_report_in_the_group(
    runs: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tools.main(["report", "runs", "--log", "--run_dir", "runs"]) == 0
    folder = Path(capsys.readouterr().out.split()[-1])
    assert folder.parent == Path("runs/janus_pl")
    records = inspected(folder)
    (head,) = (r["run"] for r in records if r["type"] == "run")
    assert (head["job_type"], head["run_group"]) == ("report", "small")
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    keys = {key.split(".")[0] for item in items for key in item}
    assert {"figures/fig2a", "page"} <= keys
    assert "figures/fig1a" not in keys
    images = list(folder.rglob("media/images/figures/*.png"))
    assert images
    assert images[0].read_bytes()[:4] == b"\x89PNG"
    # It is no run of the experiment: read again, there is still one, and nothing is left out.
    again = read(["runs"])
    assert len(again.runs) == 1
    assert not again.skipped


def test_records_are_read_without_pytorch() -> None:
    code = """
import sys
from janus_pl.cli import subcommands
try:
    subcommands.main(["report", "--help"])
except SystemExit:
    pass
heavy = {"torch", "lightning"} & {*sys.modules}
print(heavy)
sys.exit(bool(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
