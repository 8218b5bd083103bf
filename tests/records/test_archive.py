"""Runs in one file are the runs of their folders, without the machine that they were made on."""

from __future__ import annotations

import lzma
from pathlib import Path

import pandas as pd
import pytest
import wandb
from records.test_records import CONFIG, record, row

from janus_pl.cli import subcommands as tools
from janus_pl.errors import UsageError
from janus_pl.records.archive import read_archive, write_archive
from janus_pl.records.parts import Part
from janus_pl.records.read import read, read_parts


def parts_of(folder: Path) -> list[Part]:
    return [part for part in read_parts([folder]) if isinstance(part, Part)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, one of them in two parts, with a histogram, a table and paths in the config."""
    histogram = wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.0]))
    table = wandb.Table(columns=["x"], data=[[1.0]])
    config = {**CONFIG, "run_dir": str(tmp_path), "data": {"root": ["relative/dir", "/a/b c/img"]}}
    runs = tmp_path / "runs"
    rows = [row(0, rho=1 / 3), row(1, **{"margin/hist": histogram, "spectrum_table": table})]
    record(runs, rows, id="b", config=config, name="second", group="g")
    record(runs, [row(0, rho=1), row(1, rho=2)], id="a", code=143)
    record(runs, [row(1, rho=2), row(2, rho=float("nan"))], id="a", code=5)
    return runs


def test_a_file_of_runs_reads_like_their_folders(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept" / "two.jsonl.xz"
    write_archive(path, parts_of(folder))
    for given in (path, path.parent):
        archived, whole = read([given]), read([folder])
        assert not archived.skipped
        assert len(archived.runs) == len(whole.runs) == 2
        for one, other in zip(archived.runs, whole.runs, strict=True):
            for name in ("id", "name", "group", "exit_code"):
                assert getattr(one, name) == getattr(other, name)
            pd.testing.assert_frame_equal(one.rows, other.rows, check_exact=True)
            assert one.histograms.keys() == other.histograms.keys()
            for key, (seen,) in one.histograms.items():
                assert seen.counts.tolist() == other.histograms[key][0].counts.tolist()
                assert seen.edges.tolist() == other.histograms[key][0].edges.tolist()
            assert one.options["model.loss"] == other.options["model.loss"]
    assert {run.id: len(run.rows) for run in archived.runs} == {"a": 3, "b": 2}


def test_it_says_nothing_of_the_machine(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl.xz"
    write_archive(path, parts_of(folder))
    text = lzma.decompress(path.read_bytes()).decode()
    assert str(tmp_path) not in text
    assert "spectrum_table" not in text
    assert '["relative/dir", "img"]' in text
    configs = [part.config for part in parts_of(folder)]
    assert str(tmp_path) in str(configs), "control: there was something to hide"


def test_the_same_runs_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl.xz", tmp_path / "other.jsonl.xz"
    write_archive(one, parts_of(folder))
    write_archive(other, reversed(read_archive(one)))
    assert one.read_bytes() == other.read_bytes()


def test_the_order_of_keys_is_no_difference(folder: Path, tmp_path: Path) -> None:
    parts = parts_of(folder)
    turned = [
        part._replace(
            config=dict(reversed(part.config.items())),
            items=[dict(reversed(item.items())) for item in part.items],
        )
        for part in parts
    ]
    assert [list(part.config) for part in turned] != [list(part.config) for part in parts]
    for name, given in {"one": parts, "other": turned}.items():
        write_archive(tmp_path / f"{name}.jsonl.xz", given)
    one, other = ((tmp_path / f"{name}.jsonl.xz").read_bytes() for name in ("one", "other"))
    assert one == other


@pytest.mark.parametrize("harm", ["cut", "no json", "no run"])
def test_a_harmed_file_is_refused_in_one_line(
    harm: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "two.jsonl.xz"
    write_archive(path, parts_of(folder))
    texts = {"no json": b"{", "no run": b'{"id": 1}\n'}
    path.write_bytes(lzma.compress(texts[harm]) if harm in texts else path.read_bytes()[:-40])
    with pytest.raises(UsageError, match="a file of recorded runs, unharmed"):
        read([path])
    assert tools.main(["verify", str(path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
