"""Linear problems from files: layouts, columns by name, sizes, extremes; what was understood."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from janus_pl.data import LinearProblem
from janus_pl.data.linear_files import FileOptions, read_problem
from janus_pl.errors import UsageError
from janus_pl.run.files import save_arrays

RNG = np.random.default_rng(0)
X, Y, W0 = RNG.standard_normal((3, 5)), RNG.standard_normal((2, 5)), RNG.standard_normal((2, 3))


def npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def table(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refusal(source: str, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        LinearProblem(source, **options).setup()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Layouts


def test_a_layout_that_alone_fits_is_taken(tmp_path: Path) -> None:
    files = {
        "features": {"X": X, "Y": Y, "W0": W0},
        "samples": {"X": X.T, "Y": Y.T, "W0": W0},
        "square features": {"X": X[:, :3], "Y": RNG.standard_normal((3, 3))[:2], "W0": W0},
        "lower": {"X": X.T, "y": Y.T},
    }
    for name, arrays in files.items():
        given = read_problem(npz(tmp_path / f"{name}.npz", **arrays))
        y = arrays.get("Y", arrays.get("y"))
        expected = (arrays["X"], y) if "features" in name else (arrays["X"].T, y.T)
        assert np.array_equal(given.x, expected[0]) and np.array_equal(given.y, expected[1])
        told = f"X as {'features' if 'features' in name else 'samples'}_first"
        assert told in given.told


def test_y_alone_is_one_target(tmp_path: Path) -> None:
    for x in (X, X.T):
        given = read_problem(npz(tmp_path / "p.npz", X=x, y=Y[0], W0=W0[0]))
        assert np.array_equal(given.x, X)
        assert np.array_equal(given.y, Y[:1]) and np.array_equal(given.w0, W0[:1])
    given = read_problem(table(tmp_path / "p.csv", "x,y\n1,2\n3,4\n"))
    assert (given.x.tolist(), given.y.tolist()) == ([[1, 3]], [[2, 4]])


@pytest.mark.parametrize("arrays", [{"Y": RNG.standard_normal((3, 5))}, {}], ids=["m=d", "square"])
def test_two_layouts_need_the_option(arrays: dict[str, Any], tmp_path: Path) -> None:
    """The orientation of scikit-learn was taken for N = d, in silence."""
    held = {"X": X, **arrays} if arrays else {"X": X[:, :3], "y": Y[0, :3]}
    source = npz(tmp_path / "p.npz", **held)
    message = refusal(source)
    assert message.startswith("data.layout: got None, allowed: features_first (X is (d, N))")
    x = held["X"]
    for layout, expected in (("features_first", x), ("samples_first", x.T)):
        data = LinearProblem(source, layout=layout)
        data.setup()
        assert np.array_equal(data.problem.x[0], expected)
        assert data.problem.y.shape[2] == data.num_train == expected.shape[1]


def test_w0_decides_and_equal_readings_need_no_option(tmp_path: Path) -> None:
    y = RNG.standard_normal((3, 5))
    given = read_problem(npz(tmp_path / "p.npz", X=X, Y=y, W0=np.ones((3, 3))))
    assert given.x.shape == (3, 5)
    given = read_problem(npz(tmp_path / "p.npz", X=X, Y=y, W0=np.ones((5, 5))))
    assert given.x.shape == (5, 3)
    given = read_problem(npz(tmp_path / "p.npz", X=np.eye(2), Y=np.diag([2.0, 3.0])))
    assert given.x.tolist() == np.eye(2).tolist()


def test_the_file_of_a_run_says_its_layout(tmp_path: Path) -> None:
    from janus_pl.linear.record import save_problem

    data = LinearProblem(num_train=4, dim=4, outputs=4)
    data.setup()
    save_problem(tmp_path, data)
    again = LinearProblem(str(tmp_path / "problem.npz"))
    again.setup()
    assert np.array_equal(again.problem.x, data.problem.x)
    save_arrays(tmp_path / "problem.npz", X=np.ones((2, 3)), Y=np.ones((1, 3)), layout="upright")
    assert "layout is 'upright'" in refusal(str(tmp_path / "problem.npz"))


def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = npz(tmp_path / "p.npz", X=X, Y=Y)
    assert "N differs, read as samples_first" in refusal(source, layout="samples_first")
    assert refusal(source, layout="rows").startswith("data.layout: got 'rows', allowed: features_f")


# Sizes and what is said of them


def test_the_file_decides_over_the_sizes_of_a_config(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = npz(tmp_path / "p.npz", X=X, Y=Y, extra=X, names=["a"])
    data = LinearProblem(source, num_train=10, dim=11, outputs=2, init="zero")
    with caplog.at_level("INFO"):
        data.setup()
        data.setup()
    assert (data.num_train, data.dim, data.outputs) == (5, 3, 2)
    assert [r.getMessage() for r in caplog.records if not r.name.startswith("wandb")] == [
        f"data.source: {source!r} holds N = 5, d = 3, m = 2, X as features_first, no W0,"
        " ignored: extra names; it decides, not num_train 10, dim 11"
    ]
    assert refusal("toy", dim=4).startswith("data.dim: got 4, allowed: 3")
    for option in ("informative", "empty"):
        assert refusal(source, **{option: 1}).startswith(f"data.{option}: got 1")


# Columns


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_found_by_name_whatever_separates_them(delimiter: str, tmp_path: Path) -> None:
    text = "id,y1,x2,x1,y2\na,1,2,3,4\nb,5,6,7,8\n".replace(",", delimiter)
    given = read_problem(table(tmp_path / "p.CSV", text))
    assert given.x.tolist() == [[3, 7], [2, 6]] and given.y.tolist() == [[1, 5], [4, 8]]
    separated = {",": "", ";": ", separated by ';'", "\t": ", separated by tabs"}[delimiter]
    assert given.told == (
        f"N = 2, d = 2, m = 2, x is x1 x2, y is y1 y2{separated}, no W0, ignored: id"
    )


def test_columns_are_chosen(tmp_path: Path) -> None:
    source = table(tmp_path / "p.csv", "age,size,price,y\n1,2,3,4\n5,6,7,8\n")
    given = read_problem(source, FileOptions(None, ["size"], ["price", "age"]))
    assert given.x.tolist() == [[2, 6]] and given.y.tolist() == [[3, 7], [1, 5]]
    assert given.told.endswith("ignored: y")
    given = read_problem(source, FileOptions(None, None, ["price"]))
    assert given.x.tolist() == [[1, 5], [2, 6], [4, 8]]
    given = read_problem(source, FileOptions(None, ["size"]))
    assert given.y.tolist() == [[4, 8]]
    assert "prize missing" in refusal(source, y_columns=["prize"])
    for names in ([], ["age", "age"], "age", [3.5]):
        assert refusal(source, x_columns=names).startswith(f"data.x_columns: got {names!r}")
    both = refusal(source, x_columns=["age"], y_columns=["age"])
    assert both.startswith("data.y_columns: got ['age']")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x1,x1,y\n1,2,3\n", "has 'x1' twice"),
        ("x1;y\n1,5;2\n", "column x1 is '1,5', no finite number"),
        ("x1,x3,y\n1,2,3\n", "x2 missing"),
        ("x1,x999999999999,y\n1,2,3\n", "x2, x3 missing"),
        ("y1\n1\n", "is not x1"),
        ("x1,y1\n1,1e200\n", "row 1, column y1 is '1e200', no number up to 1e+100"),
        ("x1,y1\n1\n", "row 1 has 1 values, not 2"),
        ("x1,y1\n1,2\x00\n", "data.source"),
        ("x1,y1\n" + "1" * 200_000 + ",2\n", "field larger than field limit"),
    ],
)
def test_a_table_that_is_no_good_is_named(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(table(tmp_path / "p.csv", text))


@pytest.mark.parametrize(
    ("source", "option", "value"),
    [
        ("gaussian", "layout", "samples_first"),
        ("toy", "x_columns", ["a"]),
        ("p.csv", "layout", "samples_first"),
        ("p.npz", "y_columns", ["a"]),
    ],
)
def test_an_option_without_use_is_refused(source: str, option: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^data\.{option}: got .* it is of \.(npz|csv) files"):
        LinearProblem(source, **{option: value})


# Extremes, and what is no file


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X * 1e200}, "X has "),
        ({"X": X * 1e-310}, "X has no entry above "),
        ({"Y": np.hstack([Y[:, :4], np.full((2, 1), 1e-310)])}, "Y of sample 5 has no entry above"),
        ({"W0": W0 * 1e-200}, "W0 has no entry above"),
        ({"X": X.astype(np.longdouble) * np.longdouble("1e1000")}, "X has inf"),
        ({"X": X > 0}, "type bool"),
        ({"y": Y}, "both Y and y"),
    ],
)
def test_numbers_whose_squares_are_none_are_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in refusal(npz(tmp_path / "p.npz", **{"X": X, "Y": Y, **arrays}))


def test_zeros_and_single_tiny_entries_are_numbers(tmp_path: Path) -> None:
    x, y = X.copy(), Y.copy()
    x[0, 0], y[:, 1], y[0, 0] = 1e-310, 0, 1e-310
    given = read_problem(npz(tmp_path / "p.npz", X=x, Y=y, W0=W0 * 0))
    assert np.array_equal(given.x, x) and np.array_equal(given.y, y)


def header(shape: str, descr: str = "<f8", version: int = 1) -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def archive(path: Path, x: bytes, kind: int = zipfile.ZIP_STORED) -> str:
    whole = io.BytesIO()
    np.save(whole, Y)
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("X.npy", x)
        file.writestr("Y.npy", whole.getvalue())
    return str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(100000, 100000)"), "claims 80000000000 bytes and holds 0"),
        (header("(-3, 5)"), "data.source"),
        (header("(3, 5)", "|O"), "allow_pickle"),
        (header("(3, 5)")[:40], "data.source"),
        (header("(3, 5"), "data.source"),
        (header("((" * 300), "data.source"),
        (header("(3, 5)", version=9), "data.source"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "data.source"),
        (b"", "data.source"),
    ],
)
def test_a_header_that_lies_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(archive(tmp_path / "p.npz", content))


def test_archives_of_other_kinds_are_one_line(tmp_path: Path) -> None:
    source = npz(tmp_path / "p.npz", X=X, Y=Y)
    data = bytearray(Path(source).read_bytes())
    place = data.index(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 97)):  # encrypted; a method that nobody has
        other = bytearray(data)
        other[place + offset] = value
        (tmp_path / "q.npz").write_bytes(other)
        assert refusal(str(tmp_path / "q.npz")).startswith("data.source: got ")
    np.savez_compressed(tmp_path / "c.npz", X=X, Y=Y)
    assert np.array_equal(read_problem(str(tmp_path / "c.npz")).x, X)


@pytest.mark.parametrize(
    "name", ["a\0b.npz", "x" * 300 + ".csv", "~nobody-of-this-name/p.npz", "loop.npz", "pipe.csv"]
)
def test_a_path_that_is_no_file_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    os.symlink("loop.npz", "loop.npz")
    os.mkfifo("pipe.csv")  # opened, it would wait for ever
    assert refusal(name).startswith(f'data.source: got {name!r}, allowed: "gaussian"')
