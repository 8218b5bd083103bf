"""What is asked of the machine's memory, in bytes, and where it is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest

import janus_pl.data.image_folder
import janus_pl.data.linear_options
import janus_pl.deep.network
from janus_pl.data import LinearProblem
from janus_pl.data.image_folder import ImageFolder
from janus_pl.deep.network import DeepReLU
from janus_pl.errors import UsageError, check_memory

Asked = list[tuple[str, object, float]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Field, value and bytes of everything that is checked."""
    seen: Asked = []
    keep = lambda field, value, size: seen.append((field, value, size))  # noqa: E731
    for module in (janus_pl.deep.network, janus_pl.data.linear_options, janus_pl.data.image_folder):
        monkeypatch.setattr(module, "check_memory", keep)
    return seen


def test_memory_is_that_of_the_machine_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 3 * 2**18, "SC_PAGE_SIZE": 4096}  # 3 GiB
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    check_memory("data", "N = 5", 3.0 * 2**30)
    with pytest.raises(UsageError, match=r"data: got 'N = 5', allowed: .* 3 GiB, .* takes 6"):
        check_memory("data", "N = 5", 6.0 * 2**30)
    with pytest.raises(UsageError):
        check_memory("data", "N = 5", 3.0 * 2**30 + 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 1, 1, 1), "channels": (3, 4, 5, 6), "hidden": 7, "image_size": 16},
        {"strides": (1, 1, 1, 1), "channels": (2, 3, 4, 5), "hidden": 9, "image_size": 11},
    ],
)
def test_a_network_asks_for_four_floats_a_weight(options: Any, asked: Asked) -> None:
    network = DeepReLU(**options)
    layers: dict[str, Any] = network.weight_layers()
    count = sum(layer.weight.numel() for layer in layers.values())
    ((field, value, size),) = asked
    assert (field, value, size) == ("model", f"{count:.3g} parameters", 16.0 * count)


@pytest.mark.parametrize(("order", "rows"), [("shuffle", 50 + 11), ("online", 11)])
def test_a_linear_problem_asks_for_samples_and_matrices(
    order: Any, rows: int, asked: Asked
) -> None:
    data = LinearProblem(num_train=50, dim=7, outputs=4, replicas=3, order=order)
    data.setup()
    ((field, value, size),) = asked[-1:]
    assert field == "data" and value == "N = 50, d = 7, m = 4, replicas = 3"
    assert size == 8.0 * 3 * 11 * rows  # X and Y, unless they are a stream, and (d + m)^2


def test_images_ask_for_their_bytes_and_their_floats(asked: Asked, tmp_path: Any) -> None:
    data = ImageFolder(str(tmp_path), None, image_size=9)
    data.decode([])
    assert asked == [("data.image_size", 9, 0)]
    with pytest.raises(UsageError):  # after the check: there is no such file
        data.decode([tmp_path / "a.png"] * 2)
    assert asked[1] == ("data.image_size", 9, 2 * 9 * 9 * 3 * (1 + 4))


def test_a_stream_is_held_as_a_whole_up_to_a_quarter_of_a_gibibyte() -> None:
    most = 2**28 // (8 * 2 * 16)  # two replicas of 16 floats a sample

    def problem(num_train: int, order: Any = "online") -> LinearProblem:
        data = LinearProblem(num_train=num_train, dim=12, outputs=4, replicas=2, order=order)
        data.setup()
        return data

    assert [problem(n).streamed for n in (1, most, most + 1)] == [False, False, True]
    assert problem(most + 1, "sequential").streamed is False
