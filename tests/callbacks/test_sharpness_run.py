"""Sharpness beside a run: what it leaves alone, keeps, says and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from janus_pl.callbacks import LayerRank, Sharpness
from janus_pl.cli.main import main
from janus_pl.deep.losses import LOSSES, PULLS
from janus_pl.errors import UsageError
from janus_pl.run.rows import plain_row
from janus_pl.training.subject import Subject

EPOCHS = 4


class Keep(Callback):
    """The gradients and versions of all parameters, and the generators, around each row."""

    place = 2

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        gradients = [p.grad.clone() for p in pl_module.parameters() if p.grad is not None]
        versions = [p._version for p in pl_module.parameters()]
        legacy: Any = np.random.get_state()
        drawn = [torch.random.get_rng_state(), torch.from_numpy(legacy[1].copy())]
        self.kept.append((gradients, versions, drawn))


@pytest.mark.parametrize("normalization", ["weight_norm", "lagrange"])
@pytest.mark.parametrize("batch", [8, "full"])
def test_a_run_is_bitwise_the_same_without_it(
    normalization: str, batch: Any, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    found = []
    for looks in ([], [Sharpness(1)]):
        rows.clear()
        np.random.seed(1)
        rate = 1e-4 if normalization == "lagrange" else 0.03
        task, keep = small_task(normalization=normalization, learning_rate=rate), Keep()
        fit(task, small_loader(batch_size=batch), EPOCHS, [*looks, LayerRank(1), keep])
        found.append((task.state_dict(), keep.kept, [plain_row(row) for row in rows]))
    (alone, kept, plain), (looked_at, kept_too, looked) = found
    assert all(torch.equal(alone[k], looked_at[k]) for k in alone)
    for (g, versions, drawn), (g2, versions2, drawn2) in zip(kept, kept_too, strict=True):
        assert versions == versions2
        assert all(torch.equal(a, b) for a, b in zip([*g, *drawn], [*g2, *drawn2], strict=True))
    for row, other in zip(plain, looked, strict=True):
        own = {k for k in other if k.startswith("sharpness/")}
        assert len(own) == 7 - 1  # none of SGD is preconditioned
        assert row == {k: v for k, v in other.items() if k not in own}


@pytest.mark.parametrize("optimizer", [None, torch.optim.Adam])
def test_a_resumed_run_goes_on_bitwise(
    optimizer: Any, fit: Any, rows: Any, small_task: Any, small_loader: Any, tmp_path: Path
) -> None:
    options = {} if optimizer is None else {"optimizer": optimizer, "learning_rate": 1e-3}

    def run(epochs: int, **given: Any) -> Any:
        return fit(small_task(**options), small_loader(), epochs, [Sharpness(1)], **given)

    run(5)
    whole = [plain_row(row) for row in rows]
    rows.clear()
    run(3).save_checkpoint(tmp_path / "a.ckpt")
    rows.clear()
    run(5, ckpt_path=tmp_path / "a.ckpt")
    assert [plain_row(row) for row in rows] == whole[4:]
    # The negative control: without its vectors the search is another.
    held = torch.load(tmp_path / "a.ckpt", weights_only=False)
    (state,) = (v for k, v in held["callbacks"].items() if k.startswith("Sharpness"))
    assert set(state["vectors"]) == (
        {"hessian"} if optimizer is None else {"hessian", "preconditioned"}
    )
    state["vectors"].clear()
    torch.save(held, tmp_path / "b.ckpt")
    rows.clear()
    run(5, ckpt_path=tmp_path / "b.ckpt")
    assert [plain_row(row) for row in rows] != whole[4:]


def test_another_fit_begins_without_vectors(fit: Any, small_task: Any, small_loader: Any) -> None:
    look = Sharpness(1)
    fit(small_task(), small_loader(), 1, [look])
    assert set(look._vectors) == {"hessian"}
    look.setup(fit(small_task(), small_loader(), 1, []), small_task(), "validate")
    assert look._vectors == {}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "Sharpness" in r.getMessage()]


@pytest.mark.parametrize(
    ("options", "batch", "says"),
    [
        # (4 x 100 x 20 + 5 x 8 x 8)/20 passes
        ({}, 8, "100 Hessian products over all 20 samples for each eigenvalue, as much as 416 e"),
        (
            {"samples": 10, "products": 7},
            "full",
            "7 Hessian products over 10 samples for each eigenvalue, as much as 19 epochs",
        ),
        ({"samples": 2, "products": 1, "batches": 0}, 8, ", as much as 1 epochs"),
    ],
)
def test_the_cost_is_said_once_at_the_start(
    options: Any, batch: Any, says: str, fit: Any, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    fit(small_task(), small_loader(batch_size=batch), 2, [Sharpness(1, **options)])
    (line,) = said(caplog)
    assert says in line
    caplog.clear()
    fit(small_task(), small_loader(), 1, [Sharpness(0)])
    assert said(caplog) == []


def test_an_optimizer_without_a_limit_is_named_once(
    fit: Any, rows: Any, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    task = small_task(optimizer=torch.optim.Adagrad, learning_rate=1e-3)
    fit(task, small_loader(), 3, [Sharpness(1)])
    _, line = said(caplog)
    assert line == "Sharpness records no limit and no ratio: the limit of Adagrad is not known"
    kinds = {k.removeprefix("sharpness/") for k in rows[-1] if k.startswith("sharpness/")}
    assert kinds == {"hessian", "batch", "residual", "products"}


def test_a_module_without_an_answer_is_refused_before_the_run(
    fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task()
    task.check_curvature = lambda: Subject.check_curvature(task)
    says = r"callbacks\.Sharpness: got 'DeepReLUClassifier', allowed: .* \(descended\)"
    with pytest.raises(UsageError, match=says):
        fit(task, small_loader(), 1, [Sharpness(1)])
    assert rows == []
    fit(task, small_loader(), 1, [Sharpness(0)])


def test_a_subject_without_an_answer_in_training_is_named_once(
    fit: Any, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    task = small_task()
    task.descended = lambda: Subject.descended(task)
    fit(task, small_loader(), 2, [Sharpness(1)])
    (line,) = said(caplog)
    assert line.startswith("Sharpness records nothing of DeepReLUClassifier: its loss")


@pytest.fixture
def hinge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of straight pieces, as docs/extending.md adds one."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return torch.relu(1 - y * (outputs[:, 1] - outputs[:, 0]) / 2)

    monkeypatch.setitem(LOSSES, "hinge", loss)
    monkeypatch.setitem(PULLS, "hinge", lambda signal: (signal < 1).to(signal))


def test_a_loss_without_second_derivative_is_refused(
    hinge: None, fit: Any, rows: Any, small_task: Any, small_loader: Any
) -> None:
    with pytest.raises(UsageError, match=r"model\.loss: hinge has no second derivative") as caught:
        fit(small_task(loss="hinge"), small_loader(), 1, [Sharpness(1)])
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert rows == []
    fit(small_task(loss="hinge"), small_loader(), 1, [LayerRank(1)])  # it trains


def test_it_is_one_line_on_the_command_line(
    hinge: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["fit", "--config", "quickstart.yaml", "--model.loss", "hinge"]
    assert main([*line, "--trainer.callbacks+=janus_pl.callbacks.Sharpness"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "model.loss: hinge has no second derivative" in errors[0]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"samples": 0}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"batches": -1}, "batches"),
        ({"products": 0}, "products"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"seed": -1}, "seed"),
        ({"every_n_epochs": -1}, "every_n_epochs"),
    ],
)
def test_options_out_of_range(options: Any, field: str) -> None:
    with pytest.raises(UsageError, match=rf"callbacks\.Sharpness\.{field}"):
        Sharpness(**options)
