"""Two-class image data: values, subsets, errors, and what Lightning sees of them."""

from __future__ import annotations

import os
import pickle
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from janus_pl.data import (
    Batch,
    CIFAR10Pair,
    DigitsPair,
    ImageFolderPair,
    ImagePair,
    InMemoryBatches,
)
from janus_pl.data.cifar10 import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD
from janus_pl.data.splits import balanced_subset
from janus_pl.data.standard import channel_statistics, unit_norm_
from janus_pl.errors import UsageError

COUNTS = {"train": {"cat": 5, "dog": 4}, "test": {"cat": 2, "dog": 3}}


# --- data made for the tests -------------------------------------------------------------------


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of noise, lossless, 6x6, named so that writing order is not name order."""
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        for name, count in classes.items():
            for i in reversed(range(count)):
                pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                write_image(tmp_path / split / name / f"{i}.png", pixels)
    return tmp_path


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 in torchvision's format: 5 x 40 training and 40 test images of noise."""
    import torchvision.datasets.cifar as module

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(1)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        data = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
        labels = rng.permutation(np.repeat(np.arange(10), 4)).tolist()
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}))
    monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    return tmp_path


def ready(data: ImagePair) -> ImagePair:
    data.prepare_data()
    data.setup("fit")
    return data


def norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3))


def reference(pixels: Any, mean: Any, std: Any) -> Any:
    """One image (H, W, C) of bytes as it should come out, (C, H, W), the slow way."""
    x = (pixels / 255.0 - np.asarray(mean)) / np.asarray(std)
    return (x / np.sqrt((x**2).sum())).transpose(2, 0, 1)


# --- values ------------------------------------------------------------------------------------


def test_folder_values_labels_and_order(folder: Path) -> None:
    data = ready(ImageFolderPair(str(folder), image_size=6, batch_size="full"))
    assert data.class_names == ("cat", "dog")
    files = [
        folder / "train" / c / f"{i}.png" for c, n in (("cat", 5), ("dog", 4)) for i in range(n)
    ]
    pixels = [np.asarray(Image.open(file)) for file in files]
    everything = np.stack(pixels) / 255.0
    mean, std = everything.mean((0, 1, 2)), everything.std((0, 1, 2))
    expected = np.stack([reference(p, mean, std) for p in pixels])
    np.testing.assert_allclose(data.train_x.numpy(), expected, atol=1e-6)
    assert data.train_y.tolist() == [-1.0] * 5 + [1.0] * 4
    assert data.test_y.tolist() == [-1.0] * 2 + [1.0] * 3
    test_pixels = np.asarray(Image.open(folder / "test" / "dog" / "2.png"))
    np.testing.assert_allclose(data.test_x[4].numpy(), reference(test_pixels, mean, std), atol=1e-6)
    # The statistics matter: with CIFAR-10's the same images come out differently.
    other = np.stack([reference(p, CIFAR10_MEAN, CIFAR10_STD) for p in pixels])
    assert np.abs(other - expected).max() > 1e-3


def test_folder_classes_decide_the_sign(folder: Path) -> None:
    plain = ready(ImageFolderPair(str(folder), image_size=6, batch_size="full"))
    turned = ready(ImageFolderPair(str(folder), ("dog", "cat"), 6, batch_size="full"))
    assert turned.class_names == ("dog", "cat")
    assert torch.equal(turned.train_x[4:], plain.train_x[:5])
    assert turned.train_y.tolist() == [-1.0] * 4 + [1.0] * 5


def test_folder_resizes_only_other_sizes(folder: Path) -> None:
    data = ready(ImageFolderPair(str(folder), image_size=8, batch_size="full"))
    assert data.train_x.shape == (9, 3, 8, 8)
    file = folder / "train" / "cat" / "0.png"
    write_image(file, np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR)))
    assert torch.equal(
        ready(ImageFolderPair(str(folder), image_size=8, batch_size="full")).train_x, data.train_x
    )


def test_folder_reads_gray_and_upper_case_and_skips_the_rest(folder: Path) -> None:
    write_image(folder / "train" / "cat" / "9.JPG", np.full((6, 6), 7, np.uint8))
    (folder / "train" / "cat" / ".hidden.png").write_text("no image")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    (folder / "train" / ".cache").mkdir()
    with pytest.warns(UserWarning, match="used 15 of 17 files .*1 hidden .*1 without the suffix"):
        data = ready(ImageFolderPair(str(folder), image_size=6, batch_size="full"))
    assert data.train_y.tolist() == [-1.0] * 6 + [1.0] * 4


