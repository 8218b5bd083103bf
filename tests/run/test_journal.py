"""The rows of a run in a file: what is with the system when, and what a resumed run keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from janus_pl.run import journal as module
from janus_pl.run.journal import Journal
from janus_pl.run.lines import count_in, parse
from janus_pl.run.rows import Histogram, Table, Value


@pytest.fixture
def open_journal() -> Iterator[Callable[[Path], Journal]]:
    """Makes journals and closes them when the test has ended."""
    made: list[Journal] = []

    def make(folder: Path) -> Journal:
        made.append(Journal(folder))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


def row(epoch: int, **values: Value) -> dict[str, Value]:
    return {"epoch": epoch, "trainer/global_step": 3 * epoch, **values}


def written(folder: Path) -> list[int]:
    """The epochs in the file, as another process reads it now."""
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def test_a_row_is_with_the_system_as_soon_as_it_is_appended(
    tmp_path: Path, open_journal: Any
) -> None:
    """No `close`, no `sync`: a process that is killed now has lost nothing."""
    journal = open_journal(tmp_path)
    for epoch in range(3):
        journal.append(row(epoch))
        assert written(tmp_path) == [*range(epoch + 1)]
        assert journal.count == epoch + 1


def test_a_new_run_does_not_go_on_with_rows_that_were_there(
    tmp_path: Path, open_journal: Any
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"epoch": 7}\n')
    journal = open_journal(tmp_path)
    journal.append(row(0))
    journal.append(row(1))
    assert written(tmp_path) == [0, 1]


def test_nothing_is_made_before_the_first_row(tmp_path: Path, open_journal: Any) -> None:
    journal = open_journal(tmp_path)
    journal.sync()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_after_close_it_goes_on(tmp_path: Path, open_journal: Any) -> None:
    """Lightning closes a logger at the end of a fit, and the next fit of the trainer uses it."""
    journal = open_journal(tmp_path)
    journal.append(row(0))
    journal.close()
    journal.close()
    journal.sync()
    journal.append(row(1))
    assert written(tmp_path) == [0, 1]
    assert journal.count == 2


def test_sync_waits_for_the_file_itself_with_all_its_rows(
    tmp_path: Path, open_journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size))
    )
    journal = open_journal(tmp_path)
    journal.append(row(0))
    journal.append(row(1))
    assert synced == []
    journal.sync()
    file = (tmp_path / "rows.jsonl").stat()
    assert synced == [(file.st_ino, file.st_size)]
    journal.sync()
    assert len(synced) == 1, "they are there: two checkpoints of a step wait once"
    journal.append(row(2))
    journal.close()
    assert synced[1:] == [(file.st_ino, (tmp_path / "rows.jsonl").stat().st_size)]


def test_what_a_process_before_has_written_is_waited_for(
    tmp_path: Path, open_journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed before it waited itself."""
    before = open_journal(tmp_path)
    for epoch in range(3):
        before.append(row(epoch))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    journal = open_journal(tmp_path)
    journal.keep(3)
    journal.append(row(3))
    journal.sync()
    assert synced[-1] == (tmp_path / "rows.jsonl").stat().st_size


def test_the_first_rows_are_kept_and_the_others_forgotten(
    tmp_path: Path, open_journal: Any
) -> None:
    before = open_journal(tmp_path)
    for epoch in range(5):
        before.append(row(epoch))
    before.close()
    journal = open_journal(tmp_path)
    assert [kept["epoch"] for kept in journal.keep(2)] == [0, 1]
    assert journal.count == 2
    assert written(tmp_path) == [0, 1]
    journal.append(row(9))
    assert journal.count == 3
    assert written(tmp_path) == [0, 1, 9]


def test_a_run_without_a_checkpoint_keeps_none(tmp_path: Path, open_journal: Any) -> None:
    (tmp_path / "rows.jsonl").write_text('{"epoch": 0}\n{"ep')
    journal = open_journal(tmp_path)
    assert journal.keep(0) == []
    assert written(tmp_path) == []
    journal.append(row(0))
    assert written(tmp_path) == [0]
    assert open_journal(tmp_path / "nowhere").keep(0) == []  # killed before its first row


