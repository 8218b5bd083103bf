"""Two and three processes against one: gradients, weights, order, record, collectives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed_cases import CASES, Result, problem, run_all, task_of
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch.multiprocessing import ProcessRaisedException

from janus_pl.deep.losses import LOSSES
from janus_pl.errors import UsageError
from janus_pl.run.rows import Histogram

OTHERS = (
    *("predict", "foreign", "foreign_csv", "foreign_refused", "foreign_noise"),
    *("batch_norm_refused", "sampler"),
)
FITS = [name for name in CASES if name not in OTHERS]
EXACT = {"float64": 1e-12, "float32": 1e-5}
SAMPLES = {"gd_even": 20, "gd_ragged_micro": 25, "gd_1001_by_7": 1001, "gd_1001_by_250": 1001}
MICRO_BATCHED = (*SAMPLES, "gd_odd", "gd_as_sgd", "gd_float32")


@pytest.fixture(scope="module")
def alone() -> Result:
    (results,) = run_all(1)
    return results


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.soak)])
def ranks(request: pytest.FixtureRequest) -> list[Result]:
    """The results of all cases on every one of 2 or 3 processes."""
    return run_all(request.param)


def tolerance(name: str) -> float:
    return EXACT["float32" if name.endswith("float32") else "float64"]


def error(found: Iterable[torch.Tensor], right: Iterable[torch.Tensor]) -> float:
    """The largest relative error of a tensor, by its Frobenius norm.

    A batch of one or two samples that all layers leave at zero has no gradient; then there must be
    none.
    """
    pairs = list(zip(found, right, strict=True))
    assert pairs
    return max(0.0 if torch.equal(a, b) else float((a - b).norm() / b.norm()) for a, b in pairs)


def full_gradient(
    name: str, x: torch.Tensor, y: torch.Tensor, **options: Any
) -> list[torch.Tensor]:
    """Of the mean loss over a batch, in one go, at the weights that every case starts from."""
    task = task_of(x.dtype, **options)
    trained = [p for p in task.parameters() if p.requires_grad]
    return [*torch.autograd.grad(LOSSES[task.loss_name](task(x), y).mean(), trained)]


@pytest.mark.parametrize("name", MICRO_BATCHED)
def test_the_gradient_is_that_of_the_full_batch(
    name: str, alone: Result, ranks: list[Result]
) -> None:
    n = SAMPLES.get(name, 21)
    dtype = torch.float32 if name.endswith("float32") else torch.float64
    right = full_gradient(name, *problem(n, dtype))
    for result in (alone, *ranks):
        assert error(result[name]["gradients"][0], right) < tolerance(name)


@pytest.mark.parametrize("name", FITS)
def test_every_step_is_that_of_one_process(name: str, alone: Result, ranks: list[Result]) -> None:
    one = alone[name]
    for result in ranks:
        many = result[name]
        assert many["steps"] == one["steps"]
        assert len(many["gradients"]) == len(one["gradients"]) > 0
        for found, right in zip(many["gradients"], one["gradients"], strict=True):
            if all(torch.isfinite(g).all() for g in right):
                assert error(found, right) < tolerance(name)
        assert all(g.norm() > 0 for g in one["gradients"][0])
        assert error(many["weights"], one["weights"]) < tolerance(name)


@pytest.mark.parametrize("name", FITS)
def test_the_order_of_samples_does_not_depend_on_the_processes(
    name: str, alone: Result, ranks: list[Result]
) -> None:
    for result in ranks:
        assert len(result[name]["labels"]) == len(alone[name]["labels"])
        for found, right in zip(result[name]["labels"], alone[name]["labels"], strict=True):
            assert torch.equal(found, right)


def called(result: Result) -> list[tuple[Any, ...]]:
    """Name, shape and dtype of every collective of a case."""
    return [call[:3] for call in result["collectives"]]


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (
            "extra",
            r"extra, collective \d+: rank 0: .*; rank 1: all_reduce \(3,\) float32 \(distributed",
        ),
        (
            "at the end",
            r"end, collective \d+: rank 0: the end; rank 1: barrier .*distributed_cases",
        ),
    ],
    ids=["extra", "at the end"],
)
def test_a_collective_of_one_process_alone_is_found_before_it_waits(group: str, says: str) -> None:
    """The negative controls: both would wait for each other until a timeout."""
    with pytest.raises(ProcessRaisedException, match=says):
        run_all(2, group)


@pytest.mark.parametrize("name", FITS)
def test_all_processes_hold_the_same_weights_after_as_many_collectives(
    name: str, ranks: list[Result]
) -> None:
    first, *others = ranks
    for other in others:
        assert called(other[name]) == called(first[name])
        for a, b in zip(other[name]["weights"], first[name]["weights"], strict=True):
            assert torch.equal(a, b)


def test_collectives_do_not_depend_on_micro_batches_and_are_two_a_step(ranks: list[Result]) -> None:
    """The sum over samples, and whether anything is not finite."""
    counts = {
        name: sum(call[0] == "all_reduce" for call in called(ranks[0][name])) for name in FITS
    }
    assert counts["gd_odd"] == counts["gd_even"] == counts["gd_ragged_micro"]
    # Five steps an epoch instead of three, in two epochs, of SGD.
    assert ranks[0]["sgd_single"]["steps"] - ranks[0]["sgd_ragged"]["steps"] == 4
    assert counts["sgd_single"] - counts["sgd_ragged"] == 2 * 4


def test_gd_is_sgd_with_b_equal_n(alone: Result, ranks: list[Result]) -> None:
    for result in (alone, *ranks):
        pairs = zip(result["gd_odd"]["weights"], result["gd_as_sgd"]["weights"], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_schedule_counts_epochs_and_there_is_one_step_in_each(ranks: list[Result]) -> None:
    expected = [0.003 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]
    for result in ranks:
        assert result["gd_cosine"]["steps"] == 4
        assert result["gd_cosine"]["rates"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["looked_at", "gd_looked_at", "tail_bound", "noise_time"])
def test_the_rows_are_those_of_one_process(name: str, alone: Result, ranks: list[Result]) -> None:
    kinds = {
        "looked_at": "margin velocity velocity_full rank equilibrium collapse update val train",
        "gd_looked_at": "margin velocity_full equilibrium gradient_noise train",
        "tail_bound": "tail_bound",
        "noise_time": "noise_time",
    }[name]
    assert set(kinds.split()) <= {key.split("/")[0] for key in alone[name]["rows"][-1]}
    for result in ranks:
        rows = zip(result[name]["rows"], alone[name]["rows"], strict=True)
        for found, right in rows:
            assert found.keys() == right.keys()
            for key, value in right.items():
                if isinstance(value, Histogram):
                    assert found[key].counts.sum() == value.counts.sum()
                elif isinstance(value, int | float):
                    # Ranks compare singular values with a threshold, and differ by whole numbers.
                    assert found[key] == pytest.approx(value, rel=1e-8, abs=1e-15, nan_ok=True), key


def test_all_processes_find_the_sharpness_of_one(alone: Result, ranks: list[Result]) -> None:
    # Not how near to the tolerance a search ends, nor after how many products.
    kinds = ("hessian", "preconditioned", "batch", "limit", "ratio")
    for name in ("sharpness", "sharpness_preconditioned"):
        for result in ranks:
            for found, right in zip(result[name]["rows"], alone[name]["rows"], strict=True):
                for key in (f"sharpness/{kind}" for kind in kinds):
                    assert (key in found) == (key in right), key
                    assert found.get(key, 0) == pytest.approx(right.get(key, 0), rel=1e-8), key
                assert found == ranks[0][name]["rows"][int(found["epoch"])]
        assert alone[name]["rows"][-1]["sharpness/ratio"] > 0
    assert "sharpness/preconditioned" in alone["sharpness_preconditioned"]["rows"][-1]


def test_a_sample_that_is_not_finite_stops_all_at_the_same_step(
    alone: Result, ranks: list[Result]
) -> None:
    assert "step 2," in alone["diverged"]["error"]
    for result in ranks:
        assert result["diverged"]["error"] == alone["diverged"]["error"]
        assert all(torch.isfinite(w).all() for w in result["diverged"]["weights"])


def test_every_process_has_every_margin_and_the_first_one_writes(
    alone: Result, ranks: list[Result]
) -> None:
    for result in ranks:
        right = alone["predict"]["margins"]
        assert right.shape == (7,)
        torch.testing.assert_close(result["predict"]["margins"], right, rtol=1e-12, atol=1e-15)
    first, *others = [result["predict"]["file"] for result in ranks]
    assert [line.split(",")[:2] for line in first[1:]] == [["train", str(i)] for i in range(7)]
    written = torch.tensor([float(line.split(",")[2]) for line in first[1:]], dtype=torch.float64)
    torch.testing.assert_close(written, right, rtol=1e-12, atol=1e-15)
    assert others == [None] * len(others)
    # Another module's samples are divided among the processes by Lightning.
    for result in ranks:
        assert result["foreign_csv"]["error"].startswith(f"trainer.devices: got {len(ranks)}, ")


def test_modules_of_others_are_looked_at_alike_by_all(alone: Result, ranks: list[Result]) -> None:
    first, *others = [result["foreign"] for result in ranks]
    start, row = first["rows"]
    kinds = {key.split("/")[0] for key in row}
    assert {"margin_raw", "velocity", "rank", "collapse", "update", "tail_bound"} <= kinds
    assert row["margin_raw/mean"] == pytest.approx(first["margin"], rel=1e-12)
    assert (start["epoch"], row["epoch"]) == (0, 1)
    steps = math.ceil(10 / len(ranks) / 4)
    assert (
        row["trainer/global_step"]
        == steps
        < 3
        == alone["foreign"]["rows"][1]["trainer/global_step"]
    )
    assert row["eta_t"] == pytest.approx(0.1 * steps)
    for other in others:
        assert other["rows"] == first["rows"]
    # Before the first step every process sees what a single one does.
    assert start.keys() == alone["foreign"]["rows"][0].keys()
    for key, value in alone["foreign"]["rows"][0].items():
        if isinstance(value, int | float):
            assert start[key] == pytest.approx(value, rel=1e-12), key


def test_a_question_that_a_module_cannot_answer_is_refused_by_all(
    alone: Result, ranks: list[Result]
) -> None:
    for result in (alone, *ranks):
        assert result["foreign_refused"]["error"].startswith(
            "callbacks.LayerVelocity.full_every_n_epochs: got 'Foreign', allowed: a module that can"
        )


def test_noise_and_collapse_of_a_foreign_module_are_of_all_samples_in_any_number_of_processes(
    alone: Result, ranks: list[Result]
) -> None:
    expected = numbers_of_looks(alone["foreign_noise"]["rows"][0])
    kinds = {"gradient_noise/covariance/alignment", "gradient_noise/scale/dense"}
    assert expected.keys() >= kinds | {"collapse/nc1", "collapse/nc1/dense"}
    assert numbers_of_looks(ranks[0]["foreign_noise"]["rows"][0]) == pytest.approx(
        expected, rel=1e-10
    )


def numbers_of_looks(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith(("gradient_noise/", "collapse/"))}


def test_lightnings_sampler_with_mean_reduction_fails_the_same_test(
    alone: Result, ranks: list[Result]
) -> None:
    """The negative control: 1,001 samples, padded, and the mean of the processes' means."""
    sampler = alone["sampler"]
    assert error(sampler["gradients"][0], sampler["full"]) < EXACT["float64"]
    for result in ranks:
        found = error(result["sampler"]["gradients"][0], result["sampler"]["full"])
        assert found > 1e-3 > EXACT["float32"]


@pytest.mark.parametrize(("strategy", "accepted"), [(DDPStrategy, True), (FSDPStrategy, False)])
def test_a_network_that_is_cut_into_pieces_is_refused(
    strategy: Any, accepted: bool, small_task: Any
) -> None:
    trainer: Any = SimpleNamespace(val_check_interval=1.0, strategy=strategy())
    refused = pytest.raises(
        UsageError, match=r"trainer\.strategy: got 'FSDPStrategy', allowed: auto"
    )
    with nullcontext() if accepted else refused:
        small_task().check_run(trainer)


def test_batch_normalization_is_refused_with_several_processes(
    alone: Result, ranks: list[Result]
) -> None:
    assert alone["batch_norm_refused"]["error"] == ""
    for results in ranks:
        assert results["batch_norm_refused"]["error"] == (
            f"trainer.devices: got {len(ranks)}, allowed: 1: the statistics of layers.norm1 are of"
            " one process; GroupNorm has none"
        )
