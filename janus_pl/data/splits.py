"""What a reader of images hands over, which samples of it are in use, and with which labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from janus_pl.data.boundary import named
from janus_pl.data.fingerprint import DataFacts, fingerprint
from janus_pl.errors import UsageError

PAIR = (-1, 1)  # the labels of two classes that are signs
Labels = NDArray[np.float32] | NDArray[np.int64]
# The spawn keys set these streams of draws apart from each other and from the epochs' orders.
SUBSET_STREAM, NOISE_STREAM = 0, 1


class Split(NamedTuple):
    """Images and labels.

    Attributes:
        images: The images (n, H, W, C): float32 in [0, 1], or bytes.
        labels: Their labels (n,): -1 or +1 of a pair, 0 to K - 1 of K classes.
        pixels: The decoded bytes (n, H, W, C) behind the images, which the fingerprint is of; if
            they are None, it is of the images.
        files: The file of each image, relative to the data's folder; None if there are no files.
    """

    images: NDArray[np.float32] | NDArray[np.uint8]
    labels: Labels
    pixels: NDArray[np.uint8] | None = None
    files: Sequence[str] | None = None


class RawImages(NamedTuple):
    """What a data set's reader hands over.

    Attributes:
        class_names: The classes in the order of their labels; of a pair the one coded -1 first.
        train: The training split.
        test: The test split.
        mean: The mean of each channel, (C,).
        std: The standard deviation of each channel, (C,).
        source: The absolute path of the data, or their origin in words.
        found: The number of files by split, if the data are files.
    """

    class_names: tuple[str, ...]
    train: Split
    test: Split
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    source: str | None = None
    found: Mapping[str, int] | None = None


RawPair = RawImages  # the name that readers of two classes know it by


class Noise(NamedTuple):
    """Training labels of which a share is replaced.

    Attributes:
        labels: The labels to train on, (N,).
        noisy: Which of them are replaced, (N,).
    """

    labels: NDArray[np.int64]
    noisy: NDArray[np.bool_]


def paired(raw: RawImages) -> RawImages:
    """Return two classes whose labels 0 and 1 are the signs -1 and +1."""
    train, test = (each._replace(labels=signs(each.labels == 1)) for each in (raw.train, raw.test))
    return raw._replace(train=train, test=test)


def signs(second: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return +1 for the second class, -1 for the first."""
    return np.where(second, 1, -1).astype(np.float32)


def check_labels(raw: RawImages, codes: Sequence[int]) -> None:
    """Refuse labels of no class.

    Args:
        raw: What a reader has handed over.
        codes: The labels of the classes.

    Raises:
        UsageError: There is another label.
    """
    for split in (raw.train, raw.test):
        others = np.setdiff1d(split.labels, codes)
        if len(others):
            got = f"labels {named([f'{label:g}' for label in others])}".replace("'", "")
            listed = "-1 and +1" if tuple(codes) == PAIR else f"0 to {len(codes) - 1}"
            raise UsageError("data", got, f"labels {listed}, of {len(codes)} classes")


