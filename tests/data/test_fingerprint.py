"""Fingerprints: equal for equal samples wherever they lie, other for each change of a number."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janus_pl.data import DataFacts, DigitsPair, ImageFolderPair, LinearProblem, fingerprint
from janus_pl.data.fingerprint import SHOWN, UNKNOWN
from janus_pl.data.images import ImagePair
from janus_pl.data.splits import RawPair, Split
from janus_pl.run import description

PINNED = "4218df0c2f14d10bdc810b3ea9684bf52509f31b81ea92c308e5ebcffd9d1f2c"  # digits 3 and 8
COUNTS = {"train": {"cat": 5, "dog": 4}, "test": {"cat": 2, "dog": 3}}


def image(seed: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for s, (split, classes) in enumerate(COUNTS.items()):
        for c, (name, count) in enumerate(classes.items()):
            (tmp_path / "pair" / split / name).mkdir(parents=True)
            for i in range(count):
                file = tmp_path / "pair" / split / name / f"{i}.png"
                Image.fromarray(image(100 * s + 10 * c + i)).save(file)
    return tmp_path / "pair"


def facts(data: Any) -> DataFacts:
    data.setup()
    return data.facts


def of(folder: Path, **options: Any) -> DataFacts:
    return facts(ImageFolderPair(str(folder), image_size=6, batch_size=2, **options))


# The hash itself


def test_it_is_sha256_of_names_types_shapes_and_bytes() -> None:
    x = np.array([[1, 2, 258]], np.int16)
    lines = [json.dumps(["n", 3]), json.dumps(["x", "<i2", [1, 3]])]
    told = f"{lines[0]}\n{lines[1]}\n".encode() + bytes([1, 0, 2, 0, 2, 1])
    assert fingerprint(x=x, n=3) == hashlib.sha256(told).hexdigest()


def test_neither_byte_order_nor_layout_nor_the_sign_of_zero_counts() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert fingerprint(x=x) == fingerprint(x=np.asfortranarray(x)) == fingerprint(x=x.astype(">f8"))
    assert fingerprint(x=x) == fingerprint(x=np.where(x == 0, -0.0, x))
    others = [x.T, x.astype(np.float32), x + np.eye(2, 3) * 1e-15, x.ravel()]
    assert len({fingerprint(x=x), *(fingerprint(x=other) for other in others)}) == 5


# Images in folders


def test_where_the_folder_lies_and_what_files_are_called_does_not_count(
    folder: Path, tmp_path: Path
) -> None:
    seen = of(folder)
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(folder, moved)
    for split in COUNTS:
        for i in range(COUNTS[split]["cat"]):
            (moved / split / "cat" / f"{i}.png").rename(moved / split / "cat" / f"new{i}.png")
    again = of(moved)
    assert (again.sha256, again.pool) == (seen.sha256, seen.pool)
    assert (seen.source, again.source) == (str(folder), str(moved))


def test_options_of_batches_and_seeds_do_not_count_for_all_samples(folder: Path) -> None:
    seen = of(folder)
    same: list[dict[str, Any]] = [{"seed": 5}, {"order": "sequential"}, {"num_train": 9}]
    assert {of(folder, **options).sha256 for options in same} == {seen.sha256}


def swap_classes(folder: Path) -> None:
    for split in COUNTS:
        (folder / split / "cat").rename(folder / split / "x")
        (folder / split / "dog").rename(folder / split / "cat")
        (folder / split / "x").rename(folder / split / "dog")


def add_image(folder: Path) -> None:
    Image.fromarray(image(999)).save(folder / "train" / "dog" / "9.png")


def change_pixel(folder: Path) -> None:
    file = folder / "test" / "cat" / "1.png"
    pixels = np.array(Image.open(file))
    pixels[5, 5, 2] ^= 1
    Image.fromarray(pixels).save(file)


def move_image(folder: Path) -> None:
    (folder / "train" / "cat" / "4.png").rename(folder / "train" / "dog" / "00.png")


def swap_names(folder: Path) -> None:
    """Data order decides minibatches."""
    first, second = (folder / "train" / "cat" / f"{i}.png" for i in (0, 1))
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)


CHANGES = [swap_classes, add_image, change_pixel, move_image, swap_names]


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_the_files_is_another_pool(
    change: Callable[[Path], None], folder: Path
) -> None:
    before = of(folder), of(folder, num_train=4)
    change(folder)
    after = of(folder), of(folder, num_train=4)
    for then, now in zip(before, after, strict=True):
        assert now.sha256 != then.sha256
        assert now.pool != then.pool


def test_a_subset_is_other_data_of_the_same_pool(folder: Path) -> None:
    seen = [of(folder), *(of(folder, num_train=4, seed=s) for s in (0, 1)), of(folder, num_train=6)]
    assert len({each.sha256 for each in seen}) == 4
    assert len({each.pool for each in seen}) == 1
    assert of(folder, num_train=4, seed=1).sha256 == seen[2].sha256
    turned = of(folder, classes=("dog", "cat"))
    assert turned.pool != seen[0].pool
    assert turned.classes == {"dog": -1, "cat": 1}


def test_the_size_of_images_counts(folder: Path) -> None:
    small = facts(ImageFolderPair(str(folder), image_size=5, batch_size=2))
    assert small.pool != of(folder).pool
    assert (small.dim, small.shape) == (75, (3, 5, 5))


def test_the_facts_are_counts_classes_and_files(folder: Path) -> None:
    (folder / "train" / "dog" / "notes.txt").write_text("no image")
    (folder / "train" / "dog" / ".hidden.png").write_text("")
    with pytest.warns(UserWarning, match="used 14 of 16 files"):
        seen = of(folder, num_train=5)
    assert seen.samples == {"train": {"cat": 3, "dog": 2}, "test": {"cat": 2, "dog": 3}}
    assert seen.found == {"train": 11, "test": 5}
    assert (seen.dim, seen.outputs, seen.shape) == (108, 1, (3, 6, 6))
    assert seen.line() == (
        "5 of 11 files to train on, 5 to test on, cat (-1), dog (+1), 3x6x6,"
        f" sha256 {seen.sha256[:8]}, from {folder}"
    )
    assert json.loads(json.dumps(seen.to_plain()))["classes"] == {"cat": -1, "dog": 1}


def test_the_files_are_those_of_the_samples_in_use(folder: Path) -> None:
    data = ImageFolderPair(str(folder), image_size=6, batch_size=2, num_train=4, seed=3)
    data.setup()
    whole = ImageFolderPair(str(folder), image_size=6, batch_size=2)
    whole.setup()
    assert len(data.files["train"]) == 4
    assert whole.files["test"][2] == "test/dog/0.png"
    for file, x in zip(data.files["train"], data.train_x, strict=True):
        place = whole.files["train"].index(file)
        assert (whole.train_x[place] == x).all()


# Other readers


def test_digits_are_the_same_on_every_machine() -> None:
    seen = facts(DigitsPair())
    assert seen.sha256 == seen.pool == PINNED
    assert facts(DigitsPair(classes=(8, 3))).pool != seen.pool
    assert seen.samples["train"] == {"3": 146, "8": 139}


class Gray(ImagePair):
    """A user's own reader, of images that are no bytes."""

    def __init__(self, shift: float) -> None:
        super().__init__(batch_size=2)
        self.shift = shift

    def prepare_data(self) -> None:
        """Nothing to do."""

    def read(self) -> RawPair:
        x = np.linspace(0, 1, 4 * 12, dtype=np.float32).reshape(4, 2, 2, 3)
        x[3, 1, 1, 2] += np.float32(self.shift)
        labels = np.array([-1, 1, -1, 1], np.float32)
        train, test = Split(x, labels), Split(x + np.float32(1), labels)
        return RawPair(("a", "b"), train, test, np.zeros(3), np.ones(3))


