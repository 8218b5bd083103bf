"""Linear problems: what they hold, what their bits depend on, and how a mistake is named."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janus_pl.data import regression
from janus_pl.data.regression import LinearProblem
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


@settings(deadline=None, max_examples=25)
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
    ("a.npz", {"X": X, "Y": np.ones(3)}, "Y is an array of shape (3,)"),
    ("a.npz", {"X": X, "Y": np.array([["a", "b", "c"]])}, "Y is an array of shape (1, 3)"),
    ("a.npz", {"X": X, "Y": np.array([[None] * 3])}, "allow_pickle"),
    ("a.npz", {"X": np.ones((2, 0)), "Y": np.ones((1, 0))}, "X is an array of shape (2, 0)"),
    ("empty.csv", "", "header"),
    ("a.csv", "x1,x2\n1,2\n", "header"),
    ("a.csv", "x1,y1\n", "X is an array of shape (1, 0)"),
    ("a.csv", "1,2\n3,4\n", "header"),
    ("a.csv", "x2,x1,y1\n1,2,3\n", "header"),
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
        ("num_train", 4),
        ("dim", 3),
        ("outputs", 2),
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
