"""A damaged record is read as it was, or named with what it lacks: never read as something else."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from records.damaged import (
    EPOCHS,
    STEP,
    STOPPED,
    Harm,
    Recorded,
    both,
    content,
    copies,
    edited,
    flipped,
    lines,
    record,
    renamed,
    unsealed,
    without,
    without_copy,
    zeroed,
)

from janus_pl.cli import report, verify
from janus_pl.records import folder as folders
from janus_pl.records.read import Records, read, told
from janus_pl.records.run import Run
from janus_pl.run import lines as sealing


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    yield from record(tmp_path_factory.mktemp("recorded"))


def test_the_run_is_what_the_tests_take_it_for(recorded: Recorded) -> None:
    assert [row["epoch"] for row in recorded.rows] == [*range(EPOCHS + 1)]
    (before,) = read([recorded.interrupted], unfinished=True).runs
    assert (len(before.rows), before.exit_code) == (STOPPED + 1, 143)
    first, second = copies(recorded.whole)
    assert first.parent.name > second.parent.name, "by the clock the second part is the first"


def harmed(recorded: Recorded, folder: Path, harm: Harm) -> Path:
    path = folder / "runs" / recorded.whole.name
    shutil.copytree(recorded.whole, path, symlinks=True)
    harm(path)
    return path.parent


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if isinstance(value, int | float)}


def is_right(run: Run, recorded: Recorded) -> bool:
    """Compare with the rows as they were written; a row that is there must be one of them."""
    expected = {row["epoch"]: row for row in recorded.rows}
    for found in run.rows.to_dict("records"):
        kept = {key: value for key, value in found.items() if not math.isnan(value)}
        assert kept == numbers(expected[found["epoch"]]), "never another number"
    epochs = run.rows["epoch"].tolist()
    assert epochs == sorted(set(epochs))
    for key, shown in run.histograms.items():
        for histogram in shown:
            _, counts, edges = expected[histogram.epoch][key]
            assert (histogram.counts.tolist(), histogram.edges.tolist()) == (counts, edges)
    return epochs == [*expected]


def said(records: Records) -> str:
    """What is said of the only run, in one line."""
    found = told(records)
    assert len(found) <= 1
    return "".join(found)


def noisy_config(folder: Path) -> None:
    (folder / "config.yaml").write_bytes(b"\xff{")


LOST = "lost"
DAMAGES: dict[str, tuple[Harm, str]] = {
    # of rows.jsonl: W&B's copy has what is lost
    "a number flipped": (content(flipped(0.31)), "lacks rows 2; all of them are in W&B's copy"),
    "the first byte flipped": (content(flipped(0.0)), "lacks rows 0; all of them"),
    "the last seal flipped": (content(lambda b: b[:-5] + b"0" + b[-4:]), "lacks rows 24; all"),
    "the end of a line flipped": (lines(lambda x: [*x[:3], x[3][:-1] + b"\x0b", *x[4:]]),
                                  "lacks rows 3 to 4; all of them"),
    "a number edited": (lines(edited), "lacks rows 9; all of them are in W&B's copy"),
    "a block zeroed": (content(zeroed(0.4, 512)), "all of them are in W&B's copy"),
    "a long block zeroed": (content(zeroed(0.4, 20_000)), "all of them are in W&B's copy"),
    "the end zeroed": (content(zeroed(0.9, 10**9)), "all of them are in W&B's copy"),
    "all zeroed": (content(zeroed(0.0, 10**9)), "lacks rows 0 to 24; all of them"),
    "cut between lines": (lines(lambda x: x[:20]), "lacks rows 20 to 24; all of them"),
    "cut within a line": (lines(lambda x: [*x[:20], x[20][:99]]), "lacks rows 20 to 24; all"),
    "cut to nothing": (content(lambda b: b""), "lacks rows 0 to 24; all of them"),
    "a line doubled": (lines(lambda x: [*x[:6], x[5], *x[6:]]), "rows 5 of .* are doubled"),
    "a block doubled": (lines(lambda x: [*x[:9], *x[4:]]), "rows 4 to 8 of .* are doubled"),
    "two lines reordered": (lines(lambda x: [*x[:5], x[6], x[5], *x[7:]]), "out of order"),
    "all lines reordered": (lines(lambda x: x[::-1]), "out of order"),
    "a line missing": (lines(lambda x: [*x[:7], *x[8:]]), "lacks rows 7; all of them"),
    "the first lines missing": (lines(lambda x: x[5:]), "lacks rows 0 to 4; all of them"),
    "the last lines missing": (lines(lambda x: x[:-3]), "lacks rows 22 to 24; all of them"),
    "lines of something else": (lines(lambda x: [*x[:3], b"noise\n", b"[1]\n", *x[3:]]),
                                "2 lines of rows.jsonl are damaged"),
    "no rows.jsonl": (without("rows.jsonl"), "rows.jsonl cannot be read"),
    "no seals, as in old runs": (lines(unsealed), ""),
    "no seals, and a number edited": (both(lines(edited), lines(unsealed)), "rows 9 .* differ"),
    "no seals, and cut": (lines(lambda x: unsealed(x)[:20]), "lacks rows 20 to 24; all"),
    # of W&B's files: the folder has all
    "W&B: a byte flipped": (content(flipped(0.5), 1), ""),
    "W&B: a block zeroed": (content(zeroed(0.5, 4096), 1), ""),
    "W&B: cut": (content(lambda b: b[: len(b) // 2], 1), ""),
    "W&B: emptied": (content(lambda b: b"", 1), ""),
    "W&B: noise": (content(lambda b: bytes(range(256)) * 64, 1), ""),
    "W&B: the second part missing": (lambda f: shutil.rmtree(copies(f)[1].parent), ""),
    "W&B: the first part missing": (lambda f: shutil.rmtree(copies(f)[0].parent), ""),
    "W&B: nothing left": (without_copy, ""),
    "the folder renamed": (renamed, ""),
    # of both
    "no rows.jsonl, W&B: a byte flipped": (
        both(without("rows.jsonl"), content(flipped(0.5), 1)), "W&B's file is damaged and lacks"),
    "no rows.jsonl, W&B: cut": (
        both(without("rows.jsonl"), content(lambda b: b[: len(b) // 2], 1)), LOST),
    "a line missing, W&B: nothing left": (
        both(lines(lambda x: [*x[:7], *x[8:]]), without_copy), "lacks rows 7; none .* 1 are lost"),
    "the last lines missing, W&B: nothing left": (
        both(lines(lambda x: x[:-3]), without_copy), "lacks rows 22 to 24; none .* 3 are lost"),
    "cut, W&B: the second part missing": (
        both(lines(lambda x: x[:10]), lambda f: shutil.rmtree(copies(f)[1].parent)),
        "lacks rows 10 to 24; 5 of them are in W&B's copy, and 10 are lost"),
    "nothing left at all": (both(without("rows.jsonl"), without_copy), "left out: .*rows.jsonl"),
    "nothing left but noise": (both(content(lambda b: b"noise"), without_copy), "left out: "),
    # of the small files
    "no config.yaml": (without("config.yaml"), ""),
    "no description.json": (without("description.json"), ""),
    "no outcome.json": (without("outcome.json"), ""),
    "config.yaml is noise": (noisy_config,
                             "config.yaml is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_right_or_named(
    damage: str, recorded: Recorded, tmp_path: Path
) -> None:
    harm, expected = DAMAGES[damage]
    found = read([harmed(recorded, tmp_path, harm)])
    line = said(found)
    assert pd.Series([line]).str.contains(expected or "^$").all(), line
    if expected.startswith("left out"):
        assert not found.runs
        return
    (run,) = found.runs
    assert (run.id, run.name, run.group) == (recorded.whole.name, "a name", "a group")
    assert (run.exit_code, run.dynamics) == (0, "SGD")
    assert is_right(run, recorded) or "lost" in line or "W&B's file is damaged" in line


@pytest.mark.parametrize("share", [(2 * k + 1) / 48 for k in range(24)])
@pytest.mark.parametrize("size", [0, 4096])
def test_a_damaged_file_of_wandb_alone_is_right_or_named(
    share: float, size: int, recorded: Recorded, tmp_path: Path
) -> None:
    """Of a run that has no folder of ours, by either clock."""
    harm = content(zeroed(share, size) if size else flipped(share), 1)
    own = [without(name) for name in ("rows.jsonl", "outcome.json", "config.yaml")]
    found = read([harmed(recorded, tmp_path, both(harm, *own))])
    if found.runs:
        assert is_right(found.runs[0], recorded) or "W&B's file is damaged" in said(found)
    else:
        assert found.skipped


def test_the_order_of_parts_is_that_of_steps(recorded: Recorded, tmp_path: Path) -> None:
    own = [without(name) for name in ("rows.jsonl", "outcome.json", "config.yaml")]
    (run,), skipped = read([harmed(recorded, tmp_path, both(*own))])
    assert not skipped and not run.notes
    assert is_right(run, recorded)


def test_the_table_has_thirty_damages_and_more() -> None:
    assert len(DAMAGES) >= 30


def test_without_seals_an_edited_number_would_be_read(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: `never another number` can fail, and seals make it hold."""
    runs = harmed(recorded, tmp_path, both(lines(edited), without_copy))
    assert "lacks rows 9" in said(read([runs]))
    monkeypatch.setattr(sealing, "_row", _trusting)
    (run,) = read([runs]).runs
    with pytest.raises(AssertionError, match="never another number"):
        is_right(run, recorded)


