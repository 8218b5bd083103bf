"""Tests of pure functions start without Lightning and W&B, whose imports take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

HEAVY = {"lightning", "wandb", "torchvision", "pandas"}
# Its exit status is that of pytest, its last line the packages that the session has imported.
SESSION = """
import sys, pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
print("\\n" + " ".join(sorted({name.partition(".")[0] for name in sys.modules})))
sys.exit(status)
"""


def packages_after(*arguments: str, folder: Path = ROOT) -> set[str]:
    """Run a session of pytest in a process of its own; return the packages it has imported."""
    command = [sys.executable, "-c", SESSION, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_tests_of_the_losses_run_without_lightning_and_wandb() -> None:
    packages = packages_after("tests/deep/test_losses.py")
    assert "torch" in packages
    assert not packages & HEAVY


def test_pure_functions_are_collected_without_lightning_and_wandb() -> None:
    linear = ("batched", "epochs", "landscape", "plan", "watch")
    files = [f"tests/linear/test_{name}.py" for name in linear]
    folders = ["tests/observables", "tests/theory", "tests/deep/test_weight_norm.py"]
    packages = packages_after("--collect-only", *folders, *files)
    assert "janus_pl" in packages
    assert not packages & HEAVY


def test_a_session_that_imports_wandb_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import wandb\n\ndef test_one():\n    assert wandb\n")
    assert packages_after("test_one.py", folder=tmp_path) & HEAVY == {"wandb"}
