"""Parts of runs into runs, and runs into one file and back: without W&B, one rule a test."""

from __future__ import annotations

import json
import lzma
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb

from janus_pl.errors import UsageError
from janus_pl.records import online, wandb_file
from janus_pl.records import read as records
from janus_pl.records.archive import read_archive, write_archive
from janus_pl.records.parts import Part, Skipped
from janus_pl.records.read import Records, read, read_parts
from janus_pl.records.run import Run
from janus_pl.records.wandb_file import read_wandb_file

STEP = "trainer/global_step"


def item(epoch: int, step: int | None = None, **more: Any) -> dict[str, Any]:
    """A row; its loss is told from those of other parts by `more`."""
    return {"epoch": epoch, STEP: 3 * epoch if step is None else step, **more}


def part(
    items: Sequence[Mapping[str, Any]],
    code: int | None = 0,
    start: str = "2026-01-01T00:00:00Z",
    id: str = "abc",
    **fields: Any,
) -> Part:
    given = {"path": Path(f"{id}.wandb"), "name": id, "group": None, "config": {}, **fields}
    return Part(id=id, start=start, items=[dict(i) for i in items], exit_code=code, **given)


def read_back(folder: Path, *parts: Part, unfinished: bool = False) -> Records:
    """As `report` reads a file of recorded runs."""
    write_archive(folder / "kept.jsonl.xz", parts)
    return read([folder], unfinished)


def only(folder: Path, *parts: Part, unfinished: bool = False) -> Run:
    (run,), skipped = read_back(folder, *parts, unfinished=unfinished)
    assert not skipped
    return run


FIRST = "2026-01-01T00:00:00Z"
SECOND = "2026-01-02T00:00:00Z"
THIRD = "2026-01-03T00:00:00Z"


# Parts of one run


def test_a_later_part_takes_over_from_its_first_row_on(tmp_path: Path) -> None:
    """By steps, for a part may begin within an epoch."""
    one = part([item(e, loss=1.0 + e) for e in range(5)], 143, FIRST)
    two = part([item(2, 7, loss=20.0), item(3, loss=30.0), item(6, loss=60.0)], 143, SECOND)
    three = part([item(6, loss=600.0), item(7, loss=700.0)], 0, THIRD)
    for order in ([one, two, three], [three, one, two]):
        run = only(tmp_path, *order)
        # 7 steps are after the row of epoch 2 that has 6: that one stays.
        assert run.rows["epoch"].tolist() == [0, 1, 2, 2, 3, 6, 7]
        assert run.rows["loss"].tolist() == [1, 2, 3, 20, 30, 600, 700]
        assert run.exit_code == 0


def test_parts_are_in_the_order_of_their_starts_however_they_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = part([item(0, loss=1.0), item(1, loss=1.5)], 143, FIRST)
    two = part([item(1, loss=2.0)], 0, SECOND)
    for found in ([one, two], [two, one]):
        monkeypatch.setattr(records, "read_parts", lambda _, found=found: found)
        (run,), skipped = read(["anything"])
        assert not skipped
        assert run.rows["loss"].tolist() == [1, 2]


def test_the_row_at_which_a_part_begins_is_its_own(tmp_path: Path) -> None:
    one = part([item(e, loss=1.0) for e in range(4)], 143, FIRST)
    two = part([item(3, loss=2.0)], 0, SECOND)
    assert only(tmp_path, one, two).rows["loss"].tolist() == [1, 1, 1, 2]


def test_a_part_that_begins_anew_replaces_all_before(tmp_path: Path) -> None:
    one = part([item(e, loss=1.0) for e in range(9)], 143, FIRST)
    two = part([item(e, loss=2.0) for e in range(2)], 0, SECOND)
    assert only(tmp_path, one, two).rows["loss"].tolist() == [2, 2]


