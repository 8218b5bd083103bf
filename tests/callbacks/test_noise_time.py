"""Noise in time on the row, against NumPy's line through what the test keeps after every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from callbacks_of_time import expected, of_noise
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from janus_pl.callbacks import NoiseTime
from janus_pl.callbacks.noise_time import looks_of
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.errors import UsageError
from janus_pl.training.samples import drawn

Array = np.ndarray[Any, Any]
Rows = list[dict[str, Any]]
STEPS = 3  # an epoch


class Keep(Callback):
    """Margins and all W_k after every step, in float64."""

    place = 2  # after the callbacks that look

    def __init__(self, margins: Callable[[Any], Any], weights: Callable[[Any], Any]) -> None:
        self.margins, self.weights = margins, weights
        self.seen: list[dict[str, Array]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        with torch.no_grad():
            kept = {k: p.detach().clone().numpy() for k, p in self.weights(pl_module).items()}
            found = {f"direction/{k}": w.ravel() / np.linalg.norm(w) for k, w in kept.items()}
            if (margins := self.margins(pl_module)) is not None:
                found["margin"] = margins.numpy().copy()
        self.seen.append(found)


def check(rows: Rows, keep: Keep, looks: list[int], window: int, tolerance: float = 1e-9) -> None:
    """Every number of every look, and none elsewhere."""
    assert [row["epoch"] for row in rows if of_noise(row)] == looks
    for row in filter(of_noise, rows):
        end = row["trainer/global_step"]
        numbers: dict[str, float] = {}
        for name in keep.seen[0]:
            series = [seen[name] for seen in keep.seen[end - window : end]]
            assert len(series) == window
            noise, drift = expected(series, mean=name == "margin")
            assert noise > 0
            numbers |= {f"noise_time/{name}": noise, f"noise_time/drift_{name}": drift}
        assert of_noise(row) == pytest.approx(numbers, rel=tolerance), row["epoch"]


def margins_of(loader: Any, count: int) -> Callable[[Any], torch.Tensor]:
    """Those of a network of ours on the fixed sample, over the product of the norms."""
    taken = drawn(len(loader.y), count)

    def margins(task: Any) -> torch.Tensor:
        outputs = task.network(loader.x[taken])
        return loader.y[taken] * (outputs[:, 1] - outputs[:, 0]) / 2 / task.scale()

    return margins


def a_network(task: Any, loader: Any, count: int) -> Keep:
    return Keep(margins_of(loader, count), lambda module: module.parametrization.weights)


@pytest.mark.parametrize("normalization", list(PARAMETRIZATIONS))
def test_every_number_of_a_network(
    normalization: str, fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    """Looks 6 and 8 share steps 17 and 18 of their windows, which are longer than two epochs."""
    rate = 1e-4 if normalization == "lagrange" else 0.01
    task = small_task(normalization=normalization, learning_rate=rate).double()
    loader = small_loader(dtype=torch.float64)
    keep = a_network(task, loader, 13)
    fit(task, loader, 8, [NoiseTime(3, window=8, samples=13), keep], precision="64-true")
    assert len(keep.seen) == 8 * STEPS
    check(rows, keep, [3, 6, 8], 8)


def test_gradient_descent_has_windows_of_many_epochs(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    """Its only noise is the curve of its drift; its drift is the change over the window."""
    task = small_task(learning_rate=0.05).double()
    loader = small_loader(dtype=torch.float64, batch_size="full")
    keep = a_network(task, loader, 256)
    fit(task, loader, 25, [NoiseTime(10, window=10), keep], precision="64-true")
    check(rows, keep, [10, 20, 25], 10, tolerance=1e-6)  # the line takes nearly all of it
    for layer in task.layers():
        noise = rows[20][f"noise_time/direction/{layer}"]
        assert noise < 0.1 * rows[20][f"noise_time/drift_direction/{layer}"]


def test_single_precision(fit: Any, rows: Rows, small_task: Any, small_loader: Any) -> None:
    task, loader = small_task(), small_loader()
    keep = a_network(task, loader, 20)
    fit(task, loader, 3, [NoiseTime(3, window=9), keep])
    check(rows, keep, [3], 9, tolerance=3e-3)  # of V_k in float32, noise of 3e-6


def test_half_precision_of_the_training_is_none_of_a_look(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    task, loader = small_task(), small_loader()
    keep = a_network(task, loader, 20)
    fit(task, loader, 3, [NoiseTime(3, window=9), keep], precision="bf16-mixed")
    check(rows, keep, [3], 9, tolerance=3e-3)


def test_the_training_is_as_without_it(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    weights = []
    for looks in ([], [NoiseTime(3, window=8)]):
        task = small_task()
        fit(task, small_loader(), 4, looks)
        weights.append([p.detach().clone() for p in task.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert any(map(of_noise, rows))


def test_a_run_of_so_many_steps_ends_with_a_window(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    task, loader = small_task().double(), small_loader(dtype=torch.float64)
    keep = a_network(task, loader, 20)
    look = NoiseTime(100, window=9)
    fit(task, loader, -1, [look, keep], max_steps=13, precision="64-true")
    assert len(keep.seen) == 13
    check(rows, keep, [pytest.approx(13 / 3)], 9)  # type: ignore[list-item]


def test_chosen_layers_alone(fit: Any, rows: Rows, small_task: Any, small_loader: Any) -> None:
    fit(small_task(), small_loader(), 3, [NoiseTime(3, window=8, layers=["fc*"])])
    kinds = [f"{kind}direction/{k}" for kind in ("", "drift_") for k in ("fc1", "fc2")]
    keys = {f"noise_time/{name}" for name in ("margin", "drift_margin", *kinds)}
    assert of_noise(rows[-1]).keys() == keys


# What is left out, said, refused


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("NoiseTime")]


def test_an_end_that_nobody_could_foresee_is_left_out_and_said_once(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    stop = EarlyStopping("train/loss_running", patience=3, min_delta=1e9, verbose=False)
    fit(small_task(), small_loader(), 20, [NoiseTime(3, window=8, samples=20), stop])
    assert rows[-1]["epoch"] == 4
    assert [row["epoch"] for row in rows if of_noise(row)] == [3]
    assert said(caplog) == [
        "NoiseTime leaves out the look at 4: there is no whole window of 8 steps before it"
    ]


def test_a_run_shorter_than_a_window_says_so_and_that_the_sample_is_small(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    fit(small_task(), small_loader(), 2, [NoiseTime()])
    assert not any(map(of_noise, rows))
    assert said(caplog) == [
        "NoiseTime: all 20 training samples are taken, fewer than 256",
        "NoiseTime leaves out the look at 2: there is no whole window of 64 steps before it",
    ]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"window": 7}, "window"),
        ({"window": 8.0}, "window"),
        ({"window": True}, "window"),
        ({"samples": 0}, "samples"),
        ({"every_n_epochs": -1}, "every_n_epochs"),
        ({"layers": "conv1"}, "layers"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], field: str) -> None:
    with pytest.raises(UsageError, match=rf"^callbacks\.NoiseTime\.{field}: got "):
        NoiseTime(**options)


@pytest.mark.parametrize(
    ("every", "window", "allowed"),
    [
        (3, 10, r"from 8 to 9, the steps from one look to the next \(every_n_epochs 3\)"),
        (2, 8, r"at most 6, the steps .* at least 8: look less often"),
    ],
)
def test_a_window_longer_than_from_look_to_look(
    every: int, window: int, allowed: str, fit: Any, rows: Rows, small_task: Any, small_loader: Any
) -> None:
    says = rf"^callbacks\.NoiseTime\.window: got {window}, allowed: {allowed}"
    with pytest.raises(UsageError, match=says):
        fit(small_task(), small_loader(), 12, [NoiseTime(every, window=window)])
    assert rows == []
    fit(small_task(), small_loader(), 12, [NoiseTime(3, window=9)])
    fit(small_task(), small_loader(), 1, [NoiseTime(0, window=900)])  # off


def test_a_try_of_few_steps_is_not_refused_for_its_short_epochs(
    fit: Any, rows: Rows, small_task: Any, small_loader: Any, caplog: Any
) -> None:
    fit(small_task(), small_loader(), 9, [NoiseTime(3, window=9, samples=20)], fast_dev_run=2)
    assert not any(map(of_noise, rows))
    assert "leaves out the look at 1" in said(caplog)[-1]


def test_the_looks_of_each_step_are_those_whose_windows_hold_it() -> None:
    """Against every window written out."""
    for size, every, window, total in [(3, 3, 8, 24), (1, 10, 9, 35), (5, 2, 10, 23), (4, 9, 8, 7)]:
        last = -(-total // size)
        ends = {e: e * size for e in range(every, last, every)} | {last: total}
        for step in range(1, total + 1):
            right = [e for e, end in ends.items() if step in range(end - window + 1, end + 1)]
            assert looks_of(step, total, size, every, window) == right


# Modules of others


class Foreign(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.dropout(torch.tanh(self.first(x)), 0.1, self.training))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, weight_decay=0.01)


class Wordless(Foreign):
    """A forward that takes a batch, and not its samples."""

    def forward(self, batch: Any) -> torch.Tensor:
        return self.last(torch.tanh(self.first(batch[0])))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch), batch[1])


def samples() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return TensorDataset(x, torch.arange(12) % 2)


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {"first": module.first.weight, "last": module.last.weight}


def raw_margins(module: Any) -> torch.Tensor:
    x, y = samples()[drawn(12, 7).tolist()]
    module.eval()
    outputs = module(x)
    module.train()
    return (outputs[:, 1] - outputs[:, 0]) * (2 * y - 1) / 2


@pytest.mark.parametrize("accumulated", [1, 2])
def test_somebody_elses_module(accumulated: int, fit: Any, rows: Rows) -> None:
    """With gradients of two batches to a step, the last step of an epoch has one batch."""
    torch.manual_seed(0)
    keep = Keep(raw_margins, weights)
    loader = DataLoader(samples(), 4)
    fit(
        *(Foreign(), loader, 12, [NoiseTime(5, window=8, samples=7), keep]),
        accumulate_grad_batches=accumulated,
    )
    if accumulated == 2:  # keep the state after each step, and not after each batch
        keep.seen = [seen for k, seen in enumerate(keep.seen) if k % 3]
    check(rows, keep, [5, 10, 12], 8)


class Batches:
    """Batches of a known number, whose samples have no indices."""

    def __iter__(self) -> Any:
        return iter(DataLoader(samples(), 4))

    def __len__(self) -> int:
        return STEPS


@pytest.mark.parametrize("loader", [DataLoader(samples(), 4), Batches()])
def test_without_margins_it_records_the_layers_and_says_so_once(
    loader: Any, fit: Any, rows: Rows, caplog: Any
) -> None:
    """A forward of another kind, and such a loader."""
    torch.manual_seed(0)
    module = Wordless() if isinstance(loader, DataLoader) else Foreign()
    keep = Keep(lambda _: None, weights)
    fit(module, loader, 9, [NoiseTime(3, window=8), keep])
    check(rows, keep, [3, 6, 9], 8)
    assert len(said(caplog)) == 1
    assert said(caplog)[0].startswith(f"NoiseTime records no margin of {type(module).__name__}: ")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(samples())


def test_epochs_of_unknown_length_have_no_window(fit: Any, rows: Rows, caplog: Any) -> None:
    fit(Foreign(), DataLoader(Stream(), 4), 3, [NoiseTime(3, window=8)])
    assert not any(map(of_noise, rows)) and len(rows) == 4
    assert said(caplog) == [
        "NoiseTime records nothing of Foreign: its epochs have no known number of steps"
    ]


def test_on_the_command_line_it_is_exit_code_2_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from janus_pl import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["janus_pl"])
    given = '{"class_path": "janus_pl.callbacks.NoiseTime", "init_args": {"window": %d}}'
    for window, allowed in ((7, "an integer from 8 up"), (3601, "from 8 to 3600, the steps")):
        options = ["--config=quickstart.yaml", f"--trainer.callbacks+={given % window}"]
        assert main(["fit", *options]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "got" in line]
        assert len(lines) == 1 and allowed in lines[0]
        assert "callbacks.NoiseTime.window: got " in lines[0]
        assert list(tmp_path.iterdir()) == []
