"""What a row of linear regression says of W: every number against numpy, at m other than d."""

from __future__ import annotations

from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from linear_oracles import relative

from janus_pl.linear.epochs import full_batch_equivalent
from janus_pl.linear.landscape import SHOWN, Landscape, noise
from janus_pl.linear.watch import Watch

R, T = 3, 4  # replicas, and times that are measured in one call
LAM = np.array([0.0, 0.03, 0.4])
SHAPES = [(7, 3, 5), (7, 3, 20), (4, 9, 6), (5, 5, 8)]  # d, m, N


def made_of(d: int, m: int, n: int, seed: int = 0) -> Any:
    """X, Y, W0 and W at several times, each replica of a size of its own."""
    rng = np.random.default_rng(seed)
    sizes = np.array([0.2, 1.0, 30.0])[:, None, None]
    x = sizes * rng.standard_normal((R, d, n))
    y, w0 = rng.standard_normal((R, m, n)), rng.standard_normal((R, m, d))
    return x, y, w0, 3 * rng.standard_normal((T, R, m, d))


def tensors(*arrays: Any) -> Any:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]


def landscape_from(x: Any, y: Any, w0: Any, num_train: int) -> Landscape:
    x, y, w0, lam = tensors(x, y, w0, LAM)
    return Landscape(x, y, w0, lam, num_train=num_train)


def landscape_of(x: Any, y: Any, w0: Any) -> Landscape:
    return landscape_from(x, y, w0, x.shape[2])


def spectra(w: Any) -> dict[str, Any]:
    """Singular values by an SVD and, of a square W, moduli of eigenvalues, largest first."""
    found = {"singular_value": np.linalg.svd(w, compute_uv=False)}
    if w.shape[0] == w.shape[1]:
        found["eigenvalue_modulus"] = np.sort(np.abs(np.linalg.eigvals(w)))[::-1]
    return found


