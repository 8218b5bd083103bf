"""What classes of images must not be: zero, or equal where they should differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from janus_pl.data.boundary import named
from janus_pl.data.standard import are_zero
from janus_pl.errors import UsageError

if TYPE_CHECKING:
    from janus_pl.data.splits import RawImages
    from janus_pl.data.standard import ByteImages

Files = Mapping[str, Sequence[str]]


class Sample(NamedTuple):
    """An image by its name, its split and its label."""

    name: str
    split: str
    label: float


def refuse_zero(splits: Mapping[str, Tensor | ByteImages], files: Files) -> None:
    """Refuse images that are zero after standardization: nothing can be learned of them.

    Args:
        splits: The standardized images by split, (n, ...).
        files: Their files by split, if they have any.

    Raises:
        UsageError: An image is zero, with the names of such images.
    """
    zero = [
        _name(split, files.get(split), int(i))
        for split, x in splits.items()
        for i in are_zero(x).nonzero().flatten()
    ]
    if zero:
        got = f"{len(zero)} of {sum(map(len, splits.values()))} images"
        allowed = "images that differ from the mean color of the training images; zero after"
        raise UsageError("data", got, f"{allowed} standardization: {named(zero)}")


def warn_of_equal_images(raw: RawImages, keep: NDArray[np.int64]) -> None:
    """Warn of equal images in train and test, and of equal images in several classes.

    Args:
        raw: The images.
        keep: The indices of the training samples in use.
    """
    groups = [g for g in _equal_images(raw, keep) if len(g) > 1]
    classes = "both" if len(raw.class_names) == 2 else "several"
    kinds = {
        "in train and test": [g for g in groups if len({sample.split for sample in g}) > 1],
        f"in {classes} classes": [g for g in groups if len({sample.label for sample in g}) > 1],
    }
    for where, found in kinds.items():
        if found:
            listed = named([" = ".join(sample.name for sample in group) for group in found])
            rank_zero_warn(f"data: equal images {where}, {len(found)} times: {listed}")


def _equal_images(raw: RawImages, keep: NDArray[np.int64]) -> list[list[Sample]]:
    """Return the samples in use in groups of equal images."""
    groups: dict[bytes, list[Sample]] = {}
    for split, held, used in (
        ("train", raw.train, keep),
        ("test", raw.test, np.arange(len(raw.test.labels))),
    ):
        images = held.images if held.pixels is None else held.pixels
        for i in used:
            key = hashlib.blake2b(images[i].tobytes(), digest_size=16).digest()
            sample = Sample(_name(split, held.files, int(i)), split, float(held.labels[i]))
            groups.setdefault(key, []).append(sample)
    return [*groups.values()]


def _name(split: str, files: Sequence[str] | None, index: int) -> str:
    return f"{split} image {index + 1}" if files is None else files[index]