def test_a_part_without_rows_takes_nothing_away(tmp_path: Path) -> None:
    one = part([item(0, loss=1.0), item(1, loss=1.5)], 143, FIRST)
    rowless = part([{"note": 3.0}, {"epoch": 1}, {STEP: 0}], 143, SECOND)
    three = part([item(2, loss=3.0)], 0, THIRD)
    assert only(tmp_path, one, rowless, three).rows["loss"].tolist() == [1, 1.5, 3]


def test_a_row_needs_an_epoch_and_a_step(tmp_path: Path) -> None:
    rows = [item(0, loss=1.0), {"epoch": 1, "loss": 2.0}, {STEP: 3, "loss": 3.0}, item(2, loss=4.0)]
    assert only(tmp_path, part(rows)).rows["loss"].tolist() == [1, 4]
    (skipped,) = read_back(tmp_path, part([{"epoch": 1}, {STEP: 1}])).skipped
    assert skipped.reason == "no rows with an epoch"


def test_options_names_and_the_end_are_those_of_the_last_part(tmp_path: Path) -> None:
    old = {"model": {"init_args": {"loss": "square"}}, "only_here": 1, "seed_everything": 3}
    new = {"model": {"init_args": {"loss": "logistic"}}, "seed_everything": 4}
    one = part([item(0)], 143, FIRST, config=old, name="old", group="g")
    two = part([item(1)], 5, SECOND, config=new, name="new", group="h")
    run = only(tmp_path, two, one)
    assert run.config == {**old, **new}
    assert run.options["model.loss"] == "logistic"
    assert (run.name, run.group, run.exit_code, run.finished) == ("new", "h", 5, True)


@pytest.mark.parametrize("code", [0, 5, 130, 143, None, 1, 2, 3, -9])
def test_the_last_part_decides_how_a_run_ended(code: int | None, tmp_path: Path) -> None:
    for earlier in (0, 1, 143, None):
        parts = [part([item(0)], earlier, FIRST), part([item(1)], code, SECOND)]
        for unfinished in (False, True):
            runs, skipped = read_back(tmp_path, *parts, unfinished=unfinished)
            broken_off = code in (130, 143, None)
            taken = code in (0, 5) or (broken_off and unfinished)
            assert [run.exit_code for run in runs] == [code] * taken
            reason = "it has not ended, or was interrupted"
            said = reason if broken_off else f"it ended with exit code {code}"
            assert [entry.reason for entry in skipped] == [said] * (not taken)


def test_runs_come_by_name_and_then_by_id(tmp_path: Path) -> None:
    names = {"c": "one", "a": "two", "b": "one"}
    parts = [part([item(0)], id=id, name=name) for id, name in names.items()]
    assert [run.id for run in read_back(tmp_path, *parts).runs] == ["b", "c", "a"]


def test_a_run_that_is_found_twice_has_each_row_once(tmp_path: Path) -> None:
    whole = part([item(e, loss=float(e)) for e in range(3)])
    write_archive(tmp_path / "one.jsonl.xz", [whole])
    write_archive(tmp_path / "deep" / "two.jsonl.xz", [whole])
    (run,), skipped = read([tmp_path, tmp_path / "deep", tmp_path / "one.jsonl.xz"])
    assert not skipped
    assert run.rows["loss"].tolist() == [0, 1, 2]
    assert len(read_parts([tmp_path, tmp_path / "deep"])) == 2, "each file once"


# Rows


def test_numbers_are_rows_and_all_else_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        item(0, rho=2, flag=True, _runtime=3.5, word="x", empty=None, **{"a.b": 1.0}),
        item(1, rho=0.5, late=4, **{"margin/mean": float("nan")}),
    ]
    monkeypatch.setattr(records, "read_parts", lambda _: [part(rows)])  # archives drop the others
    (run,) = read(["anything"]).runs
    assert set(run.rows) == {"epoch", STEP, "rho", "flag", "late", "margin/mean"}
    assert run.rows.dtypes.tolist() == [np.dtype(float)] * 6
    assert run.rows["flag"].iloc[0] == 1.0
    assert run.rows["late"].isna().tolist() == [True, False]


