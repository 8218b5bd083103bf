"""The real `wandb sweep` and `wandb agent`, on a shipped file, against a server on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import PACKAGE
from record_reader import inspect
from wandb_server import SweepServer

from janus_pl.cli.config_files import CONFIGS
from janus_pl.records.read import read

pytestmark = pytest.mark.soak

LIMIT = 300  # seconds that a command may take on a busy machine
TINY = """
data:
  class_path: janus_pl.data.DigitsPair
model:
  init_args: {strides: [2, 2, 2, 2], channels: [2, 3, 4, 4], hidden: 8}
trainer: {max_epochs: 2, enable_progress_bar: false}
"""
MORE = {"data.num_train": {"value": None}, "data.batch_size": {"value": "full"}}
POINTS: dict[str, dict[str, Any]] = {
    "good": {"model.weight_decay": 0.0005, "model.learning_rate": 0.03},
    "diverged": {"model.weight_decay": 0.0005, "model.learning_rate": 1e20},
    "wrong": {"model.weight_decay": -1.0, "model.learning_rate": 0.03},
    "zero": {"model.weight_decay": 0.0, "model.learning_rate": 0.03},
}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The agent's `python` is the first on PATH; its runs are offline and say how they ended."""
    shim = tmp_path / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text(
        f"""#!/bin/sh
WANDB_MODE=offline {sys.executable} "$@"
code=$?
echo $code > ended-$WANDB_RUN_ID
exit $code
"""
    )
    shim.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env["PATH"] = f"{shim.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    more = {"PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1", "WANDB_API_KEY": "k" * 40}
    return {**env, **more, "WANDB_AGENT_DISABLE_FLAPPING": "true", "WANDB_ERROR_REPORTING": "false"}


def wandb(env: dict[str, str], *args: str) -> str:
    command = [sys.executable, "-m", "wandb", *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def config_of(name: str) -> dict[str, Any]:
    """What W&B's own file of a run has as its config, in the end; the agent says where it lies."""
    (run,) = Path("wandb").glob(f"*run-*-{name}")
    config: dict[str, Any] = {}
    for record in inspect(run):
        if (kind := record["type"]) in ("run", "config"):
            config |= (record[kind].get("config", record[kind]) or {}).get("update", {})
    return {key: value for key, value in config.items() if key not in ("_wandb", "description")}


def flat(config: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in config.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def check_columns(name: str) -> None:
    """No option is there twice, and the flat columns say what the point says."""
    config = config_of(name)
    names = [key.replace("init_args.", "") for key in flat(config)]
    assert sorted(names) == sorted({*names})
    lam = POINTS[name]["model.weight_decay"]
    assert config["model.weight_decay"] == config["lambda"] == lam
    assert (config["dynamics"], config["normalization"], config["seed"]) == ("GD", "weight_norm", 0)
    assert config["B"] == config["N"] == 285


def test_a_shipped_sweep_runs_under_the_real_agent(environment: dict[str, str]) -> None:
    spec = yaml.safe_load((CONFIGS / "sweeps" / "fig1.yaml").read_text())
    spec["parameters"] |= MORE
    at = spec["command"].index("--name")
    spec["command"][at:at] = ["--config", "tiny.yaml"]
    Path("tiny.yaml").write_text(TINY)
    Path("sweep.yaml").write_text(yaml.safe_dump(spec))
    fixed = {key: p["value"] for key, p in spec["parameters"].items() if "value" in p}
    server = SweepServer({name: {**fixed, **point} for name, point in POINTS.items()})
    env = {**environment, "WANDB_BASE_URL": server.url}

    said = wandb(env, "sweep", "--project", "janus_pl", "sweep.yaml")
    assert "wandb agent somebody/janus_pl/s1" in said
    assert server.config is not None
    assert yaml.safe_load(server.config)["command"] == spec["command"]
    # Its exit code is 0 whatever the runs did.
    wandb(env, "agent", "somebody/janus_pl/s1")
    server.die()

    codes = {name: int(Path(f"ended-{name}").read_text()) for name in POINTS}
    assert codes == {"good": 0, "diverged": 3, "wrong": 2, "zero": 0}
    records = read(["runs"])
    assert {run.id for run in records.runs} == {"good", "zero"}
    assert [skipped.path.parent.name for skipped in records.skipped] == ["diverged"]
    assert not Path("runs/janus_pl/wrong").exists()
    for run in records.runs:
        assert run.group == "fig1"
        assert run.options["model.weight_decay"] == POINTS[run.id]["model.weight_decay"]
        assert run.options["data.num_train"] is None
        assert run.options["data.batch_size"] == "full"
        assert run.name == f"gd-lam{POINTS[run.id]['model.weight_decay']:g}-seed0"
        assert run.config["tags"] == ["fig1"]
        assert len(run.rows) == 3
    for name in ("good", "zero"):
        check_columns(name)
    (head,) = re.findall(
        r"config-good.json", " ".join(p.name for p in Path("wandb").rglob("*.json"))
    )
    assert json.loads(next(Path("wandb").rglob(head)).read_text())["data.num_train"] is None
