"""`model.compile`: passes of training steps go through `torch.compile`, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from deep.test_any_classifier import classifier, samples, small_mlp
from deep.test_lean_step import LAM, RATES, SavesWithin, compare, same
from deep.test_lean_step import weights_of as parameters_of
from environments import LIMIT
from record_reader import files_of
from torch import Tensor, nn
from torch._dynamo.utils import counters

from janus_pl.callbacks import LayerVelocity, MarginHistogram
from janus_pl.cli.main import main
from janus_pl.deep.compiled import check_compiler, step_pass
from janus_pl.errors import UsageError
from janus_pl.records.families import families
from janus_pl.records.read import read


class Doubled(nn.Module):
    """A dense layer; its outputs are doubled where it is compiled."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.flatten, self.fc = nn.Flatten(), nn.Linear(12, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(x)) * (2 if torch.compiler.is_compiling() else 1)


@pytest.fixture(autouse=True)
def forget_graphs() -> None:
    torch.compiler.reset()
    counters.clear()


# The mathematics


@pytest.mark.parametrize(
    ("batches", "normalization"),
    [
        *(("SGD in parts", name) for name in RATES),
        ("GD in parts", "weight_norm"),
    ],
)
def test_float64_is_the_loop_by_hand(
    batches: str, normalization: str, small_task: Any, small_loader: Any, fit: Any
) -> None:
    size, micro = {"SGD in parts": (8, 3), "GD in parts": ("full", 7)}[batches]
    task = small_task(
        normalization=normalization,
        learning_rate=RATES[normalization],
        weight_decay=LAM,
        init_scale=0.5,
        optimizer=lambda params, lr: torch.optim.SGD(params, lr, 0.9, fused=True),
        compile=True,
    )
    loader = small_loader(batch_size=size, dtype=torch.float64, micro_batch_size=micro)
    compare(task, loader, fit, 0.9, torch.float64, 1e-10)
    assert counters["stats"]["unique_graphs"] >= 2, "one for each number of samples"
    assert not counters["graph_break"]


def test_float32_is_it_to_its_digits(small_task: Any, small_loader: Any, fit: Any) -> None:
    task = small_task(
        learning_rate=RATES["weight_norm"],
        weight_decay=LAM,
        init_scale=0.5,
        optimizer=lambda params, lr: torch.optim.SGD(params, lr, 0.9, fused=True),
        compile=True,
    )
    compare(task, small_loader(), fit, 0.9, torch.float32, 1e-5)


def test_the_step_is_compiled_and_a_look_is_not(fit: Any, rows: list[dict[str, Any]]) -> None:
    """A negative control of the above: a network that tells finds the compiled pass."""
    tasks = {}
    for compile in (False, True):
        torch.manual_seed(0)
        tasks[compile] = classifier(Doubled(), loss="square", compile=compile)
        fit(tasks[compile], samples(24), 1, [MarginHistogram(1)], precision="64-true")
    usual, compiled = (parameters_of(tasks[each]) for each in (False, True))
    assert not same(usual, compiled)
    start, end = rows[-2:]
    assert start["margin/mean"] == rows[0]["margin/mean"], "measured before the first step"
    W, loader = tasks[True].parametrization.weights["fc"].detach(), samples(24)
    outputs = loader.x @ W.T
    right = torch.nn.functional.one_hot(loader.y.long(), 4).bool()
    others = outputs.masked_fill(right, -torch.inf).amax(dim=1)
    margins = (outputs[right] - others) / 2 / W.norm()
    assert end["margin/mean"] == pytest.approx(margins.mean().item(), rel=1e-12)


