"""Lightning's private names: there, replaced only where they are there, and all of them known."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.profilers import Profiler, XLAProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from janus_pl.callbacks import Observer, ProgressBar, RunCheckpoint
from janus_pl.cli.lightning_cli import ConfigReader, JanusCLI
from janus_pl.run.logger import RunLogger
from janus_pl.training import lightning
from janus_pl.training.lightning import PRIVATE, Private, end_without_steps, replace

SUBCLASSES: dict[type, type] = {
    RunCheckpoint: ModelCheckpoint,
    ProgressBar: RichProgressBar,
    Observer: Callback,
    RunLogger: WandbLogger,
    ConfigReader: LightningCLI,
    JanusCLI: LightningCLI,  # stands beside ConfigReader, its base
}


def names_of(owner: type, tmp_path: Path) -> set[str]:
    """The names of a class of Lightning and, where they are made at construction, its objects'."""
    made: dict[type, Any] = {
        ModelCheckpoint: ModelCheckpoint,
        EarlyStopping: lambda: EarlyStopping("loss"),
        RichProgressBar: RichProgressBar,
        WandbLogger: lambda: WandbLogger(save_dir=tmp_path, offline=True),
        Strategy: lambda: SingleDeviceStrategy("cpu"),
        Trainer: lambda: Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"),
        Callback: Callback,
        _AcceleratorConnector: lambda: _AcceleratorConnector(accelerator="cpu"),
    }
    return {*dir(made[owner]())} if owner in made else {*dir(owner)}


@pytest.mark.parametrize("private", PRIVATE, ids=lambda p: f"{p.owner.__name__}.{p.name}")
def test_lightning_has_each_private_name(private: Private, tmp_path: Path) -> None:
    assert private.name in names_of(private.owner, tmp_path), private.use
    assert private.use.endswith(".")
    assert len(private.use.split()) >= 4


def test_a_renamed_attribute_is_noticed(tmp_path: Path) -> None:
    assert "_signal_connectors" not in names_of(Trainer, tmp_path)


@pytest.mark.parametrize("ours", SUBCLASSES, ids=lambda c: c.__name__)
def test_a_named_subclass_uses_no_private_name_that_is_not_listed(
    ours: type, tmp_path: Path
) -> None:
    base = SUBCLASSES[ours]
    tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    private = {n for n in used if n.startswith("_") and not n.startswith("__")}
    taken = private & names_of(base, tmp_path)
    listed = {p.name for p in PRIVATE if issubclass(base, p.owner)}
    assert taken <= listed


def test_every_listed_name_is_used() -> None:
    sources = [inspect.getsource(cls) for cls in SUBCLASSES]
    own = inspect.getsource(lightning)
    code = own[: own.index("PRIVATE = (")] + own[own.index("def replace(") :]
    text = "\n".join([code, *sources])
    assert [p.name for p in PRIVATE if p.name not in text] == []


def test_what_is_gone_is_not_replaced() -> None:
    owner = SimpleNamespace(there=1)
    assert replace(owner, "there", 2) == 1
    assert owner.there == 2
    with pytest.raises(AttributeError):
        replace(owner, "_gone", 2)
    assert not hasattr(owner, "_gone")


def test_a_fit_loop_of_another_class_is_refused() -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit_loop.__class__ = type("Other", (type(trainer.fit_loop),), {})
    with pytest.raises(TypeError, match="Other"):
        end_without_steps(trainer)


def test_signals_are_put_off() -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    connector: Any = trainer._signal_connector
    before = connector._slurm_sigusr_handler_fn
    asked: list[int] = []
    requeue = lightning.put_off_signals(trainer, lambda signum, frame: asked.append(signum))
    assert requeue == before
    connector._slurm_sigusr_handler_fn(10, None)
    connector._sigterm_notifier_fn(15, None)  # raises nothing, and sets nothing
    assert asked == [10]
    assert not trainer.received_sigterm


def test_a_profiler_that_was_never_made_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose package is missing, which Python ends at any later time."""
    half_made = XLAProfiler.__new__(XLAProfiler)
    half_made.__del__()
    monkeypatch.delattr(Profiler, "_stage")
    with pytest.raises(AttributeError, match="_stage"):
        half_made.__del__()
    monkeypatch.undo()  # before it ends by itself
