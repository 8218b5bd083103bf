"""A sweep knows the data of its runs: other data are refused, equal data elsewhere are done."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.test_other_data import write_images
from data.test_fingerprint import change_pixel, swap_classes
from sweep.driving import write_sweep

from janus_pl.cli.main import main
from janus_pl.cli.sweep import Resolver
from janus_pl.errors import UsageError
from janus_pl.sweep.file import load, points
from janus_pl.sweep.plan import PlannedRun, plan

CONFIG = {
    "model": {
        "class_path": "janus_pl.DeepReLUClassifier",
        "init_args": {"image_size": 16, "strides": [2, 1, 1, 1]},
    },
    "data": {
        "class_path": "janus_pl.data.ImageFolderPair",
        "init_args": {"image_size": 16, "batch_size": 4, "num_train": 8, "root": "images"},
    },
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    write_images(tmp_path / "images")
    return tmp_path


def planned(root: str | list[str] = "images", fetch: bool = False, **more: Any) -> list[PlannedRun]:
    Path("images.yaml").write_text(yaml.safe_dump(CONFIG))
    write_sweep(Path(), **{"data.root": root, **more})
    text = Path("some.yaml").read_text().replace("quickstart.yaml", "images.yaml")
    Path("some.yaml").write_text(text)
    sweep = load("some.yaml")
    resolve = Resolver(fetch)
    return plan(sweep, points(sweep), [], resolve, resolve.data_of)


def end(run: PlannedRun) -> None:
    """Leave what a run that is done leaves."""
    run.folder.mkdir(parents=True)
    (run.folder / "outcome.json").write_text('{"exit_code": 0}')
    (run.folder / "config.yaml").write_text("model: {}")
    described: dict[str, Any] = {
        "task": "",
        "kind": "network",
        "margin": "normalized",
        "optimizer": "SGD",
    }
    described |= {"whole": False, "layers": [], "data": {"pool": run.data, "sha256": "?"}}
    (run.folder / "description.json").write_text(json.dumps(described))


def states(capsys: pytest.CaptureFixture, *options: str) -> list[str]:
    assert main(["sweep", "some.yaml", "--dry-run", *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    return [row.split("│")[-3].strip() for row in rows]


def test_an_id_ends_in_the_fingerprint_and_seeds_share_it() -> None:
    runs = planned(**{"data.seed": [0, 1]})
    ends = {run.id.partition("-")[2] for run in runs}
    assert len({run.id for run in runs}) == 2
    assert ends == {str(runs[0].data)[:8]}


def test_equal_data_elsewhere_are_the_same_run(capsys: pytest.CaptureFixture) -> None:
    (run,) = planned()
    end(run)
    shutil.move("images", "moved")
    (again,) = planned("moved")
    assert again.id == run.id
    assert states(capsys) == ["done before"]


def test_points_on_two_data_are_two_runs() -> None:
    shutil.copytree("images", "same")
    shutil.copytree("images", "other")
    change_pixel(Path("other"))
    runs = planned(["images", "same", "other"])
    assert [run.config["data"]["init_args"]["root"] for run in runs] == ["images", "other"]


def test_other_data_are_refused_or_trained_on_beside(capsys: pytest.CaptureFixture) -> None:
    runs = planned(**{"data.seed": [0, 1]})
    for run in runs:
        end(run)
    swap_classes(Path("images"))
    now = planned(**{"data.seed": [0, 1]})
    assert main(["sweep", "some.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: data: got 'sha256 {str(now[0].data)[:8]}', allowed: those of {runs[0].folder},"
        f" sha256 {str(runs[0].data)[:8]}, or --allow_data_change to train anew"
    )
    assert states(capsys, "--allow_data_change") == ["new", "new"]
    swap_classes(Path("images"))
    assert states(capsys) == ["done before"] * 2


def test_a_folder_with_other_data_than_its_id_says_is_never_taken() -> None:
    (run,) = planned()
    end(run)
    (other,) = planned(**{"data.image_size": 16})
    described = json.loads((run.folder / "description.json").read_text())
    described["data"]["pool"] = "c" * 64
    (run.folder / "description.json").write_text(json.dumps(described))
    for flag in ([], ["--allow_data_change"]):
        assert main(["sweep", "some.yaml", "--dry-run", *flag]) == 2
    assert other.id == run.id


def test_data_that_are_not_there_leave_a_dry_run_without_a_fingerprint(
    capsys: pytest.CaptureFixture,
) -> None:
    (run,) = planned("nowhere")
    assert run.data is None
    assert "-" not in run.id
    assert states(capsys) == ["new"]
    assert main(["sweep", "some.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data.root: got 'nowhere', allowed: a folder that holds train/")
    assert not Path("runs").exists()


def test_somebody_elses_data_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.demos.boring_classes import BoringDataModule

    monkeypatch.setattr(BoringDataModule, "setup", lambda *_: pytest.fail("set up"))
    write_sweep(Path(), **{"model.hidden": 8})
    sweep, resolve = load("some.yaml"), Resolver(fetch=True)
    foreign = ["--data", "lightning.pytorch.demos.boring_classes.BoringDataModule"]
    (run,) = plan(sweep, points(sweep), foreign, resolve, resolve.data_of)
    assert run.data is None


def test_data_are_read_once_for_all_runs_that_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from janus_pl.data import ImageFolderPair

    read, calls = ImageFolderPair.read, []

    def counted(self: ImageFolderPair) -> Any:
        calls.append(self.seed)
        return read(self)

    monkeypatch.setattr(ImageFolderPair, "read", counted)
    assert len(planned(**{"data.seed": [0, 1, 2], "data.order": ["shuffle", "sequential"]})) == 6
    assert len(calls) == 1


def test_a_subset_that_is_too_large_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"data.num_train: got 900"):
        planned(fetch=True, **{"data.num_train": 900})
