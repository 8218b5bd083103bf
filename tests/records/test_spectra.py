"""Singular values read back: every line, every damage named, from folders and from archives."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from records.test_records import CONFIG, row

from janus_pl.errors import UsageError
from janus_pl.records.archive import write_archive
from janus_pl.records.parts import Part
from janus_pl.records.read import read, read_parts, told
from janus_pl.records.run import Run
from janus_pl.records.spectra import look_of
from janus_pl.run.lines import seal

EPOCHS = (0, 1, 4, 9)


def look(epoch: int) -> dict[str, Any]:
    values = np.random.default_rng(epoch).uniform(0, 1, (2, 5))
    sigma = {"fc1": values[0].tolist(), "10": values[1, :2].tolist()}
    return {**row(epoch), "sigma": sigma}


def run_in(folder: Path, spectra: bool = True, **outcome: Any) -> Path:
    """A run's folder as a fit leaves it."""
    folder.mkdir(parents=True)
    rows = "".join(f"{seal(row(e, rho=1.0 / (e + 1)), e)}\n" for e in range(10))
    (folder / "rows.jsonl").write_text(rows)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ended = {"exit_code": 0, "rows": 10, **({"spectra": len(EPOCHS)} if spectra else {}), **outcome}
    (folder / "outcome.json").write_text(json.dumps(ended))
    if spectra:
        lines = "".join(f"{seal(look(e), n)}\n" for n, e in enumerate(EPOCHS))
        (folder / "spectra.jsonl").write_text(lines)
    return folder


def only(path: Path) -> Run:
    (run,), skipped = read([path])
    assert not skipped
    return run


def same(run: Run, epochs: Any = EPOCHS) -> None:
    assert [seen.epoch for seen in run.spectra] == list(epochs)
    for seen in run.spectra:
        expected = look(int(seen.epoch))
        assert (seen.step, seen.eta_t) == (expected["trainer/global_step"], expected["eta_t"])
        assert {k: v.tolist() for k, v in seen.sigma.items()} == expected["sigma"]


def test_every_value_is_read(tmp_path: Path) -> None:
    run = only(run_in(tmp_path / "a"))
    same(run)
    assert run.notes == ()


def test_a_run_without_them_has_none_and_that_is_no_damage(tmp_path: Path) -> None:
    run = only(run_in(tmp_path / "a", spectra=False))
    assert (list(run.spectra), run.notes) == ([], ())


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], object]:
    def harm(file: Path) -> None:
        file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))

    return harm


HARMS: dict[str, tuple[Callable[[Path], object], tuple[int, ...], str]] = {
    "a digit": (
        lines(lambda f: [f[0], f[1].replace(b"0.", b"0.1", 1), *f[2:]]),
        (0, 4, 9),
        "1 lines of spectra.jsonl are damaged; spectra.jsonl lacks lines 1,",
    ),
    "the end": (lines(lambda f: f[:3]), (0, 1, 4), "spectra.jsonl lacks lines 3,"),
    "half a line": (lines(lambda f: [*f[:3], f[3][:30]]), (0, 1, 4), "1 lines of .* lacks lines 3"),
    "all": (lambda file: file.unlink(), (), "spectra.jsonl lacks lines 0 to 3,"),
    "twice": (lines(lambda f: [*f, f[1]]), EPOCHS, "lines 1 of spectra.jsonl are doubled"),
    "turned": (lines(lambda f: f[::-1]), EPOCHS, "the lines of spectra.jsonl are out of order"),
    "not of numbers": (
        lines(lambda f: [seal({**row(0), "sigma": {"fc1": ["a"]}}, 0).encode() + b"\n", *f[1:]]),
        (1, 4, 9),
        "1 lines of spectra.jsonl are damaged; spectra.jsonl lacks lines 0,",
    ),
}


@pytest.mark.parametrize("what", HARMS)
def test_what_is_damaged_is_named_and_the_rest_is_read(what: str, tmp_path: Path) -> None:
    harm, left, words = HARMS[what]
    harm(run_in(tmp_path / "a") / "spectra.jsonl")
    run = only(tmp_path)
    same(run, left)
    assert len(run.rows) == 10, "rows are not touched by it"
    (line,) = told(read([tmp_path]))
    assert line.startswith("damaged: ") and re.search(words, line)


@pytest.mark.parametrize(
    "line",
    [
        {},
        {**look(1), "sigma": [0.5]},
        {**look(1), "epoch": None},
        {**look(1), "eta_t": float("nan")},
        {**look(1), "sigma": {"fc1": []}},
        {**look(1), "sigma": {"fc1": [0.5, float("inf")]}},
        {**look(1), "sigma": {"fc1": [[0.5], [0.4]]}},
        {**look(1), "sigma": {"fc1": [[0.5], 0.4]}},
        {**look(1), "sigma": {"fc1": [True]}},
        {**look(1), "sigma": {"fc1": "0.5"}},
    ],
    ids=str,
)
def test_what_is_no_look(line: dict[str, Any]) -> None:
    assert look_of(line) is None
    assert look_of(look(1)) is not None


def parts_of(folder: Path) -> list[Part]:
    return [part for part in read_parts([folder]) if isinstance(part, Part)]


def test_an_archive_takes_them_along(tmp_path: Path) -> None:
    run_in(tmp_path / "runs" / "a")
    run_in(tmp_path / "runs" / "b", spectra=False)
    path = tmp_path / "kept.jsonl.xz"
    write_archive(path, parts_of(tmp_path / "runs"))
    a, b = sorted(read([path]).runs, key=lambda run: run.id)
    same(a)
    assert list(b.spectra) == []
    texts = [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
    assert ["spectra" in text for text in texts] == [True, False], "as older archives have it"


def test_an_archive_with_something_else_in_their_place_is_refused(tmp_path: Path) -> None:
    run_in(tmp_path / "runs" / "a")
    path = tmp_path / "kept.jsonl.xz"
    write_archive(path, parts_of(tmp_path / "runs"))
    (text,) = lzma.decompress(path.read_bytes()).splitlines()
    for given in ("x", [1], [{**look(1), "sigma": {"fc1": ["x"]}}]):
        path.write_bytes(lzma.compress(json.dumps({**json.loads(text), "spectra": given}).encode()))
        with pytest.raises(UsageError, match="a record's spectra is not of its kind"):
            read([path])


def test_of_two_parts_the_later_one_has_all_from_its_first_look(tmp_path: Path) -> None:
    folder = run_in(tmp_path / "runs" / "a")
    (whole,) = parts_of(folder)
    first = whole._replace(
        exit_code=143, spectra=[look(0), look(1), look(8)], items=whole.items[:9]
    )
    later = whole._replace(spectra=[look(4), look(9)], items=whole.items[4:])
    path = tmp_path / "kept.jsonl.xz"
    write_archive(path, [first, later])
    same(only(path))
