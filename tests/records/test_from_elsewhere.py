"""Files from elsewhere: whatever they hold, a line says what is wrong, and the others are read."""

from __future__ import annotations

import copy
import json
import lzma
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from janus_pl.cli import subcommands as tools
from janus_pl.errors import UsageError
from janus_pl.records import archive
from janus_pl.records.archive import read_archive
from janus_pl.records.checked import read_mapping
from janus_pl.records.read import read, told
from janus_pl.run.nested import MOST, check_nesting, check_yaml, load_yaml

STEP = "trainer/global_step"
HISTOGRAM = {f"margin/hist.{k}": v for k, v in
             {"_type": "histogram", "values": [1, 2], "bins": [0, 1, 2]}.items()}  # fmt: skip
NUMBERS = {"rho": 1.0, "train/loss": 0.5, "margin/mean": 0.1, "velocity/fc1": 0.1, "rank/fc1": 3.0}
PART: dict[str, Any] = {
    "id": "a",
    "name": "n",
    "group": None,
    "start": "2026",
    "config": {
        "seed_everything": 0,
        "model": {"class_path": "janus_pl.DeepReLUClassifier",
                  "init_args": {"loss": "square", "weight_decay": 0.001}},
        "data": {"class_path": "janus_pl.data.DigitsPair",
                 "init_args": {"batch_size": 2, "num_train": 6, "seed": 0}},
        "trainer": {"max_epochs": 3},
    },
    "items": [{"epoch": e, STEP: 3 * e, **NUMBERS, **HISTOGRAM} for e in range(4)],
    "exit_code": 0,
}  # fmt: skip
KINDS: dict[str, Any] = {
    "null": None, "number": 7, "text": "x", "list": [], "mapping": {}, "nested": {"a": [1]},
    "long integer": 10**400, "true": True, "not a number": float("nan"), "lists": [[["x"]]],
}  # fmt: skip


def packed(path: Path, *parts: Any) -> Path:
    lines = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    path.write_bytes(lzma.compress(b"".join(line + b"\n" for line in lines), preset=0))
    return path


def changed(where: str, value: Any) -> dict[str, Any]:
    """A record with another value; a dot leads into a mapping, and `items` is the second row."""
    part = copy.deepcopy(PART)
    place, *rest = where.split(".")
    held: Any = part
    if place == "items" and rest:
        held, place, rest = part["items"][1], ".".join(rest), []
    for name in rest:
        held, place = held[place], name
    held[place] = value
    return part


PLACES = [
    *PART, "config.model", "config.data", "config.trainer", "config.seed_everything",
    "config.model.class_path", "config.model.init_args", "config.model.init_args.weight_decay",
    "config.model.init_args.loss", "config.data.init_args.batch_size",
    "config.data.init_args.seed", "config.description", "config.run_dir",
    "items.epoch", f"items.{STEP}", "items.rho", "items.margin/hist.values",
    "items.margin/hist.bins", "items.margin/hist._type",
]  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_a_value_of_any_kind_is_read_or_refused_in_one_line(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """200 archives made by hand: `verify` ends with 0 or 2, and never with a traceback."""
    for kind, value in KINDS.items():
        file = packed(tmp_path / "one.jsonl.xz", changed(where, value))
        code = tools.main(["verify", str(file)])
        said = capsys.readouterr().err.splitlines()
        assert code in (0, 2), kind
        assert code == 0 or len(said) == 1, (kind, said)


@pytest.mark.parametrize("name", PART)
def test_a_record_without_a_field_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    part = {key: value for key, value in PART.items() if key != name}
    with pytest.raises(UsageError, match=f"unharmed \\(a record has no {name}\\)"):
        read([packed(tmp_path / "one.jsonl.xz", part)])


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"null", b"[]", b"5", b"[" * 200_000, b"", b"NaN", b"1" * 6000, b"{",
     b'{"id": 1}', b'{"a":' * 900 + b"1" + b"}" * 900],
)  # fmt: skip
def test_one_bad_file_does_not_end_the_command(line: bytes, tmp_path: Path) -> None:
    bad = packed(tmp_path / "bad.jsonl.xz", line)
    packed(tmp_path / "good.jsonl.xz", PART)
    found = read([tmp_path])
    assert [run.id for run in found.runs] == ["a"]
    (said,) = told(found)
    assert said.startswith(f"left out: {bad}: not a file of recorded runs, unharmed (")
    with pytest.raises(UsageError, match="unharmed"):
        read([bad])


def test_a_damaged_file_is_left_out_too(tmp_path: Path) -> None:
    good = packed(tmp_path / "good.jsonl.xz", PART)
    for name, content in {
        "cut": good.read_bytes()[:-40],
        "noise": bytes(range(256)),
        "empty": b"",
    }.items():
        (tmp_path / f"{name}.jsonl.xz").write_bytes(content)
    found = read([tmp_path])
    assert len(found.runs) == 1
    assert [skipped.path.name for skipped in found.skipped] == [
        f"{name}.jsonl.xz" for name in ("cut", "empty", "noise")
    ]


BOMB = """
import lzma, sys
packer = lzma.LZMACompressor(preset=6)
with open(sys.argv[1], "wb") as file:
    for _ in range(1500):
        file.write(packer.compress(bytes(2**20)))
    file.write(packer.flush())
"""


def test_a_file_that_unpacks_to_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """228 kB of zeros: refused as soon as it is larger than records are."""
    bomb = tmp_path / "bomb.jsonl.xz"
    subprocess.run([sys.executable, "-c", BOMB, str(bomb)], check=True)
    assert bomb.stat().st_size < 300_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=r"more than 6\d{7} bytes in it"):
        read([bomb])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 400, f"{grown} MiB"


