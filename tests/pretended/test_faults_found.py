"""The pretended device finds planted faults with their lines, and is as strict as a real one."""

from __future__ import annotations

from pathlib import Path

from pretended import checks, faults
from pretended.runs import Request, ask, run
from pretended.test_runs_on_it import QUICKSTART, QUIET

ONE_EPOCH = (*QUICKSTART, *QUIET, "--trainer.max_epochs=1", "--trainer.limit_val_batches=0")
STEPS = 3


def test_a_number_in_a_step_is_found_with_its_line(library: Path, tmp_path: Path) -> None:
    report = run(Request(tmp_path, ONE_EPOCH, library, before=faults.number_in_a_step))
    assert (report.code, report.error) == (0, "")
    place = faults.place_of(faults.number_in_a_step, "float(losses[0])")
    assert checks.waits_within_steps(report.watch) == [f"number for the host at {place}"] * STEPS


def test_a_host_tensor_in_the_guard_is_found_with_its_line(library: Path, tmp_path: Path) -> None:
    report = run(Request(tmp_path, ONE_EPOCH, library, before=faults.host_tensor_in_the_guard))
    assert report.code != 0
    assert "Expected all tensors to be on the same device" in report.error
    assert 'janus_pl/training/guard.py", line' in report.error
    assert len(report.watch.steps) == 1, "the first step finds it"


def test_memory_is_not_a_number_until_it_is_written(library: Path, tmp_path: Path) -> None:
    found = ask(library, tmp_path, faults.unset)
    assert len(found) == 3
    assert all(found.values()), found


def test_every_wait_is_told(library: Path, tmp_path: Path) -> None:
    assert ask(library, tmp_path, faults.waited) == {
        "number": ["number for the host"],
        "list": ["copy to the host"],
        "truth": ["number for the host"],
        "mask": ["size of a result"],
        "written by a mask": ["size of a result"],
        "equal": ["size of a result"],
        "to the device": ["copy to the device"],
        "to the device, unwaited": [],
        "host index": ["copy to the device"],
        "eigenvalues": ["solver"],
        "arithmetic": [],
        "view": [],
        "in a backward pass": ["number for the host"],
    }


def test_tensors_of_two_devices_do_not_mix(library: Path, tmp_path: Path) -> None:
    found = ask(library, tmp_path, faults.mixed)
    mixes = {name for name, error in found.items() if "on the same device" in error}
    assert mixes == {"sum", "cat", "foreach", "linear", "convolution"}
    assert found["a number"] == found["own"] == ""


def test_a_list_of_tensors_is_one_operation(library: Path, tmp_path: Path) -> None:
    assert ask(library, tmp_path, faults.counted) == {"aten::_foreach_norm": 1, "aten::mul": 1}


def test_float64_can_be_switched_off(library: Path, tmp_path: Path) -> None:
    found = ask(library, tmp_path, faults.without_float64)
    refused = {name for name, error in found.items() if "has no float64" in error}
    assert refused == {"double", "made", "summed"}
    assert found["float32"] == found["on the host"] == ""


def test_batch_normalization_keeps_its_statistics(library: Path, tmp_path: Path) -> None:
    assert ask(library, tmp_path, faults.running_statistics) == 0.0
