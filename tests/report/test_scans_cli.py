"""`report --by`: what it makes, where it is on the page, and what it refuses."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from report.generic import zero_function
from report.scanned import archived, scanned

from janus_pl.cli import subcommands as tools

LAW = {"b": 0.3}
FIGURES = ("scan_rank", "scan_noise", "scan_map")


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    runs = [
        scanned(b, lam=lam, seed=s, law=LAW)
        for b in (16, 64)
        for lam in (5e-4, 2e-3)
        for s in (0, 1)
    ]
    return archived(runs, Path("scan.jsonl.xz"))


def test_figures_with_their_numbers_and_a_section_of_the_page(
    scan: Path, capsys: pytest.CaptureFixture
) -> None:
    by = ["--by", "batch_size", "--by", "weight_decay"]
    assert tools.main(["report", str(scan), "--out", "out", *by]) == 0
    said = capsys.readouterr().out
    for key in FIGURES:
        assert f"{key}.png" in said
        for suffix in ("png", "svg", "csv", "txt"):
            assert Path("out", f"{key}.{suffix}").stat().st_size > 0
    caption = Path("out/scan_rank.txt").read_text()
    assert caption.startswith("Scan: ranks and errors by batch_size and weight_decay.")
    again = "report scan.jsonl.xz --out out --by batch_size --by weight_decay"
    assert f"This figure again: python -m janus_pl {again}" in caption
    head = Path("out/scan_map.csv").read_text().splitlines()[0]
    assert head.endswith(",seeds,clock,at,line")
    page = Path("out/index.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    scans = json.loads(found)["scans"]
    assert [each["title"].split(" by ")[0] for each in scans] == [
        "Scan: ranks and errors",
        "Scan: noise",
        "Scan: map of the ranks",
    ]
    for key, each in zip(FIGURES, scans, strict=True):
        assert base64.b64decode(each["png"]) == Path(f"out/{key}.png").read_bytes()
        assert each["caption"] == Path(f"out/{key}.txt").read_text().rstrip("\n")


def test_without_an_option_there_is_no_scan(scan: Path, capsys: pytest.CaptureFixture) -> None:
    assert tools.main(["report", str(scan), "--out", "out", "--by", "batch_size"]) == 0
    assert tools.main(["report", str(scan), "--out", "out"]) == 0
    assert not [*Path("out").glob("scan_*")], "those of before are removed"
    assert '"scans":[]' in Path("out/index.html").read_text()
    assert "Scan:" not in capsys.readouterr().out.split("Page:")[1]


VARY = "an option that comparable runs vary: batch_size, weight_decay"
WRONG = [
    (["depth"], f"error: --by: got 'depth', allowed: {VARY}"),
    (["batch_size", "learning_rate"], f"error: --by: got 'learning_rate', allowed: {VARY}"),
    (["batchsize"], "error: --by: got 'batchsize', allowed: a valid key, the nearest is batch_"),
    (["lambda"], "error: --by: got 'lambda', allowed: one of batch_size, depth, label_noise, "),
    (["batch_size", "batch_size"], "error: --by: got 'batch_size batch_size', allowed: one opt"),
    (["batch_size", "weight_decay", "depth"], "error: --by: got 'batch_size weight_decay depth'"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_an_option_that_no_run_varies_is_one_line_and_nothing_is_made(
    options: list[str], said: str, scan: Path, capsys: pytest.CaptureFixture
) -> None:
    by = [word for option in options for word in ("--by", option)]
    assert tools.main(["report", str(scan), "--out", "out", *by]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(said)
    assert not Path("out").exists()


def test_runs_that_cannot_be_compared_vary_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Two batch sizes, at two momenta of the data; and one that ended as f = 0."""
    monkeypatch.chdir(tmp_path)
    runs = [scanned(16), scanned(64, data={"order": "other"}), zero_function(scanned(32))]
    path = archived(runs, Path("runs.jsonl.xz"))
    assert tools.main(["report", str(path), "--by", "batch_size"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("allowed: an option that comparable runs vary: these vary none")