def test_rows_that_the_checkpoint_has_and_the_file_has_not_are_named(
    tmp_path: Path, open_journal: Any
) -> None:
    """Their loss does not stop a run whose checkpoint is sound."""
    journal = open_journal(tmp_path)
    for epoch in range(5):
        journal.append(row(epoch))
    journal.close()
    file = tmp_path / "rows.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    harmed = b"".join([lines[0], lines[1].replace(b"3", b"4"), *lines[3:]])
    file.write_bytes(harmed)
    again = open_journal(tmp_path)
    told = r"rows.jsonl: of the 6 rows before .* damaged or missing: 1 to 2, 5\. The run goes on"
    with pytest.warns(UserWarning, match=told):
        kept = again.keep(6)
    assert [row["epoch"] for row in kept] == [0, 3, 4]
    assert (tmp_path / "rows.damaged.jsonl").read_bytes() == harmed, "nothing is lost by going on"
    again.append(row(6))
    again.close()
    # The gap stays to be seen: rows keep their numbers.
    assert parse(file.read_bytes()).missing() == [1, 2, 5]
    assert count_in(tmp_path) == 7


def test_without_its_file_a_run_goes_on_too(tmp_path: Path, open_journal: Any) -> None:
    with pytest.warns(UserWarning, match="damaged or missing: 0 to 2. The run goes on"):
        assert open_journal(tmp_path).keep(3) == []
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_rows_of_an_old_run_that_goes_on_are_sealed(tmp_path: Path, open_journal: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"epoch": 0}\n{"epoch": 1, "rho": 0.1}\n')
    assert not parse(file.read_bytes()).sealed
    journal = open_journal(tmp_path)
    assert journal.keep(2) == [{"epoch": 0}, {"epoch": 1, "rho": 0.1}]
    journal.append(row(2))
    found = parse(file.read_bytes())
    assert found.sealed and not found.damaged
    assert [row["epoch"] for row in found.rows.values()] == [0, 1, 2]


def test_keeping_replaces_the_file_in_one_step(
    tmp_path: Path, open_journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it keeps, the run still has the rows that its checkpoint counts."""
    journal = open_journal(tmp_path)
    for epoch in range(3):
        journal.append(row(epoch))
    journal.close()

    def refuse(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(KeyboardInterrupt):
            open_journal(tmp_path).keep(2)
    assert written(tmp_path) == [0, 1, 2]
    paths = []
    write = module.write_atomically

    def noted(path: Path, *content: Any) -> None:
        paths.append(path)
        write(path, *content)

    monkeypatch.setattr(module, "write_atomically", noted)
    open_journal(tmp_path).keep(2)
    assert paths == [tmp_path / "rows.jsonl"]


def test_rows_come_back_as_they_were(tmp_path: Path, open_journal: Any) -> None:
    """To the last bit of a float, histograms and tables too; and more than once."""
    hist = Histogram(np.array([1, 0, 5]), np.array([0.0, 0.1, 1 / 3, 1e-300]))
    table = Table(("layer", "sigma"), [("conv1", 0.1 + 0.2), ("fc1", 2.0)])
    journal = open_journal(tmp_path)
    journal.append(row(0, loss=0.1 + 0.2, hist=hist, table=table, diverged=True))
    journal.close()
    for _ in range(2):
        (kept,) = open_journal(tmp_path).keep(1)
        assert (kept["loss"], kept["diverged"]) == (0.1 + 0.2, True)
        found, rows = kept["hist"], kept["table"]
        assert isinstance(found, Histogram) and isinstance(rows, Table)
        assert found.counts.tolist() == hist.counts.tolist()
        assert found.edges.tolist() == hist.edges.tolist()
        assert tuple(rows.columns) == table.columns
        assert [tuple(line) for line in rows.rows] == table.rows
