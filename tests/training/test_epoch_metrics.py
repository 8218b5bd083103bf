"""`self.log` of a callback is on the row of its epoch; a key has one writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from training.callbacks_table import KINDS, Backed
from training.foreign import Samples

from janus_pl import DeepReLUClassifier, LinearRegressor
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram
from janus_pl.cli.main import main
from janus_pl.data import LinearProblem
from janus_pl.errors import UsageError


class Logs(Callback):
    """Logs the number of the epoch, from 1, at its end, in its steps and in its validation."""

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        epoch, options = trainer.current_epoch + 1.0, {"batch_size": 1}
        module.log("mine/mean", epoch, on_step=False, on_epoch=True, **options)
        module.log("mine/step", float(trainer.global_step), on_step=True, **options)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log("mine/end", trainer.current_epoch + 1.0)
        if trainer.current_epoch == 1:
            module.log("mine/once", 1.0)

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log("mine/val", trainer.current_epoch + 1.0)


def parts_of(kind: str, small_task: Any, small_loader: Any) -> tuple[Any, dict[str, Any]]:
    if kind == "deep":
        return small_task(), {"loader": small_loader(), "val_loader": small_loader()}
    if kind == "linear":
        data = LinearProblem(num_train=8, dim=9, outputs=3, batch_size=2)
        return LinearRegressor(learning_rate=0.03), {"loader": data}
    samples = Samples()
    loaders = samples.train_dataloader(), samples.val_dataloader()
    return Backed(), dict(zip(("loader", "val_loader"), loaders, strict=True))


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_callback_logs_is_on_the_row_of_its_epoch(
    kind: str,
    stops: bool,
    rows: Any,
    fit: Any,
    small_task: Any,
    small_loader: Any,
    tmp_path: Path,
) -> None:
    module, parts = parts_of(kind, small_task, small_loader)
    stopper = [EarlyStopping("mine/mean", patience=9)] if stops else []
    given = [Logs(), LayerRank(1), *stopper]
    fit(module, epochs=3, callbacks=given, logger=CSVLogger(tmp_path), **parts)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    for name in ("mine/mean", "mine/end", "mine/val"):
        if kind == "linear" and name == "mine/val":
            continue  # it has no validation
        assert [row.get(name) for row in rows] == [None, 1, 2, 3], name
    assert ["mine/once" in row for row in rows] == [False, False, True, False]
    assert not any("mine/step" in row for row in rows)


@pytest.mark.parametrize("kind", ["quickstart", "linear/a2"])
def test_the_record_and_wandb_have_it_at_the_same_epoch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_of: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    logs = '--trainer.callbacks+={"class_path": "training.test_epoch_metrics.Logs"}'
    args = [f"--config={kind}.yaml", "--trainer.max_epochs=3", logs]
    args += ["--model.learning_rate=0.01"]
    if kind == "quickstart":
        args += ["--data.num_train=40", "--trainer.check_val_every_n_epoch=1"]
    assert main(["fit", *args, "--trainer.enable_progress_bar=false"]) == 0
    sent = [row for row in rows_of(tmp_path) if "mine/end" in row]
    assert [(row["epoch"], row["mine/end"]) for row in sent] == [(1, 1), (2, 2), (3, 3)]
    if kind == "quickstart":
        assert [row["mine/val"] for row in sent] == [1, 2, 3]
    (file,) = tmp_path.glob("runs/*/*/rows.jsonl")
    assert file.read_text().count('"mine/end"') == 3


class Decays(Backed):
    """Halves its rate after every epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.5)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


@pytest.mark.parametrize("kind", ["deep", "foreign"])
def test_the_rate_of_a_monitor_is_on_the_row_of_its_epoch(
    kind: str, rows: Any, fit: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    task, parts = parts_of(kind, small_task, small_loader)
    if kind == "foreign":
        task = Decays()
    else:
        halves = torch.optim.lr_scheduler.ExponentialLR
        task = small_task(learning_rate=0.5, schedule=lambda o: halves(o, 0.5))
    given = [LearningRateMonitor("epoch"), LayerRank(1)]
    fit(task, epochs=3, callbacks=given, logger=CSVLogger(tmp_path), **parts)
    (name,) = {key for row in rows for key in row if key.startswith("lr-") and "pg2" not in key}
    assert [row.get(name) for row in rows] == [None, 0.5, 0.25, 0.125]


class Again(LayerRank):
    """A second one of a kind, which says of no table that it writes it."""

    tables = ()


@pytest.mark.parametrize("kind", KINDS)
def test_two_writers_of_a_key_are_refused_in_one_line_that_names_both(
    kind: str, rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    module, parts = parts_of(kind, small_task, small_loader)
    line = r"^trainer\.callbacks: got 'LayerRank and Again', allowed: one writer.*rank/\w+$"
    with pytest.raises(UsageError, match=line):
        fit(module, callbacks=[LayerRank(1), Again(2), MarginHistogram(1)], **parts)
    assert rows == []


def test_one_that_is_there_twice_is_refused_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    again = '{"class_path": "janus_pl.callbacks.LayerRank", "init_args": {"every_n_epochs": 3}}'
    args = ["--config=quickstart.yaml", "--data.num_train=40", f"--trainer.callbacks+={again}"]
    assert main(["fit", *args, "--trainer.enable_progress_bar=false"]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert line.startswith("error: trainer.callbacks: got 'LayerRank twice', allowed: one writer")
    assert list(tmp_path.iterdir()) == []


def test_what_would_only_be_written_at_the_end_is_refused_at_the_start(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    two = [LayerRank(1, layers=["conv*"]), LayerRank(1, layers=["fc*"])]
    with pytest.raises(UsageError, match=r"got 'LayerRank twice', .* both: spectrum_table"):
        fit(small_task(), small_loader(), callbacks=two)
    assert rows == []


def test_one_that_is_off_writes_nothing(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    fit(small_task(), small_loader(), callbacks=[LayerRank(0), LayerRank(1)])
    assert "spectrum_table" in rows[-1]


def test_two_of_a_kind_with_keys_of_their_own_are_accepted(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    two = [LayerVelocity(1, layers=["conv*"]), LayerVelocity(1, layers=["fc*"])]
    fit(small_task(), small_loader(), callbacks=two)
    assert {"velocity/conv1", "velocity/fc2"} <= rows[1].keys()


class Overwrites(Callback):
    """Logs a number under a key of the module or of another callback."""

    def __init__(self, key: str) -> None:
        self.key = key

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        module.log(self.key, 1.0)


@pytest.mark.parametrize(
    ("key", "who"), [("rho", "self.log and the module"), ("rank/fc1", "LayerRank and self.log")]
)
def test_a_key_of_the_record_is_not_logged_by_another(
    key: str, who: str, rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    with pytest.raises(UsageError, match=f"got '{who}'.*{key}"):
        fit(small_task(), small_loader(), callbacks=[LayerRank(1), Overwrites(key)])
    assert len(rows) == 1


class Late(DeepReLUClassifier):
    """Logs after the row of the epoch was written."""

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("mine/late", 1.0)


def test_a_number_that_comes_after_its_row_is_refused_in_one_line(
    rows: Any, fit: Any, small_loader: Any, tmp_path: Path
) -> None:
    from conftest import SMALL

    logger = CSVLogger(tmp_path)
    with pytest.raises(UsageError, match=r"^self\.log: got 'mine/late', allowed: a call before"):
        fit(Late(**SMALL), small_loader(), callbacks=[LayerRank(1)], logger=logger)
