"""The notebooks of docs/notebooks: each is executed as it is, and its record shows what it says."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from conftest import ROOT
from environments import PACKAGE

from janus_pl.records.read import read

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def executed(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A notebook, executed in a folder of its own by a fresh process."""
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(place)}}
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    return book


def images_of(book: Any) -> int:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def text_of(book: Any) -> str:
    words = (cell.source for cell in book.cells if cell.cell_type == "markdown")
    return " ".join(" ".join(words).split())


def test_sgd_against_gd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and low rank under SGD, neither under GD."""
    book = executed("sgd_against_gd", tmp_path, monkeypatch)
    assert images_of(book) == 1
    found = {run.name: run.rows for run in read([tmp_path / "runs"]).runs}
    assert {*found} == {"sgd", "gd"}
    ends = {name: rows.set_index("epoch").loc[60] for name, rows in found.items()}
    starts = {name: rows.set_index("epoch").loc[0] for name, rows in found.items()}
    key = "effective_rank/fc1"
    assert starts["sgd"][key] == starts["gd"][key]  # from the same weights
    assert ends["sgd"][key] < 0.8 * starts["sgd"][key]
    assert ends["gd"][key] > 0.99 * starts["gd"][key]
    assert ends["sgd"]["velocity/fc1"] > 3 * ends["gd"]["velocity/fc1"]
    losses = found["sgd"].set_index("epoch")["train/loss"].dropna()
    assert losses.loc[60] < 0.1 * losses.loc[0]  # the picture does not end in a rise
    assert ends["gd"]["train/loss"] > 0.9 * starts["gd"]["train/loss"]  # as its text says
    steps = [int(ends[name]["trainer/global_step"]) for name in ("gd", "sgd")]
    assert f"{steps[0]} steps where SGD has taken {steps[1]:,}" in text_of(book)


def test_your_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = executed("your_network", tmp_path, monkeypatch)
    assert images_of(book) == 1
    (run,) = read([tmp_path / "mine"]).runs
    assert list(run.rows["epoch"]) == list(range(11))
    layers = {key.split("/")[1] for key in run.rows if key.startswith("effective_rank/")}
    assert layers == {"network_0", "network_3", "network_5"}
    assert run.rows["margin_raw/mean"].iloc[-1] > run.rows["margin_raw/mean"].iloc[0]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_its_outputs_and_nothing_of_a_machine(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    assert images_of(book) == 1
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell["outputs"] for cell in code[-2:])
    text = nbformat.writes(book)
    # A place in the file system: a folder of the root, not the / of a fraction or a relative path.
    assert not re.search(r"(?<![\w.)}])/(home|root|tmp|var|Users|opt|usr)/|https?://", text)
    for place in (ROOT, Path.home(), Path(tempfile.gettempdir())):
        assert str(place) not in text


def test_there_are_two_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["sgd_against_gd", "your_network"]
