"""Where images of several classes come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janus_pl.data.splits import RawImages
from janus_pl.errors import UsageError, is_integer

Classes = Sequence[str | int]


class Source(ABC):
    """Images that lie somewhere."""

    @abstractmethod
    def prepare(self) -> None:
        """Download what is missing, or check that the data are there."""

    @abstractmethod
    def read(self) -> RawImages:
        """Read both splits, with labels 0 to K - 1: images of three channels, of one size."""


def class_indices(classes: Any, known: Sequence[str], most: int | None = None) -> tuple[int, ...]:
    """Return the indices of classes that are given by index or by name.

    >>> class_indices(["b", 0], ["a", "b"])
    (1, 0)

    Args:
        classes: Names or indices; None for all.
        known: All names.
        most: The largest number of classes; None if there is no upper end.

    Raises:
        UsageError: There are fewer than two or too many, two are the same, or one is unknown.
    """
    if classes is None:
        return tuple(range(len(known)))
    last = len(known) - 1
    words = f"two{'' if most == 2 else ' or more'} different classes"
    allowed = f"{words} by name ({', '.join(known)}) or by index (0 to {last})"
    check_classes(classes, allowed, most)
    if not all(c in known if isinstance(c, str) else is_integer(c, 0, last) for c in classes):
        raise UsageError("data.classes", classes, allowed)
    found = tuple(known.index(c) if isinstance(c, str) else c for c in classes)
    check_different(classes, found, allowed)  # a name and its index
    return found


def check_classes(classes: Any, allowed: str, most: int | None = None) -> None:
    """Refuse all but a list of two or more different classes.

    Args:
        classes: The option.
        allowed: What is allowed, for the message.
        most: The largest number of classes; None if there is no upper end.

    Raises:
        UsageError: There are fewer or more, or two are equal.
    """
    listed = isinstance(classes, tuple | list)
    if not listed or len(classes) < 2 or (most is not None and len(classes) > most):
        raise UsageError("data.classes", classes, allowed)
    check_different(classes, classes, allowed)


def check_different(classes: Any, found: Classes, allowed: str) -> None:
    """Refuse classes two of which are the same.

    Raises:
        UsageError: Two are the same.
    """
    if any(c in found[:k] for k, c in enumerate(found)):
        raise UsageError("data.classes", classes, allowed)


def labels_of(targets: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.int64]:
    """Return the labels of targets: their places among the classes.

    >>> labels_of(np.array([8, 3, 3]), [3, 8])
    array([1, 0, 0])
    """
    return np.argmax(targets[:, None] == np.asarray(classes), axis=1)
