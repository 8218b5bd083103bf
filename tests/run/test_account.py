"""Whether W&B has credentials, by each of the places where it looks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from janus_pl.run.account import has_account

VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    server = SimpleNamespace(settings=SimpleNamespace(base_url="https://api.wandb.ai"))
    monkeypatch.setattr(wandb, "setup", lambda: server)  # it starts W&B's service


def test_without_any_there_is_none() -> None:
    assert not has_account()


@pytest.mark.parametrize("name", VARIABLES[:2])
@pytest.mark.parametrize(("value", "expected"), [("something", True), ("", False)])
def test_a_variable_counts_unless_it_is_empty(
    name: str, value: str, expected: bool, monkeypatch: Any
) -> None:
    monkeypatch.setenv(name, value)
    assert has_account() is expected


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
@pytest.mark.parametrize(("host", "expected"), [("api.wandb.ai", True), ("example.org", False)])
def test_an_entry_of_the_host_counts(
    name: str, host: str, expected: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / name
    file.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
    file.chmod(0o600)
    if name == "elsewhere":
        monkeypatch.setenv("NETRC", str(file))
    assert has_account() is expected


def test_a_file_that_is_no_netrc_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine\n")
    (tmp_path / "_netrc").write_text("machine api.wandb.ai login user password x\n")
    assert has_account()
