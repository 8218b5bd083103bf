"""Two means that rounding alone tells apart are one point; two that are a little apart are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from janus_pl.observables.collapse import (
    class_distance_normalized_variance,
    nearest_mean_disagreement,
    self_duality,
    two_classes,
    within_class_variability,
)


def features(offset: float, distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same samples in both classes, shuffled and moved apart along the first component."""
    rng = np.random.default_rng(0)
    first = offset + rng.standard_normal((301, 4))
    second = rng.permutation(first)
    second[:, 0] += distance
    positive = np.repeat([False, True], 301)
    return torch.from_numpy(np.vstack([first, second])), torch.from_numpy(positive)


@pytest.mark.parametrize("offset", [1e3, 1e7])
def test_means_that_rounding_tells_apart_are_one_point(offset: float) -> None:
    h, positive = features(offset, 0.0)
    means = torch.stack([h[~positive].mean(0), h[positive].mean(0)])
    apart = float((means[1] - means[0]).norm() / means.norm())
    assert 0 < apart < 1e-14, "the control: the plain means do differ"
    classes = two_classes(h, positive)
    for part in classes:
        assert part.isnan().all()
    weight = torch.randn(2, 4, dtype=torch.float64)
    for value in (
        within_class_variability(classes),
        self_duality(classes, weight),
        nearest_mean_disagreement(classes, h, h[:, 0]),
        class_distance_normalized_variance(classes),
    ):
        assert value.isnan()


@pytest.mark.parametrize("distance", [1e-8, 1e-3, 1.0])
def test_means_that_are_a_little_apart_are_two(distance: float) -> None:
    offset = 1e3
    h, positive = features(offset, distance)
    classes = two_classes(h, positive)
    variance = float((h[~positive] - h[~positive].mean(0)).square().sum(1).mean())
    cdnv = float(class_distance_normalized_variance(classes))
    assert cdnv == pytest.approx(variance / distance**2, rel=1e-3)


def test_a_sample_half_way_between_the_means_is_of_class_0_in_both_ways() -> None:
    h = torch.tensor([[0.0, 1.0], [2.0, -1.0], [1.0, 7.0], [3.0, 0.0], [5.0, 0.0], [4.0, 0.0]])
    positive = torch.tensor([False, False, False, True, True, True])
    h[2, 1] = 0.0
    classes = two_classes(h, positive)
    assert classes.means.tolist() == [[1.0, 0.0], [4.0, 0.0]]
    half_way = torch.tensor([[2.5, 3.0], [2.5, 0.0], [2.6, 1.0], [2.4, 1.0]])
    for scores, expected in (
        ([-1.0, 0.0, 1.0, -1.0], 0.0),  # a score of zero is class 0 as well
        ([1.0, -1.0, 1.0, -1.0], 0.25),
        ([1.0, 1.0, -1.0, 1.0], 1.0),
    ):
        found = nearest_mean_disagreement(classes, half_way, torch.tensor(scores))
        assert float(found) == expected
