"""`wandb.agent(function=...)` against a server on loopback: the sweep's values are what runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import PACKAGE
from run.small_runs import FILES, facts_of, fit_args
from wandb_server import SweepServer

AGENT = """
import os
import wandb
from janus_pl import main

def train():
    begin = BEGIN
    code = main(["fit", "--config", "tiny.yaml"])
    if code:
        raise SystemExit(code)

wandb.agent("s1", function=train, entity="somebody", project="janus_pl", count=2)
"""
POINTS: dict[str, dict[str, Any]] = {
    "one": {"model.weight_decay": 0.002, "own": 1},
    "two": {"model.weight_decay": 0.0, "own": 2},
}


@pytest.mark.parametrize("begin", ["wandb.init(mode='offline')", "None"], ids=["init", "none"])
def test_each_point_leaves_the_record_of_its_values(
    begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function need not begin the run by itself."""
    monkeypatch.chdir(tmp_path)
    fit_args()
    mode = "" if begin != "None" else "os.environ['WANDB_MODE'] = 'offline'\n"
    script = AGENT.replace("BEGIN", begin).replace("def train():", f"{mode}def train():")
    Path("agent.py").write_text(script)
    server = SweepServer(POINTS)
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env |= {"PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1", "WANDB_API_KEY": "k" * 40}
    env |= {"WANDB_BASE_URL": server.url, "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "agent.py"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    server.die()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Heartbeat" in server.asked
    folders = sorted(path.parent for path in Path("runs/janus_pl").glob("*/rows.jsonl"))
    assert [folder.name for folder in folders] == ["one", "two"], done.stdout + done.stderr
    for folder in folders:
        found = facts_of(folder)
        assert found["model"]["weight_decay"] == POINTS[folder.name]["model.weight_decay"]
        assert found["description"]["weight_decay"] == POINTS[folder.name]["model.weight_decay"]
        assert (found["exit_code"], found["files"]) == (0, sorted(FILES))
        assert [row["epoch"] for row in found["rows"]] == [0, 1, 2]
        assert found["checkpoints"] == ["best.ckpt", "last.ckpt"]
        assert "own" not in yaml.safe_load((folder / "config.yaml").read_text())
        assert len(list(Path().rglob(f"run-{folder.name}.wandb"))) == 1
    one, two = (facts_of(folder)["rows"][-1]["rho"] for folder in folders)
    assert one != two, "the values are in force"
