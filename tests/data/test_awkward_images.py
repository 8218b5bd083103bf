"""A folder of awkward images: pixels as a person sees them, and every other file named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.awkward_files import CASES, SIZE, Truth, noise, written
from PIL import Image

from janus_pl.data import ImageFolderPair
from janus_pl.data.image_files import suffixes
from janus_pl.errors import UsageError


def write(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def png(seed: int) -> bytes:
    return written(Image.fromarray(noise(seed)), "PNG")


def pair(root: Path) -> Path:
    """One image in each class of each split, none equal to another."""
    places = [(split, name) for split in ("train", "test") for name in ("cat", "dog")]
    for seed, (split, name) in enumerate(places):
        write(root / split / name / "0.png", png(100 + seed))
    return root


def read(root: Path, **options: Any) -> Any:
    return ImageFolderPair(str(root), image_size=SIZE, batch_size=1, **options).read()


@pytest.fixture
def made() -> dict[str, tuple[bytes, Truth]]:
    return {name: case() for name, case in CASES.items()}


def test_pixels_are_the_truth_or_the_file_is_named(
    made: dict[str, tuple[bytes, Truth]], tmp_path: Path
) -> None:
    root = pair(tmp_path)
    for name, (data, _) in made.items():
        write(root / "train" / "cat" / name, data)
    os.symlink("nowhere", root / "train" / "cat" / "link.png")
    os.symlink("loop.jpg", root / "test" / "dog" / "loop.jpg")
    bad = {name: why for name, (_, why) in made.items() if isinstance(why, str)}
    assert len(made) == 50 and len(bad) == 16
    with pytest.raises(UsageError) as caught:
        read(root)
    message = str(caught.value)
    assert "\n" not in message and "18 of 56 cannot be used" in message
    for name, why in bad.items():
        (told,) = (part for part in message.split("'train/cat/") if part.startswith(f"{name}' ("))
        assert why in told
    assert "'train/cat/link.png' (a broken link)" in message
    assert "'test/dog/loop.jpg' (a broken link)" in message
    for name in made.keys() - bad.keys():
        assert f"/{name}'" not in message
    for name in [*bad, "link.png"]:
        (root / "train" / "cat" / name).unlink()
    (root / "test" / "dog" / "loop.jpg").unlink()
    train = read(root).train
    assert len(train.pixels) == len(made) - len(bad) + 2
    files = sorted([*(made.keys() - bad.keys()), "0.png"])
    for name, pixels, told in zip(files, train.pixels, train.files, strict=False):
        assert told.isprintable()
        if name != "0.png":
            assert np.array_equal(pixels, made[name][1]), name


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    root = pair(tmp_path)
    cat = root / "train" / "cat"
    for i in range(4):
        write(cat / "more" / "deep" / f"{i}.png", png(i))
    write(cat / ".DS_Store", b"")
    write(cat / "notes.txt", b"")
    write(cat / "no suffix", png(1))
    write(root / "train" / "loose.png", png(2))
    write(root / "test" / "eel" / "1.png", png(3))
    os.mkfifo(cat / "pipe.png")  # opened, it would wait for ever
    (cat / "nothing").mkdir()
    os.symlink(root, cat / "all")
    with pytest.warns(UserWarning) as caught:
        raw = read(root)
    (warning,) = (str(each.message) for each in caught)
    assert warning.startswith(f"data.root: used 4 of 15 files in {str(root)!r}: ")
    for part in (
        "1 beside the classes ('train/loose.png')",
        "1 hidden ('train/cat/.DS_Store')",
        "2 without the suffix of an image ('train/cat/no suffix', 'train/cat/notes.txt')",
        "5 in subfolders ('train/cat/all', 'train/cat/more/deep/0.png', 'train/cat/more/deep/1.png'"
        " and 2 more)",
        "1 no regular files ('train/cat/pipe.png')",
        "1 of no class of train/ ('test/eel/1.png')",
    ):
        assert part in warning
    assert raw.found == {"train": 12, "test": 3}


def test_a_folder_where_nothing_is_left_out_says_nothing(tmp_path: Path) -> None:
    assert read(pair(tmp_path)).found == {"train": 2, "test": 2}
    write(tmp_path / "test" / "eel" / "1.png", png(3))
    read(tmp_path, classes=("cat", "dog"))  # the user has chosen


def test_an_empty_class_says_where_its_files_are(tmp_path: Path) -> None:
    root = pair(tmp_path)
    (root / "train" / "dog" / "0.png").unlink()
    for i in range(5):
        write(root / "train" / "dog" / "day" / f"{i}.png", png(i))
    with pytest.raises(UsageError, match=r"holds none, but 5 in subfolders \('train/dog/day/0\.p"):
        ImageFolderPair(str(root)).prepare_data()


def test_all_formats_are_read() -> None:
    wanted = {".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
    assert {*suffixes()} >= wanted | {".gif", ".jp2", ".avif"}
    assert not {*suffixes()} & {".eps", ".pdf", ".mpg", ".h5", ".psd"}


def test_zero_and_equal_images_are_named(tmp_path: Path) -> None:
    root = pair(tmp_path)
    write(root / "train" / "dog" / "1.png", (root / "test" / "cat" / "0.png").read_bytes())
    write(root / "train" / "dog" / "2.png", (root / "train" / "cat" / "0.png").read_bytes())
    data = ImageFolderPair(str(root), image_size=SIZE, batch_size=1)
    with pytest.warns(UserWarning) as caught:
        data.setup()
    told = [str(each.message) for each in caught]
    assert told == [
        "data: equal images in train and test, 1 times: 'train/dog/1.png = test/cat/0.png'",
        "data: equal images in both classes, 2 times:"
        " 'train/cat/0.png = train/dog/2.png', 'train/dog/1.png = test/cat/0.png'",
    ]
    mean = np.zeros((SIZE, SIZE, 3), np.uint8) + 100
    for name in ("cat", "dog"):
        (root / "train" / name / "0.png").unlink()
        flat = Image.fromarray(mean + 50 if name == "cat" else mean - 50)
        write(root / "train" / name / "3.png", written(flat, "PNG"))
    for file in ("1.png", "2.png"):
        (root / "train" / "dog" / file).unlink()
    write(root / "test" / "dog" / "4.png", written(Image.fromarray(mean), "PNG"))
    with pytest.raises(UsageError, match=r"^data: got '1 of 5 images'.*: 'test/dog/4\.png'$"):
        ImageFolderPair(str(root), image_size=SIZE, batch_size=1).setup()


@pytest.mark.parametrize("root", ["a\0b", "x" * 300, "~nobody-of-this-name/x", "loop/in", "file"])
def test_a_path_that_is_none_is_one_line(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    write(Path("file"), b"")
    for action in ("prepare_data", "setup"):
        with pytest.raises(UsageError) as caught:
            getattr(ImageFolderPair(root), action)()
        assert str(caught.value).startswith("data.root: got ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [".", "train/cat"])
def test_a_folder_that_may_not_be_read_is_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's refusal is played."""
    root, scandir = pair(tmp_path), os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == root / place:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "is_dir", lambda self: os.path.isdir(self))
    if place == ".":
        monkeypatch.setattr(Path, "iterdir", lambda self: refuse(root))
    with pytest.raises(UsageError, match=r"^data\.root: got .*PermissionError"):
        read(root)
