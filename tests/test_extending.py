"""docs/extending.md: its own blocks, run as they stand there, and one number of each by hand."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from record_reader import Rows, read_rows
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import DeepReLUClassifier
from janus_pl.cli.main import main
from janus_pl.data import DigitsPair
from janus_pl.deep import PARAMETRIZATIONS, losses
from janus_pl.training.subject import Subject

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FILES = {text.splitlines()[0].removeprefix("# "): text for kind, text in BLOCKS if kind != "bash"}
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
CHECKS = sorted(name for name in FILES if name.startswith("check_"))
EXAMPLES = sorted(name for name in FILES if name.endswith(".py") and name not in CHECKS)
TINY = (
    "--model.channels [2,3,4,4] --model.hidden 8 --trainer.max_epochs 2"
    " --trainer.enable_progress_bar false --trainer.enable_model_summary false"
)
OBSERVE_RHO = "--trainer.callbacks+=janus_pl.callbacks.EquilibriumResidual"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's files, which Python imports from as `python -m` does."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    tables: list[dict[str, Any]] = [losses.LOSSES, losses.PULLS, PARAMETRIZATIONS]
    before = [dict(table) for table in tables]
    yield tmp_path
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


def train(mark: str, *more: str) -> Path:
    """Run the page's only command that names `mark`, with a tiny network; the run's folder."""
    (command,) = [line for line in COMMANDS if mark in line]
    assert command.startswith("python -m janus_pl fit ")
    given = shlex.split(command.removeprefix("python -m janus_pl "))
    assert main([*given, *TINY.split(), *more]) == 0
    (run,) = Path("runs/janus_pl").iterdir()
    return run


def options_of(run: Path, part: str) -> dict[str, Any]:
    config = yaml.safe_load((run / "config.yaml").read_text())
    return {"class_path": config[part]["class_path"], **config[part]["init_args"]}


def state_of(run: Path) -> dict[str, torch.Tensor]:
    path = run / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def outputs_of(run: Path, x: torch.Tensor) -> NDArray[np.float64]:
    """f (N, 2) at the last weights, from the checkpoint's numbers and plain convolutions."""
    state, x = state_of(run), x.double()
    strides = options_of(run, "model")["strides"]

    def weight(layer: str) -> torch.Tensor:
        name = f"network.layers.{layer}.parametrizations.weight.original"
        g, v = state[f"{name}0"].double(), state[f"{name}1"].double()
        return g * v / v.norm()

    for k, stride in enumerate(strides, start=1):
        x = torch.relu(torch.conv2d(x, weight(f"conv{k}"), stride=stride))
    x = torch.relu(x.flatten(1) @ weight("fc1").T) @ weight("fc2").T
    return (state["network.rho"].double() * x).numpy()


def signals_of(run: Path, x: torch.Tensor, y: torch.Tensor) -> NDArray[np.float64]:
    """y s = rho fbar of all samples, (N,)."""
    outputs = outputs_of(run, x)
    return y.double().numpy() * (outputs[:, 1] - outputs[:, 0]) / 2


def digits() -> DigitsPair:
    data = DigitsPair()
    data.setup()
    return data


def rows_of_all_epochs(run: Path) -> Rows:
    rows = read_rows(run)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    return rows


def test_every_block_names_a_file_and_every_example_has_a_check_and_a_command() -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "yaml", "bash"}
    assert EXAMPLES == ["margin_tail.py", "npz_pair.py", "on_sphere.py", "squared_hinge.py"]
    assert [f"check_{name}" for name in EXAMPLES] == CHECKS
    assert all(10 <= len(FILES[name].splitlines()) <= 36 for name in EXAMPLES)
    assert len(COMMANDS) == len(EXAMPLES)


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_of_the_page_hold(check: str) -> None:
    runpy.run_path(check)


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("margin_tail.py", "largest=False", "largest=True"),
        ("squared_hinge.py", "return 2 * torch.relu", "return torch.relu"),
        ("npz_pair.py", "== 1, 1, -1", "== 1, -1, 1"),
        ("on_sphere.py", "return a / torch", "return a * torch"),
        ("on_sphere.py", "v.mul_(factor)", "v.div_(factor)"),
    ],
)
def test_the_checks_of_the_page_find_a_mistake(file: str, right: str, wrong: str) -> None:
    assert right in FILES[file]
    Path(file).write_text(FILES[file].replace(right, wrong))
    with pytest.raises(AssertionError):
        runpy.run_path(f"check_{file}")


