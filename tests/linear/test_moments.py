"""The sums over all steps: mean and variance of W and of W z, against every step kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.data.regression import LinearProblem
from janus_pl.linear.batched import run_epochs_torch
from janus_pl.linear.epochs import run_epochs
from janus_pl.linear.replicas import LinearTraining
from janus_pl.linear.watch import Moments

LAM, R, M, D, N = 0.05, 2, 3, 5, 9


def problem(seed: int = 0, dim: int = D) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) for shape in ((R, dim, N), (R, M, N), (R, M, dim)))


def every_step(w: Any, x: Any, y: Any, batch: int, rates: Any, order: Any) -> Any:
    """W before each step of replica 0 and 1, by NumPy; (R, steps, m, d)."""
    w, found = w.copy(), []
    for eta, index in zip(rates, order, strict=True):
        for start in range(0, N, batch):
            chosen = index[start : start + batch]
            xs, ys = x[:, :, chosen], y[:, :, chosen]
            found.append(w.copy())
            slope = 2 / len(chosen) * (w @ xs - ys) @ xs.swapaxes(1, 2)
            w = (1 - 2 * eta * LAM) * w - eta * slope
    return np.stack(found, axis=1)


def truth(steps: Any, probes: Any) -> tuple[Any, Any, Any]:
    """The mean, the variance of W, and the variance of W z as a mean over the probes."""
    deviation = steps - steps.mean(1, keepdims=True)
    outputs = np.einsum("rtmd,rkd->rtmk", deviation, probes)
    variance = (deviation**2).sum((2, 3)).mean(1)
    return steps.mean(1), variance, (outputs**2).sum(2).mean((1, 2))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("probes", [2, 5, 8])  # fewer than d, d and more
@pytest.mark.parametrize("batch", [1, 4, N])
def test_the_moments_are_those_of_every_step(batch: int, probes: int, compiled: bool) -> None:
    x, y, w = problem()
    rng = np.random.default_rng(1)
    order = np.stack([rng.permutation(N) for _ in range(7)])
    rates = 0.05 / np.sqrt(1 + np.arange(7))
    z = np.ascontiguousarray(x.swapaxes(1, 2)[:, :probes])
    expected = truth(every_step(w, x, y, batch, rates, order), z)
    moments = Moments(torch.from_numpy(w), torch.from_numpy(z))
    for part in (slice(0, 3), slice(3, 7)):  # a window in pieces
        if compiled:
            args = w, x, y, order[None, part], batch, rates[part], LAM
            run_epochs(*args, moments=moments)
        else:
            tensors: Any = [torch.from_numpy(a) for a in (w, x, y, order[None, part])]
            a, b, c, index = tensors
            run_epochs_torch(a, b, c, index, batch, rates[part], LAM, moments=moments)
    assert moments.steps == 7 * -(-N // batch)
    found = moments.mean, moments.variance, moments.probe_variance
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value.numpy(), other, rtol=1e-11)
    less = truth(every_step(w, x, y, batch, rates, order)[:, ::2], z)
    assert np.abs(found[1].numpy() / less[1] - 1).max() > 1e-3, "of every other step it is another"


def test_a_replica_that_diverges_has_no_moments_and_the_others_have_theirs() -> None:
    x, y, w = problem()
    alone, z = w[1:].copy(), torch.from_numpy(np.ascontiguousarray(x.swapaxes(1, 2)))
    both, one = Moments(torch.from_numpy(w), z), Moments(torch.from_numpy(alone), z[1:])
    scale = np.array([1e200, 1.0])
    lost = run_epochs(w, x, y, None, 4, [0.02] * 5, LAM, scale, moments=both)
    run_epochs(alone, x[1:], y[1:], None, 4, [0.02] * 5, LAM, moments=one)
    assert lost[0] >= 0 > lost[1]
    assert both.variance[0].isnan() and both.probe_variance[0].isnan()
    assert both.variance[1] == one.variance[0] > 0  # bitwise its own single run
    assert both.probe_variance[1] == one.probe_variance[0]


def test_moments_change_no_step() -> None:
    x, y, w = problem()
    other = w.copy()
    z = torch.from_numpy(np.ascontiguousarray(x.swapaxes(1, 2)))
    for batch in (1, 4):
        moments = Moments(torch.from_numpy(w), z)
        run_epochs(w, x, y, None, batch, [0.05] * 3, LAM, moments=moments)
        run_epochs(other, x, y, None, batch, [0.05] * 3, LAM)
        assert np.array_equal(w, other)


@pytest.mark.parametrize("batch", [1, 4, "full"])
def test_the_last_tenths_are_of_all_their_steps(
    batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 4,000 epochs, whose looks see a small part of the steps."""
    from janus_pl.linear.record import LinearRecord

    data = LinearProblem(num_train=N, dim=D, outputs=M, batch_size=batch, order="shuffle", seed=3)
    data.setup()
    w = torch.from_numpy(data.w0())
    training = LinearTraining(data, [LAM], [0.05], "constant", "paper", 4000, 50, 5, w)
    record, kept = LinearRecord(training), []
    take = training._take_steps

    def keep(piece: Any, rates: Any) -> Any:
        """Take the epochs one at a time in NumPy as well."""
        index = [data.indices(e)[0] for e in range(*piece)]
        size = N if batch == "full" else batch
        if piece.first >= 3200:
            before = np.repeat(w.numpy(), 1, 0)
            steps = _steps(before, data.problem, size, 0.05 * rates[:, 0], index)
            kept.append(steps)
        return take(piece, rates)

    monkeypatch.setattr(training, "_take_steps", keep)
    for _ in training.plan.looks:
        for piece in training.plan:
            if training.run(piece):
                record.take()
    row: Any = record.last_row()
    steps = np.concatenate(kept)
    half = len(steps) // 2
    for name, part in (("tenth_before", steps[:half]), ("last_tenth", steps[half:])):
        deviation = part - part.mean(0)
        z = data.problem.x[0].T
        expected = np.sqrt((deviation**2).sum((1, 2)).mean())
        predicted = np.sqrt(((deviation @ z.T) ** 2).sum(1).mean())
        if expected > 1e-9:  # GD is at rest
            assert row[f"noise/weights_{name}"] == pytest.approx(expected, rel=1e-9)
            assert row[f"noise/predictions_{name}"] == pytest.approx(predicted, rel=1e-9)
        else:
            assert row[f"noise/weights_{name}"] < 1e-9


def _steps(w: Any, problem: Any, batch: int, rates: Any, order: Any) -> Any:
    x, y, w, found = problem.x[0], problem.y[0], w[0], []
    for eta, index in zip(rates, order, strict=True):
        for start in range(0, N, batch):
            chosen = index[start : start + batch]
            found.append(w)
            slope = 2 / len(chosen) * (w @ x[:, chosen] - y[:, chosen]) @ x[:, chosen].T
            w = (1 - 2 * eta * LAM) * w - eta * slope
    return np.stack(found)
