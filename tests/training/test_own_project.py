"""A project of one's own, by its own LightningCLI: record, page and answers are as for ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from training.crashing import CONTEXT, code_of
from training.own_project import run_each, write

from janus_pl.cli.main import main
from janus_pl.run.description import read_description

LAYERS = ["body_0", "body_2", "head"]
LINES = [
    [
        *("fit", "--config", "sgd.yaml", "--seed_everything", str(seed)),
        *("--data.batch_size", str(batch), "--model.weight_decay", "0.01"),
    ]
    for batch in (4, 16)
    for seed in range(1, 6)
]


def project(folder: Path, lines: Sequence[Sequence[str]]) -> list[Path]:
    """The folders of the runs of a project, by the order of their lines."""
    write(folder)
    process = CONTEXT.Process(target=run_each, args=(folder, lines))
    process.start()
    assert code_of(process) == 0, (folder / "said.txt").read_text()
    runs = (folder / "runs" / "janus_pl").iterdir()
    return sorted(runs, key=lambda run: (run / "outcome.json").stat().st_mtime_ns)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = project(tmp_path_factory.mktemp("own"), LINES)
    assert len(found) == len(LINES), "one command line after another, each with its own folder"
    return found


@pytest.fixture
def at_home(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home := runs[0].parents[2])
    monkeypatch.setattr(sys, "argv", ["janus_pl"])
    return home


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def test_the_record_is_as_for_ours(runs: list[Path]) -> None:
    rows = rows_of(runs[0])
    assert [row["epoch"] for row in rows] == [*range(7)]
    assert [row["trainer/global_step"] for row in rows] == [8 * k for k in range(7)]
    assert rows[-1]["eta_t"] == pytest.approx(0.2 * 48)
    kinds = ("rank", "stable_rank", "effective_rank", "velocity")
    keys = {f"{kind}/{layer}" for kind in kinds for layer in LAYERS}
    keys |= {"focal", "collapse/nc1", "collapse/nc2_simplex", "margin_raw/hist", "spectrum_table"}
    assert keys <= rows[-1].keys()
    assert json.loads((runs[0] / "outcome.json").read_text())["exit_code"] == 0
    seen = read_description(runs[0])
    assert (seen["kind"], seen["dynamics"], seen["batch_size"]) == ("module", "SGD", 4)
    assert (seen["learning_rate"], seen["seed"]) == (0.2, 1)
    assert seen["name"] == "Net-sgd-B4-wd0.01-seed1"


def test_configs_are_those_of_the_command_line(runs: list[Path]) -> None:
    whole = yaml.safe_load((runs[-1] / "cli.yaml").read_text())
    own = yaml.safe_load((runs[-1] / "config.yaml").read_text())
    assert own["model"] == {"class_path": "clusters.net.Net", "init_args": whole["model"]}
    assert own["data"] == {"class_path": "clusters.data.Clusters", "init_args": whole["data"]}
    assert whole["data"] == {"batch_size": 16} and whole["model"]["weight_decay"] == 0.01
    assert whole["trainer"]["callbacks"][0]["class_path"] == "janus_pl.callbacks.MarginHistogram"
    assert not (runs[-1].parents[1] / "config.yaml").exists(), "it would stop a second run"


def test_margins_of_clean_and_noisy_samples_are_those_of_numpy(runs: list[Path]) -> None:
    state = torch.load(runs[0] / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = ("body.0", "body.2", "head")
    Ws = [state[f"{name}.weight"].double().numpy() for name in names]
    bs = [state[f"{name}.bias"].double().numpy() for name in names]
    generator = torch.Generator().manual_seed(0)
    means, clean = 2 * torch.randn(4, 6, generator=generator), torch.arange(32) % 4
    x = (means[clean] + torch.randn(32, 6, generator=generator)).double().numpy()
    noisy = np.arange(32) % 5 == 0
    y = np.where(noisy, (clean.numpy() + 1) % 4, clean.numpy())
    h = np.maximum(np.maximum(x @ Ws[0].T + bs[0], 0) @ Ws[1].T + bs[1], 0)
    f = h @ Ws[2].T + bs[2]
    own = f[np.arange(32), y].copy()
    f[np.arange(32), y] = -np.inf
    margins = (own - f.max(1)) / 2
    last = rows_of(runs[0])[-1]
    parts = {"": margins, "clean/": margins[~noisy], "noisy/": margins[noisy]}
    for name, part in parts.items():
        assert last[f"margin_raw/{name}mean"] == pytest.approx(part.mean(), rel=1e-4)
        assert last[f"margin_raw/{name}min"] == pytest.approx(part.min(), rel=1e-4)
    assert last["margin_raw/mean"] != pytest.approx(last["margin_raw/clean/mean"], rel=1e-2)


def test_report_draws_the_scan_and_the_page(at_home: Path, capsys: Any) -> None:
    assert main(["report", "runs", "--out", "report", "--by", "batch_size"]) == 0
    drawn = {path.name for path in (at_home / "report").glob("*.png")}
    assert {"scan_rank.png", "scan_noise.png", "spectra.png"} <= drawn
    caption = (at_home / "report" / "scan_rank.txt").read_text()
    assert "batch_size 4 (5 runs), 16 (5 runs)" in caption
    assert "recorded no train/error" in caption and "Bottom" not in caption
    page = (at_home / "report" / "index.html").read_text()
    assert all(f"Net-sgd-B{b}-wd0.01-seed{s}" in page for b in (4, 16) for s in range(1, 6))
    capsys.readouterr()
    assert main(["report", "runs", "--by", "batch_size", "--by", "width"]) == 2
    said = "--by: got 'width', allowed: an option that comparable runs vary: batch_size\n"
    assert said in capsys.readouterr().err


def test_verify_answers_what_is_about_any_network(at_home: Path, capsys: Any) -> None:
    assert main(["verify", "runs", "--claims", "low_rank", "--json", "-"]) == 0
    claims = {c["name"]: c for c in json.loads(capsys.readouterr().out)["claims"]}
    assert claims["batch"]["answer"] in ("supported", "undecided", "contradicted")
    setting = claims["batch"]["settings"][0]
    effects = []
    by_name = {read_description(run)["name"]: run for run in (at_home / "runs/janus_pl").iterdir()}
    for seed in range(1, 6):  # the last fifth of six epochs is the last row
        ranks = [
            rows_of(by_name[f"Net-sgd-B{batch}-wd0.01-seed{seed}"])[-1]["effective_rank/body_2"]
            for batch in (4, 16)
        ]
        effects.append(np.log(ranks[1] / ranks[0]) / np.log(4))
    assert sorted(setting["effects"]) == pytest.approx(sorted(effects), rel=1e-9)
    assert main(["verify", "runs"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert all(line.startswith("not testable") for line in table), "the paper's are of its network"


def test_optimizers_that_a_step_steps_itself_are_said_in_a_line(tmp_path: Path) -> None:
    (run,) = project(tmp_path, [["fit", "--config", "by_hand.yaml"]])
    said = (tmp_path / "said.txt").read_text().splitlines()
    told = "GradientNoise records nothing of ByHand: its training_step steps the optimizers itself"
    assert sum(told in line for line in said) == 1
    seen, rows = read_description(run), rows_of(run)
    assert (seen["optimizer"], seen["learning_rate"]) == ("SGD+Adam", None)
    assert {f"velocity/{layer}" for layer in LAYERS} <= rows[-1].keys()
    assert not any(key.startswith("gradient_noise/") for row in rows for key in row)
