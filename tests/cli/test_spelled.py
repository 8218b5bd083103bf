"""`callbacks.X` of older configs and `janus_pl.callbacks.X`: one class, one id, one run."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

import janus_pl.callbacks
from janus_pl.cli.lightning_cli import ConfigReader
from janus_pl.cli.main import main
from janus_pl.cli.resume import interrupted_run
from janus_pl.cli.spelled import in_package, spell
from janus_pl.errors import UsageError
from janus_pl.records.archive import read_archive
from janus_pl.run.folder import FREE, FREE_OF_TRAINER, changes, identity
from janus_pl.run.history import entry_of

GOLDEN = ROOT / "tests" / "golden"
RECORDED = ROOT / "docs" / "results"
ARCHIVES = ("default_network", "two_cores_theory", "linear-a1")
OLD, NEW = "callbacks.", "janus_pl.callbacks."
RAISES = "raise RuntimeError('this file is not for janus_pl')\n"
MINE = "from lightning.pytorch import Callback\n\n\nclass Mine(Callback):\n    pass\n"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DRY = ["--trainer.fast_dev_run=true", *QUIET]


def golden(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")))


def archived() -> list[dict[str, Any]]:
    """The configs of recorded runs."""
    return [
        dict(part.config)
        for name in ARCHIVES
        for part in read_archive(RECORDED / f"{name}.jsonl.xz")
    ]


def respelled(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the package's spelling, by way of its text."""
    text = json.dumps(config)
    assert f'"{OLD}' in text
    return dict(json.loads(text.replace(f'"{OLD}', f'"{NEW}')))


def id_as_recorded(config: dict[str, Any]) -> str:
    """The id of a config, computed from its texts as they are."""
    flat: dict[str, Any] = {}

    def walk(part: dict[str, Any], above: str) -> None:
        for key, value in part.items():
            name = above + key
            if name in FREE or name.removeprefix("trainer.") in FREE_OF_TRAINER:
                continue
            walk(value, f"{name}.") if isinstance(value, dict) else flat.update({name: value})

    walk(config, "")
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:12]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory as `python -m janus_pl` has it: first on the path, nothing imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "callbacks"}
    for name in before:
        del sys.modules[name]
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] == "callbacks"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_a_module_is_one_object_under_both_names() -> None:
    older = importlib.import_module("callbacks")
    if not getattr(older, "__file__", None):
        pytest.skip("no folder callbacks beside the package: this is no checkout")
    assert older is janus_pl.callbacks
    files = sorted((ROOT / "callbacks").glob("*.py"))
    assert len(files) > 10
    for file in files:
        if file.stem == "__init__":
            continue
        one, other = (importlib.import_module(f"{name}{file.stem}") for name in (OLD, NEW))
        assert one is other
        assert one.__name__ == f"{NEW}{file.stem}"


def test_ids_of_recorded_configs_are_those_of_both_spellings() -> None:
    configs = archived()
    assert len(configs) == 5
    for config in configs:
        new = respelled(config)
        assert identity(config) == identity(new) == id_as_recorded(config)
        assert id_as_recorded(new) != id_as_recorded(config)  # what the ids would have become
        assert changes(config, new) == changes(new, config) == {}


def test_other_callbacks_are_a_change_that_names_them_as_given() -> None:
    config = golden("quickstart_sgd")
    new = respelled(config)
    new["trainer"]["callbacks"] = new["trainer"]["callbacks"][1:]
    (key,) = changed = changes(config, new)
    assert key == "trainer.callbacks"
    assert changed[key][0][0]["class_path"] == "callbacks.MarginHistogram"
    assert changed[key][1][0]["class_path"] == "janus_pl.callbacks.LayerVelocity"
    assert identity(config) != identity(new)


