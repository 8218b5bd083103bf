"""What LayerRank counts: weights of known spectra, of any size, at several tolerances."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from janus_pl.callbacks import LayerRank
from janus_pl.callbacks.layer_rank import DECADES
from janus_pl.errors import UsageError
from janus_pl.training.any_module import AnyModule

# Shape and spectrum of each weight before it is normalized: sizes far apart, and, once of unit
# norm, with a largest singular value far from 1.
LAYERS = {
    "wide": ((12, 40), [0.5] * 10 + [0.02, 1e-3]),
    "tall": ((30, 9), [700.0, 90.0, 8.0, 0.3, 0.2, 0.02, 2e-3]),
    "flat": ((16, 16), [3e-3] * 16),
    "one": ((5, 7), [1e4]),
}
KERNEL = (6, 4, 3, 3)


def trainer_at(epoch: int) -> Any:
    """A trainer in this one of nine epochs, from 0."""
    ends = {"max_epochs": 9, "max_steps": -1, "current_epoch": epoch, "global_step": epoch + 1}
    return SimpleNamespace(**ends, should_stop=False, callbacks=[], loggers=[], world_size=1)


NEVER, LAST = trainer_at(3), trainer_at(8)


class Layers(LightningModule):
    """A module of somebody else, whose weights are given."""

    def __init__(self) -> None:
        super().__init__()
        for seed, (name, ((out, width), spectrum)) in enumerate(LAYERS.items()):
            layer = nn.Linear(width, out, dtype=torch.float64)
            layer.weight.data = oracles.with_spectrum(out, width, spectrum, seed)
            self.add_module(name, layer)
        self.conv = nn.Conv2d(4, 6, 3, dtype=torch.float64)
        self.conv.weight.data = oracles.with_spectrum(6, 36, [5.0, 4.0, 0.01], 9).view(KERNEL)


def spectra(module: Layers) -> dict[str, Any]:
    """Of V_k, by numpy's SVD."""
    found = {}
    for name in (*LAYERS, "conv"):
        weight = getattr(module, name).weight.detach().numpy()
        matrix = weight.reshape(len(weight), -1)
        sigma = np.linalg.svd(matrix, compute_uv=False)
        found[name] = sigma / np.sqrt((sigma**2).sum())
    return found


def look(module: LightningModule, trainer: Any = NEVER, **options: Any) -> dict[str, Any]:
    return dict(LayerRank(**options).observe(trainer, AnyModule(trainer, module)))


def test_ranks_at_every_tolerance_are_counts_of_the_singular_values() -> None:
    module = Layers()
    # None is a singular value, or the largest one times such a number.
    tolerances = (0.7, 0.31, 2e-2, 1e-3, 1e-5)
    for tolerance in (0.4, 0.28, 2e-2, 1e-3, 1e-6):
        row = look(module, tolerance=tolerance, tolerances=tolerances)
        for layer, sigma in spectra(module).items():
            assert row[f"rank/{layer}"] == (sigma > tolerance).sum(), (layer, tolerance)
            for t in tolerances:
                assert row[f"rank_absolute_{t:.0e}/{layer}"] == (sigma > t).sum(), (layer, t)
                relative = (sigma > t * sigma[0]).sum()
                assert row[f"rank_relative_{t:.0e}/{layer}"] == relative, (layer, t)


def test_relative_and_absolute_counts_of_these_weights_differ_in_both_keys() -> None:
    """The controls of the test above: no key can stand in for another."""
    sigma = spectra(Layers())["flat"]
    np.testing.assert_allclose(sigma, 0.25, rtol=1e-12)
    seen = {
        t: [(s > t).sum() != (s > t * s[0]).sum() for s in spectra(Layers()).values()]
        for t in (0.4, 0.28, 2e-2, 1e-3)
    }
    assert all(map(any, seen.values()))
    row = look(Layers(), tolerance=0.3, tolerances=(0.3, 0.2))
    assert row["rank/flat"] == row["rank_absolute_3e-01/flat"] == 0
    assert row["rank_relative_3e-01/flat"] == 16
    assert row["rank_absolute_2e-01/flat"] == 16


def test_ranks_without_a_tolerance_and_their_defaults() -> None:
    module = Layers()
    row = look(module)
    for layer, sigma in spectra(module).items():
        p = sigma[sigma > 0] / sigma.sum()
        assert row[f"stable_rank/{layer}"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-10)
        # Values that are zero come out of the Gram matrix as 1e-8 of the largest.
        assert row[f"effective_rank/{layer}"] == pytest.approx(np.exp(-p @ np.log(p)), rel=1e-5)
        assert row[f"rank/{layer}"] == (sigma > 1e-3).sum()
    assert (
        row["rank/wide"] == 11
    )  # 1e-3 of a norm of 1.6 is below 1e-3, and above 1e-3 of the largest
    names = ["rank", "stable_rank", "effective_rank"]
    names += [f"rank_{kind}_1e-0{k}" for k in (1, 2, 3) for kind in ("absolute", "relative")]
    keys = {f"{n}/{k}" for n in [*names, "spectrum"] for k in (*LAYERS, "conv")}
    assert set(row) == {*keys, "spectra"}


