"""What goes to W&B: the run with the figures, without W&B."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.generic import network

from janus_pl.errors import UsageError
from janus_pl.records.run import Run
from janus_pl.report import publish
from janus_pl.report.figures import Figure


class Remote:
    """A run of W&B's, and what was asked of it."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.finished = 0

    def init(self, **given: Any) -> Remote:
        self.given = given
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    made = Remote()
    monkeypatch.setattr(publish.wandb, "init", made.init)
    image, html = (lambda path, caption: (path, caption)), (lambda text, inject: (text, inject))
    monkeypatch.setattr(publish.wandb, "Image", image)
    monkeypatch.setattr(publish.wandb, "Html", html)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(publish, "has_account", lambda: False)
    return made


def published(tmp_path: Path, *runs: Run) -> Path:
    page = tmp_path / "page.html"
    page.write_text("the page ‖", encoding="utf-8")
    files = [tmp_path / f"fig1a.{suffix}" for suffix in ("svg", "png", "csv", "txt")]
    figures = [
        Figure("fig1a", "a title", "a caption", files, None),
        Figure("fig1b", "another", "", [], "no runs"),
    ]
    return publish.publish(figures, page, runs, "p", str(tmp_path / "runs"))


def test_figures_that_were_drawn_and_the_page_are_published(tmp_path: Path, remote: Remote) -> None:
    runs = [replace(network(seed=seed), group="g") for seed in (0, 1)]
    folder = published(tmp_path, *runs)
    assert folder.parent == tmp_path / "runs" / "p"
    assert folder.is_dir()
    given = remote.given
    assert (given["project"], given["id"], given["dir"]) == ("p", folder.name, str(folder))
    assert (given["name"], given["group"], given["job_type"]) == ("report-g", "g", "report")
    assert given["tags"] == ["report"]
    assert given["config"] == {"runs": [f"{run.name} ({run.id})" for run in runs]}
    drawn = {"figures/fig1a": (str(tmp_path / "fig1a.png"), "a caption")}
    assert remote.logged == [{**drawn, "page": ("the page ‖", False)}]
    assert remote.finished == 1


@pytest.mark.parametrize(
    ("groups", "name", "group"),
    [
        (("g", "g"), "report-g", "g"),
        (("g", "h"), "report", None),
        (("g", None), "report", None),
        ((None, None), "report", None),
    ],
)
def test_the_group_is_that_of_all_the_runs(
    groups: tuple[str | None, ...], name: str, group: str | None, tmp_path: Path, remote: Remote
) -> None:
    published(tmp_path, *(replace(network(seed=k), group=g) for k, g in enumerate(groups)))
    assert (remote.given["name"], remote.given["group"]) == (name, group)


@pytest.mark.parametrize(
    ("account", "told", "mode"),
    [
        (False, None, "offline"),
        (True, None, None),
        (False, "online", None),
        (True, "offline", None),
    ],
)
def test_without_an_account_it_is_offline_unless_told_otherwise(
    account: bool,
    told: str | None,
    mode: str | None,
    tmp_path: Path,
    remote: Remote,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publish, "has_account", lambda: account)
    if told:
        monkeypatch.setenv("WANDB_MODE", told)
    published(tmp_path, network())
    assert remote.given["mode"] == mode


def test_what_wandb_refuses_is_a_mistake_of_the_option(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise publish.wandb.errors.CommError("not yours")

    monkeypatch.setattr(publish.wandb, "init", refuse)
    with pytest.raises(UsageError, match=r"^--log: got 'p', allowed: what W&B takes \(not yours\)"):
        published(tmp_path, network())
