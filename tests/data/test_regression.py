"""Linear problems: what they hold, what their bits depend on, and how a mistake is named."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from janus_pl.data import Batch, InMemoryBatches, LinearProblem, regression
from janus_pl.errors import UsageError

ORDERS = ("sequential", "shuffle", "with_replacement", "online")


def make(**options: Any) -> LinearProblem:
    data = LinearProblem(**options)
    data.prepare_data()
    data.setup()
    return data


def test_gaussian_problem_is_standard_normal_in_float64() -> None:
    data = make(num_train=500, dim=20, outputs=10, init_scale=0.5, replicas=2)
    x, y, w0 = data.problem
    assert (x.shape, y.shape, w0.shape) == ((2, 20, 500), (2, 10, 500), (2, 10, 20))
    for array, scale in ((x, 1.0), (y, 1.0), (w0, 0.5)):
        assert array.dtype == np.float64
        assert abs(array.mean()) < 5 * scale / np.sqrt(array.size)
        assert abs(array.std() / scale - 1) < 5 / np.sqrt(array.size)
    assert np.abs(np.corrcoef(np.vstack([x[0], y[0]])) - np.eye(30)).max() < 0.25
    assert np.array_equal(make(init="zero").problem.w0, np.zeros((1, 11, 11)))


def test_data_depend_on_neither_batch_size_nor_order() -> None:
    expected = make(seed=3).problem
    for batch_size in (1, 4, "full"):
        for order in ORDERS:
            found = make(seed=3, batch_size=batch_size, order=order).problem
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not np.array_equal(make(seed=4).problem.x, expected.x)
    more = make(seed=3, num_train=5000, outputs=2).problem
    assert np.array_equal(more.x[:, :, :10], expected.x)


@pytest.mark.parametrize("options", [{}, {"informative": 2, "empty": 1, "order": "shuffle"}])
def test_a_replica_is_the_single_problem_of_its_seed_bitwise(options: Any) -> None:
    together = make(seed=5, replicas=3, **options)
    for r in range(3):
        alone = make(seed=5 + r, **options)
        for many, one in zip(together.problem, alone.problem, strict=True):
            assert np.array_equal(many[r], one[0])
        assert np.array_equal(together.indices(7)[r], alone.indices(7)[0])
        assert np.array_equal(together.teacher()[r], alone.teacher()[0])
    assert not np.array_equal(together.problem.x[0], together.problem.x[1])


@settings(max_examples=25)
@given(st.lists(st.integers(0, 40), max_size=4), st.sampled_from([None, 2]))
def test_a_stream_gives_the_same_bits_however_it_is_cut(
    cuts: list[int], informative: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "CHUNK", 7)
        options = {"num_train": 40, "dim": 4, "outputs": 3, "replicas": 2}
        data = make(order="online", informative=informative, **options)
        borders = [0, *sorted(cuts), 40]
        pieces = [data.stream(a, b) for a, b in pairwise(borders)]
        for part, whole in zip(zip(*pieces, strict=True), data.problem, strict=False):
            assert np.array_equal(np.concatenate(part, axis=2), whole)
        samples = {column.tobytes() for column in data.problem.x[0].T.copy()}
        assert len(samples) == 40


def test_streaming_ten_million_samples_holds_only_what_is_asked_for() -> None:
    tracemalloc.start()
    data = make(num_train=10**7, dim=10, outputs=1, order="online")
    x, _ = data.stream(10**7 - 5000, 10**7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.shape == (1, 10, 5000)
    assert peak < 5e6


def test_informative_components_carry_y_and_empty_ones_nothing() -> None:
    data = make(num_train=30, dim=6, outputs=3, informative=2, empty=1)
    x, y, _ = data.problem
    teacher = data.teacher()
    assert np.array_equal(x[0, 5], np.zeros(30))
    assert np.all(np.abs(x[0, :5]).max(axis=1) > 0)
    assert np.allclose(y[0], teacher[0] @ x[0], rtol=1e-14, atol=1e-14)
    assert np.count_nonzero(teacher[0], axis=0).tolist() == [3, 3, 0, 0, 0, 0]
    assert not make().teacher().any()


def test_toy_has_the_printed_gradients() -> None:
    data = make(source="toy", replicas=2)
    x, y, w0 = (array[1] for array in data.problem)
    assert x.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert w0.tolist() == [[1, 0, 1], [0, 1, -1]]
    assert oracle.data_gradient(w0, x, y, [0]).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert oracle.data_gradient(w0, x, y, [1]).tolist() == [[0, 0, 0], [0, 1, 0]]
    assert make(source="toy", init="zero").problem.w0.tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_orders_depend_on_seed_and_epoch_alone() -> None:
    shuffled = make(seed=2, order="shuffle", batch_size=3)
    expected = [np.random.default_rng((2, epoch)).permutation(10) for epoch in (4, 5)]
    found = shuffled.orders(4, 6)
    assert found is not None and found.dtype == np.int64
    assert found.tolist() == [[e.tolist() for e in expected]]
    assert found[0, 0].tolist() != found[0, 1].tolist()
    drawn = make(seed=2, order="with_replacement", batch_size=10)
    expected_draw = np.random.default_rng((2, 4)).integers(10, size=10)
    assert drawn.indices(4).tolist() == [expected_draw.tolist()]


def test_no_two_streams_of_a_seed_are_one() -> None:
    data = make(seed=2, num_train=11, init_scale=1.0)
    teacher = make(seed=2, num_train=11, informative=11).teacher()[0]
    order = np.random.default_rng((2, 0)).standard_normal((11, 11))
    x, y, w0 = (array[0] for array in data.problem)
    drawn = [np.sort(stream, axis=None) for stream in (x, y, w0, teacher, order)]
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            assert len(np.intersect1d(first, second)) == 0


def test_a_batch_of_all_samples_is_taken_in_data_order() -> None:
    for order in ORDERS:
        whole = make(order=order, batch_size="full")
        assert whole.whole and whole.orders(0, 3) is None and whole.steps_per_epoch == 1
        assert whole.indices(3).tolist() == [list(range(10))]
        part = make(order=order, batch_size=3)
        assert not part.whole and part.steps_per_epoch == 4
        assert part.in_data_order == (order in ("sequential", "online"))
        assert make(order=order, batch_size=10).whole == (order != "with_replacement")


def test_npz_and_csv_are_read_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y, w0 = rng.standard_normal((2, 4)), rng.standard_normal((3, 4)), rng.standard_normal((3, 2))
    np.savez(tmp_path / "p.npz", X=x, Y=y, W0=w0)
    header = "x1, x2,y1,y2,y3"
    np.savetxt(tmp_path / "p.csv", np.vstack([x, y]).T, delimiter=",", header=header, comments="")
    for name in ("p.npz", "p.csv"):
        data = make(source=str(tmp_path / name), replicas=2, num_train=4)
        assert (data.num_train, data.dim, data.outputs) == (4, 2, 3)
        assert np.array_equal(data.problem.x, [x, x]) and np.array_equal(data.problem.y, [y, y])
        given_start = name == "p.npz"
        assert data.init == ("given" if given_start else "gaussian")
        assert np.array_equal(data.problem.w0[1], w0) == given_start
        part = data.stream(1, 3)
        assert np.array_equal(part[0][1], x[:, 1:3]) and np.array_equal(part[1][0], y[:, 1:3])
    np.savez(tmp_path / "i.npz", X=np.eye(2, dtype=int), Y=np.ones((1, 2), np.float32))
    assert make(source=str(tmp_path / "i.npz")).problem.x.dtype == np.float64


def squares(w: Any, x: Any, y: Any) -> Any:
    """The sum of ||W x_i - y_i||^2 in extended precision."""
    return ((w.astype(np.longdouble) @ x.astype(np.longdouble) - y) ** 2).sum()


@pytest.mark.parametrize("num_train", [4, 8, 9, 10, 16, 17, 131])
@pytest.mark.parametrize(
    "options", [{}, {"informative": 3}, {"informative": 2, "empty": 2, "order": "online"}]
)
def test_compressed_columns_stand_for_all_samples(
    num_train: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "CHUNK", 16)  # 131 samples are nine of them
    data = make(num_train=num_train, dim=6, outputs=3, replicas=2, **options)
    columns = data.compressed()
    n = min(num_train, 9)
    assert (columns[0].shape, columns[1].shape) == ((2, 6, n), (2, 3, n))
    rng = np.random.default_rng(0)
    for x, y, x_c, y_c in zip(data.problem.x, data.problem.y, *columns, strict=True):
        for a, b, a_c, b_c in ((x, x, x_c, x_c), (y, x, y_c, x_c), (y, y, y_c, y_c)):
            size = np.linalg.norm(a) * np.linalg.norm(b)
            assert np.abs(a_c @ b_c.T - sum(map(np.outer, a.T, b.T))).max() < 1e-14 * size
        for w in rng.standard_normal((5, 3, 6)):
            assert abs(squares(w, x_c, y_c) / squares(w, x, y) - 1) < 1e-13
        # One sample less is seen.
        assert abs(squares(w, x_c, y_c) / squares(w, x[:, 1:], y[:, 1:]) - 1) > 1e-5


def test_a_few_samples_are_not_compressed() -> None:
    for order in ORDERS:
        for num_train in (21, 22):
            data = make(num_train=num_train, order=order)
            found = data.compressed()
            assert ("problem" in data.__dict__) == (order != "online")
            assert np.array_equal(found[0], data.problem.x)
            assert np.array_equal(found[1], data.problem.y)
        assert not np.array_equal(make(num_train=23).compressed()[0], data.problem.x)


@pytest.mark.parametrize(("distance", "accuracy"), [(1e-3, 2e-13), (1e-6, 1e-10)])
def test_compressed_keeps_residuals_far_below_the_targets(distance: float, accuracy: float) -> None:
    data = make(num_train=20_000, dim=8, outputs=4, informative=8, init_scale=distance)
    x, y, w0 = (a[0] for a in data.problem)
    x_c, y_c = (a[0] for a in data.compressed())
    plain = []
    for times in (1, -1, 2, -2, 3, -3, 4, -4):
        w = data.teacher()[0] + times * w0
        expected = np.sqrt(squares(w, x, y))
        assert expected < 3 * abs(times) * distance * np.linalg.norm(y)
        assert abs(np.linalg.norm(w @ x_c - y_c) / expected - 1) < accuracy
        # Where squares are summed first, the residual is a difference of large numbers: rounding,
        # which at a single W may happen to be small.
        difference = np.trace(w @ (x @ x.T) @ w.T - 2 * (y @ x.T) @ w.T + y @ y.T)
        plain.append(abs(np.sqrt(abs(difference)) / expected - 1))
    assert max(plain) > 10 * accuracy
    floor = np.linalg.norm(data.teacher()[0] @ x_c - y_c)
    assert floor < 1e-14 * np.linalg.norm(y)


@pytest.mark.parametrize("dim", [6, 70])  # LAPACK factors 70 columns in blocks
def test_compressed_has_the_rank_of_x_and_its_zero_rows(tmp_path: Path, dim: int) -> None:
    rng = np.random.default_rng(dim)
    x = rng.standard_normal((dim, 3)) @ rng.standard_normal((3, 9000))
    x[2] = 0
    np.savez(tmp_path / "p.npz", X=x, Y=rng.standard_normal((2, 9000)))
    x_c = make(source=str(tmp_path / "p.npz"), replicas=2).compressed()[0]
    assert np.array_equal(x_c[0], x_c[1])
    assert np.flatnonzero(~x_c[0].any(axis=1)).tolist() == [2]
    (u, sigma, _), (u_c, sigma_c, _) = (np.linalg.svd(a, full_matrices=False) for a in (x, x_c[0]))
    assert np.allclose(sigma_c[:3], sigma[:3], rtol=1e-13, atol=0)
    assert sigma_c[3] < 1e-13 * sigma_c[0] < sigma_c[2]
    assert np.allclose(u_c[:, :3] @ u_c[:, :3].T, u[:, :3] @ u[:, :3].T, rtol=0, atol=1e-13)
    drawn = make(num_train=9000, dim=dim, empty=2).compressed()[0][0]
    assert drawn.any(axis=1).tolist() == [True] * (dim - 2) + [False] * 2
    assert np.linalg.matrix_rank(drawn) == dim - 2


def test_compressed_is_bitwise_that_of_each_replica_alone_and_made_once() -> None:
    for order in ("shuffle", "online"):
        together = make(seed=5, num_train=10_000, replicas=3, informative=2, order=order)
        x, y = together.compressed()
        assert together.compressed()[0] is x and "problem" not in together.__dict__
        for r in range(3):
            alone = make(seed=5 + r, num_train=10_000, informative=2).compressed()
            assert np.array_equal(x[r], alone[0][0]) and np.array_equal(y[r], alone[1][0])
        assert not np.array_equal(x[0], x[1])


def test_compressing_takes_memory_that_does_not_grow_with_n() -> None:
    peaks = []
    for num_train in (20_000, 200_000):
        data = make(num_train=num_train, dim=10, outputs=10, order="online")
        tracemalloc.start()
        data.compressed()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # All the samples: 3.2 and 32 MB.
    assert peaks[0] < 3e6 and peaks[1] < 1.1 * peaks[0]


class Recorder(LightningModule):
    """A module of anybody's: keeps the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.seen: list[list[Any]] = []

    def on_train_epoch_start(self) -> None:
        self.seen.append([])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen[-1].append(batch)
        return self.weight**2

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stepper(Recorder):
    """A module that says what its batches are."""

    def epochs_to_run(self) -> list[int]:
        return [7, 8]


