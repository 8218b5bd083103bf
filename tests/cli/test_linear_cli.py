"""Linear regression on the command line: configs, record, replicas, and what bad input gets."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from record_reader import exit_code, read_records, read_rows

from janus_pl.cli.config_files import CONFIGS
from janus_pl.cli.main import _one_line, main

LINEAR = sorted((CONFIGS / "linear").glob("*.yaml"))
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
# The learning rate of the paper may start above the limit of stability, and then it is said.
pytestmark = pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def fit(config: str, *args: str) -> int:
    return main(["fit", "--config", f"linear/{config}.yaml", *PLAIN, *args])


def run_folder() -> Path:
    (folder,) = Path("runs/janus_pl").iterdir()
    return folder


def numbers(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as held:
        return dict(held)


@pytest.mark.parametrize("config", LINEAR, ids=lambda path: path.stem)
def test_fast_dev_run_of_every_shipped_config(config: Path) -> None:
    small = ["--data.num_train=1000"] if config.stem == "online" else []
    assert fit(config.stem, "--trainer.fast_dev_run=true", *small) == 0
    assert not Path("runs").exists()


@pytest.mark.parametrize("config", [*LINEAR, *SWEEPS], ids=lambda path: path.stem)
def test_every_shipped_config_says_claim_cost_and_command(config: Path) -> None:
    head = config.read_text().splitlines()[:3]
    assert all(line.startswith("# ") for line in head)
    if config.stem != "base":
        assert [line.split(":")[0] for line in head] == ["# Claim", "# Cost", "# Command"]
        assert f"{config.parent.name}/{config.name}" in head[2]


def test_every_config_names_its_group_and_differs_from_the_base_alone() -> None:
    for config in LINEAR:
        if config.stem != "base":
            own = yaml.safe_load(config.read_text())
            assert own["group"] == f"linear-{config.stem.replace('_', '-')}"
            assert "class_path" not in own.get("model", {}) | own.get("data", {})


def test_a_base_beside_a_config_is_read_before_it(capsys: pytest.CaptureFixture) -> None:
    Path("mine").mkdir()
    Path("mine/base.yaml").write_text("project: from-the-base\nname: from-the-base\n")
    Path("mine/own.yaml").write_text("name: own\n")
    assert main(["fit", "--config", "mine/own.yaml", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["name"], printed["project"]) == ("own", "from-the-base")


def test_fit_leaves_config_problem_result_checkpoint_and_record(
    capsys: pytest.CaptureFixture,
) -> None:
    assert fit("a3", "--data.batch_size=2") == 0
    assert "Run folder" in capsys.readouterr().out
    folder = run_folder()
    names = {path.name for path in folder.iterdir()}
    ends = {"rows.jsonl", "spectra.jsonl", "outcome.json", ".lock"}
    assert names == {
        "config.yaml",
        "description.json",
        "problem.npz",
        "final.npz",
        "checkpoints",
        "wandb",
        *ends,
    }
    problem, final = numbers(folder, "problem"), numbers(folder, "final")
    assert problem.pop("layout") == "features_first"
    assert {k: v.shape for k, v in problem.items()} == {"X": (10, 5), "Y": (10, 5), "W0": (10, 10)}
    assert final["W"].shape == (10, 10)
    rows = read_rows(folder)
    epochs = [row["epoch"] for row in rows]
    assert epochs[:4] == [0, 1, 2, 3]
    assert epochs[-1] == 200
    assert epochs == sorted(set(epochs))
    assert rows[-1]["trainer/global_step"] == 600
    for row in rows[1:]:
        assert {"null/norm", "null/predicted", "sigma_min"} <= row.keys()
        assert {"gradient_norm", "noise/weights", "noise/predictions"} <= row.keys()
        assert {"singular_value/01", "singular_value/10", "eigenvalue_modulus/01"} <= row.keys()
    looks = [row["epoch"] for row in rows if "velocity/fc1" in row]
    assert looks == [1, 2, 3, 4, 6, 10, 16, 25, 40, 63, 100, 158, 200]
    assert [row["epoch"] for row in rows if "margin/mean" in row] == [0, *looks]
    assert [row["epoch"] for row in rows if "rank/fc1" in row] == [0, *looks]
    assert rows[-1]["rho"] == pytest.approx(np.linalg.norm(final["W"]), rel=1e-12)
    assert exit_code(folder) == 0
    (definition,) = [
        r["metric"] for r in read_records(folder)
        if r["type"] == "metric" and r["metric"].get("name") == "null/norm"
    ]  # fmt: skip
    assert "epoch" in str(definition)


def test_a_problem_can_be_run_again_from_its_file() -> None:
    assert fit("a3") == 0
    folder = run_folder()
    source = folder / "problem.npz"
    again = [f"--data.source={source}", "--data.num_train=null", "--data.dim=null"]
    again += ["--data.outputs=null", "--data.informative=null", "--run_dir=again"]
    assert fit("a3", *again) == 0
    (second,) = Path("again/janus_pl").iterdir()
    assert np.array_equal(numbers(folder, "final")["W"], numbers(second, "final")["W"])


def test_predict_writes_every_margin() -> None:
    assert fit("a6") == 0
    folder = run_folder()
    args = ["--config", str(folder / "config.yaml")]
    assert main(["predict", *args, "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]) == 0
    with Path(f"margins-{folder.name}.csv").open() as file:
        margins = [float(row["margin"]) for row in csv.DictReader(file)]
    problem, w = numbers(folder, "problem"), numbers(folder, "final")["W"]
    x, y = problem["X"], problem["Y"]
    expected = [y[:, n] @ w @ x[:, n] / (y[:, n] @ y[:, n]) for n in range(10)]
    assert margins == pytest.approx(np.array(expected) / np.linalg.norm(w), rel=1e-12)


@pytest.mark.soak
def test_replicas_over_seeds_lambdas_and_rates_are_their_own_single_runs() -> None:
    lambdas, rates = [0.01, 0.1], [0.02, 0.03]
    grid = [f"--model.weight_decay={lambdas}", f"--model.learning_rate={rates}"]
    order = ["--data.order=shuffle", "--data.batch_size=2"]
    assert fit("a3", *grid, *order, "--data.replicas=2", "--data.seed=5") == 0
    folder = run_folder()
    final = numbers(folder, "final")
    assert final["W"].shape == (8, 10, 10)
    assert final["seed"].tolist() == [5, 5, 5, 5, 6, 6, 6, 6]
    assert final["weight_decay"].tolist() == [0.01, 0.01, 0.1, 0.1] * 2
    assert final["learning_rate"].tolist() == rates * 4
    norms = []
    for r, (seed, lam, rate) in enumerate(
        zip(final["seed"], final["weight_decay"], final["learning_rate"], strict=True)
    ):
        one = [f"--data.seed={seed}", f"--model.weight_decay={lam}"]
        one += [f"--model.learning_rate={rate}", f"--run_dir=one{r}"]
        assert fit("a3", *order, *one) == 0
        (alone,) = Path(f"one{r}/janus_pl").iterdir()
        assert np.array_equal(numbers(alone, "final")["W"], final["W"][r])
        norms.append(read_rows(alone)[-1]["rho"])
    last = read_rows(folder)[-1]
    assert last["rho"] == pytest.approx(np.median(norms), rel=1e-12)
    assert last["rho/q05"] == pytest.approx(np.quantile(norms, 0.05), rel=1e-12)
    assert last["rho/q95"] == pytest.approx(np.quantile(norms, 0.95), rel=1e-12)
    assert last["diverged"] == 0
    assert last["replicas.nrows"] == 8


def test_a_replica_that_diverges_leaves_the_others_alone(capsys: pytest.CaptureFixture) -> None:
    rates = "--model.learning_rate=[0.01, 5.0]"
    with pytest.warns(UserWarning) as caught:
        assert fit("a2", rates, "--trainer.max_epochs=900") == 0
    said = [str(warning.message) for warning in caught]
    assert "is above" in said[0]
    assert said[1] == "1 of 2 replicas diverged: [1]"
    final = numbers(run_folder(), "final")
    assert np.isfinite(final["W"]).all(2).all(1).tolist() == [True, False]
    last = read_rows(run_folder())[-1]
    assert last["diverged"] == 1
    assert last["null/norm"] == pytest.approx(last["null/predicted"], rel=1e-9)
    assert last["learning_rate"] == pytest.approx(0.01 / np.sqrt(900), rel=1e-12)
    assert last["rho"] == pytest.approx(np.linalg.norm(final["W"][0]), rel=1e-12)


def test_divergence_exits_3_with_the_last_finite_weights_kept(
    capsys: pytest.CaptureFixture,
) -> None:
    with pytest.warns(UserWarning, match=r"1 is above 0\.\d+"):
        assert fit("a2", "--model.learning_rate=1.0", "--model.schedule=constant") == 3
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    for part in ("not finite", "epoch", "learning rate 1", "lambda 0.01"):
        assert part in line
    folder = run_folder()
    assert exit_code(folder) == 3
    assert (folder / "problem.npz").is_file()
    assert not (folder / "final.npz").exists()
    assert read_rows(folder)[-1]["epoch"] > 1


def test_a_rate_above_the_limit_is_one_line_that_names_it() -> None:
    with pytest.warns(UserWarning) as caught:
        options = ["--data.batch_size=full", "--model.learning_rate=0.3"]
        assert fit("a2", *options, "--trainer.max_epochs=20") == 0
    (warning,) = caught
    line = _one_line(warning.message)
    problem = numbers(run_folder(), "problem")
    limit = 1 / (np.linalg.norm(problem["X"], 2) ** 2 / 10 + 0.01)
    assert line.startswith(f"warning: model.learning_rate: 0.3 is above {limit:.4g},")
    assert f"inverse_sqrt is below it after epoch {int((0.3 / limit) ** 2)}" in line
    assert line.count("\n") == 1


def test_every_replica_is_held_against_its_own_limit() -> None:
    line = ["a2", "--model.schedule=constant", "--model.learning_rate=0.05"]
    with pytest.warns(UserWarning, match="is above") as caught:
        assert fit(*line, "--model.weight_decay=[0.01,20]", "--trainer.max_epochs=3") == 0
    assert "(1 of 2 replicas; this is 1)" in str(caught[0].message)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("--data.seed=1", "data.seed"),
        ("--data.seed=1 --allow_data_change", "data.seed"),
        ("--data.batch_size=2", "data.batch_size"),
        ("--data.order=shuffle", "data.order"),
        ("--trainer.max_epochs=60", "trainer.max_epochs"),
        ("--trainer.max_epochs=30", "trainer.max_epochs"),
    ],
)
def test_a_checkpoint_goes_on_with_its_own_problem_alone(
    change: str, field: str, capsys: pytest.CaptureFixture
) -> None:
    line = ["batch_sizes", "--model.schedule=cosine", "--model.learning_rate=0.03"]
    assert fit(*line, "--trainer.max_epochs=30") == 0
    checkpoint = f"--ckpt_path={run_folder() / 'checkpoints' / 'last.ckpt'}"
    options = ["--trainer.max_epochs=30", *change.split(), checkpoint, "--run_dir=again"]
    assert fit(*line, *options) == 2
    (error,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert error.startswith(f"error: {field}")


def test_validate_has_nothing_to_look_at(capsys: pytest.CaptureFixture) -> None:
    assert main(["validate", "--config", "linear/a2.yaml", *PLAIN]) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error:"))
    assert "validation" in line or "val" in line
