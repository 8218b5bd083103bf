"""`janus_pl/minimal.py` against the framework: the same numbers from two programs."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

from janus_pl import DeepReLUClassifier, minimal
from janus_pl.cli.config_files import find_configs
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.data import DigitsPair
from janus_pl.run.logger import finish
from janus_pl.run.shipped import CONFIGS

FILE = ROOT / "janus_pl" / "minimal.py"
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
# What minimal.py measures of weights, and what the framework's record calls it.
MEASURED = {
    "training loss": "train/loss",
    "margin, mean": "margin/mean",
    "margin, std": "margin/std",
}
# The same numbers in float64, summed in another order: rounding of 1e-16, grown over 36 steps to
# some 1e-14.
TOLERANCE = 1e-11


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


@pytest.fixture
def float64() -> Iterator[None]:
    """Initial weights are drawn in the default precision, so both programs draw the same."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def framework(config: str, *args: str) -> JanusCLI:
    """A run of a shipped config, to its end."""
    cli = JanusCLI(find_configs(["fit", "--config", config, *PLAIN, *args]))
    finish()
    return cli


def quickstart() -> dict[str, Any]:
    """The values that quickstart.yaml has, or leaves as base.yaml has them."""
    values: dict[str, Any] = {}
    for name in ("base", "quickstart"):
        parts = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        values |= parts["model"]["init_args"] | parts["data"]["init_args"] | parts["trainer"]
    return values


# The file


def test_the_file_can_be_read_in_one_go() -> None:
    assert len(FILE.read_text().splitlines()) <= 150


def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No framework can be imported, not even one that has been."""
    for name in ("janus_pl", "callbacks", "lightning", "lightning.pytorch", "wandb", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_file_runs_as_a_script_where_there_is_no_framework(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked(monkeypatch)
    names = runpy.run_path(str(FILE), run_name="minimal")
    assert callable(names["main"])
    for module in ("lightning.pytorch", "janus_pl.deep.losses"):
        other = tmp_path / "other.py"
        other.write_text(f"import {module}\n")
        with pytest.raises(ImportError):
            runpy.run_path(str(other), run_name="other")


# The deep network


def test_the_images_are_those_of_the_data_module() -> None:
    data = DigitsPair()
    data.setup()
    x, y = minimal.digits()
    assert torch.equal(y, data.train_y)
    # The data module works in float32: a few roundings of 6e-8 apart, pixel by pixel.
    torch.testing.assert_close(x, data.train_x.contiguous(), rtol=2e-6, atol=2e-8)
    assert (x.flatten(1).norm(dim=1) - 1).abs().max() < 1e-6


def test_the_first_weights_are_those_of_the_classifier() -> None:
    torch.manual_seed(0)
    task = DeepReLUClassifier(strides=quickstart()["strides"])
    weights = task.parametrization.weights.values()
    assert all(torch.equal(a, b) for a, b in zip(minimal.network(), weights, strict=True))


def records(cli: JanusCLI, rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The framework's rows of epochs that were measured, as minimal.py has them, by steps.

    GD measures its margins in the training forward, one step before the row's other numbers.
    """
    merged: dict[int, dict[str, float]] = {}
    for row in rows[1:]:
        step = row["trainer/global_step"]
        numbers = {f"||V_{k} dot||": row[f"velocity/{n}"] for k, n in enumerate(LAYERS, 1)}
        if "effective_rank/fc1" in row:
            ranks = enumerate(LAYERS, 1)
            numbers |= {f"effective rank, V_{k}": row[f"effective_rank/{n}"] for k, n in ranks}
        merged.setdefault(step, {"steps": step}).update(numbers)
        seen = {ours: row[theirs] for ours, theirs in MEASURED.items() if theirs in row}
        if "margin, std" in seen:
            seen["margin, std/mean"] = seen["margin, std"] / seen["margin, mean"]
        merged.setdefault(row.get("measured_step", step), {}).update(seen)
    return [merged[step] for step in sorted(merged) if "steps" in merged[step]]


def deviation(expected: list[dict[str, float]], found: list[dict[str, float]]) -> float:
    """The largest relative difference of any number that the framework has."""
    pairs = [
        (value, mine[key])
        for row, mine in zip(expected, found, strict=True)
        for key, value in row.items()
    ]
    return max(abs(a - b) / abs(a) for a, b in pairs)