def histogram(key: str, values: Sequence[float], bins: Sequence[float], kind: str = "histogram"):
    return {f"{key}._type": kind, f"{key}.values": list(values), f"{key}.bins": list(bins)}


def test_each_histogram_of_a_row_has_its_own_counts_edges_and_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        item(0, **histogram("margin/hist", [1, 2], [0, 1, 3])),
        item(1, **histogram("margin/hist", [3, 4], [0, 2, 3])
             | histogram("spectrum/fc1", [5], [7, 9])
             | histogram("table", [1], [0, 1], kind="table-file")),
        item(2, note=1.0),
    ]  # fmt: skip
    monkeypatch.setattr(records, "read_parts", lambda _: [part(rows)])  # archives keep no tables
    (run,) = read(["anything"]).runs
    assert list(run.histograms) == ["margin/hist", "spectrum/fc1"]
    seen = {key: [(h.epoch, h.counts.tolist(), h.edges.tolist()) for h in shown]
            for key, shown in run.histograms.items()}  # fmt: skip
    assert seen == {
        "margin/hist": [(0, [1, 2], [0, 1, 3]), (1, [3, 4], [0, 2, 3])],
        "spectrum/fc1": [(1, [5], [7, 9])],
    }
    assert list(run.rows) == ["epoch", STEP, "note"]


def test_histograms_of_rows_that_were_replaced_are_gone(tmp_path: Path) -> None:
    one = part([item(e, **histogram("h", [e], [0, 1])) for e in range(3)], 143, FIRST)
    two = part([item(2, **histogram("h", [9], [0, 1]))], 0, SECOND)
    run = only(tmp_path, one, two)
    assert [(h.epoch, h.counts.tolist()) for h in run.histograms["h"]] == [
        (0, [0]),
        (1, [1]),
        (2, [9]),
    ]


# What a run answers


def run_of(rows: Mapping[str, Sequence[float]], config: Mapping[str, Any] | None = None) -> Run:
    return Run("id", "name", None, Path("x"), config or {}, 0, pd.DataFrame(rows))


def test_first_and_last_are_the_outermost_numbers_that_are_there() -> None:
    nan = float("nan")
    run = run_of({"a": [nan, 2.0, 3.0, nan], "b": [1.0, 2.0, 3.0, 4.0], "c": [nan] * 4})
    assert (run.first("a"), run.last("a"), run.first("b"), run.last("b")) == (2, 3, 1, 4)
    assert np.isnan([run.first("c"), run.last("c"), run.first("d"), run.last("d")]).all()
    assert run.has("a", "b")
    assert not run.has("a", "c")
    assert not run.has("d")


def test_layers_are_those_of_their_kind_alone() -> None:
    keys = ("velocity/fc1", "velocity/conv1", "velocity_full/x", "velocity", "rank/fc2")
    run = run_of({key: [1.0] for key in keys})
    assert run.layers("velocity") == ["conv1", "fc1"]
    assert run.layers("rank") == ["fc2"]
    assert run.layers("spectrum") == []


def test_steps_per_epoch_are_those_of_the_newest_row() -> None:
    """Whatever rows are left out."""
    assert run_of({"epoch": [0, 1, 8], STEP: [0, 5, 40]}).steps_per_epoch == 5
    assert run_of({"epoch": [2, 4], STEP: [20, 40]}).steps_per_epoch == 10


def test_options_are_flat_with_the_names_of_the_command_line() -> None:
    config = {
        "seed_everything": 5,
        "model": {
            "class_path": "package.Model",
            "init_args": {"loss": "square", "optimizer": {"init_args": {"momentum": 0.9}}},
        },
        "data": {"class_path": "package.Data", "init_args": {"batch_size": "full"}},
        "trainer": {"max_epochs": 3, "callbacks": [{"class_path": "X"}]},
        "project": "p",
    }
    run = run_of({"epoch": [0]}, config)
    assert run.options == {
        "seed_everything": 5,
        "model": "package.Model",
        "model.loss": "square",
        "model.optimizer.init_args.momentum": 0.9,
        "data": "package.Data",
        "data.batch_size": "full",
        "trainer.max_epochs": 3,
        "trainer.callbacks": [{"class_path": "X"}],
    }
    assert run.dynamics == "unknown", "only its author knows what batch_size means there"
    ours = {"class_path": "janus_pl.DeepReLUClassifier"}
    for size, dynamics in (("full", "GD"), (1, "SGD"), (32, "SGD"), (None, "SGD")):
        data = {"init_args": {"batch_size": size}}
        assert run_of({"epoch": [0]}, {"model": ours, "data": data}).dynamics == dynamics
    assert run_of({"epoch": [0]}, {}).options == {
        "seed_everything": None,
        "model": None,
        "data": None,
    }