def test_a_reader_of_the_users_is_known_by_its_floats() -> None:
    assert facts(Gray(0)).sha256 == facts(Gray(0)).sha256 != facts(Gray(-1e-6)).sha256
    assert facts(Gray(0)).source is None


# Linear problems


def csv(path: Path, last: str = "4") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"x1,x2,y1\n1,2,3\n2,3,{last}\n")
    return path


def linear(source: object = "gaussian", **options: Any) -> DataFacts:
    return facts(LinearProblem(str(source), **options))


def test_a_file_counts_by_its_numbers(tmp_path: Path) -> None:
    here = csv(tmp_path / "a.csv")
    seen = linear(here, init="zero")
    assert linear(csv(tmp_path / "b" / "c.csv", "4.0"), init="zero").sha256 == seen.sha256
    assert linear(csv(tmp_path / "d.csv", "4.000001"), init="zero").pool != seen.pool
    assert (seen.source, seen.dim, seen.outputs) == (str(here), 2, 1)
    x, y = np.array([[1.0, 2.0], [2.0, 3.0]]), np.array([[3.0, 4.0]])
    np.savez(tmp_path / "e.npz", X=x, Y=y)
    assert linear(tmp_path / "e.npz", init="zero").sha256 == seen.sha256
    w0s = [np.zeros((1, 2)), np.ones((1, 2))]
    for k, w0 in enumerate(w0s):
        np.savez(tmp_path / f"{k}.npz", X=x, Y=y, W0=w0)
    given = [linear(tmp_path / f"{k}.npz") for k in range(2)]
    assert given[0].pool != given[1].pool
    assert linear(tmp_path / "1.npz", init="zero").sha256 == seen.sha256, "its W0 is not in use"