def lightning(tmp_path: Path, epochs: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("batch_size", [3, 10, "full"])
@pytest.mark.parametrize("order", ORDERS)
def test_any_module_sees_the_minibatches_of_indices(
    order: Any, batch_size: Any, tmp_path: Path
) -> None:
    data, module = make(seed=4, order=order, batch_size=batch_size, replicas=2), Recorder()
    lightning(tmp_path, epochs=3).fit(module, datamodule=data)
    assert len(module.seen) == 3
    size = 3 if batch_size == 3 else 10
    for epoch, batches in enumerate(module.seen):
        x, y = (a[0].T[data.indices(epoch)[0]] for a in data.problem[:2])
        for i, batch in enumerate(batches):
            assert isinstance(batch, Batch) and batch.micro_batch_size == size
            assert batch.x.dtype == batch.y.dtype == torch.float64
            assert np.array_equal(batch.x, x[size * i : size * (i + 1)])
            assert np.array_equal(batch.y, y[size * i : size * (i + 1)])
        assert len(batches) == data.steps_per_epoch
    first = [module.seen[epoch][0].x.tolist() for epoch in (0, 1)]
    assert (first[0] == first[1]) == data.in_data_order


def test_a_module_that_steps_by_itself_says_what_its_batches_are(tmp_path: Path) -> None:
    data, module = make(), Stepper()
    lightning(tmp_path, epochs=2).fit(module, datamodule=data)
    assert [[int(batch) for batch in epoch] for epoch in module.seen] == [[7, 8]] * 2
    assert "problem" not in data.__dict__


def test_predict_takes_the_samples_in_data_order(tmp_path: Path) -> None:
    data = make(num_train=1200, order="shuffle", replicas=2)
    batches: Any = lightning(tmp_path, epochs=1).predict(Recorder(), datamodule=data)
    assert [len(batch.y) for batch in batches] == [500, 500, 200]
    assert np.array_equal(torch.cat([batch.x for batch in batches]), data.problem.x[0].T)
    assert np.array_equal(torch.cat([batch.y for batch in batches]), data.problem.y[0].T)
    assert [len(batch.y) for batch in make().predict_dataloader()[0]] == [10]


def test_loaders_need_no_trainer_and_follow_its_device() -> None:
    data = make(source="toy", batch_size=1)
    loader = data.train_dataloader()
    assert isinstance(loader, InMemoryBatches) and loader is data.train_dataloader()
    assert [batch.x.tolist() for batch in loader] == [[[1, 0, 0]], [[0, 1, 0]]]
    assert [batch.y.tolist() for batch in loader] == [[[0.5, 0]], [[0, 0.5]]]
    elsewhere: Any = SimpleNamespace(root_device=torch.device("meta"))
    trainer: Any = SimpleNamespace(strategy=elsewhere, lightning_module=None)
    data.trainer = trainer
    for moved in (data.train_dataloader(), *data.predict_dataloader()):
        assert isinstance(moved, InMemoryBatches)
        assert moved.x.device.type == moved.y.device.type == "meta"


def test_the_class_path_is_short() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_args(["--data=LinearProblem", "--data.batch_size=full"])
    assert config.data.class_path == "janus_pl.data.LinearProblem"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"num_train": 0}, "data.num_train: got 0"),
    ({"dim": 0}, "data.dim: got 0"),
    ({"outputs": -1}, "data.outputs: got -1"),
    ({"batch_size": 0}, "data.batch_size: got 0"),
    ({"batch_size": 11}, "data.batch_size: got 11, allowed: an integer from 1 to 10"),
    ({"replicas": 0}, "data.replicas: got 0"),
    ({"seed": -1}, "data.seed: got -1"),
    ({"informative": 0}, "data.informative: got 0"),
    ({"informative": 11, "empty": 1}, "data.informative: got 11, allowed: from 1 to 10"),
    ({"empty": 11}, "data.empty: got 11, allowed: from 0 to 10"),
    ({"empty": -1}, "data.empty: got -1"),
    ({"order": "random"}, "data.order: got 'random', allowed: sequential, shuffle"),
    ({"init": "ones"}, "data.init: got 'ones', allowed: zero, gaussian, given"),
    ({"init": "given"}, "data.init: got 'given', allowed: zero, gaussian"),
    ({"init_scale": float("nan")}, "data.init_scale: got nan"),
    ({"source": "gausian"}, 'data.source: got \'gausian\', allowed: "gaussian", "toy"'),
    ({"source": "toy", "dim": 4}, "data.dim: got 4, allowed: 3"),
    ({"source": "toy", "informative": 1}, "data.informative: got 1"),
    ({"source": "toy", "batch_size": 3}, "data.batch_size: got 3"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_a_mistake_is_named_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


X, Y = np.ones((2, 3)), np.ones((1, 3))
HOLE = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, np.inf]])
FILES: list[tuple[str, Any, str]] = [
    ("absent.npz", None, "No such file"),
    ("absent.csv", None, "No such file"),
    ("text.npz", "not an archive", "not a zip file"),
    ("empty.npz", "", "not a zip file"),
    ("a.npz", {"X": X}, "holds no Y, but X"),
    ("a.npz", {"y": Y, "Y": Y}, "holds no X, but y, Y"),
    ("a.npz", {"X": X, "Y": np.ones((1, 4))}, "X (d, N) is (2, 3) and Y (m, N) is (1, 4)"),
    ("a.npz", {"X": X, "Y": Y, "W0": np.ones((2, 2))}, "W0 is (2, 2), but X and Y make it (m, d)"),
    ("a.npz", {"X": HOLE, "Y": Y}, "X has nan in row 2, column 2"),
    ("a.npz", {"X": X, "Y": Y, "W0": [[1, -np.inf]]}, "W0 has -inf in row 1, column 2"),
    ("a.npz", {"X": X, "Y": np.ones(4)}, "Y (m, N) is (4,): N differs, read as features_first or"),
    ("a.npz", {"X": np.ones(3), "Y": Y}, "X is an array of shape (3,)"),
    ("a.npz", {"X": X, "Y": np.array([["a", "b", "c"]])}, "Y is an array of shape (1, 3)"),
    ("a.npz", {"X": X, "Y": np.array([[None] * 3])}, "allow_pickle"),
    ("a.npz", {"X": np.ones((2, 0)), "Y": np.ones((1, 0))}, "X is an array of shape (2, 0)"),
    ("empty.csv", "", "header"),
    ("a.csv", "x1,x2\n1,2\n", "header"),
    ("a.csv", "x1,y1\n", "X is an array of shape (1, 0)"),
    ("a.csv", "1,2\n3,4\n", "header"),
    ("a.csv", "x3,x1,y1\n1,2,3\n", "header 'x3,x1,y1' is not x1,...,xd,y1,...,ym (or y)"),
    ("a.csv", "x1,y1\n1,2\n3,oops\n", "row 2, column y1 is 'oops'"),
    ("a.csv", "x1,y1\n1,2\ninf,4\n", "row 2, column x1 is 'inf'"),
    ("a.csv", "x1,y1\n1,2,3\n", "row 1 has 3 values, not 2"),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES)
def test_a_file_that_is_no_good_is_named(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(UsageError) as caught:
        make(source=str(path))
    assert caught.value.field == "data.source" and caught.value.value == str(path)
    assert message in caught.value.allowed
    assert "\n" not in str(caught.value)


def test_options_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", X=X, Y=Y)
    source = str(tmp_path / "p.npz")
    for option, value in (
        ("informative", 1),
        ("empty", 1),
        ("batch_size", 4),
        ("init", "given"),
    ):
        with pytest.raises(UsageError) as caught:
            make(**{"source": source, option: value})
        assert caught.value.field == f"data.{option}"


def test_the_file_is_read_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", X=X, Y=Y)
    data = make(source=str(tmp_path / "p.npz"))
    (tmp_path / "p.npz").unlink()
    data.setup()
    assert np.array_equal(data.problem.x[0], X)
    assert data.problem is data.problem
