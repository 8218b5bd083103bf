"""The table, the sentences and the picture of `make quickstart`, after one epoch."""

from __future__ import annotations

import math
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_reader import read_rows

from janus_pl import errors
from janus_pl.cli import quickstart
from janus_pl.cli.quickstart import REPORT, RUNS, main
from janus_pl.cli.quickstart_table import ROWS

SHORT = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"]
SHORT += ["--data.num_train", "80", "--model.hidden", "64"]
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")


def mean_velocity(rows: list[dict[str, Any]]) -> float:
    """The geometric mean over the layers, of the last of two epochs (its last fifth)."""
    return math.exp(np.mean([math.log(rows[-1][f"velocity/{layer}"]) for layer in LAYERS]))


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> list[str]:
    """What is printed; the working directory is that of the runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    assert main(SHORT) == 0
    return capsys.readouterr().out.splitlines()


def records() -> list[list[dict[str, Any]]]:
    """The rows of the runs, in the order of the table."""
    folders = {}
    for folder in Path("runs/janus_pl").iterdir():
        config = (folder / "config.yaml").read_text()
        (name,) = re.findall(r"^name: (.*)$", config, re.MULTILINE)
        folders[name] = folder
    return [read_rows(folders[f"quickstart-{n.lower().replace(' ', '-')}"]) for n in RUNS]


def test_each_cell_and_each_ratio_is_that_of_the_record(said: list[str]) -> None:
    begin = next(i for i, line in enumerate(said) if "The same network" in line)
    end = next(i for i, line in enumerate(said) if line.startswith("Noise:"))
    lines = [line for line in said[begin:end] if line.strip()]
    assert len(lines) <= 12
    cells = {line[: line.index("  ", 3)].strip(): line for line in lines if "  " in line.strip()}
    rows = records()
    assert [row[-1]["trainer/global_step"] for row in rows] == [20, 20, 2]

    def shown(label: str) -> list[str]:
        (line,) = [line for key, line in cells.items() if key.startswith(label)]
        return re.split(r"\s{2,}", line.strip())[1:]

    assert shown("steps") == ["20", "20", "2"]
    assert shown("training error") == [f"{row[-1]['train/error']:.2%}" for row in rows]
    assert shown("test error") == [f"{row[-1]['val/error']:.2%}" for row in rows]
    noise = [mean_velocity(row) for row in rows]
    assert shown("noise") == [f"{value:.2g}" for value in noise]
    spread = [row[-1]["margin/std"] / abs(row[-1]["margin/mean"]) for row in rows]
    assert [float(cell) for cell in shown("margins")] == pytest.approx(spread, rel=0.1)
    for layer in ("conv3", "conv4", "fc1"):
        key = f"effective_rank/{layer}"
        ranks = [f"{row[0][key]:.0f} -> {row[-1][key]:.0f}" for row in rows]
        assert shown(f"effective rank, {layer}") == ranks
    text = " ".join(said[end:])
    assert f"{noise[0] / noise[2]:.2g} times that of GD" in text
    assert f"{noise[0] / noise[1]:.2g} times that of SGD without decay" in text
    assert "SGD took 20 steps, GD 2" in text


def test_one_picture_and_the_page_are_named_last(said: list[str]) -> None:
    picture, page = said[-2:]
    assert picture == f"Picture: {REPORT}/janus.png" and page.startswith(f"Page:    {REPORT}/")
    assert Path(REPORT, "janus.png").stat().st_size > 10_000
    assert Path(REPORT, "index.html").is_file()
    assert not any("fails" in line or "holds" in line for line in said)


def test_every_label_has_a_row() -> None:
    assert len(ROWS) + 3 <= 12, "with title, head and rule"


def test_a_mistaken_option_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--trainer.max_epoch", "2", "--run_dir", str(tmp_path / "runs")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: trainer.max_epoch: unknown key")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["pandas", "matplotlib", "plotly"])
def test_a_missing_package_of_the_report_is_one_line_before_a_run(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(quickstart, "train", lambda name, *_: trained.append(name))
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == package else ModuleSpec)
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    told = f"package {package}: got 'not installed', allowed: the extra report"
    assert line == f"error: {told}: pip install 'janus-pl[report]'"
    assert not trained