def _trusting(line: bytes) -> tuple[int | None, dict[str, Any] | None]:
    row = sealing.json.loads(line)
    return int(row.pop("_seal").partition(":")[0]), row


def test_a_whole_folder_is_read_without_its_copy(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("W&B's reader was started")

    monkeypatch.setattr(folders, "joined", lambda parts: [] if not parts else refuse())
    monkeypatch.setattr("janus_pl.records.read.read_wandb_file", refuse)
    (run,) = read([recorded.whole]).runs
    assert is_right(run, recorded)


@pytest.mark.parametrize(
    "place", [".", "..", "wandb", "wandb/*run-*", "wandb/*/*.wandb", "rows.jsonl"]
)
def test_the_run_is_found_from_each_of_its_places(place: str, recorded: Recorded) -> None:
    paths = [recorded.whole / place] if "*" not in place else [*recorded.whole.glob(place)]
    assert paths
    for path in paths:
        (run,) = read([path, recorded.whole]).runs
        assert is_right(run, recorded)


def test_links_to_folders_are_followed_and_circles_end(recorded: Recorded, tmp_path: Path) -> None:
    project = tmp_path / "runs" / "project"
    project.parent.mkdir()
    project.symlink_to(recorded.whole.parent)
    (tmp_path / "runs" / "back").symlink_to(tmp_path)
    (run,), skipped = read([tmp_path / "runs"])
    assert is_right(run, recorded) and not skipped


def test_report_and_verify_are_the_same_without_the_copy(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs = harmed(recorded, tmp_path, lambda folder: None)
    monkeypatch.chdir(tmp_path)
    found = []
    for _ in range(2):
        assert verify.main([str(runs), "--json", "-"]) == 0
        assert report.main([str(runs), "--out", "out"]) == 0
        files = {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()}
        found.append((capsys.readouterr(), files))
        shutil.rmtree(runs / recorded.whole.name / "wandb", ignore_errors=True)
        shutil.rmtree(tmp_path / "out")
    assert found[0] == found[1]
    assert len(found[0][1]) > 4


def test_a_damaged_run_is_named_by_both_tools(
    recorded: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    runs = harmed(recorded, tmp_path, lines(lambda x: [*x[:7], *x[8:]]))
    line = f"damaged: a name ({recorded.whole.name}): rows.jsonl (of 25 rows) lacks rows 7;"
    for tool, more in ((verify, []), (report, ["--out", str(tmp_path / "out")])):
        assert tool.main([str(runs), *more]) == 0
        assert line in capsys.readouterr().err
    assert "Damaged records: a name (rows.jsonl" in (tmp_path / "out" / "fig1a.txt").read_text()


def test_a_run_goes_on_though_its_rows_are_damaged(recorded: Recorded, tmp_path: Path) -> None:
    """Its checkpoint is sound: it ends with the same rows, and what was lost is named."""
    from records.damaged import FIT

    from janus_pl import main

    folder = tmp_path / "runs" / "janus_pl" / recorded.interrupted.name
    shutil.copytree(recorded.interrupted, folder, symlinks=True)
    lines(lambda x: [*x[:4], x[4][:50] + b"\n", *x[5:7], *x[8:]])(folder)
    named = "of the 15 rows before the checkpoint these are damaged or missing: 4, 7."
    with pytest.warns(UserWarning, match=named):
        assert main([*FIT, "--run_dir", str(tmp_path / "runs"), "--ckpt_path", "last"]) == 0
    found = read([folder])
    assert "rows.jsonl (of 25 rows) lacks rows 4, 7; all of them are in W&B's copy" in said(found)
    assert is_right(found.runs[0], recorded)
    without_copy(folder)
    found = read([folder])
    assert "2 are lost" in said(found)
    assert len(found.runs[0].rows) == EPOCHS - 1
    assert found.runs[0].last(STEP) == recorded.rows[-1][STEP]
