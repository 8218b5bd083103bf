"""The table of `make quickstart`, after one epoch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from record_reader import read_rows

from janus_pl.cli.quickstart import ROWS, main

SHORT = ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]


def test_every_cell_is_filled_and_equals_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    assert main(SHORT) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    lines = [row[1:4] for row in rows if len(row) == 5]  # that of the figures has other columns
    table = {label.strip(): (sgd.strip(), gd.strip()) for label, sgd, gd in lines if label.strip()}
    assert (tmp_path / "report-quickstart" / "fig4b.png").stat().st_size > 10_000
    assert (tmp_path / "report-quickstart" / "index.html").is_file()
    finals = [read_rows(folder)[-1] for folder in Path("runs/janus_pl").iterdir()]
    sgd, gd = sorted(finals, key=lambda row: -row["trainer/global_step"])
    assert table["steps"] == ("9", "1")
    for label, key in ROWS.items():
        assert float(table[label][0]) == pytest.approx(sgd[key], rel=1e-3), label
        assert float(table[label][1]) == pytest.approx(gd[key], rel=1e-3), label
