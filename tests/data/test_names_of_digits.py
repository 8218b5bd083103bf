"""Names of folders, columns and layers may be numbers, which YAML reads as integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from janus_pl.callbacks import LayerRank
from janus_pl.data import ImageFolderPair, LinearProblem
from janus_pl.errors import UsageError


def test_classes_are_text_whatever_yaml_reads() -> None:
    assert ImageFolderPair("nowhere", yaml.safe_load("[3, 8]")).classes == ("3", "8")
    assert ImageFolderPair("nowhere", yaml.safe_load("['08', 8]")).classes == ("08", "8")


@pytest.mark.parametrize("given", [[3, 3], [3, "3"], [3], [True, 8], [3.0, 8], [None, 8], 3, "38"])
def test_other_classes_are_refused(given: object) -> None:
    with pytest.raises(UsageError, match=r"data\.classes"):
        ImageFolderPair("nowhere", given)


def test_columns_may_be_numbers(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("1,2,9\n1,2,3\n4,5,6\n7,8,10\n")
    options = {"num_train": None, "dim": None, "outputs": None, "batch_size": 1}
    found = LinearProblem(source=str(file), x_columns=[2, 1], y_columns=[9], **options)
    named = LinearProblem(source=str(file), x_columns=["2", "1"], y_columns=["9"], **options)
    for problem in (found, named):
        problem.setup()
    assert (found.num_train, found.dim, found.outputs) == (3, 2, 1)
    assert found.facts == named.facts
    with pytest.raises(UsageError, match=r"data\.x_columns"):
        LinearProblem(source=str(file), x_columns=[True, 2], y_columns=[9], **options)


def test_layers_may_be_numbers() -> None:
    look = LayerRank(1, layers=[0, 2])
    assert [name for name in ("0", "1", "2", "20") if look.takes(name)] == ["0", "2"]


def test_a_float_of_numpy_is_no_name() -> None:
    with pytest.raises(UsageError):
        ImageFolderPair("nowhere", (np.float64(3), np.float64(8)))