# Archives


def test_what_a_file_of_runs_gives_back_is_what_went_in(tmp_path: Path) -> None:
    config = {"a": {"b": [1, "ü", None, 0.1]}, "tags": ["x"], "relative": "some/where"}
    items = [
        item(1, rho=1 / 3, nan=float("nan"), _runtime=2.5),
        item(2, **histogram("h", [1], [0, 1])),
    ]
    given = [
        part(items, None, SECOND, "b", config=config, name="ü", group="g"),
        part([item(9)], 143, FIRST, "b"),
        part([], 0, THIRD, "a"),
    ]
    path = tmp_path / "deep" / "kept.jsonl.xz"
    write_archive(path, given)
    back = read_archive(path)
    assert [(one.id, one.start) for one in back] == [("a", THIRD), ("b", FIRST), ("b", SECOND)]
    for one, other in zip(back, [given[2], given[1], given[0]], strict=True):
        assert one.path == path
        same = one._replace(path=other.path)._asdict(), other._asdict()
        told = [json.dumps(fields, sort_keys=True, default=str) for fields in same]
        assert told[0] == told[1]
    # Order of what is handed over does not matter, and what was there is replaced.
    before = path.read_bytes()
    write_archive(path, given[::-1])
    assert path.read_bytes() == before
    write_archive(path, given[:1])
    assert [one.id for one in read_archive(path)] == ["b"]


def test_a_file_of_runs_holds_no_folder_and_nothing_of_the_machine(tmp_path: Path) -> None:
    config = {
        "_wandb": {"host": "machine"},
        "run_dir": "/home/me/runs",
        "data": {"root": "/data/images", "kind": "a/b"},
        "paths": ["/x/one", ["/x/two"], {"three": "/x/three", "four": 4}],
    }
    row = item(0, _timestamp=12345.0, _runtime=2.0, _step=7, **{"_wandb.x": 1})
    row |= histogram("h", [1], [0, 1]) | histogram("t", [1], [0, 1], kind="table-file")
    row |= {"word": "kept"}
    path = tmp_path / "kept.jsonl.xz"
    write_archive(path, [part([row], config=config)])
    (line,) = lzma.decompress(path.read_bytes()).decode().splitlines()
    assert json.loads(line) == {
        "id": "abc",
        "name": "abc",
        "group": None,
        "start": FIRST,
        "exit_code": 0,
        "config": {
            "run_dir": "runs",
            "data": {"root": "images", "kind": "a/b"},
            "paths": ["one", ["two"], {"three": "three", "four": 4}],
        },
        "items": [
            {"epoch": 0, STEP: 0, "_runtime": 2.0, "word": "kept", **histogram("h", [1], [0, 1])}
        ],
    }


# What W&B's reader prints


def printed(
    monkeypatch: pytest.MonkeyPatch, lines: Sequence[Any], code: int = 0, err: str = ""
) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]

    def told(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, "\n".join(texts), err)

    monkeypatch.setattr(wandb_file.subprocess, "run", told)


def head(**fields: Any) -> dict[str, Any]:
    config = {"config": {"update": {"a": 1, "b": 1}}}
    return {"type": "run", "run": {"run_id": "abc", "start_time": FIRST, **config, **fields}}