def test_a_new_observable_is_a_key_of_the_row() -> None:
    run = train("tail.yaml")
    rows = rows_of_all_epochs(run)
    assert all("margin/tail" in row and "margin/mean" in row for row in rows)  # beside our own
    data = digits()
    signals = np.sort(signals_of(run, data.train_x, data.train_y))
    expected = signals[: len(signals) // 5].mean() / signals.mean()
    assert rows[-1]["margin/tail"] == pytest.approx(expected, rel=1e-4)


class Other(LightningModule):
    """A module that knows nothing of this package."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(6, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_new_observable_serves_other_modules(
    fit: Any, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """And what it cannot read is said once, as the page has it."""
    tail = importlib.import_module("margin_tail").MarginTail(every_n_epochs=1, share=0.3)
    x, y = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 2
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    module = Other(2)
    fit(module, loader, 2, [tail])
    with torch.no_grad():
        outputs = module(x).double().numpy()
    lead = np.sort((outputs[:, 1] - outputs[:, 0]) / 2 * (2 * y.numpy() - 1))
    assert [row["epoch"] for row in rows if "margin/tail" in row] == [0, 1, 2]
    assert rows[-1]["margin/tail"] == pytest.approx(lead[:3].mean() / lead.mean(), rel=1e-5)
    rows.clear()
    fit(Other(2), DataLoader(TensorDataset(x, y + 5), batch_size=4), 2, [tail])
    assert not [row for row in rows if "margin/tail" in row]
    said = [r.getMessage() for r in caplog.records if "MarginTail" in r.getMessage()]
    assert len(said) == 1 and said[0].startswith("MarginTail records nothing of Other: its labels")


def test_the_page_says_what_a_subject_offers() -> None:
    for name in re.findall(r"`(\w+)\(\)`", PAGE.partition("## A new loss")[0]):
        assert callable(getattr(Subject, name)), name


def test_a_new_loss_is_trained_and_its_flow_of_rho_is_known() -> None:
    run = train("squared_hinge", OBSERVE_RHO)
    rows = rows_of_all_epochs(run)
    model = options_of(run, "model")
    assert (model["class_path"], model["loss"]) == ("squared_hinge.Classifier", "squared_hinge")
    data = digits()
    signals = signals_of(run, data.train_x, data.train_y)
    slack = np.maximum(0, 1 - signals)
    assert rows[-1]["train/loss"] == pytest.approx((slack**2).mean(), rel=1e-5)
    rho = rows[-1]["rho_learned"]
    flow = (2 * slack * signals).mean() / rho - model["weight_decay"] * rho
    assert rows[-1]["equilibrium/rho_dot"] == pytest.approx(flow, rel=1e-4)


def test_a_new_data_set_is_read_and_follows_the_seed(folder: Path) -> None:
    arrays = digit_images()
    np.savez(folder / "images.npz", **arrays)
    run = train("npz.yaml", "--seed_everything", "3")
    rows = rows_of_all_epochs(run)
    given = options_of(run, "data")
    assert (given["class_path"], given["seed"]) == ("npz_pair.NpzPair", 3)
    assert rows[-1]["trainer/global_step"] == 2 * np.ceil(len(arrays["train_y"]) / 8)
    gray = arrays["train_x"] / 255
    x = ((gray - gray.mean()) / gray.std())[:, None].repeat(3, axis=1)
    x /= np.linalg.norm(x.reshape(len(x), -1), axis=1)[:, None, None, None]
    y = torch.from_numpy(2.0 * arrays["train_y"] - 1)
    outputs = outputs_of(run, torch.from_numpy(x))
    coded = np.stack((-y, y), axis=1)
    assert rows[-1]["train/loss"] == pytest.approx(((outputs - coded) ** 2).mean(), rel=1e-5)


def digit_images() -> dict[str, NDArray[Any]]:
    """Threes and eights of scikit-learn as bytes, 16 x 16; every fifth is held out."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    picked = np.isin(targets, (3, 8))
    x = np.kron(images[picked].reshape(-1, 8, 8), np.ones((2, 2))) * 255 / 16
    x, y = x.astype(np.uint8), (targets[picked] == 8).astype(int)
    held_out = np.arange(len(y)) % 5 == 0
    return {
        "train_x": x[~held_out],
        "train_y": y[~held_out],
        "test_x": x[held_out],
        "test_y": y[held_out],
    }


def test_images_of_another_size_are_refused_before_the_start(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    np.savez(folder / "images.npz", **digit_images())
    line = ["fit", "--config", "quickstart.yaml", "--config", "npz.yaml"]
    assert main([*line, "--model.image_size", "32"]) == 2
    assert "error: model.image_size: got 32, allowed: 16" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["nowhere.npz", "npz_pair.py", ".", "half.npz"])
def test_a_file_that_the_page_cannot_read_is_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    np.savez(folder / "half.npz", train_x=np.zeros((2, 16, 16)), train_y=np.arange(2))
    line = ["fit", "--config", "quickstart.yaml", "--config", "npz.yaml", "--data.file", name]
    assert main(line) == 2
    assert f"error: data.file: got '{name}', allowed: an .npz file" in capsys.readouterr().err
    assert not Path("runs").exists()


def radii(run: Path) -> tuple[list[float], list[float]]:
    """||v_k|| and g_k of the last weights."""
    state = state_of(run)
    names = [name for name in state if name.endswith("weight.original1")]
    gains = [float(state[name[:-1] + "0"]) for name in names]
    return [float(state[name].norm()) for name in names], gains


def test_a_new_normalization_keeps_its_weights_on_the_sphere() -> None:
    run = train("on_sphere")
    rows = rows_of_all_epochs(run)
    assert options_of(run, "model")["normalization"] == "on_sphere"
    norms, gains = radii(run)
    assert len(norms) == 6
    assert norms == pytest.approx(gains, rel=1e-6)
    rho = abs(float(state_of(run)["network.rho"])) * np.prod(gains)
    assert rows[-1]["rho"] == pytest.approx(rho, rel=1e-6)


def test_weight_normalization_does_not() -> None:
    """The control: the norms of the example above would have moved."""
    norms, gains = radii(train("on_sphere", "--model.normalization", "weight_norm"))
    assert norms != pytest.approx(gains, rel=1e-6)


def test_a_loss_without_a_pull_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.LOSSES, "bare", losses.square)
    with pytest.raises(ValueError, match=r"model.loss: got 'bare', allowed: square, logistic"):
        DeepReLUClassifier(loss="bare")


def test_a_name_that_no_module_registered_is_refused(capsys: pytest.CaptureFixture) -> None:
    """The control: without the class of the page nothing imports the file."""
    fit = ["fit", "--config", "quickstart.yaml"]
    assert main([*fit, "--model.loss", "squared_hinge"]) == 2
    assert main([*fit, "--model.normalization", "on_sphere"]) == 2
    said = capsys.readouterr().err
    assert "model.loss: got 'squared_hinge', allowed: square" in said
    assert "model.normalization: got 'on_sphere', allowed: weight_norm" in said
