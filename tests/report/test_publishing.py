"""What goes to W&B: the panels of a workspace and the run with the figures, without W&B."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report.generic import LAYERS, network

from janus_pl.errors import UsageError
from janus_pl.records.run import Run
from janus_pl.report import publish, workspace
from janus_pl.report.figures import FIGURES, Figure

LAMBDA, DYNAMICS = "description.weight_decay", "description.dynamics"


def built() -> Any:
    """The workspace, of plain values in place of W&B's classes."""

    def plain(kind: str) -> Any:
        return lambda *args, **options: {"kind": kind, "args": args, **options}

    panels = SimpleNamespace(
        LinePlot=plain("line"),
        Config=lambda key: key,
        RunComparer=plain("comparer"),
        MediaBrowser=plain("media"),
    )
    workspaces = SimpleNamespace(
        Workspace=plain("workspace"),
        Section=plain("section"),
        WorkspaceSettings=plain("settings"),
    )
    return workspace.build(workspaces, panels, "e", "p", "n")


# By section: title, keys, x axis, what runs are grouped by, whether the axis is logarithmic.
PANELS: dict[str, list[tuple[str, list[str], str, str | None, bool]]] = {
    "Margins by lambda (Figs. 1, 2, 5)": [
        ("Margins, mean", ["margin/mean"], "epoch", LAMBDA, False),
        ("Margins, standard deviation", ["margin/std"], "epoch", LAMBDA, True),
        ("Margins, histogram", ["margin/hist"], "epoch", None, False),
        ("rho", ["rho"], "epoch", LAMBDA, True),
    ],
    "Noise by layer (Figs. 3, 4a)": [
        (f"‖V dot‖, {k}", [f"velocity/{k}"], "epoch", LAMBDA, True) for k in LAYERS
    ],
    "Rank by layer (Fig. 4b)": [
        (f"Effective rank, {k}", [f"effective_rank/{k}"], "epoch", LAMBDA, False) for k in LAYERS
    ],
    "Raw margins, in units of the outputs": [
        ("Raw margins, mean", ["margin_raw/mean"], "epoch", DYNAMICS, False),
        ("Raw margins, standard deviation", ["margin_raw/std"], "epoch", DYNAMICS, False),
        ("Raw margins, histogram", ["margin_raw/hist"], "epoch", None, False),
    ],
    "Dynamics, as measured": [
        ("Training loss", ["train/loss"], "epoch", DYNAMICS, True),
        ("Margins, mean", ["margin/mean"], "epoch", DYNAMICS, False),
        ("‖V dot‖, conv4", ["velocity/conv4"], "epoch", DYNAMICS, True),
        ("Effective rank, conv4", ["effective_rank/conv4"], "epoch", DYNAMICS, False),
        (
            *("Effective rank, conv4, by step", ["effective_rank/conv4"]),
            *("trainer/global_step", None, False),
        ),
        ("Effective rank, conv4, by eta t", ["effective_rank/conv4"], "eta_t", None, False),
    ],
    "Linear regression (Figs. A.1 to A.7)": [
        (
            *("Null space, and its closed form", ["null/norm", "null/predicted"]),
            *("epoch", None, True),
        ),
        ("Smallest singular value", ["sigma_min"], "epoch", None, True),
        ("Distance to the solution", ["solution/relative_distance"], "epoch", None, True),
        ("Gradient norm", ["gradient_norm"], "epoch", None, True),
    ],
}


def test_each_panel_shows_the_quantity_of_its_title() -> None:
    view = built()
    assert (view["entity"], view["project"], view["name"]) == ("e", "p", "n")
    assert view["settings"]["x_axis"] == "epoch"
    sections = {section["name"]: section["panels"] for section in view["sections"]}
    assert all(section["is_open"] for section in view["sections"])
    found = {
        title: [
            (p["title"], p["y"], p["x"], p.get("groupby"), p.get("log_y", False)) for p in panels
        ]
        for title, panels in sections.items()
        if title in PANELS
    }
    assert found == PANELS
    for panel in (panel for title in PANELS for panel in sections[title]):
        means = (panel.get("groupby_aggfunc"), panel.get("groupby_rangefunc"))
        assert means == (("mean", "minmax") if panel.get("groupby") else (None, None))
    (comparer,), (media,) = sections["Runs compared"], sections["Report"]
    assert (comparer["kind"], comparer["diff_only"]) == ("comparer", "split")
    assert media["media_keys"] == [f"figures/{key}" for key, *_ in FIGURES]
    assert set(sections) == {*PANELS, "Runs compared", "Report"}


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
