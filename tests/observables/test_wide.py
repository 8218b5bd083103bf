"""The one owner of float64: where a device has none, and that nobody else makes it there."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_floors import files

from janus_pl.observables.wide import at_home, has_float64, home_of, wide

OWNER = "janus_pl/observables/wide.py"
# Rooms whose numbers are of the host: closed forms, data, and the compiled engine in float64.
OF_THE_HOST = ("janus_pl/theory/", "janus_pl/data/", "janus_pl/linear/", "janus_pl/minimal.py")
# Numbers that the host makes elsewhere, and how many.
MADE = {
    "janus_pl/training/subject.py": 1,  # the NaN of a layer that an optimizer does not step
    "janus_pl/training/row.py": 1,  # the row's numbers as metrics
    "janus_pl/training/any_module.py": 2,  # learning rates; factors of a step, at home
    "janus_pl/deep/answers.py": 1,  # learning rates
    "janus_pl/deep/any_classifier.py": 1,  # outputs to try a loss on
    "janus_pl/deep/curvature.py": 1,  # outputs to try a loss on
    "janus_pl/observables/classes.py": 1,  # the samples of each class
    "callbacks/rank_bound.py": 1,  # norms of a weight that is at home
}


def conversions(source: str) -> Iterator[int]:
    """The lines with a call of `double`, or with float64 among the arguments of a call."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        doubles = isinstance(node.func, ast.Attribute) and node.func.attr == "double"
        if doubles or {"torch.float64", "torch.double"} & {ast.unparse(each) for each in given}:
            yield node.lineno


def test_nobody_else_takes_tensors_to_float64() -> None:
    found: Counter[str] = Counter()
    for file in files():
        name = str(file.relative_to(ROOT))
        if name != OWNER and not name.startswith(OF_THE_HOST):
            found[name] += len([*conversions(file.read_text())])
    assert +found == MADE


@pytest.mark.parametrize(
    "planted",
    [
        "x.double()",
        "f(x).to(torch.float64)",
        "x.new_zeros((), dtype=torch.float64)",
        "torch.zeros(3, dtype=torch.double)",
    ],
)
def test_a_planted_conversion_is_found(planted: str) -> None:
    assert [*conversions(f"y = 1\nx = {planted}")] == [2]
    assert not [*conversions("x.dtype == torch.float64, wide(x), float(x)")]


class OnApple:
    """A tensor on a GPU of Apple's: it can go to the CPU, and to nothing in float64."""

    device = torch.device("mps")

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def cpu(self) -> torch.Tensor:
        return self.values

    def double(self) -> torch.Tensor:
        raise TypeError("MPS has no float64")


def test_where_a_device_has_no_float64_a_tensor_goes_to_the_cpu_first() -> None:
    has_float64.cache_clear()
    assert not has_float64("mps")
    x: Any = OnApple(torch.tensor([0.1, 0.2]))
    with pytest.raises(TypeError):
        x.double()
    assert torch.equal(wide(x), x.values.double())
    assert at_home(x) is x.values
    assert home_of(x.device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_with_float64_a_tensor_stays_on_its_device(device: str) -> None:
    x = torch.ones(2, 3, device=device)
    assert (wide(x).dtype, wide(x).device, wide(x).shape) == (torch.float64, x.device, x.shape)
    assert at_home(x) is x
    already = x.double()
    assert wide(already) is already
    assert home_of(torch.device("cuda:1")) == torch.device("cuda:1")


def test_a_type_of_device_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def empty(*_: Any, device: str, **__: Any) -> None:
        tried.append(device)
        raise TypeError

    monkeypatch.setattr(torch, "empty", empty)
    has_float64.cache_clear()
    assert not any(has_float64("xpu") for _ in range(3))
    assert has_float64("cpu") and has_float64("cuda")
    assert tried == ["xpu"]
    has_float64.cache_clear()


def test_linear_regression_needs_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    from janus_pl.data import LinearProblem
    from janus_pl.errors import UsageError
    from janus_pl.linear.checks import check_run

    data = LinearProblem(num_train=4, dim=3, outputs=2)
    device = SimpleNamespace(root_device=torch.device("mps"))
    trainer: Any = SimpleNamespace(strategy=device, callbacks=[], world_size=1)
    said = "trainer.accelerator: got 'mps', allowed: cpu, for a LinearRegressor: mps has no float64"
    with pytest.raises(UsageError) as error:
        check_run(trainer, data, ("auto", None))
    assert str(error.value) == said


def test_float64_on_a_device_without_it_is_refused() -> None:
    from janus_pl.cli.checks import check_device
    from janus_pl.errors import UsageError

    device = SimpleNamespace(root_device=torch.device("mps"))
    trainer: Any = SimpleNamespace(strategy=device, precision="64-true")
    model: Any = torch.nn.Linear(1, 1)
    with pytest.raises(UsageError, match="got '64-true', allowed: 32-true: mps"):
        check_device(trainer, model, "ieee")
    device.root_device = torch.device("cpu")
    check_device(trainer, model, "ieee")