def test_folder_root_may_start_with_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    data = ready(ImageFolderPair(f"~/{folder.name}", image_size=6, batch_size="full"))
    assert data.num_train_samples == 9


def test_cifar_values(cifar: Path) -> None:
    data = ready(CIFAR10Pair(str(cifar), batch_size=8, download=False))
    assert data.class_names == ("automobile", "bird")
    assert data.train_x.shape == (40, 3, 32, 32) and data.test_x.shape == (8, 3, 32, 32)
    raw = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes())
    picked = [i for i, label in enumerate(raw["labels"]) if label in (1, 2)]
    assert data.test_y.tolist() == [{1: -1.0, 2: 1.0}[raw["labels"][i]] for i in picked]
    pixels = raw["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)[picked]
    expected = np.stack([reference(p, CIFAR10_MEAN, CIFAR10_STD) for p in pixels])
    np.testing.assert_allclose(data.test_x.numpy(), expected, atol=1e-6)


def test_cifar_classes_by_name_or_index(cifar: Path) -> None:
    by_name = ready(CIFAR10Pair(str(cifar), ("truck", "cat"), batch_size=8))
    by_index = ready(CIFAR10Pair(str(cifar), (9, 3), batch_size=8))
    turned = ready(CIFAR10Pair(str(cifar), ("cat", 9), batch_size=8))
    assert by_name.class_names == by_index.class_names == ("truck", "cat")
    assert torch.equal(by_name.train_x, by_index.train_x)
    assert torch.equal(by_name.train_y, by_index.train_y)
    assert torch.equal(turned.train_y, -by_name.train_y)


def test_digits() -> None:
    data = ready(DigitsPair())
    assert data.class_names == ("3", "8")
    assert data.train_x.shape == (285, 3, 32, 32) and data.test_x.shape == (72, 3, 32, 32)
    assert torch.equal(data.train_x[:, 0], data.train_x[:, 2])
    # The split is stratified, and does not depend on the seed.
    for y in (data.train_y, data.test_y):
        assert abs((y == -1).float().mean().item() - 183 / 357) < 0.01
    assert torch.equal(ready(DigitsPair(seed=5)).test_x, data.test_x)
    both = torch.cat([data.train_x, data.test_x]).flatten(1)
    assert len(both.unique(dim=0)) == 357  # no image is in both splits


@pytest.mark.parametrize("make", ["folder", "cifar", "digits"])
def test_common_properties(make: str, request: pytest.FixtureRequest) -> None:
    root = "" if make == "digits" else str(request.getfixturevalue(make))
    options: dict[str, Any] = {"batch_size": 4}
    data = ready(
        {
            "folder": lambda: ImageFolderPair(root, **options),
            "cifar": lambda: CIFAR10Pair(root, **options),
            "digits": lambda: DigitsPair(**options),
        }[make]()
    )
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert x.dtype == y.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert set(y.tolist()) == {-1.0, 1.0}
        torch.testing.assert_close(norms(x), torch.ones(len(x)))
    assert data.num_train_samples == len(data.train_x) == len(data.train_y)


def test_an_image_that_is_zero_after_standardization_is_refused(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        write_image(file, np.full((6, 6, 3), 77, np.uint8))
    with (
        pytest.warns(UserWarning, match="equal images in"),
        pytest.raises(UsageError, match=r"data: got '14 of 14 images'.* and 11 more$"),
    ):
        ImageFolderPair(str(folder), image_size=6, batch_size="full").setup()


def test_unit_norm_scales_each_image_by_itself() -> None:
    x = torch.stack(
        [torch.full((2, 2, 3), 5.0), torch.zeros(2, 2, 3), torch.full((2, 2, 3), -0.01)]
    )
    assert norms(unit_norm_(x)).tolist() == pytest.approx([1.0, 0.0, 1.0])
    assert (x[0] > 0).all() and (x[2] < 0).all()


def test_channel_statistics_against_numpy() -> None:
    images = np.random.default_rng(0).random((7, 5, 4, 3), dtype=np.float32)
    images[..., 2] = 0.1
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.astype(np.float64).mean((0, 1, 2)))
    np.testing.assert_allclose(std[:2], images[..., :2].astype(np.float64).std((0, 1, 2)))
    assert std[2] == 1.0


# --- subsets -----------------------------------------------------------------------------------

LABELS = np.array([-1, 1] * 20 + [1] * 10, np.float32)  # 20 of the first class, 30 of the second


@pytest.mark.parametrize(("num_train", "first"), [(2, 1), (3, 2), (10, 5), (11, 6), (40, 20)])
def test_subset_is_balanced(num_train: int, first: int) -> None:
    index = balanced_subset(LABELS, num_train, seed=0)
    assert len(set(index.tolist())) == num_train
    assert index.tolist() == sorted(index.tolist())
    assert (LABELS[index] == -1).sum() == first


def test_subset_depends_on_the_seed_and_nests() -> None:
    chosen = balanced_subset(LABELS, 12, seed=0)
    assert balanced_subset(LABELS, 12, seed=0).tolist() == chosen.tolist()
    assert balanced_subset(LABELS, 12, seed=1).tolist() != chosen.tolist()
    assert set(chosen.tolist()) < set(balanced_subset(LABELS, 13, seed=0).tolist())


@pytest.mark.parametrize("labels", [LABELS, -LABELS])
def test_subset_beyond_the_smaller_class(labels: np.ndarray) -> None:
    limit = 40 if labels is LABELS else 41
    assert len(balanced_subset(labels, limit, seed=0)) == limit
    with pytest.raises(UsageError, match=rf"^data\.num_train: got {limit + 1}, .* 2 to {limit} "):
        balanced_subset(labels, limit + 1, seed=0)


def test_num_train_picks_standardized_images_of_the_whole_set() -> None:
    whole = ready(DigitsPair())
    part = ready(DigitsPair(num_train=21, batch_size=4))
    again = ready(DigitsPair(num_train=21, batch_size="full", order="sequential"))
    other = ready(DigitsPair(num_train=21, batch_size=4, seed=1))
    assert (part.train_y == -1).sum() == 11 and part.num_train_samples == 21
    assert torch.equal(part.train_x, again.train_x)
    assert not torch.equal(part.train_x, other.train_x)
    rows = {row.numpy().tobytes() for row in whole.train_x}
    assert all(row.numpy().tobytes() in rows for row in part.train_x)
    assert torch.equal(part.test_x, whole.test_x)


# --- errors ------------------------------------------------------------------------------------

KINDS = {
    "cifar": lambda **options: CIFAR10Pair("/no/such/folder", **options),
    "folder": lambda **options: ImageFolderPair("/no/such/folder", **options),
    "digits": lambda **options: DigitsPair(**options),
}


def assert_one_line(error: BaseException, field: str, *parts: str) -> None:
    message = str(error)
    assert message.startswith(f"{field}: got "), message
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("batch_size", {"batch_size": 0}),
        ("batch_size", {"batch_size": "all"}),
        ("batch_size", {"batch_size": True}),
        ("batch_size", {"num_train": 100}),
        ("micro_batch_size", {"micro_batch_size": 129}),
        ("micro_batch_size", {"micro_batch_size": 0}),
        ("micro_batch_size", {"micro_batch_size": 101, "num_train": 100, "batch_size": "full"}),
        ("num_train", {"num_train": 1}),
        ("num_train", {"num_train": -2}),
        ("num_train", {"num_train": 2.0}),
        ("num_train", {"num_train": True}),
        ("order", {"order": "sorted"}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": False}),
    ],
)
def test_common_options_fail_before_data_is_read(
    kind: str, field: str, options: dict[str, Any]
) -> None:
    KINDS[kind]()  # the defaults pass, although the folder does not exist
    with pytest.raises(UsageError) as caught:
        KINDS[kind](**options)
    assert_one_line(caught.value, f"data.{field}")


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        ("cifar", (1, 1)),
        ("cifar", (1, "automobile")),
        ("cifar", (1,)),
        ("cifar", (1, 2, 3)),
        ("cifar", (1, 10)),
        ("cifar", (-1, 2)),
        ("cifar", (True, 2)),
        ("cifar", (0, True)),
        ("cifar", ("plane", "bird")),
        ("cifar", "12"),
        ("digits", (3, 3)),
        ("digits", (3, 10)),
        ("digits", (-1, 3)),
        ("digits", (3, True)),
        ("digits", (3, "8")),
        ("digits", (3, 8, 9)),
        ("digits", 38),
        ("folder", ("cat", "cat")),
        ("folder", ("cat",)),
        ("folder", ("cat", 1.5)),
        ("folder", "ab"),
    ],
)
def test_bad_classes_fail_before_data_is_read(kind: str, classes: Any) -> None:
    with pytest.raises(UsageError) as caught:
        KINDS[kind](classes=classes)
    known = {"cifar": "automobile, bird", "digits": "0 to 9", "folder": "two different"}[kind]
    assert_one_line(caught.value, "data.classes", repr(classes), known)


