"""What a parametrization has to answer, and what it refuses to be handed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import SMALL

from janus_pl.deep.network import DeepReLU
from janus_pl.deep.normalizations import PARAMETRIZATIONS
from janus_pl.deep.parametrization import Parametrization
from janus_pl.errors import UsageError

QUESTIONS = {
    *("factors", "learned_scale", "groups", "after_step", "radial", "kept", "step_parts"),
    *("gradient_parts", "_tangent"),
}


def answers(*names: str) -> type:
    return type("Partly", (Parametrization,), {name: lambda self, *_: None for name in names})


@pytest.mark.parametrize("missing", sorted(QUESTIONS))
def test_a_parametrization_answers_every_question(missing: str) -> None:
    rho = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(TypeError, match=missing):
        answers(*QUESTIONS - {missing})(rho, {})
    assert answers(*QUESTIONS)(rho, {}).rho is rho


@pytest.mark.parametrize("kind", PARAMETRIZATIONS)
def test_gradients_of_too_few_or_too_many_layers_are_refused(kind: str) -> None:
    parametrization = PARAMETRIZATIONS[kind](DeepReLU(**SMALL))
    gradients: list[Any] = [torch.randn_like(p) for p in parametrization.weights.values()]
    assert len(parametrization.velocities(gradients)) == 6
    for wrong in (gradients[:-1], [*gradients, gradients[-1]]):
        with pytest.raises(ValueError, match="zip"):
            parametrization.velocities(wrong)
        with pytest.raises(ValueError, match="zip"):
            parametrization.velocity_norms(wrong)


@pytest.mark.parametrize("field", ["hidden", "image_size"])
@pytest.mark.parametrize("value", [0, -3, 7.0, "7", True, None])
def test_sizes_are_positive_integers(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"model.{field}: got {value!r}, allowed: an integer"):
        DeepReLU(**{**SMALL, field: value})


def test_the_smallest_network_is_accepted() -> None:
    network = DeepReLU((1, 1, 1, 1), (1, 1, 1, 1), hidden=1, image_size=9)
    assert [tuple(m.weight.shape) for m in network.weight_layers().values()] == [
        *[(1, 3, 3, 3), (1, 1, 3, 3), (1, 1, 3, 3), (1, 1, 3, 3)],
        *[(1, 1), (2, 1)],
    ]
    assert network(torch.randn(2, 3, 9, 9)).shape == (2, 2)