def test_texts_of_other_options_keep_their_spelling() -> None:
    here, there = ({"model": {"note": f"{s}LayerRank"}} for s in (OLD, NEW))
    assert changes(here, there)
    assert identity(here) != identity(there)
    given = {"name": "callbacks.LayerRank", "model": {"init_args": {"note": "callbacks.LayerRank"}}}
    assert in_package(given) == given


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"class_path": "callbacks.LayerRank"}, {"class_path": "janus_pl.callbacks.LayerRank"}),
        (
            {"trainer": {"callbacks+": ["callbacks.layer_rank.LayerRank", "callbacks.Mine"]}},
            {"trainer": {"callbacks+": ["janus_pl.callbacks.layer_rank.LayerRank", OLD + "Mine"]}},
        ),
        ({"trainer.callbacks": "callbacks.LayerRank"}, {"trainer.callbacks": NEW + "LayerRank"}),
        (
            {"class_path": "lightning.pytorch.callbacks.Timer"},
            {"class_path": "lightning.pytorch.callbacks.Timer"},
        ),
        ({"class_path": "my.callbacks.LayerRank"}, {"class_path": "my.callbacks.LayerRank"}),
        ({"class_path": "callbacks.__doc__"}, {"class_path": "callbacks.__doc__"}),
    ],
)
def test_files_are_read_with_the_packages_spelling(given: Any, read: Any) -> None:
    assert in_package(given) == read
    assert in_package([given, 3]) == [read, 3]


def test_arguments_are_read_with_the_packages_spelling() -> None:
    line = ["fit", "--trainer.callbacks", "callbacks.LayerRank", "--name", "callbacks.LayerRank"]
    assert spell(line)[2] == "janus_pl.callbacks.LayerRank"
    assert spell(line)[4] == "callbacks.LayerRank"
    both = "--trainer.callbacks=[{class_path: callbacks.LayerRank}, callbacks.Mine]"
    (read,) = spell([both])
    assert (
        read == "--trainer.callbacks=[{class_path: janus_pl.callbacks.LayerRank}, callbacks.Mine]"
    )


def resolved(*line: str) -> dict[str, Any]:
    args = ["fit", "--config", "quickstart.yaml", *line]
    return ConfigReader(args).resolve(args)


def test_a_config_resolves_alike_from_both_spellings(in_folder: Path) -> None:
    (in_folder / "callbacks.py").write_text(RAISES)
    looks = golden("quickstart_sgd")["trainer"]["callbacks"]
    for name, given in (("old", looks), ("new", respelled({"all": looks})["all"])):
        (in_folder / f"{name}.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": given}}))
    old, new = (resolved("--config", f"{name}.yaml") for name in ("old", "new"))
    assert old == new
    assert old["trainer"]["callbacks"][0]["class_path"] == "janus_pl.callbacks.MarginHistogram"
    given = json.dumps(looks)
    assert resolved(f"--trainer.callbacks={given}") == new
    assert json.dumps(new).count(f'"{OLD}') == 0


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_named_callbacks_in_the_working_directory_breaks_nothing(
    kind: str, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = (
        in_folder / "callbacks.py" if kind == "file" else in_folder / "callbacks" / "__init__.py"
    )
    place.parent.mkdir(exist_ok=True)
    place.write_text(RAISES)
    line = ["fit", "--config", "quickstart.yaml", *DRY]
    assert main([*line, "--trainer.callbacks+=callbacks.LayerRotation"]) == 0
    # A class that is none of ours is theirs, and their file is at fault.
    assert main([*line, "--trainer.callbacks+=callbacks.Mine"]) == 2
    assert "callbacks.Mine" in capsys.readouterr().err


def test_callbacks_of_ones_own_are_found_beside_ours(in_folder: Path) -> None:
    (in_folder / "callbacks.py").write_text(MINE)
    own, ours = resolved("--trainer.callbacks=[callbacks.Mine, callbacks.LayerRank]")["trainer"][
        "callbacks"
    ]
    assert own["class_path"] == "callbacks.Mine"
    assert ours["class_path"] == "janus_pl.callbacks.LayerRank"


def test_an_interrupted_run_of_an_older_config_is_gone_on_with(tmp_path: Path) -> None:
    config = golden("quickstart_sgd")
    run = tmp_path / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    new = respelled(config)
    assert interrupted_run(tmp_path, new, may_differ=False) == run
    state = {"global_step": 4, "config": config}
    entry = entry_of(run / "checkpoints" / "last.ckpt", state, new, resumes=True)
    assert entry == {"step": 4, "changed": {}}
    new["trainer"]["callbacks"][0]["init_args"]["bins"] += 1
    with pytest.raises(UsageError, match=r"changed: trainer\.callbacks"):
        interrupted_run(tmp_path, new, may_differ=False)


def test_the_state_of_a_callback_in_a_checkpoint_has_no_spelling() -> None:
    names = sorted(janus_pl.callbacks.__all__)
    made = [getattr(janus_pl.callbacks, name) for name in names if name != "Observer"]
    assert len(made) > 10
    for kind in made:
        assert "callbacks" not in kind().state_key
