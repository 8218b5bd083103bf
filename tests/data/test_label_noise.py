"""Labels that are replaced: how many, by what, by which seed, and what is recorded of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from janus_pl.data import ImageClasses
from janus_pl.data.splits import with_noise


def ready(**options: Any) -> ImageClasses:
    data = ImageClasses(**{"batch_size": 2, **options})
    data.setup()
    return data


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_exactly_so_many_labels_are_others(share: float, count: int) -> None:
    labels = np.random.default_rng(0).integers(count, size=1234)
    noise = with_noise(labels, share, count, seed=1)
    assert np.array_equal(noise.noisy, noise.labels != labels)
    assert int(noise.noisy.sum()) == round(share * 1234)
    assert noise.labels.min() >= 0 and noise.labels.max() < count


def test_all_other_classes_are_equally_likely() -> None:
    labels = np.repeat(np.arange(4), 6000)
    noise = with_noise(labels, 0.5, 4, seed=3)
    for k in range(4):
        replaced = noise.labels[(labels == k) & noise.noisy]
        shares = np.bincount(replaced, minlength=4) / len(replaced)
        assert shares[k] == 0
        others = np.delete(shares, k)
        # Five standard deviations of a share of a third of about 3000.
        assert np.abs(others - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 3000)
        assert abs(len(replaced) - 3000) < 5 * np.sqrt(1500)


def test_a_larger_share_keeps_what_a_smaller_one_replaces() -> None:
    labels = np.arange(500) % 7
    small, large = (with_noise(labels, share, 7, seed=2) for share in (0.1, 0.4))
    assert small.noisy.sum() == 50 and large.noisy.sum() == 200
    assert np.all(large.noisy[small.noisy])
    assert np.array_equal(large.labels[small.noisy], small.labels[small.noisy])


def test_it_is_known_which_training_labels_are_replaced() -> None:
    clean, data = ready(seed=4), ready(seed=4, label_noise=0.3)
    assert clean.noisy is None and clean.facts.noisy == 0
    assert data.noisy is not None and data.noisy.dtype == torch.bool
    assert torch.equal(data.noisy, data.train_y != clean.train_y)
    assert int(data.noisy.sum()) == round(0.3 * len(data.train_y)) == data.facts.noisy
    assert torch.equal(data.train_x, clean.train_x), "images stay"
    assert torch.equal(data.test_y, clean.test_y), "and so does the test split"
    counts = np.bincount(data.train_y.numpy(), minlength=10)
    assert [*data.facts.samples["train"].values()] == counts.tolist()
    assert f"{data.facts.noisy} labels replaced" in data.facts.line()
    assert data.facts.to_plain()["noisy"] == data.facts.noisy


def test_of_a_subset_the_samples_in_use_are_replaced() -> None:
    clean = ready(num_train=50, seed=1)
    data = ready(num_train=50, seed=1, label_noise=0.2)
    assert torch.equal(data.train_x, clean.train_x)
    assert int((data.train_y != clean.train_y).sum()) == 10


def test_the_seed_decides_and_the_fingerprint_knows() -> None:
    base = ready()
    seen = [ready(label_noise=0.2, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(seen[0].train_y, seen[1].train_y)
    assert not torch.equal(seen[0].train_y, seen[2].train_y)
    assert seen[0].facts == seen[1].facts
    more = ready(label_noise=0.21)
    digests = {data.facts.sha256 for data in (base, *seen, more)}
    assert len(digests) == 4
    # Runs of several seeds and shares share the samples with their own labels.
    assert {data.facts.pool for data in (base, *seen, more)} == {base.facts.pool}
    assert ready(seed=5).facts.sha256 == base.facts.sha256, "without noise no seed counts"


def test_batches_have_the_labels_to_train_on() -> None:
    data = ready(label_noise=0.4, batch_size=100, num_train=300)
    loader = data.train_dataloader()
    order = loader.indices(0)
    assert torch.equal(torch.cat([batch.y for batch in loader]), data.train_y[order])
    assert torch.equal(torch.cat([b.y for b in data.predict_dataloader()[0]]), data.train_y)


def test_noise_is_that_of_the_recorded_runs() -> None:
    """A stream of draws apart from those of subsets and of the epochs' orders: it is for ever."""
    labels = np.random.default_rng(6).integers(5, size=40)
    rng = np.random.default_rng(np.random.SeedSequence(4, spawn_key=(1,)))
    replaced = rng.permutation(40)[:8]
    steps = rng.integers(1, 5, size=40)
    expected = labels.copy()
    expected[replaced] = (labels + steps)[replaced] % 5
    noise = with_noise(labels, 0.2, 5, seed=4)
    assert noise.labels.tolist() == expected.tolist()
    assert np.flatnonzero(noise.noisy).tolist() == sorted(replaced.tolist())


def test_another_seed_replaces_other_labels_of_the_same_module() -> None:
    data = ready(label_noise=0.1)
    before = data.train_y
    data.seed = 3
    data.setup()
    assert not torch.equal(data.train_y, before)
    assert torch.equal(data.train_y, ready(label_noise=0.1, seed=3).train_y)
    data.label_noise = 0.0
    data.setup()
    assert data.noisy is None and torch.equal(data.train_y, ready().train_y)