def test_the_seed_counts_where_something_is_drawn(tmp_path: Path) -> None:
    file = csv(tmp_path / "a.csv")
    assert linear(file, init="zero", seed=1).sha256 == linear(file, init="zero").sha256
    for source, options in ((file, {}), ("gaussian", {"init": "zero"})):
        drawn = [linear(source, seed=seed, **options) for seed in (0, 1)]
        assert drawn[0].sha256 != drawn[1].sha256
        assert drawn[0].pool == drawn[1].pool


RECIPES: list[dict[str, Any]] = [
    *({"num_train": 9}, {"dim": 12}, {"outputs": 10}, {"informative": 3}, {"empty": 2}),
    *({"init": "zero"}, {"init_scale": 0.2}, {"replicas": 2}),
]


def test_a_drawn_problem_is_known_by_its_recipe() -> None:
    seen = linear()
    others = [linear(**options) for options in RECIPES]
    assert len({seen.pool, *(other.pool for other in others)}) == 1 + len(RECIPES)
    same: list[dict[str, Any]] = [{"batch_size": "full"}, {"order": "shuffle"}, {"batch_size": 3}]
    assert {linear(**options).sha256 for options in same} == {seen.sha256}
    assert linear("toy").pool != seen.pool


def test_a_stream_is_not_drawn_for_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    data = LinearProblem(num_train=10_000_000, order="online")
    monkeypatch.setattr(LinearProblem, "stream", lambda *_: pytest.fail("drawn"))
    assert len(data.facts.sha256) == 64
    assert data.facts.line().startswith("10000000 samples to train on, d = 11, m = 11, sha256 ")


def test_real_images_have_one_fingerprint(real_images: Path) -> None:
    seen = facts(ImageFolderPair(str(real_images), num_train=100, batch_size=10))
    assert seen.samples["train"] == {"automobile": 50, "bird": 50}
    assert seen.source == str(real_images.absolute())
    assert seen.sha256 != seen.pool


def test_two_folders_of_one_floor_have_the_same_words_for_a_fingerprint() -> None:
    """`run` and `data` may not import each other."""
    assert (UNKNOWN, SHOWN) == (description.UNKNOWN, description.SHOWN)
