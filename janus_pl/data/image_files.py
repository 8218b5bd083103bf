"""The files of image folders: which are images, and what becomes of every other one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from janus_pl.data.boundary import named

# What Pillow decodes to pixels by itself. Formats that start other programs are not among them.
# JPEG covers MPO, the files of several photographs that cameras write.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class Left(NamedTuple):
    """A file that is not read.

    Attributes:
        reason: Why, in words that follow a count.
        file: The file, relative to the data's folder.
    """

    reason: str
    file: str


class Account(NamedTuple):
    """Every file of a split.

    Attributes:
        classes: The images of each class, by name.
        left: The files that are not read.
    """

    classes: list[list[Path]]
    left: list[Left]

    @property
    def images(self) -> list[Path]:
        """The images in data order."""
        return [file for files in self.classes for file in files]

    @property
    def found(self) -> int:
        """The number of all files."""
        return len(self.images) + len(self.left)


@cache
def suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that are read, in lower case: those of `FORMATS`.

    They are asked of the installed Pillow, which may lack a codec.
    """
    from PIL import Image

    known = Image.registered_extensions().items()
    return tuple(sorted(suffix for suffix, kind in known if kind in FORMATS))


def account(root: Path, split: str, names: Sequence[str], strangers: bool) -> Account:
    """Return an account of ROOT/SPLIT: the images of each class, and every file beside them.

    Args:
        root: The data's folder.
        split: `train` or `test`.
        names: The classes.
        strangers: Whether folders of other classes count as left out. They do not if the user has
            chosen classes among them.
    """
    folder, left = root / split, []
    for entry in _sorted(folder):
        if entry.name in names:
            continue
        if not os.path.isdir(entry.path):
            left += [Left("beside the classes", file) for file in _files(entry, root)]
        elif strangers and entry.name[0] != ".":
            left += [Left("of no class of train/", file) for file in _files(entry, root)]
    images: list[list[Path]] = []
    for name in names:
        images.append([])
        for entry in _sorted(folder / name):
            reason = _reason(entry)
            if reason is None:
                images[-1].append(Path(entry.path))
            else:
                left += [Left(reason, file) for file in _files(entry, root)]
    return Account(images, left)


def summary(left: Sequence[Left]) -> str:
    """Return the files that are not read, by reason, with the names of a few.

    >>> summary([Left("in subfolders", "a/1.png"), Left("in subfolders", "a/2.png")])
    "2 in subfolders ('a/1.png', 'a/2.png')"
    """
    by_reason: dict[str, list[str]] = {}
    for reason, file in left:
        by_reason.setdefault(reason, []).append(file)
    return ", ".join(f"{len(files)} {why} ({named(files)})" for why, files in by_reason.items())


def printable(path: str | Path) -> str:
    """Return a path as text of one line, whatever bytes it is made of.

    >>> printable("a\\nb.png")
    'a\\\\nb.png'
    """
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _reason(entry: os.DirEntry[str]) -> str | None:
    """Return why an entry of a class folder is not read; None of an image."""
    if entry.name[0] == ".":
        return "hidden"
    if os.path.isdir(entry.path):  # unlike that of `entry`, it raises nothing
        return "in subfolders"
    if not entry.name.lower().endswith(suffixes()):
        return "without the suffix of an image"
    # A broken link by the name of an image is read, and so is named among what is damaged.
    if os.path.isfile(entry.path) or not os.path.exists(entry.path):
        return None
    return "no regular files"


def _files(entry: os.DirEntry[str], root: Path) -> Iterator[str]:
    """Yield an entry, or all files below it; a link to a folder is not followed."""
    if not entry.is_dir(follow_symlinks=False):
        yield printable(Path(entry.path).relative_to(root))
        return
    for folder, folders, files in os.walk(entry.path):
        folders.sort()
        for name in sorted(files):
            yield printable((Path(folder) / name).relative_to(root))