def balanced_subset(
    labels: Labels, num_train: int, seed: int, codes: Sequence[int] = PAIR
) -> NDArray[np.int64]:
    """Return indices, ascending, of a subset with the same number of samples in each class.

    Depends on (labels, seed, num_train) alone; a larger subset holds the smaller one.

    Args:
        labels: The label of each sample, (n,).
        num_train: Size of the subset; of a remainder r, the first r classes get one more.
        seed: Integer >= 0.
        codes: The labels of the classes, in order.

    Raises:
        UsageError: There are too few samples, naming data.num_train.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SUBSET_STREAM,)))
    classes = [rng.permutation(np.flatnonzero(labels == code)) for code in codes]
    count = len(classes)
    limit = min(count * len(found) + k for k, found in enumerate(classes))
    if not count <= num_train <= limit:
        sizes = [*map(len, classes)]
        if count == 2:
            held = f"half of each class; there are {sizes[0]} samples of the first and {sizes[1]}"
            held += " of the second"
        else:
            held = f"as many of each of {count} classes; the smallest has {min(sizes)} samples"
        allowed = f"an integer from {count} to {limit} ({held}), or null for all"
        raise UsageError("data.num_train", num_train, allowed)
    sizes = [(num_train + count - 1 - k) // count for k in range(count)]
    return np.sort(np.concatenate([c[:size] for c, size in zip(classes, sizes, strict=True)]))


def with_noise(labels: NDArray[np.int64], share: float, count: int, seed: int) -> Noise:
    """Replace a share of the labels by another class each, all others being equally likely.

    Exactly round(share N) labels change. Depends on (N, count, seed) and the share alone; a larger
    share changes the labels that a smaller one changes, in the same way, and more.

    Args:
        labels: The labels 0 to K - 1, (N,).
        share: The share, in [0, 1).
        count: The number K of classes.
        seed: Integer >= 0.

    Raises:
        UsageError: The share is above 0 and changes no label.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(NOISE_STREAM,)))
    order, steps = rng.permutation(len(labels)), rng.integers(1, count, size=len(labels))
    replaced = round(share * len(labels))
    if share and not replaced:
        allowed = f"0, or a share that is at least one of {len(labels)} samples"
        raise UsageError("data.label_noise", share, allowed)
    noisy = np.zeros(len(labels), bool)
    noisy[order[:replaced]] = True
    return Noise(np.where(noisy, (labels + steps) % count, labels), noisy)


def facts_of(
    raw: RawImages,
    keep: NDArray[np.int64],
    codes: Sequence[int] = PAIR,
    noise: Noise | None = None,
) -> DataFacts:
    """Return the facts of images: both splits as read, and the training samples in use.

    Args:
        raw: The images.
        keep: The indices of the training samples in use, ascending.
        codes: The labels of the classes, in order.
        noise: The labels to train on, if some are replaced.
    """
    splits = {"train": raw.train, "test": raw.test}
    pixels = {f"{k}_x": s.images if s.pixels is None else s.pixels for k, s in splits.items()}
    kind = np.int8 if tuple(codes) == PAIR else np.int64
    labels = {f"{k}_y": s.labels.astype(kind) for k, s in splits.items()}
    # Six digits: the sums behind the statistics may round differently on another machine.
    statistics = [[float(f"{value:.6g}") for value in each] for each in (raw.mean, raw.std)]
    pool = fingerprint(statistics=statistics, **pixels, **labels)
    chosen = {} if len(keep) == len(raw.train.labels) else {"keep": keep}
    chosen |= {} if noise is None else {"labels": noise.labels}
    trained = raw.train.labels[keep] if noise is None else noise.labels
    height, width, channels = raw.train.images.shape[1:]
    classes = dict(zip(raw.class_names, codes, strict=True))
    return DataFacts(
        sha256=fingerprint(pool=pool, **chosen) if chosen else pool,
        pool=pool,
        samples={
            split: {name: int((y == code).sum()) for name, code in classes.items()}
            for split, y in {"train": trained, "test": raw.test.labels}.items()
        },
        found=raw.found or {split: len(s.labels) for split, s in splits.items()},
        unit="images" if raw.found is None else "files",
        dim=channels * height * width,
        outputs=1,
        shape=(channels, height, width),
        classes=classes,
        source=raw.source,
        noisy=0 if noise is None else int(noise.noisy.sum()),
    )


def files_of(raw: RawImages, keep: NDArray[np.int64]) -> dict[str, Sequence[str]]:
    """Return the file of each sample in use by split, if there are files."""
    files: dict[str, Sequence[str]] = {}
    if raw.train.files is not None:
        files["train"] = [raw.train.files[k] for k in keep]
    if raw.test.files is not None:
        files["test"] = raw.test.files
    return files