@pytest.mark.parametrize("kind", ["batch_norm", "dropout"])
def test_statistics_and_random_numbers_are_those_without(kind: str, fit: Any) -> None:
    found = []
    for compile in (False, True):
        network: nn.Module = small_mlp(batch_norm=kind == "batch_norm")
        if kind == "dropout":
            network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), network)
        task = classifier(network, compile=compile)
        torch.manual_seed(1)
        fit(task, samples(24), 2, precision="64-true")
        found.append([*parameters_of(task), *task.buffers()])
    assert counters["stats"]["unique_graphs"] == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_hook_on_a_gradient_is_called(small_task: Any, small_loader: Any, fit: Any) -> None:
    calls: list[Any] = []
    usual, hooked = (small_task(compile=each).double() for each in (False, True))
    fit(usual, small_loader(dtype=torch.float64), 2, precision="64-true")
    for p in hooked.parametrization.weights.values():
        p.register_hook(lambda given: calls.append(given.shape))
    fit(hooked, small_loader(dtype=torch.float64), 2, precision="64-true")
    assert len(calls) == 2 * 3 * 6  # epochs, steps, layers
    assert counters["stats"]["unique_graphs"] and not counters["graph_break"]
    for one, other in zip(parameters_of(usual), parameters_of(hooked), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


# Resuming, and many fits


def test_from_within_an_epoch_it_goes_on_bit_for_bit(
    small_task: Any, small_loader: Any, fit: Any, tmp_path: Path
) -> None:
    path = tmp_path / "within.ckpt"
    whole, again = small_task(compile=True), small_task(init_seed=1, compile=True)
    fit(whole, small_loader(), 3, [SavesWithin(path), LayerVelocity()])
    torch.compiler.reset()  # another process has compiled nothing yet
    assert not same(parameters_of(again), parameters_of(whole))
    fit(again, small_loader(), 3, [LayerVelocity()], ckpt_path=path)
    assert same(parameters_of(again), parameters_of(whole))


def test_the_tenth_fit_of_a_process_is_compiled_as_the_first() -> None:
    x, y = torch.ones(2, 12), torch.zeros(2)

    def tells(make: Any) -> list[bool]:
        torch.compiler.reset()
        networks = [Doubled(k) for k in range(1, 11)]
        passes = [make(network) for network in networks]
        return [
            torch.allclose(passed(x, y)[0], 2 * network(x))
            for passed, network in zip(passes, networks, strict=True)
        ]

    ours = lambda network: step_pass(network, lambda outputs, y: y, True)  # noqa: E731
    assert tells(ours) == [True] * 10

    def shared(network: nn.Module) -> Any:
        def passed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return network(x), y

        return torch.compile(passed, dynamic=False)

    assert tells(shared) != [True] * 10, "a negative control: torch's default gives up"


# The command line


FIT = [
    *("fit", "--config=quickstart.yaml", "--name=null", "--data.num_train=40"),
    *("--model.channels=[2,3,4,4]", "--model.hidden=8", "--trainer.max_epochs=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return tmp_path


def test_one_line_of_a_config_compiles_a_run_of_the_same_family(home: Path) -> None:
    Path("fast.yaml").write_text("model: {compile: true}")
    assert main([*FIT, "--trainer.logger=true"]) == 0
    assert not counters["stats"]["unique_graphs"]
    assert main([*FIT, "--config=fast.yaml"]) == 0
    assert counters["stats"]["unique_graphs"] >= 1
    usual, compiled = runs = read([*Path().glob("runs/*/*")]).runs
    assert len(families(runs, "lambda", "seed")) == 1
    assert usual.last("train/loss") == pytest.approx(compiled.last("train/loss"), rel=1e-4)


def test_without_a_compiler_it_is_refused_in_a_line_before_anything_is_made(home: Path) -> None:
    # A process of its own: what torch finds out about the compiler stays with a process.
    cache = home / "cache"
    refused = subprocess.run(
        [sys.executable, "-m", "janus_pl", *FIT, "--model.compile=true"],
        env={**os.environ, "CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert refused.returncode == 2, refused.stderr
    (line,) = [each for each in refused.stderr.splitlines() if "error" in each]
    assert line.startswith("error: model.compile: got True, allowed: false, for torch.compile ")
    assert "compiler" in line
    assert not [each for each in files_of(home) if cache not in each.parents]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"fails here on no such device"):
        check_compiler("no such device")


@pytest.mark.parametrize("value", ["much", "3"])
def test_a_value_that_is_no_boolean_is_refused(
    value: str, home: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*FIT, f"--model.compile={value}"]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert line.startswith("error: model.compile: ")
    assert not [*files_of(home)]
