"""The fingerprint of a data set, and the facts that a run records of its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "unknown"  # the fingerprint of samples that nobody has hashed
SHOWN = 8  # hex digits of a fingerprint in a line


def fingerprint(**parts: Any) -> str:
    """Return the SHA-256 of named arrays and plain values, as 64 hex digits.

    An array counts by its name, type, shape and entries in C order, little-endian; -0.0 counts as
    0.0. Neither the order of the names nor the machine counts. A value has to be plain JSON.

    Pixels of JPEG files may differ in a bit between versions of libjpeg, and those of resized
    images between versions of Pillow; the fingerprint then differs too.

    >>> fingerprint(x=np.arange(3), n=3) == fingerprint(n=3, x=np.array([0, 1, 2]))
    True
    >>> fingerprint(x=np.arange(6)) == fingerprint(x=np.arange(6).reshape(2, 3))
    False
    """
    whole = hashlib.sha256()
    for name in sorted(parts):
        value = parts[name]
        is_array = isinstance(value, np.ndarray)
        held = _plain(value) if is_array else None
        head = [name, held.dtype.str, held.shape] if held is not None else [name, value]
        whole.update(json.dumps(head, sort_keys=True).encode() + b"\n")
        if held is not None:
            whole.update(held.data)
    return whole.hexdigest()


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f":
        array = array + 0.0  # -0.0 becomes 0.0
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


@dataclass(frozen=True)
class DataFacts:
    """What a run knows of its data.

    Attributes:
        sha256: The fingerprint of the samples in use; `unknown` of somebody else's loader.
        pool: The fingerprint without what the seed decides: all samples that a subset is chosen
            from, with their own labels, or the recipe of a generated problem. Runs of several seeds
            share it.
        samples: The number of samples in use by split, and in it by class (`all` without classes).
        found: By split, the number of files or samples there; the ones in use are among them.
        unit: The word for a sample: `files`, `images` or `samples`.
        dim: d, the numbers in an input; None if it is not known.
        outputs: m, the numbers in a target, 1 for a label; None if it is not known.
        shape: The shape of an input.
        classes: The sign of each class (two classes) or its index, by name; None if there is none.
        source: The absolute path of the data, or their origin in words. It is no part of a
            fingerprint.
        noisy: The number of training samples whose label is replaced by another class.
    """

    sha256: str = UNKNOWN
    pool: str = UNKNOWN
    samples: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    unit: str = "samples"
    dim: int | None = None
    outputs: int | None = None
    shape: tuple[int, ...] | None = None
    classes: Mapping[str, int] | None = None
    source: str | None = None
    noisy: int = 0

    def to_plain(self) -> dict[str, Any]:
        """Return the fields in plain values."""
        return asdict(self)

    def line(self) -> str:
        """Return the facts in one line.

        >>> counts = {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1}}
        >>> facts = DataFacts("12ab34cd" * 8, "", counts, {"train": 9, "test": 2}, "files", 12, 1,
        ...     (3, 2, 2), {"a": -1, "b": 1}, "/d")
        >>> print(facts.line())
        4 of 9 files to train on, 2 to test on, a (-1), b (+1), 3x2x2, sha256 12ab34cd, from /d
        """
        counts = [self._count(split) for split in self.samples]
        if counts:
            counts[0] = counts[0].replace(" to ", f" {self.unit} to ", 1)
        signed = self.classes is not None and set(self.classes.values()) == {-1, 1}
        named = [f"{k} ({v:+d})" if signed else f"{k} ({v})" for k, v in self._classes()]
        if self.shape is not None:
            sizes = ["x".join(map(str, self.shape))]
        else:
            sizes = [f"d = {self.dim}, m = {self.outputs}"] if self.dim is not None else []
        noise = [f"{self.noisy} labels replaced"] if self.noisy else []
        return ", ".join([*counts, *noise, *named, *sizes, shown(self.to_plain())])

    def _count(self, split: str) -> str:
        used = sum(self.samples[split].values())
        found = self.found.get(split, used)
        of = f" of {found}" if found != used else ""
        return f"{used}{of} to {split} on"

    def _classes(self) -> list[tuple[str, int]]:
        return list((self.classes or {}).items())[:10]


def shown(data: Mapping[str, Any]) -> str:
    """Return fingerprint and source of recorded facts in a few words.

    >>> shown({"sha256": "12ab34cd" * 8, "source": "/d"}), shown({})
    ('sha256 12ab34cd, from /d', 'sha256 unknown')
    """
    digest = str(data.get("sha256", UNKNOWN))[:SHOWN]
    source = data.get("source")
    return f"sha256 {digest}" + (f", from {source}" if source else "")