@pytest.mark.parametrize(("d", "m", "n"), SHAPES)
def test_every_number_of_every_replica_is_numpys(d: int, m: int, n: int) -> None:
    x, y, w0, w = made_of(d, m, n)
    log_decay = np.random.default_rng(1).uniform(-3, 0, (T, R))
    values = landscape_of(x, y, w0).measure(*tensors(w, log_decay))
    assert all(value.shape == (T, R) for value in values.values())
    for t in range(T):
        for r in range(R):
            lam, at = LAM[r], w[t, r]
            residual = at @ x[r] - y[r]
            squares = [residual[:, i] @ residual[:, i] for i in range(n)]
            gradient = sum(2 / n * np.outer(residual[:, i], x[r][:, i]) for i in range(n))
            solution = (
                oracle.ridge(x[r], y[r], lam) if lam else np.linalg.lstsq(x[r].T, y[r].T)[0].T
            )
            basis = oracle.null_basis(x[r])
            expected = {
                "train/loss": np.mean(squares),
                "train/mse_per_sample": np.mean(squares),
                "train/mse_per_entry": np.mean(squares) / m,
                "rho": np.linalg.norm(at),
                "gradient_norm_full": np.linalg.norm(gradient + 2 * lam * at),
                "solution/distance": np.linalg.norm(at - solution),
                "solution/relative_distance": relative(at, solution),
                "null/norm": np.linalg.norm(at @ basis),
                "null/predicted": np.linalg.norm(w0[r] @ basis) * np.exp(log_decay[t, r]),
            }
            found = spectra(at)
            expected |= {
                f"{k}/{i + 1}": v for k, values_ in found.items() for i, v in enumerate(values_)
            }
            expected["sigma_min"] = found["singular_value"][-1]
            measured = {key: float(value[t, r]) for key, value in values.items()}
            assert measured.keys() == expected.keys()
            assert measured == pytest.approx(expected, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(("d", "m", "n"), SHAPES)
def test_what_is_known_before_any_training(d: int, m: int, n: int) -> None:
    x, y, w0, w = made_of(d, m, n)
    landscape = landscape_of(x, y, w0)
    slopes = landscape.slope(torch.from_numpy(w)).numpy()
    for r in range(R):
        expected = np.linalg.svd(x[r], compute_uv=False)
        assert float(landscape.sigma_max[r]) == pytest.approx(expected[0], rel=1e-12)
        assert expected[0] > 1.1 * expected[-1]
        solution = landscape.solution[r].numpy()
        # No gradient is left at W*, with the decay of the replica and not of its neighbours.
        gradient = oracle.autograd_gradient(solution, x[r], y[r], range(n)) + 2 * LAM[r] * solution
        assert np.abs(gradient).max() < 1e-10 * np.abs(x[r]).max()
        for t in range(T):
            one = oracle.autograd_gradient(w[t, r], x[r], y[r], range(n))
            assert relative(slopes[t, r], one) < 1e-12
    nulls = landscape.null_norm(torch.from_numpy(w)).numpy()
    bases = [oracle.null_basis(x[r]) for r in range(R)]
    expected_nulls = [
        [np.linalg.norm(at @ b) for at, b in zip(each, bases, strict=True)] for each in w
    ]
    np.testing.assert_allclose(nulls, expected_nulls, rtol=1e-10, atol=1e-11)


def test_few_columns_that_stand_for_many_give_the_same_numbers() -> None:
    x, y, w0, w = made_of(4, 3, 50)
    factor: Any = np.linalg.qr  # its stub has no mode "r"
    columns = [factor(np.vstack([a, b]).T, mode="r").T for a, b in zip(x, y, strict=True)]
    few_x, few_y = (np.stack(part) for part in zip(*[(c[:4], c[4:]) for c in columns], strict=True))
    assert few_x.shape == (R, 4, 7)
    log_decay = torch.zeros(T, R, dtype=torch.float64)
    whole = landscape_of(x, y, w0).measure(torch.from_numpy(w), log_decay)
    few = landscape_from(few_x, few_y, w0, 50)
    compressed = few.measure(torch.from_numpy(w), log_decay)
    for key, value in whole.items():
        torch.testing.assert_close(compressed[key], value, rtol=1e-9, atol=1e-11, msg=key)
    # Those for the steps of gradient descent are scaled otherwise: N is theirs, not 50.
    steps = full_batch_equivalent(x, y)
    scaled = landscape_from(*steps, w0, 4)
    torch.testing.assert_close(scaled.slope(torch.from_numpy(w)), few.slope(torch.from_numpy(w)))
    assert relative(scaled.sigma_max.numpy(), few.sigma_max.numpy()) > 0.1


@pytest.mark.parametrize(("d", "m"), [(9, 9), (10, 10), (16, 12), (17, 17), (20, 23), (101, 100)])
def test_the_largest_and_the_smallest_of_a_long_spectrum_are_shown(d: int, m: int) -> None:
    rng = np.random.default_rng(2)
    x, y, w0 = (rng.standard_normal((R, *shape)) for shape in ((d, 3), (m, 3), (m, d)))
    w = torch.from_numpy(rng.standard_normal((R, m, d)))
    values = landscape_of(x, y, w0).measure(w, torch.zeros(R, dtype=torch.float64))
    for name, expected in spectra(w[1].numpy()).items():
        k = min(d, m)
        shown = [i for i in range(1, k + 1) if i <= 8 or i > k - 8]
        assert len(shown) == min(k, SHOWN)
        width = len(str(k))
        keys = [key for key in values if key.startswith(f"{name}/")]
        assert keys == [f"{name}/{i:0{width}d}" for i in shown]
        measured = [float(values[key][1]) for key in keys]
        assert measured == pytest.approx([expected[i - 1] for i in shown], rel=1e-9)
    assert ("eigenvalue_modulus/" in "".join(values)) == (m == d)
    smallest = np.linalg.svd(w[2].numpy(), compute_uv=False)[-1]
    assert float(values["sigma_min"][2]) == pytest.approx(smallest, rel=1e-9)


@pytest.mark.parametrize(("d", "m"), [(7, 3), (3, 7), (20, 23), (18, 18)])
def test_many_times_in_one_call_are_each_time_alone(d: int, m: int) -> None:
    x, y, w0, w = made_of(d, m, 5)
    log_decay = np.random.default_rng(1).uniform(-3, 0, (T, R))
    landscape = landscape_of(x, y, w0)
    together = landscape.measure(*tensors(w, log_decay))
    for t in range(T):
        alone = landscape.measure(*tensors(w[t], log_decay[t]))
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            assert value.shape == (R,)
            torch.testing.assert_close(together[key][t], value, rtol=1e-12, atol=1e-11, msg=key)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_replica_that_is_not_finite_costs_its_neighbours_nothing(bad: float) -> None:
    x, y, w0, w = made_of(5, 5, 8)
    sound = landscape_of(x, y, w0).measure(*tensors(w, np.zeros((T, R))))
    w[2, 1, 0, 3] = bad
    values = landscape_of(x, y, w0).measure(*tensors(w, np.zeros((T, R))))
    for key, value in values.items():
        lost = ~torch.isfinite(value)
        expected = torch.zeros(T, R, dtype=torch.bool)
        expected[2, 1] = key != "null/predicted"  # known without W
        assert torch.equal(lost, expected), key
        assert torch.equal(value[~lost], sound[key][~lost]), key


def test_the_noise_of_a_watch_is_recorded_as_root_mean_squares() -> None:
    w = torch.from_numpy(np.random.default_rng(3).standard_normal((R, 3, 7)))
    watch = Watch(w, torch.zeros(R, 2, 7, dtype=torch.float64), 4)
    watch.sums[:] = torch.tensor([4.0, 10.0, 7.0, 36.0, 128.0])
    numbers = noise(watch)
    assert set(numbers) == {"gradient_norm", "noise/weights", "noise/predictions"}
    assert numbers["gradient_norm"].tolist() == [2.5] * R
    assert numbers["noise/weights"].tolist() == [3.0] * R
    assert numbers["noise/predictions"].tolist() == [4.0] * R  # a mean over two probes