def test_records_that_shrink_as_records_do_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is of what a file unpacks to, and equal rows shrink much."""
    part = {**PART, "items": [{"epoch": e, STEP: e, "rho": 1.0} for e in range(20_000)]}
    file = packed(tmp_path / "one.jsonl.xz", part)
    monkeypatch.setattr(archive, "SMALL", 0)
    assert len(read_archive(file)[0].items) == 20_000
    monkeypatch.setattr(archive, "RATIO", 1)
    with pytest.raises(UsageError, match="bytes in it, which no record has"):
        read_archive(file)


# YAML


def bomb(levels: int, merge: bool = False) -> str:
    lines = ["a0: &a0 {k: 1}" if merge else "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for k in range(1, levels):
        nine = ", ".join([f"*a{k - 1}"] * 9)
        lines.append(f"a{k}: &a{k} {{<<: [{nine}]}}" if merge else f"a{k}: &a{k} [{nine}]")
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("levels", [7, 60])
def test_aliases_of_aliases_are_counted_as_often_as_they_are_used(levels: int, merge: bool) -> None:
    with pytest.raises(ValueError, match=f"more than {MOST} values"):
        check_yaml(bomb(levels, merge))
    with pytest.raises(ValueError, match="more than"):
        load_yaml(bomb(levels, merge))


def test_what_is_large_or_deep_is_refused_and_a_config_is_not() -> None:
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        check_yaml("[" * 100_000)
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        check_yaml("- " * 70 + "x")
    with pytest.raises(ValueError, match="more than"):
        check_nesting([0] * (MOST + 1))
    deep: Any = 0
    for _ in range(70):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="deep"):
        check_nesting(deep)
    assert load_yaml("a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}}") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": 1},
    }
    assert check_nesting({"a": [1, {"b": 2}]}) == 7
    check_yaml("{ no YAML")  # another's to name


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", bomb(9), "config.yaml is damaged: more than"),
        ("config.yaml", "[1]", "config.yaml is damaged: it holds no options by name"),
        ("config.yaml", "1: 2", "config.yaml is damaged: it holds no options"),
        ("config.yaml", "a: [", "config.yaml is damaged: while parsing"),
        ("config.yaml", "a: !!python/object:os.system {}", "could not determine a constructor"),
        ("config.yaml", "a: 2020-13-45", "config.yaml is damaged: month"),
        ("outcome.json", "[" * 100_000, "outcome.json is damaged"),
        ("outcome.json", "{", "outcome.json is damaged: Expecting"),
        ("config.yaml", "#" * (2**22 + 1), "config.yaml has more than 4194304 bytes"),
    ],
)
def test_small_files_of_a_folder_are_read_or_named(
    name: str, content: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_mapping(tmp_path / name)
    assert read_mapping(tmp_path / "nowhere.yaml") is None


def test_a_config_and_a_sweep_of_aliases_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from janus_pl.cli.config_files import find_configs
    from janus_pl.sweep.file import load

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.yaml").write_text(bomb(12))
    for read_it in (
        lambda: find_configs(["fit", "--config", "bomb.yaml"]),
        lambda: load("bomb.yaml"),
    ):
        with pytest.raises(UsageError, match="more than 100000 values"):
            read_it()


# Names


def named(**fields: Any) -> Mapping[str, Any]:
    layers = {"rank/$\\frac$": 3.0, "velocity/$\\frac$": 0.5, "effective_rank/$\\frac$": 2.0}
    items = [{**item, **layers, "rank/\x1b[31mred": 1.0} for item in PART["items"]]
    return {**copy.deepcopy(PART), "items": items, **fields}


def test_escapes_of_a_terminal_are_spelled_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hostile = "\x1b]0;title\x07\x1b[2Jname\u202e"
    packed(tmp_path / "a.jsonl.xz", named(name=hostile, group=hostile))
    packed(tmp_path / "b.jsonl.xz", {**named(id=hostile, name=hostile), "exit_code": 1})
    packed(tmp_path / "c\x1b[31m.jsonl.xz", b"\x1b[2J")
    (run,) = read([tmp_path]).runs
    assert run.name == r"\x1b]0;title\x07\x1b[2Jname\u202e"
    assert all(text.isprintable() for text in [run.name, run.group, *run.rows, *run.options])
    assert all(line.isprintable() for line in told(read([tmp_path])))
    assert tools.main(["verify", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\x1b" in hostile, "control: there was something to spell out"


def test_names_are_text_in_figures_and_in_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A layer named as a formula of TeX, and runs named as formulas of a spreadsheet."""
    for name in ("=1+1", "@SUM(A1)", "+1", "-1", "plain"):
        packed(tmp_path / f"{name}.jsonl.xz", named(id=f"={name}", name=name))
    out = tmp_path / "out"
    assert tools.main(["report", str(tmp_path), "--out", str(out)]) == 0
    table = (out / "fig4b.csv").read_text()
    assert "$\\frac$" in table
    for name in ("=1+1", "@SUM(A1)", "+1", "-1"):
        assert f",'{name},'={name}," in table
        assert f",{name}," not in table
    assert ",plain,'=plain," in table
    assert (out / "fig4b.png").stat().st_size > 0
    assert "<text" in (out / "fig4b.svg").read_text()
    assert "$\\frac$" in (out / "fig4b.svg").read_text()