@pytest.mark.parametrize("size", [0, -1, 8.0, True, "32"])
def test_bad_image_size(size: Any) -> None:
    with pytest.raises(UsageError) as caught:
        ImageFolderPair("/no/such/folder", image_size=size)
    assert_one_line(caught.value, "data.image_size", repr(size))


def test_batch_size_above_n() -> None:
    DigitsPair(batch_size=285).setup()
    data = DigitsPair(batch_size=286)
    with pytest.raises(UsageError) as caught:
        data.setup()
    assert_one_line(caught.value, "data.batch_size", "286", "1 to 285")
    with pytest.raises(UsageError) as caught:
        DigitsPair(num_train=1000).setup()
    assert_one_line(caught.value, "data.num_train", "1000", "146", "139")


def remove_tree(path: Path) -> None:
    for child in sorted(path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    path.rmdir()


@pytest.mark.parametrize("lost", [".", "train", "test", "test/dog"])
def test_missing_folders(folder: Path, lost: str) -> None:
    remove_tree(folder / lost)
    with pytest.raises(UsageError) as caught:
        ImageFolderPair(str(folder)).prepare_data()
    assert_one_line(caught.value, "data.root", repr(str(folder / lost)))
    with pytest.raises(UsageError):
        ImageFolderPair(str(folder)).setup()


def test_class_that_is_not_there(folder: Path) -> None:
    ImageFolderPair(str(folder), ("cat", "dog")).prepare_data()
    with pytest.raises(UsageError) as caught:
        ImageFolderPair(str(folder), ("cat", "cow")).prepare_data()
    assert_one_line(caught.value, "data.classes", "'cow'", "cat, dog", str(folder / "train"))


def test_three_folders_need_classes(folder: Path) -> None:
    (folder / "train" / "eel").mkdir()
    ImageFolderPair(str(folder), ("cat", "dog")).prepare_data()
    with pytest.raises(UsageError) as caught:
        ImageFolderPair(str(folder)).prepare_data()
    assert_one_line(caught.value, "data.classes", "None", "cat, dog, eel")


def test_empty_class_folder(folder: Path) -> None:
    for file in (folder / "train" / "dog").iterdir():
        file.rename(file.with_suffix(".dat"))
    with pytest.raises(UsageError) as caught:
        ImageFolderPair(str(folder)).prepare_data()
    assert_one_line(caught.value, "data.root", repr(str(folder / "train" / "dog")), ".jpeg", "4 w")


@pytest.mark.parametrize("damage", [b"", b"no\nimage", "cut"])
def test_unreadable_image(folder: Path, damage: bytes | str) -> None:
    file = folder / "test" / "cat" / "1.png"
    file.write_bytes(file.read_bytes()[:60] if isinstance(damage, str) else damage)
    data = ImageFolderPair(str(folder))
    data.prepare_data()
    with pytest.raises(UsageError) as caught:
        data.setup()
    assert_one_line(caught.value, "data.root", "1 of 14 cannot", "'test/cat/1.png'")


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no\nnetwork"),
        TimeoutError("timed out"),
        RuntimeError("File not found or corrupted."),
    ],
)
def test_cifar_without_network(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []

    def urlopen(*args: Any, **kwargs: Any) -> Any:
        timeouts.append(socket.getdefaulttimeout())
        raise failure

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    before = socket.getdefaulttimeout()
    with pytest.raises(UsageError) as caught:
        CIFAR10Pair(str(tmp_path)).prepare_data()
    assert_one_line(
        caught.value,
        "data.root",
        repr(str(tmp_path)),
        type(failure).__name__,
        "--data janus_pl.data.ImageFolderPair --data.root DIR",
        "--data janus_pl.data.DigitsPair",
    )
    # A connection that hangs is given up, and the process's own setting comes back.
    assert timeouts and all(timeouts) and socket.getdefaulttimeout() == before


def test_cifar_absent_and_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    data = CIFAR10Pair(str(tmp_path / "new"), download=False)
    for action in (data.prepare_data, data.setup):
        with pytest.raises(UsageError) as caught:
            action()
        assert_one_line(caught.value, "data.root")
    assert not (tmp_path / "new").exists()


# --- loaders, and what Lightning sees ----------------------------------------------------------


def test_setup_reads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(DigitsPair())
    x = data.train_x
    monkeypatch.setattr(DigitsPair, "read", lambda self: pytest.fail("read twice"))
    data.setup("test")
    assert data.train_x is x


def test_loaders() -> None:
    data = ready(DigitsPair(batch_size=50, micro_batch_size=20))
    train = data.train_dataloader()
    assert isinstance(train, InMemoryBatches) and train is data.train_dataloader()
    assert [len(batch.y) for batch in train] == [50] * 5 + [35]
    assert next(iter(train)).micro_batch_size == 20
    assert train.x.data_ptr() == data.train_x.data_ptr()
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()[1]):
        assert torch.equal(torch.cat([batch.x for batch in loader]), data.test_x)
        assert torch.equal(torch.cat([batch.y for batch in loader]), data.test_y)
    train_in_order = data.predict_dataloader()[0]
    assert torch.equal(torch.cat([batch.y for batch in train_in_order]), data.train_y)
    assert next(iter(train_in_order)).x.data_ptr() == data.train_x.data_ptr()


