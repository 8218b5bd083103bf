"""Random generators in checkpoints: those of the host and of the run's own device, no others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer import trainer as lightning_trainer
from lightning.pytorch.utilities.seed import isolate_rng

from janus_pl.training.generators import generators, kept_generators, set_generators
from janus_pl.training.lightning import isolate_started
from janus_pl.training.resume import ExactResume

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


class Gpus:
    """Several GPUs of which only their generators are there; it notes who asks for which."""

    def __init__(self, count: int) -> None:
        self.states = [torch.tensor([number], dtype=torch.uint8) for number in range(count)]
        self.asked: list[int] = []

    def get_rng_state(self, device: torch.device) -> torch.Tensor:
        self.asked.append(device.index)
        return self.states[device.index].clone()

    def set_rng_state(self, state: torch.Tensor, device: torch.device) -> None:
        self.asked.append(device.index)
        self.states[device.index] = state.clone()

    @property
    def drawn(self) -> list[int]:
        return [int(state) for state in self.states]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give PyTorch so many GPUs."""

    def make(count: int) -> Gpus:
        made = Gpus(count)
        monkeypatch.setattr(torch, "get_device_module", lambda device: made)
        return made

    return make


def draw() -> list[float]:
    drawn = [random.gauss(0, 1), random.random(), np.random.standard_normal(), np.random.random()]
    return [*drawn, *torch.randn(3).tolist()]


def test_the_state_of_the_own_device_alone_is_taken_and_put_back(gpus: Any) -> None:
    eight = gpus(8)
    states = generators(CUDA)
    first = draw()
    eight.states[1][0] = 77
    set_generators(states, CUDA)
    assert (eight.drawn, eight.asked) == ([*range(8)], [1, 1])
    assert draw() == first


def test_a_run_goes_on_where_fewer_gpus_are_visible(gpus: Any) -> None:
    """PyTorch's call for all states is an IndexError there, the negative control."""
    gpus(8)
    states = generators(torch.device("cuda:6"))
    one = gpus(1)
    set_generators(states, torch.device("cuda:0"))
    assert one.drawn == [6]
    with pytest.raises(IndexError):
        for number in range(8):
            one.set_rng_state(one.states[0], torch.device("cuda", number))


@pytest.mark.parametrize(
    ("device", "drawn"), [("cuda:2", [0, 1, 12, 3]), ("cuda", [10, 1, 2, 3]), ("mps", [0, 1, 2, 3])]
)
def test_an_older_checkpoint_has_the_states_of_all_gpus(
    device: str, drawn: list[int], gpus: Any
) -> None:
    old = {**generators(), "cuda": [torch.tensor([10 + n]).byte() for n in range(4)]}
    del old["device"]
    own = torch.device(device)
    four = gpus(4)
    four.set_rng_state = lambda state, at: four.states.__setitem__(at.index or 0, state)
    set_generators(old, own)
    assert four.drawn == drawn


def test_an_older_checkpoint_of_fewer_gpus_and_of_none(gpus: Any) -> None:
    old = {**generators(), "cuda": [torch.tensor([10], dtype=torch.uint8)]}
    del old["device"]
    two = gpus(2)
    set_generators(old, CUDA)
    assert two.drawn == [0, 10]
    set_generators({**old, "cuda": []}, CUDA)
    assert two.drawn == [0, 10]
    expected = draw()
    set_generators(old, CPU)  # a CPU reads it too, and leaves the GPUs alone
    assert (draw(), two.asked) == (expected, [1])


def test_the_state_of_another_kind_of_device_is_left_out(gpus: Any) -> None:
    two = gpus(2)
    set_generators(generators(CPU), CUDA)
    set_generators(generators(torch.device("mps:0")), CUDA)
    assert two.drawn == [0, 1]


def test_generators_are_put_back_also_if_a_block_fails(gpus: Any) -> None:
    two = gpus(2)
    set_generators(generators(), CPU)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    with pytest.raises(ZeroDivisionError), kept_generators(CUDA):
        draw()
        two.states[1][0] = 9
        raise ZeroDivisionError
    assert (draw(), two.drawn) == (expected, [0, 1])


# CUDA is left alone in a run on the CPU


class Started(Exception):
    """CUDA was started."""


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs that nobody may start."""

    def start(*_: Any) -> None:
        raise Started

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", start)
    for name in ("get_rng_state", "set_rng_state", "get_rng_state_all", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, start)


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_a_cpu_run_with_checkpoints_and_its_resumption_start_no_cuda(
    unstarted: None, fit: Any, small_task: Any, small_loader: Any, rows: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    trainer = fit(small_task(), small_loader(), 1, [ExactResume()])
    trainer.save_checkpoint(path)
    held = torch.load(path, weights_only=True)["exact_resume"]["generators"]
    assert held.keys() == {"python", "numpy", "torch", "device"}
    assert held["device"] is None
    fit(small_task(), small_loader(), 2, [ExactResume()], ckpt_path=path)


def test_lightnings_own_keeping_of_generators_would_start_it(
    unstarted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control; ours stands in the trainer, which keeps them in every fit."""
    assert vars(lightning_trainer)["isolate_rng"] is isolate_started
    with pytest.raises(Started), isolate_rng():
        pass
    with isolate_started():
        pass
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(Started), isolate_started():  # what has started is kept
        pass