@pytest.mark.parametrize(
    ("batch_size", "epochs", "num_train"),
    [
        ("32", 2, "80"),  # two epochs, for the rate and the order; minibatches of 32, 32 and 16
        pytest.param("32", 4, "null", marks=pytest.mark.soak),
        pytest.param("full", 4, "null", marks=pytest.mark.soak),
    ],
)
def test_the_deep_network_is_the_frameworks(
    batch_size: str,
    epochs: int,
    num_train: str,
    float64: None,
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--trainer.precision=64-true", f"--trainer.max_epochs={epochs}"]
    options += [f"--data.batch_size={batch_size}", f"--data.num_train={num_train}"]
    cli = framework("quickstart.yaml", *options)
    expected = records(cli, rows)
    x, y = (a.double() for a in (cli.datamodule.train_x, cli.datamodule.train_y))
    lam, size = quickstart()["weight_decay"], len(y) if batch_size == "full" else int(batch_size)

    def mine(lam: float = lam, **options: Any) -> list[dict[str, float]]:
        run = minimal.sgd(x, y, minimal.network(), size, lam, epochs, **options)
        return [minimal.look(x, y, *end) for end in run]

    found = mine()
    assert set().union(*expected) == set(found[0])
    assert deviation(expected, found) < TOLERANCE
    # Without decay, in another order (which GD has none of), and without the multiplier.
    assert deviation(expected, mine(lam=0.0)) > 1e-4
    other = deviation(found, mine(seed=1))
    assert other == 0 if batch_size == "full" else other > 1e-2
    monkeypatch.setattr(minimal, "tangent", lambda G_k, V_k: G_k)
    assert deviation(expected, mine()) > 1e-4


def test_the_table_is_of_the_quickstarts_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    train, asked = minimal.sgd, []

    def short(x: Any, y: Any, v: Any, B: int, lam: float, epochs: int) -> Any:
        asked.append((B, lam, epochs))
        return train(x, y, v, B, lam, 1)

    monkeypatch.setattr(minimal, "sgd", short)
    minimal.main()
    values = quickstart()
    size, lam, epochs = (values[name] for name in ("batch_size", "weight_decay", "max_epochs"))
    assert asked == [(size, lam, epochs), (size, 0.0, epochs), (285, lam, epochs)]
    lines = capsys.readouterr().out.splitlines()
    (steps,) = [line.split()[1:] for line in lines if line.startswith("steps")]
    assert steps == ["36", "36", "1"]
    x, y = minimal.digits()
    (end,) = train(x, y, minimal.network(), size, values["weight_decay"], 1)
    for key, value in minimal.look(x, y, *end).items():
        (line,) = [line for line in lines if line.startswith(f"{key} ")]
        assert line[len(key) :].split()[0] == f"{value:.4g}"
    # Linear regression: SGD's and GD's ||W_perp|| beside their closed forms, N = 6.
    *_, last = (np.array(line.split(), float) for line in lines if line[:5].strip().isdigit())
    assert last[0] == 400 and last[1] == last[2] and last[4] == last[5]


# Linear regression


def arrays(folder: Path, file: str, *names: str) -> list[Any]:
    """What the only run below a folder has left."""
    (path,) = folder.glob(f"**/{file}.npz")
    with np.load(path) as held:
        return [held[name] for name in names]


@pytest.mark.parametrize("twin", [[], ["--data.batch_size=full"]], ids=["sgd", "gd"])
def test_linear_regression_is_the_frameworks(
    twin: list[str], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    framework("linear/a7.yaml", "--trainer.max_epochs=200", *twin)
    X, Y, W0 = (torch.from_numpy(array) for array in arrays(tmp_path, "problem", "X", "Y", "W0"))
    (end,) = arrays(tmp_path, "final", "W")

    def largest(lam: float, B: int = 6 if twin else 1) -> float:
        epochs = list(minimal.linear(X, Y, W0, B, lam, 200))
        pairs = [(end, epochs[-1][1].numpy())]
        for row in rows[1:]:
            steps, _, null, closed, speed = epochs[int(row["epoch"]) - 1]
            pairs += [(row["trainer/global_step"], steps), (row["null/norm"], null)]
            pairs += [(row["null/predicted"], closed)]
            if row["epoch"] <= 20:  # an epoch from the row before
                pairs += [(row["gradient_norm"], speed)]
        return max(float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in pairs)

    assert largest(0.01) < 1e-11
    assert largest(0.005) > 1e-3  # W decays by 1 - eta lambda, as Appendix A has it
    assert largest(0.01, B=2) > 1e-3


@pytest.mark.parametrize("B", [1, 2, 4, 10])
def test_the_null_space_follows_its_closed_form(B: int) -> None:
    torch.manual_seed(1)
    X, Y, W = torch.randn(3, 11, 11, dtype=torch.float64)
    X, Y = X[:, :10] / 4, Y[:, :10]
    span, _ = torch.linalg.qr(X)
    start = float((W - W @ span @ span.T).norm())
    eta = 0.5 / float(torch.linalg.svdvals(X)[0])
    steps = np.arange(1, 51) * -(-10 // B)
    rows = list(minimal.linear(X, Y, W, B, 0.1, 50))
    assert [row[0] for row in rows] == steps.tolist()
    for column in (2, 3):  # what W has, and the closed form
        norms = np.array([float(row[column]) for row in rows])
        assert np.abs(norms - start * (1 - 0.2 * eta) ** steps).max() < 1e-12 * start
        assert np.abs(norms - start * (1 - 0.1 * eta) ** steps).max() > 1e-2 * start