def test_a_record_is_read_with_its_configs_in_turn_and_its_newest_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed(monkeypatch, [
        head(display_name="the name", run_group="g"),
        {"type": "config", "config": {"update": {"b": 2}}},
        {"type": "history", "history": {"item": item(0)}},
        '{"type":"summary","summary":"no JSON',
        '{"type":"stats",',
        {"type": "config", "config": {}},
        {"type": "history", "history": {"item": item(1)}},
        {"type": "exit", "exit": {"exit_code": 143}},
        {"type": "exit", "exit": {}},
    ])  # fmt: skip
    file = Path("folder/run-abc.wandb")
    assert read_wandb_file(file) == Part(
        file, "abc", "the name", "g", FIRST, {"a": 1, "b": 2}, [item(0), item(1)], 0
    )
    printed(monkeypatch, [head()])
    assert read_wandb_file(file) == Part(
        file, "abc", "abc", None, FIRST, {"a": 1, "b": 1}, [], None
    )
    printed(monkeypatch, [head(job_type="report")])
    assert read_wandb_file(file) is None


def test_a_name_that_is_set_after_the_start_is_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B writes the run once more, with its config so far; the start is that of the first."""
    later, latest = ({"config": {"update": {"b": n, "c": n}}} for n in (4, 6))
    lines = [
        head(display_name="before", run_group="g"),
        {"type": "config", "config": {"update": {"b": 3}}},
        head(display_name="after", run_group="h", start_time="later", **later),
        {"type": "config", "config": {"update": {"c": 5}}},
    ]
    printed(monkeypatch, lines)
    file = Path("folder/run-abc.wandb")
    expected = Part(file, "abc", "after", "h", FIRST, {"a": 1, "b": 4, "c": 5}, [], None)
    assert read_wandb_file(file) == expected
    printed(monkeypatch, [*lines, head(display_name="last", tags=["AdamW"], **latest)])
    config = {"a": 1, "b": 6, "c": 6}
    assert read_wandb_file(file) == expected._replace(name="last", config=config)
    printed(monkeypatch, [*lines, {"type": "run", "run": {"run_id": "abc"}}])
    assert read_wandb_file(file) == expected, "a record that repeats nothing takes nothing away"


@pytest.mark.parametrize(
    ("lines", "code", "err", "reason"),
    [
        ([], 0, "", records.EMPTY),
        ([{"type": "history"}], 0, "", records.EMPTY),
        ([], 7, "", "not a readable record: W&B's reader ended with 7"),
        ([], -9, "", "not a readable record: W&B's reader ended with -9"),
        ([], 7, "it  is\nbad", "not a readable record: it is bad"),
    ],
)
def test_a_record_without_a_run_is_left_out_with_what_the_reader_says(
    lines: list[Any],
    code: int,
    err: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    printed(monkeypatch, lines, code, err)
    file = tmp_path / "f"
    file.write_bytes(b"1234567")  # W&B's header alone
    assert read_wandb_file(file) == Skipped(file, reason)


@pytest.mark.parametrize(("size", "empty"), [(0, True), (7, True), (8, False), (30, False)])
def test_a_file_with_more_than_a_header_is_not_empty_where_the_reader_says_nothing(
    size: int, empty: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    printed(monkeypatch, [])
    file = tmp_path / "f"
    file.write_bytes(bytes(size))
    told = f"not a readable record: no run in its {size} bytes"
    assert read_wandb_file(file) == Skipped(file, records.EMPTY if empty else told)


def test_a_line_that_is_no_json_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    printed(monkeypatch, [head(), "{"])
    found = read_wandb_file(Path("f"))
    assert isinstance(found, Skipped)
    assert found.reason.startswith("W&B's reader printed no JSON: Expecting")


@pytest.mark.parametrize(
    ("kind", "reason", "id", "redone"),
    [
        ("offline-run", records.EMPTY, "abc", True),
        ("offline-run", records.EMPTY, "xyz", False),
        ("offline-run", "not a readable record: damaged", "abc", False),
        ("run", records.EMPTY, "abc", False),  # online a part has its own rows alone
    ],
)
def test_an_empty_part_is_not_told_of_where_another_has_all_its_rows(
    kind: str, reason: str, id: str, redone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = Skipped(Path(f"{kind}-20260101_000000-{id}/run-{id}.wandb"), reason)
    monkeypatch.setattr(records, "read_parts", lambda _: [part([item(0)]), empty])
    assert read(["anything"]).skipped == [empty] * (not redone)


# Runs on a server


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("entity/project", True),
        ("entity/project/group", True),
        ("entity/project/a group/of two", True),
        ("my-team.x/pro_ject", True),
        ("entity", False),
        ("/entity/project", False),
        ("entity/", False),
        ("entity/project/", False),
        ("en tity/project", False),
    ],
)
def test_what_can_be_a_project(
    path: str, is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert online.is_online(path) is is_one
    if is_one:
        Path(path).mkdir(parents=True)
        assert not online.is_online(path), "a folder comes first"


class Server:
    """W&B's client, and what it was asked."""

    def __init__(self, runs: Sequence[Any]) -> None:
        self.found = runs
        self.asked: list[Any] = []

    def __call__(self, **_: Any) -> Server:
        return self

    def runs(self, *asked: Any, **more: Any) -> Sequence[Any]:
        self.asked.append((*asked, more))
        return self.found


