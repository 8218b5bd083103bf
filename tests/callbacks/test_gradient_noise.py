"""GradientNoise on a tiny real fit, against one derivative per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from janus_pl import DeepReLUClassifier, LinearRegressor
from janus_pl.callbacks.gradient_noise import GradientNoise, _pick
from janus_pl.data import LinearProblem
from janus_pl.deep import PARAMETRIZATIONS
from janus_pl.deep.losses import LOSSES
from janus_pl.errors import DivergenceError, UsageError

LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
NAMES = ("bias", "bias_expected", "variance", "scale")
EVERY_KEY = {f"gradient_noise/{name}/{layer}" for name in NAMES for layer in LAYERS}
EVERY_KEY |= {"gradient_noise/scale"}


def noise(row: Any) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith("gradient_noise/")}


def sample_velocities(task: Any, loader: Any) -> dict[str, Any]:
    """V_k dot of every sample by itself, (N, out * rest) by layer."""
    layers = task.network.weight_layers().values()
    weights = [m.weight.detach().double() for m in layers]
    rho = float(task.network.rho.detach()) * float(np.prod([float(w.norm()) for w in weights]))
    found = [
        oracles.velocities(task.loss_name, weights, (2, 1, 1, 1), loader.x[[n]], loader.y[[n]], rho)
        for n in range(loader.num_samples)
    ]
    by_layer = zip(*found, strict=True)
    return {
        layer: np.stack([v.numpy().ravel() for v in velocities])
        for layer, velocities in zip(LAYERS, by_layer, strict=True)
    }


def test_exactly_these_keys_at_its_epochs(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    fit(small_task(), small_loader(), 5, [GradientNoise(3, batches=2)])
    assert [set(noise(row)) for row in rows] == [
        EVERY_KEY if epoch in (0, 1, 2, 3, 5) else set() for epoch in range(6)
    ]


@pytest.mark.parametrize(
    ("normalization", "loss", "order"),
    [(normalization, loss, "shuffle") for normalization in PARAMETRIZATIONS for loss in LOSSES]
    + [("weight_norm", "square", "with_replacement")],
)
def test_numbers_are_those_of_the_samples_one_by_one(
    rows: Any,
    fit: Any,
    small_task: Any,
    small_loader: Any,
    normalization: str,
    loss: str,
    order: str,
) -> None:
    # Outputs of size 1, where no two losses pull alike.
    options = {"normalization": normalization, "loss": loss, "init_scale": 0.8}
    task = small_task(learning_rate=1e-4, **options).double()
    loader = small_loader(dtype=torch.float64, order=order)
    fit(task, loader, 2, [GradientNoise(1, batches=6, seed=9)])
    row, replacement = noise(rows[-1]), order == "with_replacement"
    rng, n, size = np.random.default_rng((9, 2)), loader.num_samples, loader.batch_size
    draws = [rng.choice(n, size, replace=replacement) for _ in range(6)]
    assert replacement or all(len(set(draw)) == size for draw in draws)
    total_trace = total_signal = 0.0
    for layer, g in sample_velocities(task, loader).items():
        full = g.mean(0)
        drawn = np.stack([g[draw].mean(0) for draw in draws])
        variance = drawn.var(0, ddof=1).sum()
        trace = variance * size * (1 if replacement else (n - 1) / (n - size))
        expected = {
            "bias": np.linalg.norm(drawn.mean(0) - full),
            "bias_expected": np.sqrt(variance / 6),
            "variance": variance,
            "scale": trace / (full @ full),
        }
        for name, value in expected.items():
            assert row[f"gradient_noise/{name}/{layer}"] == pytest.approx(value, rel=1e-10), name
        total_trace, total_signal = total_trace + trace, total_signal + full @ full
    assert row["gradient_noise/scale"] == pytest.approx(total_trace / total_signal, rel=1e-10)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_many_minibatches_have_the_closed_form(
    rows: Any, fit: Any, small_task: Any, small_loader: Any, size: int
) -> None:
    """Variance and noise scale of 20 samples, whatever the size of the minibatches."""
    task, loader = small_task(learning_rate=1e-12).double(), small_loader(dtype=torch.float64)
    fit(task, loader, 1, [GradientNoise(100, batch_size=size, batches=400)])
    row, n = noise(rows[-1]), 20
    for layer, g in sample_velocities(task, loader).items():
        deviations = g - g.mean(0)
        trace = (deviations**2).sum() / n
        # The estimate's relative standard error for deviations that are normal.
        spectrum = np.linalg.eigvalsh(deviations @ deviations.T / n)
        error = np.sqrt(2 * (spectrum**2).sum() / 399) / spectrum.sum()
        expected = trace / size * (n - size) / (n - 1)
        found = row[f"gradient_noise/variance/{layer}"]
        assert found == pytest.approx(expected, rel=4 * error), layer
        if size == 16:  # control: without the correction for a finite set
            assert trace / size > (1 + 4 * error) * found
        scale = trace / (g.mean(0) ** 2).sum()
        assert row[f"gradient_noise/scale/{layer}"] == pytest.approx(scale, rel=4 * error)
        ratio = row[f"gradient_noise/bias/{layer}"] / row[f"gradient_noise/bias_expected/{layer}"]
        assert 0 < ratio < 2


class Biased(DeepReLUClassifier):
    """Whatever is not the whole set of 20 samples is twice too long."""

    def velocities_of(self, batch: Any) -> dict[str, torch.Tensor]:
        factor = 1 if len(batch[1]) == 20 else 2
        return {k: factor * v for k, v in super().velocities_of(batch).items()}


def test_a_biased_minibatch_is_found_out(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task(learning_rate=1e-12)
    task.__class__ = Biased
    fit(task, small_loader(), 1, [GradientNoise(100, batches=400)])
    row = noise(rows[-1])
    for layer in LAYERS:
        bias, expected = (row[f"gradient_noise/{k}/{layer}"] for k in ("bias", "bias_expected"))
        assert bias > 2 * expected, layer


def test_looking_leaves_training_bitwise_unchanged(
    fit: Any, small_task: Any, small_loader: Any
) -> None:
    ends = []
    for callbacks in ([], [GradientNoise(1, batches=3)]):
        task = small_task()
        np.random.seed(1)
        fit(task, small_loader(), 4, callbacks)
        state = [*task.state_dict().values(), torch.random.get_rng_state()]
        state += [p.grad for p in task.parameters() if p.grad is not None]
        ends.append([*state, torch.from_numpy(np.random.random(3))])
    assert len(ends[0]) > 12
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_draws_depend_on_seed_and_epoch_alone(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    for seed in (0, 0, 1):
        options = {"batch_size": 4, "batches": 2, "seed": seed}
        fit(small_task(learning_rate=1e-30), small_loader(), 2, [GradientNoise(1, **options)])
    looks = [noise(row) for row in rows]
    first, second, other = looks[:3], looks[3:6], looks[6:]
    assert first == second
    key = "gradient_noise/variance/fc1"
    assert len({look[key] for look in first + other}) == 6


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": "full"},
        {"batch_size": 20},
        {"batch_size": "full", "order": "with_replacement"},
    ],
)
def test_gd_has_no_noise(
    rows: Any, fit: Any, small_task: Any, small_loader: Any, options: Any, caplog: Any
) -> None:
    fit(small_task(), small_loader(**options), 2, [GradientNoise(1)])
    silent = {f"gradient_noise/variance/{layer}": 0.0 for layer in LAYERS}
    assert [noise(row) for row in rows] == [silent] * 3
    said = [r.getMessage() for r in caplog.records if "GradientNoise" in r.getMessage()]
    assert len(said) == 1
    assert "batch_size" in said[0]


def test_the_noise_scale_of_gd_comes_from_smaller_minibatches(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    fit(small_task(), small_loader(batch_size="full"), 1, [GradientNoise(1, batch_size=8)])
    assert set(noise(rows[-1])) == EVERY_KEY
    assert noise(rows[-1])["gradient_noise/scale"] > 0


def test_a_whole_batch_with_replacement_has_noise(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    loader = small_loader(batch_size=20, order="with_replacement")
    fit(small_task(), loader, 1, [GradientNoise(1, batches=3)])
    assert noise(rows[-1])["gradient_noise/variance/fc1"] > 0


def test_what_is_not_finite_is_missing(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    task = small_task()
    with torch.no_grad():
        task.network.rho.fill_(torch.nan)
    with pytest.raises(DivergenceError):
        fit(task, small_loader(), 1, [GradientNoise(1, batches=2)])
    assert rows
    assert not any(noise(row) for row in rows)


def test_samples_and_their_mean_across_unequal_chunks(
    fit: Any, small_task: Any, small_loader: Any
) -> None:
    task, loader = small_task().double(), small_loader(dtype=torch.float64)
    chunks = list(loader.in_order(7))  # 7, 7 and 6 samples
    index = torch.tensor([19, 0, 13, 7, 7])
    ((x, y),) = _pick(chunks, index)
    assert torch.equal(x, loader.x[[0, 13, 7, 7, 19]])
    assert torch.equal(y, loader.y[[0, 13, 7, 7, 19]])
    many = _pick(chunks, torch.zeros(1100, dtype=torch.int64))
    assert [len(y) for _, y in many] == [500, 500, 100]
    whole = task.velocities_of((loader.x, loader.y))
    for layer, velocity in GradientNoise()._mean_velocity(task, chunks).items():
        torch.testing.assert_close(velocity, whole[layer], rtol=1e-10, atol=0)
    # Control: the mean of the chunks' means is another.
    parts = [task.velocities_of(chunk)["fc1"] for chunk in chunks]
    assert not torch.allclose(sum(parts) / 3, whole["fc1"], rtol=1e-3, atol=0)


def test_a_plain_loader(rows: Any, fit: Any, small_task: Any, small_loader: Any) -> None:
    """Its samples are the same in the same order, and so are the draws."""
    stored = small_loader(batch_size=6)
    data = TensorDataset(stored.x, stored.y)
    for size in (None, 6):
        callback, loader = GradientNoise(1, size, batches=2), DataLoader(data, batch_size=6)
        ours = callback._draw(loader, 20)
        assert ours == (6, False) == callback._draw(stored, 20)
    with pytest.raises(UsageError, match=r"callbacks\.GradientNoise\.batch_size: got None"):
        GradientNoise()._draw(DataLoader(data, batch_size=None), 20)


def test_linear_regression_is_refused_before_the_run(fit: Any, rows: Any, caplog: Any) -> None:
    module = LinearRegressor(learning_rate=0.05)
    data = LinearProblem(num_train=7, dim=9, outputs=3)
    says = r"callbacks\.GradientNoise: got 'LinearRegressor', allowed: .* \(velocities_of\)"
    with pytest.raises(UsageError, match=says) as caught:
        fit(module, data, 2, [GradientNoise(1)])
    assert caught.value.exit_code == 2
    assert not rows, "nothing has begun"
    trainer = fit(module, data, 2, [GradientNoise(0)])  # off
    assert rows and not any(noise(row) for row in rows)
    assert not noise(trainer.callback_metrics)
    assert not [r for r in caplog.records if "GradientNoise" in r.getMessage()]


def test_chosen_layers_have_the_same_numbers_and_a_scale_of_their_own(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    options = {"batch_size": 8, "batches": 3}
    looks = [GradientNoise(1, **options), GradientNoise(1, **options, layers=["conv2", "fc*"])]
    found = []
    for look in looks:
        task = small_task(init_scale=0.8, learning_rate=0.003).double()
        fit(task, small_loader(dtype=torch.float64), 1, [look])
        found.append(noise(rows[-1]))
    every, some = found
    chosen = ("conv2", "fc1", "fc2")
    both = {f"gradient_noise/{name}/{layer}" for name in NAMES for layer in chosen}
    assert set(some) == both | {"gradient_noise/scale"}
    assert {key: some[key] for key in both} == {key: every[key] for key in both}
    # tr S of the chosen layers over their signal; S of a layer by the finite set's factor.
    factor = 8 * 19 / 12
    parts = [(some[f"gradient_noise/variance/{k}"] * factor, k) for k in chosen]
    signal = sum(trace / some[f"gradient_noise/scale/{k}"] for trace, k in parts)
    total = sum(trace for trace, _ in parts) / signal
    assert some["gradient_noise/scale"] == pytest.approx(total, rel=1e-10)
    assert some["gradient_noise/scale"] != pytest.approx(every["gradient_noise/scale"], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"every_n_epochs": -1}, "every_n_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batches": 1}, "batches"),
        ({"seed": -1}, "seed"),
        ({"gram": 1}, "gram"),
        ({"gram": 65}, "gram"),
        ({"hessian_samples": -1}, "hessian_samples"),
        ({"products": 0}, "products"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_options(options: Any, field: str) -> None:
    with pytest.raises(UsageError, match=rf"callbacks\.GradientNoise\.{field}"):
        GradientNoise(**options)


def test_minibatches_larger_than_the_set_are_refused_at_the_start(
    rows: Any, fit: Any, small_task: Any, small_loader: Any
) -> None:
    with pytest.raises(UsageError, match="batch_size: got 21, allowed: 1 to 20"):
        fit(small_task(), small_loader(), 1, [GradientNoise(1, batch_size=21)])
    assert not rows
