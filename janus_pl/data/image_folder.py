"""Two classes of images from a folder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from janus_pl.data.images import (
    ImagePair,
    RawPair,
    Split,
    channel_statistics,
    check_two_classes,
    from_bytes,
    one_line,
    signs,
)
from janus_pl.errors import UsageError, check_integer, check_memory

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
ClassFiles = tuple[list[Path], list[Path]]


@final
class ImageFolderPair(ImagePair):
    """Two classes of images from ROOT/train/CLASS and ROOT/test/CLASS (.jpg, .jpeg, .png).

    Images are read as RGB and, where their size differs, resized bilinearly to a square. They are
    standardized with the channel means and standard deviations of the whole training split of the
    two classes (also where `num_train` uses a part of it), then scaled to unit norm. Data order is
    the files of the first class by name, then those of the second.

    Args:
        root: Folder that holds train/ and test/; may start with ~.
        classes: Names of the folder coded -1, then of the folder coded +1. Not set: train/ holds
            exactly two folders, taken in alphabetical order.
        image_size: Height and width in pixels.
        **options: Those of `ImagePair`.

    Raises:
        UsageError: An option is out of its range, or a folder or image cannot be used.
    """

    def __init__(
        self,
        root: str,
        classes: tuple[str, str] | None = None,
        image_size: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if classes is not None:
            allowed = "the names of two different folders of train/, or null where it holds two"
            check_two_classes(classes, allowed)
            if not all(isinstance(name, str) for name in classes):
                raise UsageError("data.classes", classes, allowed)
        check_integer("data.image_size", image_size, 1)
        self.root = root
        self.classes = classes
        self.image_size = image_size

    def prepare_data(self) -> None:
        """Check that the folders are there and hold images."""
        self._image_files()

    def read(self) -> RawPair:
        names, train_files, test_files = self._image_files()
        train, test = self._split(train_files), self._split(test_files)
        mean, std = channel_statistics(train.images)
        root = self._folder
        found = {
            split: sum(len(_visible(root / split / name)) for name in names)
            for split in ("train", "test")
        }
        return RawPair(names, train, test, mean, std, os.path.abspath(root), found)

    def _split(self, files: ClassFiles) -> Split:
        first, second = files
        pixels = self._decode(first + second)
        labels = signs(np.arange(len(pixels)) >= len(first))
        named = [file.relative_to(self._folder).as_posix() for file in first + second]
        return Split(from_bytes(pixels), labels, pixels, named)

    @property
    def _folder(self) -> Path:
        return Path(os.path.expanduser(self.root))

    def _decode(self, files: list[Path]) -> NDArray[np.uint8]:
        entries = len(files) * self.image_size**2 * 3
        check_memory("data.image_size", self.image_size, 5 * entries)  # as bytes and as float32
        pixels = np.empty((len(files), self.image_size, self.image_size, 3), np.uint8)

        def decode(i: int) -> None:
            try:
                pixels[i] = _decode_image(files[i], self.image_size)
            except Exception as error:  # decoders raise all sorts of errors on broken files
                allowed = f"a folder of readable images; {_quoted(files[i])} is none"
                raise UsageError(
                    "data.root", self.root, f"{allowed} ({one_line(error)})"
                ) from error

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(decode, range(len(files))):
                pass
        return pixels

    def _image_files(self) -> tuple[tuple[str, str], ClassFiles, ClassFiles]:
        """The class names, and the image files of both classes in train/ and in test/."""
        root = self._folder
        for folder in (root, root / "train", root / "test"):
            if not folder.is_dir():
                allowed = f"a folder that holds train/ and test/; {_quoted(folder)} is no folder"
                raise UsageError("data.root", self.root, allowed)
        first, second = self._class_names(root / "train")
        train = self._images(root / "train" / first), self._images(root / "train" / second)
        test = self._images(root / "test" / first), self._images(root / "test" / second)
        return (first, second), train, test

    def _class_names(self, train: Path) -> tuple[str, str]:
        known = sorted(p.name for p in train.iterdir() if p.is_dir() and p.name[0] != ".")
        names = known if self.classes is None else self.classes
        if len(names) != 2 or not set(names) <= set(known):
            listed = ", ".join(known) or "none"
            allowed = f"the names of two of the folders in {_quoted(train)} ({listed})"
            raise UsageError("data.classes", self.classes, allowed)
        return names[0], names[1]

    def _images(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            allowed = f"a folder whose train/ and test/ hold both classes; {_quoted(folder)} is no"
            raise UsageError("data.root", self.root, f"{allowed} folder")
        names = _visible(folder)
        files = [folder / name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        if not files:
            kinds = ", ".join(IMAGE_SUFFIXES)
            allowed = f"a folder of images ({kinds}); {_quoted(folder)} holds none"
            raise UsageError("data.root", self.root, allowed)
        return files


def _visible(folder: Path) -> list[str]:
    """Return the names of a folder's files, sorted; names that begin with a dot are left out."""
    return sorted(e.name for e in os.scandir(folder) if e.name[0] != "." and e.is_file())


def _decode_image(file: Path, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(file) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _quoted(path: Path) -> str:
    return repr(str(path))