def of_server(state: str, rows: Any = (), **fields: Any) -> SimpleNamespace:
    def scan_history() -> Any:
        if isinstance(rows, Exception):
            raise rows
        return rows

    given: dict[str, Any] = {
        "entity": "e",
        "project": "p",
        "id": "abc",
        "name": None,
        "group": None,
    }
    given |= {"created_at": FIRST, "config": {"a": 1}, **fields}
    return SimpleNamespace(state=state, scan_history=scan_history, **given)


def asked(monkeypatch: pytest.MonkeyPatch, path: str, *runs: Any) -> tuple[list[Any], Server]:
    server = Server(runs)
    monkeypatch.setattr(wandb, "Api", server)
    monkeypatch.setattr(online, "has_account", lambda: True)
    return online.read_online(path), server


def test_a_run_of_a_server_is_a_part_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"epoch": 0, "none": None, "margin/hist": {"_type": "histogram", "packed": {"x": 1}}}]
    run = of_server("finished", rows, name="the name", group="g")
    (found,), _ = asked(monkeypatch, "e/p", run)
    items = [{"epoch": 0, "margin/hist._type": "histogram", "margin/hist.packed.x": 1}]
    assert found == Part(Path("e/p/abc"), "abc", "the name", "g", FIRST, {"a": 1}, items, 0)


@pytest.mark.parametrize(
    ("state", "code"),
    [("finished", 0), ("failed", 1), ("crashed", 1), ("killed", 1), ("running", None), ("?", None)],
)
def test_states_of_a_server_as_exit_codes(
    state: str, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,), _ = asked(monkeypatch, "e/p", of_server(state))
    assert (found.exit_code, found.name) == (code, "abc")


@pytest.mark.parametrize(
    ("path", "filters"),
    [
        ("e/p", {"jobType": {"$ne": "report"}}),
        ("e/p/g", {"jobType": {"$ne": "report"}, "group": "g"}),
        ("e/p/g/h", {"jobType": {"$ne": "report"}, "group": "g/h"}),
    ],
)
def test_reports_are_not_asked_for_and_a_group_is(
    path: str, filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = asked(monkeypatch, path, of_server("finished"))
    assert server.asked == [("e/p", filters, "+created_at", {"lazy": False})]


def test_a_run_whose_history_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = of_server("finished", wandb.errors.CommError("no  such\nthing"), id="broken")
    found, _ = asked(monkeypatch, "e/p", broken, of_server("finished"))
    assert found[0] == Skipped(Path("e/p/broken"), "its history cannot be read: no such thing")
    assert found[1].id == "abc"
    with pytest.raises(UsageError, match="W&B has no run there"):
        asked(monkeypatch, "e/p")
