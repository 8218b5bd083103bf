"""`Flat`: parameters and gradients in one buffer each, whatever their shapes and layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from janus_pl.observables.norms import frobenius_norm
from janus_pl.training.flat import ROW, Flat, flats_of


def tensors() -> list[Tensor]:
    """Shapes and layouts that networks have: channels-last, transposed, a row and one, a number."""
    torch.manual_seed(0)
    return [
        torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(7, 6).T,
        torch.randn(ROW),
        torch.randn(ROW + 1),
        torch.randn(()),
        torch.randn(2, 1).expand(2, 3),  # not dense: it gets memory of its own
        torch.randn(3, 2 * ROW),
    ]


@pytest.fixture
def flat() -> Flat:
    return Flat([nn.Parameter(tensor) for tensor in tensors()])


def outside(flat: Flat, buffer: Tensor) -> Tensor:
    """What belongs to no parameter."""
    kept = torch.ones_like(buffer)
    for view in flat.views(kept):
        view.zero_()
    return buffer[kept.bool()]


def test_parameters_keep_shape_layout_and_values_and_are_views(flat: Flat) -> None:
    for p, before, span in zip(flat.parameters, tensors(), flat.spans, strict=True):
        assert torch.equal(p.detach(), before)
        assert p.stride() == before.stride() or before.stride() == (1, 0)
        assert p.untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr()
        assert p.data_ptr() == flat.values[span.start].data_ptr()
    assert flat.holds()
    assert not outside(flat, flat.values).any()
    with torch.no_grad():
        flat.parameters[3].fill_(2.0)
    assert int((flat.values == 2).sum()) == ROW + 1


def test_norms_are_those_of_the_parameters(flat: Flat) -> None:
    expected = [frobenius_norm(t.reshape(1, -1).double()) for t in tensors()]
    found = flat.norms(flat.values)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-6, atol=0)
    assert torch.equal(flat.norms(flat.values, 3), found[:3])


def test_a_norm_of_many_entries_keeps_its_digits_in_float32() -> None:
    p = nn.Parameter(torch.full((3000, 1000), 0.1))
    flat = Flat([p])
    found = float(flat.norms(flat.values)[0])
    assert found == pytest.approx(float(p.detach().double().norm()), rel=1e-6)


def test_a_number_for_each_row(flat: Flat) -> None:
    numbers = torch.arange(1.0, 5)
    scaled = flat.values[: flat.spans[3].stop] * flat.by_row(numbers)
    for k, view in enumerate(flat.views(scaled, 4)):
        torch.testing.assert_close(view, (k + 1) * tensors()[k], rtol=1e-6, atol=0)


def test_lines_are_in_the_order_of_memory(flat: Flat) -> None:
    for p, line in zip(flat.parameters, flat.lines(flat.values), strict=True):
        assert torch.equal(line, p.detach().as_strided((p.numel(),), (1,)))


def test_gradients_are_collected_and_a_missing_one_stays_missing(flat: Flat) -> None:
    for k, p in enumerate(flat.parameters):
        p.grad = torch.full_like(p, k + 1.0)
    flat.collect()
    assert flat.holds_gradients(len(flat.parameters))
    for k, p in enumerate(flat.parameters):
        assert p.grad is flat.grads[k]
        assert bool((p.grad == k + 1).all())
    assert not outside(flat, flat.gradients).any()
    for p in flat.parameters[1:]:
        p.grad = None
    flat.collect()
    assert [p.grad is None for p in flat.parameters] == [False, *[True] * 6]
    assert not flat.gradients[flat.spans[1].start :].any()
    assert flat.holds_gradients(1) and not flat.holds_gradients(2)


def test_a_parameter_with_other_memory_comes_back(flat: Flat) -> None:
    p = flat.parameters[0]
    p.data = 3 * p.data
    assert not flat.holds()
    flat.take_in()
    assert flat.holds()
    assert torch.equal(p.detach(), 3 * tensors()[0])
    assert torch.equal(flat.views(flat.values)[0], p.detach())


def test_each_dtype_has_a_buffer() -> None:
    ps = [nn.Parameter(torch.ones(2, dtype=d)) for d in (torch.float32, torch.float64) * 2]
    flats = flats_of(ps)
    assert [[id(p) for p in flat.parameters] for flat in flats] == [
        [id(ps[0]), id(ps[2])],
        [id(ps[1]), id(ps[3])],
    ]
    assert [flat.values.dtype for flat in flats] == [torch.float32, torch.float64]
