"""Three hundred mutated files for each reader: right numbers, or one line that names the file."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data.awkward_files import noise, orientation, truth, written
from data.mutations import mutated
from data.test_awkward_images import pair, read
from PIL import Image

from janus_pl.data.csv_files import Table
from janus_pl.data.linear_files import read_problem
from janus_pl.errors import UsageError

COUNT = 300
# Damaged metadata may be worth a warning of the decoder; the tests of a run forbid them.
pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN = Image.fromarray(noise(size=16))
TURNED = {"exif": orientation(6)}
IMAGES: dict[str, Callable[[], bytes]] = {
    "png": lambda: written(PLAIN, "PNG", **TURNED),
    "jpg": lambda: written(PLAIN, "JPEG", **TURNED),
    "webp": lambda: written(PLAIN.convert("RGBA"), "WEBP", **TURNED),
    "gif": lambda: written(PLAIN.convert("P"), "GIF"),
    "bmp": lambda: written(PLAIN, "BMP"),
    "tif": lambda: written(PLAIN, "TIFF", compression="tiff_lzw"),
    "jp2": lambda: written(PLAIN, "JPEG2000"),
    "ppm": lambda: written(PLAIN, "PPM"),
    "avif": lambda: written(PLAIN, "AVIF"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_mutated_image_is_right_or_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janus_pl.data.image_folder.LISTED", COUNT)
    data, root = IMAGES[kind](), pair(tmp_path)
    for k, damaged in enumerate(mutated(data, COUNT)):
        (root / "train" / "dog" / f"{k:03}.{kind}").write_bytes(damaged)
    with pytest.raises(UsageError) as caught:
        read(root)
    message = str(caught.value)
    assert message.startswith("data.root: got ") and "\n" not in message
    named = re.findall(rf"'train/dog/(\d\d\d\.{kind})' \(", message)
    assert f"{len(named)} of {COUNT + 4} cannot be used" in message
    assert len({*named}) == len(named) > COUNT / 10
    for file in named:
        (root / "train" / "dog" / file).unlink()
    train, right = read(root).train, truth(data)
    assert len(train.pixels) == COUNT + 2 - len(named)
    for file, pixels in zip(train.files, train.pixels, strict=True):
        if file.endswith(f".{kind}") and not file.endswith("/0.png"):
            # The checksums of PNG leave no other pixels than those that were written.
            told = right if kind == "png" else truth((root / file).read_bytes())
            assert np.array_equal(pixels, told), file


def files_of_a_problem() -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    rng = np.random.default_rng(3)
    arrays = {
        "X": rng.standard_normal((3, 5)),
        "Y": rng.standard_normal((2, 5)),
        "W0": rng.standard_normal((2, 3)),
    }
    files = {}
    for name, array in arrays.items():
        whole = io.BytesIO()
        np.save(whole, array)
        files[name] = whole.getvalue()
    return arrays, files


def zipped(files: dict[str, bytes], kind: int) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data, kind)
    return whole.getvalue()


def refusal(path: Path) -> str | None:
    """The line of a file that is refused; None of one that is read."""
    try:
        read_problem(str(path))
    except UsageError as error:
        line = str(error)
        assert line.startswith(("data.source: got ", "data.layout: got ")) and "\n" not in line
        return line
    return None


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_mutated_archive_holds_its_numbers_or_is_refused(kind: int, tmp_path: Path) -> None:
    arrays, files = files_of_a_problem()
    path, refused = tmp_path / "p.npz", 0
    for damaged in mutated(zipped(files, kind), COUNT):
        path.write_bytes(damaged)
        if refusal(path) is not None:
            refused += 1
            continue
        given = read_problem(str(path))
        assert np.array_equal(given.x, arrays["X"]) and np.array_equal(given.y, arrays["Y"])
        assert given.w0 is not None and np.array_equal(given.w0, arrays["W0"])
    assert COUNT / 2 < refused < COUNT


def test_a_mutated_array_in_a_sound_archive_is_what_numpy_reads(tmp_path: Path) -> None:
    """The checksums are right, so what stands between a header and an array is this reader."""
    _, files = files_of_a_problem()
    path, refused, whole = tmp_path / "p.npz", 0, files["X"]
    rng = np.random.default_rng(5)
    letters = b"0123456789<>|=fiubcOSUV(),' TruFalse"
    for k in range(COUNT):
        text = whole[10:70]
        place, other = k % 60, letters[int(rng.integers(len(letters)))]
        damaged = text[:place] + bytes([other]) + text[place + 1 :]
        x = whole[:10] + damaged + whole[70:]
        path.write_bytes(zipped({**files, "X": x}, zipfile.ZIP_STORED))
        if refusal(path) is not None:
            refused += 1
            continue
        with np.load(path) as held:
            assert np.array_equal(read_problem(str(path)).x, held["X"].astype(float)), damaged
    assert COUNT / 2 < refused < COUNT


def by_name(path: Path, delimiter: str) -> Any:
    """Columns x1, ..., xd and y1, ..., ym as pandas has them."""
    frame = pd.read_csv(
        path, sep=delimiter, encoding="utf-8-sig", float_precision="round_trip", index_col=False
    )
    frame.columns = [str(name).strip() for name in frame.columns]
    found = {}
    for letter in "xy":
        numbered = [name for name in frame.columns if re.fullmatch(rf"{letter}\d+", name)]
        names = sorted(numbered, key=lambda name: int(name[1:])) or [letter]
        found[letter] = frame[names].to_numpy(float).T
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_mutated_table_is_what_pandas_reads_or_is_refused(delimiter: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = [["id", "x1", "x2", "y1"], *rng.standard_normal((6, 4)).round(3).astype(str).tolist()]
    text = "\n".join(delimiter.join(row) for row in rows) + "\n"
    path, refused = tmp_path / "p.csv", 0
    for damaged in mutated(text.encode(), COUNT, seed=ord(delimiter)):
        path.write_bytes(damaged)
        if refusal(path) is not None:
            refused += 1
            continue
        given, expected = read_problem(str(path)), by_name(path, Table(path).delimiter)
        assert np.array_equal(given.x, expected["x"]) and np.array_equal(given.y, expected["y"])
    assert COUNT / 2 < refused < COUNT


def test_mutations_are_different_and_the_same_every_time() -> None:
    data = bytes(range(100))
    made = [*mutated(data, COUNT)]
    assert made == [*mutated(data, COUNT)] and made != [*mutated(data, COUNT, seed=1)]
    assert len({*made, data}) == COUNT + 1
