"""Each argument of `Trainer`, for each kind of module: what it does is seen, or it is refused."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import timer
from training.trainer_effects import stops_early
from training.trainer_fits import LINES, Probe, Seen, make, shown, trainer_of
from training.trainer_table import ALL, ROWS, D, F, L, Row

import janus_pl.training.row
from janus_pl.cli.main import main
from janus_pl.run import logger

SUPPORTED = [(row, kind) for row in ROWS if row.effect is not None for kind in row.kinds]
REFUSED = [(row, kind) for row in ROWS if row.effect is None for kind in row.kinds]
IN_SCRIPTS = [(row, kind) for row, kind in REFUSED if row.where != "line"]
ON_LINES = [(row, kind) for row, kind in REFUSED if row.where != "script"]


def name_of(value: Any) -> str:
    if isinstance(value, Row):
        plain = isinstance(value.value, str | int | float | dict)
        given = value.line.split()[0] if value.line else value.value if plain else "made"
        return f"{value.name}={given}"
    return str(value)


@pytest.fixture(autouse=True)
def left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Global switches of PyTorch, the environment and the folder are as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    benchmark, precise = torch.backends.cudnn.benchmark, torch.get_default_dtype()
    yield
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    torch.set_default_dtype(precise)
    logger.finish()


@pytest.fixture(scope="module", autouse=True)
def enabled_afterwards() -> Iterator[None]:
    """W&B keeps the mode that it was first started with: the next module's tests have another."""
    yield
    wandb.teardown()


def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows as they are written, which are written all the same."""
    rows: list[dict[str, Any]] = []
    write = janus_pl.training.row.write_row

    def keep(trainer: Any, row: Any) -> None:
        rows.append(dict(row))
        write(trainer, row)

    monkeypatch.setattr(janus_pl.training.row, "write_row", keep)
    return rows


def made(value: Any, folder: Path) -> Any:
    return value(folder) if callable(value) and value is not ... else value


def train(row: Row, kind: str, folder: Path, probe: Probe) -> tuple[Trainer, Any, Any]:
    """Fit with the argument, and go on with its other task."""
    options = {
        name: made(value, folder) for name, value in {row.name: row.value, **row.more}.items()
    }
    module, data = make(kind)
    trainer = trainer_of(folder, options, probe)
    trainer.fit(module, datamodule=data)
    if row.then is not None:
        getattr(trainer, row.then)(module, datamodule=data)
    return trainer, module, data


PLAIN = Row("max_epochs", 3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Any]]]:
    """The rows of each kind without an option."""
    found: dict[str, list[dict[str, Any]]] = {}

    def rows_of(kind: str) -> list[dict[str, Any]]:
        if kind not in found:
            with pytest.MonkeyPatch.context() as patch:
                rows = written(patch)
                train(PLAIN, kind, tmp_path_factory.mktemp("plain"), Probe())
            found[kind] = rows
        return found[kind]

    return rows_of


def seen_of(row: Row, kind: str, folder: Path, plain: Any, patch: pytest.MonkeyPatch) -> Seen:
    expected, rows, probe = plain(kind), written(patch), Probe()
    return Seen(kind, *train(row, kind, folder, probe), probe, rows, expected, folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "kind"), SUPPORTED, ids=name_of)
def test_a_supported_argument_does_what_it_says(
    row: Row, kind: str, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert row.effect is not None
    row.effect(seen_of(row, kind, tmp_path, plain, monkeypatch))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "kind"), IN_SCRIPTS, ids=name_of)
def test_a_refused_argument_is_refused_before_a_fit(
    row: Row, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, probe = written(monkeypatch), Probe()
    with pytest.raises(Exception) as caught:
        train(row, kind, tmp_path, probe)
    said = str(caught.value)
    assert row.says in said
    assert len(said.strip().splitlines()) == 1
    assert (rows, probe.steps, probe.seen["sanity"]) == ([], 0, 0)
    assert not [*tmp_path.rglob("*.ckpt")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "kind"), ON_LINES, ids=name_of)
def test_a_refused_argument_is_one_line_and_nothing_is_made(
    row: Row, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = row.line.split(" --") if row.line else [f"--trainer.{row.name}={shown(row.value)}"]
    args = [part if part.startswith("--") else f"--{part}" for part in given]
    assert main([*LINES[kind], *args]) == 2
    (said,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    field = "precision" if row.line and "MixedPrecision" in row.line else row.name
    field = "sync_batchnorm" if row.line and "SyncBatchNorm" in row.line else field
    assert said.startswith(f"error: trainer.{field}: got ")
    assert ", allowed: " in said
    assert row.says in said
    assert [*tmp_path.iterdir()] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ALL)
def test_max_time_ends_a_run_with_its_last_row(
    kind: str, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    row = Row("max_time", {"seconds": {D: 6, L: 2, F: 14}[kind]})
    stops_early(seen_of(row, kind, tmp_path, plain, monkeypatch))


# A new argument cannot be forgotten


def missing(trainer: type) -> tuple[set[str], set[str]]:
    """The arguments that are in no row, and the rows that are of no argument."""
    names = {*inspect.signature(trainer).parameters}
    return names - {row.name for row in ROWS}, {row.name for row in ROWS} - names


def test_every_argument_has_a_row_for_every_kind() -> None:
    assert missing(Trainer) == (set(), set())
    kinds: dict[str, set[str]] = {}
    for row in ROWS:
        kinds.setdefault(row.name, set()).update(row.kinds)
    assert {name: found for name, found in kinds.items() if found != {D, L, F}} == {}


def test_a_new_argument_would_be_missed() -> None:
    """The negative control."""

    class New(Trainer):
        def __init__(self, max_epochs: int = 1, new: int = 1) -> None:
            super().__init__(max_epochs=max_epochs)

    assert missing(New)[0] == {"new"}