def test_ranks_do_not_see_the_size_of_a_weight() -> None:
    module = Layers()
    before = look(module, tolerance=0.2, tolerances=(0.2,))
    for name in (*LAYERS, "conv"):
        getattr(module, name).weight.data *= 1e3
    after = look(module, tolerance=0.2, tolerances=(0.2,))
    numbers = {k: v for k, v in before.items() if isinstance(v, float)}
    assert {k: after[k] for k in numbers} == pytest.approx(numbers, rel=1e-5)


@pytest.mark.parametrize("bins", [1, 7, 64])
def test_the_spectrum_is_binned_by_its_decades(bins: int) -> None:
    module = Layers()
    row = look(module, bins=bins)
    for layer, sigma in spectra(module).items():
        counts, edges = row[f"spectrum/{layer}"]
        np.testing.assert_allclose(edges, np.linspace(-8, 0, bins + 1), atol=1e-14)
        assert counts.sum() == len(sigma)
        expected = np.zeros(bins, int)
        for value in sigma:
            # What is below 1e-8 is rounding, and in the first bin as well.
            place = (np.log10(max(value, 1e-8)) + 8) / 8 * bins
            expected[min(int(place), bins - 1)] += 1
        # A zero comes out of the Gram matrix as up to 1e-8: the first bin, or the one after it.
        if sigma[-1] > 1e-7:
            assert counts.tolist() == expected.tolist()
    assert DECADES == 8
    # log10 sigma_1 is 0, which is in the last bin.
    assert row["spectrum/one"].counts[-1] == (1 if bins > 1 else 5)


def test_the_table_of_the_last_epoch_holds_every_singular_value() -> None:
    module = Layers()
    assert "spectrum_table" not in look(module)
    columns, rows = look(module, LAST)["spectrum_table"]
    assert tuple(columns) == ("layer", "index", "sigma")
    expected = [(k, i, s) for k, sigma in spectra(module).items() for i, s in enumerate(sigma)]
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    measured = np.array([row[2] for row in rows])
    np.testing.assert_allclose(measured, [row[2] for row in expected], atol=3e-8)
    assert measured[0] == pytest.approx(spectra(module)["wide"][0], rel=1e-12)


def test_one_layer_that_is_not_finite_is_missing_alone() -> None:
    module: Any = Layers()
    sound = look(module)
    module.tall.weight.data[0, 0] = torch.nan
    row = look(module, LAST)
    assert "spectrum/tall" not in row
    lost = [k for k, v in row.items() if isinstance(v, float) and not np.isfinite(v)]
    assert set(lost) == {k for k in sound if k.endswith("/tall") and k != "spectrum/tall"}
    for key, value in sound.items():
        if isinstance(value, float) and key not in lost:
            assert row[key] == value


class Vectors(LightningModule):
    """Parameters, but no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((3, 4))
        self.free = nn.Parameter(torch.ones(5))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (LightningModule, "there is no parameter"),
        (Vectors, "free a vector, norm scales each feature by itself"),
    ],
)
def test_a_module_without_a_matrix_has_no_rank(kind: Any, why: str) -> None:
    """It is refused before the run, unless the callback is off."""
    with pytest.raises(UsageError, match=rf"LayerRank: got 'no layer', allowed: .*{why}") as caught:
        LayerRank().setup(trainer_at(0), kind(), "fit")
    assert caught.value.exit_code == 2
    LayerRank(0).setup(trainer_at(0), kind(), "fit")
    LayerRank().setup(trainer_at(0), kind(), "predict")
    LayerRank().setup(trainer_at(0), Layers(), "fit")


def test_chosen_layers_have_the_numbers_that_they_have_among_all() -> None:
    module = Layers()
    row, chosen = look(module, LAST), look(module, LAST, layers=["*e", "conv"])
    names = {"wide", "one", "conv"}
    assert {key.partition("/")[2] for key in chosen} == {*names, ""}
    assert {k: v for k, v in chosen.items() if isinstance(v, float)} == {
        k: v for k, v in row.items() if isinstance(v, float) and k.partition("/")[2] in names
    }
    table = [line for line in row["spectrum_table"].rows if line[0] in names]
    assert chosen["spectrum_table"].rows == table


def test_globs_of_layers_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match=r"LayerRank\.layers: got 'fc\*', .*: wide, tall, flat"):
        LayerRank(layers=["wide", "fc*"]).setup(trainer_at(0), Layers(), "fit")
    wrong: tuple[Any, ...] = ("wide", [])
    for given in wrong:
        with pytest.raises(UsageError, match=r"LayerRank\.layers: .* a list of globs"):
            LayerRank(layers=given)


@pytest.mark.parametrize("tolerance", [0.0, 0.999])
def test_tolerances_at_the_ends_of_their_range_are_taken(tolerance: float) -> None:
    row = look(Layers(), tolerance=tolerance, tolerances=(tolerance,))
    assert row["rank/flat"] == (16 if tolerance == 0 else 0)
    assert row[f"rank_relative_{tolerance:.0e}/flat"] == 16