def test_evaluation_goes_in_chunks() -> None:
    data = DigitsPair()
    data.train_x, data.train_y = torch.zeros(1100, 3, 2, 2), torch.ones(1100)
    data.test_x, data.test_y = data.train_x, data.train_y
    assert [len(batch.y) for batch in data.val_dataloader()] == [500, 500, 100]


def test_transfer_returns_the_batch_itself() -> None:
    data = ready(DigitsPair())
    batch = next(iter(data.train_dataloader()))
    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert isinstance(moved, Batch) and moved.x.device.type == moved.y.device.type == "meta"
    assert moved.micro_batch_size == batch.micro_batch_size


class Recorder(LightningModule):
    """Keeps the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[Batch]] = {}
        self.validated: list[Batch] = []
        self.predicted: list[Batch] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.setdefault(self.current_epoch, []).append(batch)
        return self.weight * batch.x.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(batch)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        self.predicted.append(batch)
        return batch.y

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path: Path, epochs: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_lightning_gives_every_epoch_its_order(tmp_path: Path) -> None:
    data, model = DigitsPair(batch_size=64, seed=2), Recorder()
    trainer(tmp_path, epochs=3).fit(model, datamodule=data)
    train = data.train_dataloader()
    orders = [train.indices(epoch) for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert torch.equal(torch.cat([batch.x for batch in model.seen[epoch]]), data.train_x[order])
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    assert len(model.validated) == 3
    assert torch.equal(model.validated[0].y, data.test_y)


def test_lightning_hands_over_the_stored_tensor(tmp_path: Path) -> None:
    data, model = DigitsPair(batch_size="full"), Recorder()
    fit = trainer(tmp_path, epochs=1)
    fit.fit(model, datamodule=data)
    (batch,) = model.seen[0]
    assert batch.x.data_ptr() == data.train_x.data_ptr() and batch.micro_batch_size == 250
    fit.predict(model, datamodule=data, return_predictions=False)
    assert [len(batch.y) for batch in model.predicted] == [285, 72]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("CIFAR10Pair", []), ("ImageFolderPair", ["--data.root=images"]), ("DigitsPair", [])],
)
def test_options_on_the_command_line(name: str, extra: list[str]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImagePair, "data")
    given = ["--data.batch_size=full", "--data.num_train=10", "--data.order=with_replacement"]
    config = parser.parse_args([f"--data=janus_pl.data.{name}", *extra, *given])
    data = parser.instantiate(config).data
    assert (data.batch_size, data.num_train, data.order) == ("full", 10, "with_replacement")
    assert (data.seed, data.micro_batch_size) == (0, None)


# --- real images -------------------------------------------------------------------------------


def real_images() -> str:
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-pair"
    root = Path(os.environ.get("JANUS_DATA", beside))
    if not (root / "train").is_dir():
        pytest.skip(f"no real images in {root}; set JANUS_DATA to a folder with train/ and test/")
    return str(root)


def test_real_images() -> None:
    data = ready(ImageFolderPair(real_images()))
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert x.shape == (len(y), 3, 32, 32)
        torch.testing.assert_close(norms(x), torch.ones(len(x)))
        assert {-1.0, 1.0} == set(y.tolist())
    assert len(data.train_dataloader()) == -(-data.num_train_samples // 128)
