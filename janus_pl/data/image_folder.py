"""Classes of images from a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from janus_pl.data.boundary import refused
from janus_pl.data.image_files import Account, account, printable, suffixes, summary
from janus_pl.data.images import ImagePair
from janus_pl.data.pixels import decode_image, reason
from janus_pl.data.source import Source, check_classes
from janus_pl.data.splits import RawImages, Split, paired
from janus_pl.data.standard import FLOAT_LIMIT, channel_statistics
from janus_pl.errors import UsageError, check_integer, check_memory, is_integer

LISTED = 100  # damaged files that are named


class Files(NamedTuple):
    """The class names, and the files of both splits."""

    names: tuple[str, ...]
    train: Account
    test: Account


class ImageFolder(Source):
    """Images from ROOT/train/CLASS and ROOT/test/CLASS.

    Args:
        root: The folder; may start with ~.
        classes: The names of the class folders, in the order of their labels; None for all of
            train/ in alphabetical order.
        image_size: Height and width of the images.
        most: The largest number of classes; None if there is no upper end.
    """

    def __init__(
        self, root: str, classes: Sequence[str] | None, image_size: int, most: int | None = None
    ) -> None:
        self.root, self.classes, self.image_size, self.most = root, classes, image_size, most

    def prepare(self) -> None:
        """Check that the folders are there and hold images."""
        self._account()

    def read(self) -> RawImages:
        files = self._account()
        self._warn_of(files)
        with refused("data.root", self.root, "a folder of images"):
            images = files.train.images + files.test.images
            pixels, count = self.decode(images), len(files.train.images)
            train = self._split(files.train, pixels[:count])
            test = self._split(files.test, pixels[count:])
        mean, std = channel_statistics(pixels[:count])
        found = {"train": files.train.found, "test": files.test.found}
        source = os.path.abspath(self._folder)
        return RawImages(files.names, train, test, mean, std, source, found)

    def _split(self, files: Account, pixels: NDArray[np.uint8]) -> Split:
        labels = np.repeat(np.arange(len(files.classes)), [*map(len, files.classes)])
        return Split(pixels, labels, pixels, [*map(self._name, files.images)])

    @property
    def _folder(self) -> Path:
        return Path(os.path.expanduser(self.root))

    def _name(self, file: Path) -> str:
        return printable(file.relative_to(self._folder))

    def _warn_of(self, files: Files) -> None:
        left = files.train.left + files.test.left
        if left:
            found = files.train.found + files.test.found
            used = f"used {found - len(left)} of {found} files in {self.root!r}"
            rank_zero_warn(f"data.root: {used}: {summary(left)}")

    def decode(self, files: list[Path]) -> NDArray[np.uint8]:
        """Return the pixels of files, (n, H, W, 3); refuse damaged ones, all in one line."""
        entries = len(files) * self.image_size**2 * 3
        both = 1 if 4 * entries > FLOAT_LIMIT else 5  # as bytes alone, or as float32 too
        check_memory("data.image_size", self.image_size, both * entries)
        pixels = np.empty((len(files), self.image_size, self.image_size, 3), np.uint8)

        def decode(i: int) -> str | None:
            try:
                pixels[i] = decode_image(files[i], self.image_size)
            except ModuleNotFoundError:
                raise  # a package is missing, and no file is broken
            except Exception as error:  # decoders raise all sorts of errors on broken files
                return f"{self._name(files[i])!r} ({reason(error)})"
            return None

        with ThreadPoolExecutor() as pool:
            damaged = [*filter(None, pool.map(decode, range(len(files))))]
        if damaged:
            rest = len(damaged) - LISTED
            listed = ", ".join(damaged[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
            allowed = f"a folder of readable images; {len(damaged)} of {len(files)} cannot be used"
            raise UsageError("data.root", self.root, f"{allowed}: {listed}")
        return pixels

    def _account(self) -> Files:
        """Find the class names, and account for the files of both classes in train/ and test/."""
        with refused("data.root", self.root, "a folder that holds train/ and test/"):
            root = self._folder
            for folder in (root, root / "train", root / "test"):
                self._check_folder(folder, "a folder that holds train/ and test/")
            names = self._class_names(root / "train")
            splits = [self._split_account(split, names) for split in ("train", "test")]
            return Files(names, *splits)

    def _split_account(self, split: str, names: tuple[str, ...]) -> Account:
        both = "both classes" if len(names) == 2 else f"all {len(names)} classes"
        folders = [self._folder / split / name for name in names]
        for folder in folders:
            self._check_folder(folder, f"a folder whose train/ and test/ hold {both}")
        files = account(self._folder, split, names, strangers=self.classes is None)
        for folder, images in zip(folders, files.classes, strict=True):
            if not images:
                start = self._name(folder) + "/"
                left = [each for each in files.left if each.file.startswith(start)]
                allowed = f"a folder of images ({', '.join(suffixes())}); {_quoted(folder)} holds"
                more = f", but {summary(left)}" if left else ""
                raise UsageError("data.root", self.root, f"{allowed} none{more}")
        return files

    def _check_folder(self, folder: Path, allowed: str) -> None:
        if not folder.is_dir():
            raise UsageError("data.root", self.root, f"{allowed}; {_quoted(folder)} is no folder")

    def _class_names(self, train: Path) -> tuple[str, ...]:
        known = sorted(p.name for p in train.iterdir() if p.is_dir() and p.name[0] != ".")
        names = known if self.classes is None else self.classes
        if not 2 <= len(names) <= (self.most or len(names)) or not set(names) <= set(known):
            listed = ", ".join(map(printable, known)) or "none"
            words = f"two{'' if self.most == 2 else ' or more'} of the folders"
            allowed = f"the names of {words} in {_quoted(train)} ({listed})"
            raise UsageError("data.classes", self.classes, allowed)
        return tuple(names)


@final
class ImageFolderPair(ImagePair):
    """Two classes of images from ROOT/train/CLASS and ROOT/test/CLASS.

    Images of AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are read as RGB: in the
    orientation of EXIF, scaled by their depth, transparency over white, resized bilinearly to a
    square if their sizes differ. Other files are counted and named; damaged and moving images are
    refused, all of them in one line.

    They are standardized by the channel means and standard deviations of the whole training split
    of the two classes, whatever `num_train`, then scaled to unit norm. Data order is the files of
    the first class by name, then those of the second.

    Args:
        root: Folder that holds train/ and test/; may start with ~.
        classes: Names of the folder coded -1, then of the folder coded +1. Not set: train/ holds
            exactly two folders, taken in alphabetical order. A number is a name, as [3, 8].
        image_size: Height and width in pixels.
        **options: Those of `ImagePair`.

    Raises:
        UsageError: An option is out of its range, or a folder or image cannot be used.
    """

    def __init__(
        self,
        root: str,
        classes: tuple[str | int, str | int] | None = None,
        image_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_integer("data.image_size", image_size, 1)
        self.root = root
        self.classes = folder_names(classes, most=2)
        self.image_size = image_size

    def prepare_data(self) -> None:
        """Check that the folders are there and hold images."""
        self._source().prepare()

    def read(self) -> RawImages:
        return paired(self._source().read())

    def _source(self) -> ImageFolder:
        return ImageFolder(self.root, self.classes, self.image_size, most=2)


def folder_names(classes: Any, most: int | None = None) -> tuple[str, ...] | None:
    """Return the names of class folders as text; a number is a name, as [3, 8].

    Args:
        classes: The option; None for all.
        most: The largest number of classes; None if there is no upper end.

    Raises:
        UsageError: They are not the names of different folders.
    """
    if classes is None:
        return None
    some, many = ("two", "two") if most == 2 else ("two or more", "several")
    allowed = f"the names of {some} different folders of train/, or null where it holds {many}"
    check_classes(classes, allowed, most)
    if not all(isinstance(name, str) or is_integer(name) for name in classes):
        raise UsageError("data.classes", classes, allowed)
    names = tuple(map(str, classes))
    check_classes(names, allowed, most)  # 3 and "3" are one name
    return names


def _quoted(path: Path) -> str:
    return repr(printable(path))
