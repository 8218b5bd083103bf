"""The file of singular values: which rows write to it, what else sees them, what a resume keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from run.test_rows import Logger, Numbers

from janus_pl.run.folder import RunFolder
from janus_pl.run.journal import Journal
from janus_pl.run.lines import SEAL, SPECTRA, parse
from janus_pl.run.record import RunRecord, write_row
from janus_pl.run.rows import Histogram, Spectra, Value, plain_row, row_of, spectra_line
from janus_pl.training.generators import generators
from janus_pl.training.resume import ExactResume

ON_CPU = SimpleNamespace(root_device=torch.device("cpu"))  # a strategy
SIGMA = {"conv1": [0.75, 0.1 + 0.2, 1e-9], "fc1": [1.0]}
OTHERS: dict[str, Value] = {
    "rank/fc1": 1.0,
    "hist": Histogram(np.array([1, 2]), np.array([0.0, 1.0, 3.0])),
}


@pytest.fixture
def open_record() -> Iterator[Callable[[Path], RunRecord]]:
    """Makes records as a fit has them and closes their files when the test has ended."""
    made: list[RunRecord] = []

    def make(folder: Path) -> RunRecord:
        folder.mkdir(exist_ok=True)
        record = RunRecord(folder)
        record.journal, record.spectra = Journal(folder), Journal(folder, SPECTRA)
        made.append(record)
        return record

    yield make
    for record in made:
        record._close_files()


def axes(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "trainer/global_step": 3 * epoch, "eta_t": 0.5 * epoch}


def write(record: RunRecord, *loggers: Any, epochs: Any = (0,), seen: bool = True) -> None:
    trainer: Any = SimpleNamespace(loggers=[*loggers], is_global_zero=True, callbacks=[record])
    for epoch in epochs:
        spectra: dict[str, Value] = {"spectra": Spectra(SIGMA)} if seen else {}
        write_row(trainer, {**OTHERS, **spectra, **axes(epoch)})


def lines_in(folder: Path, file: str = SPECTRA) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != SEAL} for line in found]


def resumed(record: RunRecord, state: dict[str, Any]) -> None:
    """What `fit` does when it goes on from a checkpoint with this state."""
    exact = ExactResume(goes_on=True)
    here = {"callbacks": [exact, record], "strategy": ON_CPU}
    trainer: Any = SimpleNamespace(**here, loggers=[], is_global_zero=True, fast_dev_run=True)
    held = {"generators": generators(), "ends": False, **state}
    exact.on_load_checkpoint(trainer, None, {"exact_resume": held})
    exact.on_fit_start(trainer, None)


def test_a_look_is_one_sealed_line(tmp_path: Path, open_record: Any) -> None:
    write(open_record(tmp_path), epochs=(0, 4))
    assert lines_in(tmp_path) == [{**axes(0), "sigma": SIGMA}, {**axes(4), "sigma": SIGMA}]
    content = (tmp_path / SPECTRA).read_bytes()
    lines = parse(content)
    assert lines.sealed and not lines.damaged and list(lines.rows) == [0, 1]
    assert parse(content.replace(b"0.75", b"0.76")).damaged == 2, "control: the seal sees it"


def test_the_rows_and_the_loggers_are_as_without_it(tmp_path: Path, open_record: Any) -> None:
    made = {}
    for seen in (True, False):
        folder, loggers = tmp_path / str(seen), (Logger(), Numbers())
        write(open_record(folder), *loggers, epochs=range(3), seen=seen)
        sent = [sorted(row) for row, _ in loggers[0].run.logged]
        made[seen] = (folder / "rows.jsonl").read_bytes(), sent, loggers[1].rows
        assert (folder / SPECTRA).exists() == seen
    assert made[True] == made[False]
    assert b"rank/fc1" in made[True][0]


def test_of_several_processes_the_first_one_writes(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(loggers=[], is_global_zero=False, callbacks=[])
    write_row(trainer, {**axes(0), "spectra": Spectra(SIGMA)})
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_waits_in_a_checkpoint_makes_the_same_line() -> None:
    row: dict[str, Value] = {**axes(2), "spectra": Spectra(SIGMA)}
    plain = json.loads(json.dumps(plain_row(row)))
    assert spectra_line(row_of(plain)) == spectra_line(row) is not None
    assert spectra_line({**axes(2), **OTHERS}) is None


def test_a_checkpoint_counts_them_and_a_resumed_run_keeps_as_many(
    tmp_path: Path, open_record: Any
) -> None:
    record = open_record(tmp_path)
    write(record, epochs=(0, 1))
    write(record, epochs=(2,), seen=False)
    checkpoint: dict[str, Any] = {}
    here = {"callbacks": [record], "strategy": ON_CPU}
    trainer: Any = SimpleNamespace(**here, is_global_zero=True, should_stop=False)
    ExactResume().on_save_checkpoint(trainer, None, checkpoint)
    state = checkpoint["exact_resume"]
    assert (state["rows"], state["spectra"]) == (3, 2)
    before = (tmp_path / SPECTRA).read_bytes()
    write(record, epochs=(3, 4))  # after the checkpoint, then killed
    assert (tmp_path / SPECTRA).read_bytes() != before
    again = open_record(tmp_path)
    resumed(again, state)
    assert (tmp_path / SPECTRA).read_bytes() == before
    write(again, epochs=(3, 4))
    assert [line["epoch"] for line in lines_in(tmp_path)] == [0, 1, 3, 4]
    assert list(parse((tmp_path / SPECTRA).read_bytes()).rows) == [0, 1, 2, 3]


@pytest.mark.parametrize("state", [{"rows": 2}, {"rows": 2, "spectra": 0}], ids=["old", "none"])
def test_a_run_without_spectra_has_no_file_after_a_resume(
    state: dict[str, Any], tmp_path: Path, open_record: Any
) -> None:
    record = open_record(tmp_path)
    write(record, epochs=range(3), seen=False)
    resumed(record, state)
    assert len(lines_in(tmp_path, "rows.jsonl")) == 2
    assert not (tmp_path / SPECTRA).exists()
    write(record, epochs=(2,))  # its first look came after the checkpoint
    resumed(open_record(tmp_path), state)
    assert not (tmp_path / SPECTRA).exists()


def test_damaged_lines_are_told_once_and_kept_in_a_copy(tmp_path: Path, open_record: Any) -> None:
    record = open_record(tmp_path)
    write(record, epochs=range(5))
    record._close_files()
    file = tmp_path / SPECTRA
    harmed = file.read_bytes().replace(b'"epoch": 1', b'"epoch": 9')
    file.write_bytes(harmed)
    again = open_record(tmp_path)
    told = r"spectra.jsonl: of the 4 rows before .* missing: 1\. .* is spectra.damaged.jsonl"
    with pytest.warns(UserWarning, match=told) as warned:
        resumed(again, {"rows": 4, "spectra": 4})
    assert len(warned) == 1
    assert (tmp_path / "spectra.damaged.jsonl").read_bytes() == harmed
    assert not (tmp_path / "rows.damaged.jsonl").exists()
    write(again, epochs=(4,))
    assert list(parse(file.read_bytes()).rows) == [0, 2, 3, 4], "the gap stays to be seen"


def test_the_outcome_counts_them(tmp_path: Path, open_record: Any) -> None:
    for seen, expected in ((True, {"rows": 2, "spectra": 2}), (False, {"rows": 2})):
        folder = tmp_path / str(seen)
        held = RunFolder(folder)
        record = open_record(folder)
        write(record, epochs=(0, 1), seen=seen)
        held.end(0)
        outcome = json.loads((folder / "outcome.json").read_text())
        assert outcome == {"exit_code": 0, **expected}


def test_a_row_held_back_until_after_an_error_is_written(tmp_path: Path, open_record: Any) -> None:
    record = open_record(tmp_path)
    write(record, epochs=(0,))
    record._end(1)
    write(record, epochs=(1,))
    assert [line["epoch"] for line in lines_in(tmp_path)] == [0, 1]
    assert record.spectra._file is None, "closed again"
