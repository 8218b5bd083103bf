"""What the paper claims of linear regression, from the shipped configs (Figs. A.1 to A.7)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
import yaml

from janus_pl.cli.config_files import find_configs
from janus_pl.cli.lightning_cli import JanusCLI
from janus_pl.cli.main import main
from janus_pl.data import LinearProblem
from janus_pl.linear.replicas import LinearTraining
from janus_pl.run.logger import finish
from janus_pl.run.shipped import CONFIGS
from janus_pl.theory import gaussian_moments, gaussian_noise, stationary_covariance

LINEAR = sorted(path.stem for path in (CONFIGS / "linear").glob("*.yaml") if path.stem != "base")
EPOCHS = {"a1": 10, "a2": 50_000, "a2_printed_schedule": 50_000, "a3": 200, "a4": 1, "a5": 1}
EPOCHS |= {"a6": 150, "a7": 2000, "toy": 100, "batch_sizes": 5000, "online": 1}
PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
# The learning rate of the paper may start above the limit of stability, and then it is said.
ALLOWED = "ignore:model.learning_rate. .* is above:UserWarning"
GD = ["--data.batch_size", "full"]
pytestmark = pytest.mark.filterwarnings(ALLOWED)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["janus_pl"])


def run(config: str, *args: str) -> Any:
    """The module after a run of a shipped config."""
    line = ["fit", "--config", f"linear/{config}.yaml", *PLAIN, *args]
    module = JanusCLI(find_configs(line)).model
    finish()
    return module


def arrays(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.glob(f"**/{name}.npz")
    with np.load(path) as held:
        return dict(held)


def replicas(config: str, count: int, *args: str, **options: Any) -> LinearTraining:
    """So many seeds of a shipped config, before their first step."""
    parts = yaml.safe_load((CONFIGS / "linear" / "base.yaml").read_text())
    own = yaml.safe_load((CONFIGS / "linear" / f"{config}.yaml").read_text())
    for part in ("model", "data"):
        parts[part]["init_args"].update(own.get(part, {}).get("init_args", {}))
    data = LinearProblem(**{**parts["data"]["init_args"], "replicas": count, **options})
    data.setup()
    model = parts["model"]["init_args"]
    epochs = own["trainer"]["max_epochs"]
    rates = [model["learning_rate"]]
    weight = torch.from_numpy(data.w0())
    lambdas = [model["weight_decay"]]
    return LinearTraining(data, lambdas, rates, model["schedule"], "paper", epochs, 50, 5, weight)


def measured(training: LinearTraining, *keys: str) -> tuple[Any, dict[str, Any]]:
    """Recorded epochs (T,) and numbers (T, R) of a training that is run to its end."""
    epochs, values = [], []
    while training.plan.done < training.plan.total:
        for piece in training.plan:
            training.run(piece)
        numbers = training.landscape.measure(training.weight, training.log_decay)
        epochs.append(training.plan.done)
        values.append({key: numbers[key].numpy() for key in keys})
    return np.array(epochs), {key: np.stack([v[key] for v in values]) for key in keys}


# 1. The null space


@pytest.mark.parametrize("twin", [[], GD], ids=["sgd", "gd"])
@pytest.mark.parametrize("config", LINEAR)
def test_the_null_space_follows_its_closed_form_at_every_record(
    config: str, twin: list[str], rows: Any, tmp_path: Path
) -> None:
    small = ["--data.num_train=30000"] if config == "online" else []
    run(config, *twin, *small)
    problem, final = arrays(tmp_path, "problem"), arrays(tmp_path, "final")
    basis = oracle.null_basis(problem["X"])
    start = np.linalg.norm(problem["W0"] @ basis)
    # From W0 = 0 there is nothing to decay: what is there is rounding.
    tolerance = 1e-12 * (start or 1.0)
    assert rows[0]["epoch"] == 0 and rows[-1]["epoch"] == EPOCHS[config]
    for row in rows:
        assert abs(row["null/norm"] - row["null/predicted"]) <= tolerance
    # The record's numbers are those of another program on the files of the run.
    assert abs(rows[0]["null/norm"] - start) <= 1e-14
    assert abs(rows[-1]["null/norm"] - np.linalg.norm(final["W"] @ basis)) <= tolerance
    lam = 0.1 / 2 if config == "toy" else 0.01  # Appendix A decays by half
    solution = oracle.ridge(problem["X"], problem["Y"], lam)
    distance = np.linalg.norm(final["W"] - solution)
    assert rows[-1]["solution/distance"] == pytest.approx(distance, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt", "cosine"])
@pytest.mark.parametrize("batch_size", ["1", "2", "3", "7", "10", "full"])
def test_the_law_holds_for_every_batch_size_and_schedule(
    batch_size: str, schedule: str, rows: Any, tmp_path: Path
) -> None:
    options = [f"--data.batch_size={batch_size}", f"--model.schedule={schedule}"]
    run("batch_sizes", *options, "--trainer.max_epochs=2000", "--model.learning_rate=0.04")
    start = rows[0]["null/norm"]
    assert all(abs(row["null/norm"] - row["null/predicted"]) <= 1e-12 * start for row in rows)
    steps = 1 if batch_size == "full" else -(-10 // int(batch_size))
    e = np.arange(2000)
    multipliers = {
        "constant": np.ones(2000),
        "inverse_sqrt": 1 / np.sqrt(e + 1),
        "cosine": (1 + np.cos(np.pi * e / 2000)) / 2,
    }
    etas = 0.04 * multipliers[schedule]
    norms = [start, *oracle.null_norms(start, etas, 0.01, steps)]
    others = [start, *oracle.null_norms(start, etas, 0.01, steps + 1)]
    for row in rows:
        assert abs(row["null/norm"] - norms[int(row["epoch"])]) <= 1e-12 * start
    wrong = max(abs(row["null/norm"] - others[int(row["epoch"])]) for row in rows)
    assert wrong > 1e-2 * start  # one step more in an epoch


# 2. Figure A.7


def test_a7_slopes_are_n_times_as_steep_for_sgd() -> None:
    keys = "null/norm", "singular_value/1", "sigma_min"
    epochs, sgd = measured(replicas("a7", 200), *keys)
    _, gd = measured(replicas("a7", 200, batch_size="full"), *keys)
    # The coordinate without data, per epoch, in every seed that is finite throughout.
    finite = np.isfinite(sgd["null/norm"]).all(0)
    assert finite.sum() >= 190
    slopes = [np.diff(np.log(v["null/norm"]), axis=0) / np.diff(epochs)[:, None] for v in (sgd, gd)]
    assert np.abs(slopes[0] / slopes[1] - 6)[:, finite].max() < 1e-9
    # Fitted as the paper does, once the transient of the data's span is over. A seed that
    # diverges at this constant rate counts as a failure, not as a gap.
    late = epochs >= epochs[-1] // 2

    def fitted(values: Any) -> Any:
        logs = np.log(np.where(values > 0, values, 1e-300))[late]
        good = np.isfinite(logs).all(0)
        return np.where(good, np.polyfit(epochs[late], np.where(good, logs, 0.0), 1)[0], np.inf)

    ratio = fitted(sgd["sigma_min"]) / fitted(gd["sigma_min"])
    assert abs(np.median(ratio) - 6) < 0.06
    # The largest singular value lies in the span of the data and decays under neither.
    largest = [np.median(np.abs(fitted(v["singular_value/1"]))) for v in (sgd, gd)]
    assert max(largest) < 1e-2 * np.median(np.abs(fitted(gd["sigma_min"])))


# 3. Figures A.1 and A.2


@pytest.mark.soak
def test_a2_sgd_has_the_smaller_smallest_singular_value_in_every_seed() -> None:
    finals = []
    for batch_size in (1, "full"):
        _, values = measured(replicas("a2", 200, batch_size=batch_size), "sigma_min")
        finals.append(values["sigma_min"][-1])
    assert (finals[0] < finals[1]).all()
    assert np.median(finals[0]) < 0.01 * np.median(finals[1])


def test_a2_as_printed_comes_out_the_other_way_round(rows: Any) -> None:
    run("a2_printed_schedule", "--trainer.max_epochs=5000")
    sgd = rows[-1]["sigma_min"]
    run("a2_printed_schedule", *GD, "--trainer.max_epochs=5000")
    assert rows[-1]["sigma_min"] < 0.1 * sgd


def test_a1_from_zero_has_no_null_component(rows: Any) -> None:
    for twin in ([], GD):
        run("a1", *twin)
        assert rows[-1]["sigma_min"] < 1e-12
        assert rows[-1]["epoch"] == 10
    assert rows[-1]["singular_value/10"] > 1e-3  # rank N, one below d


def test_a1_run_long_gd_reaches_the_solution_and_sgd_stays_off_by_its_rate(rows: Any) -> None:
    long = ["--model.schedule=constant", "--trainer.max_epochs=40000"]
    run("a1", *GD, *long)
    assert rows[-1]["solution/relative_distance"] < 1e-10
    distances = []
    for rate in (0.02, 0.01, 0.005):
        run("a1", *long, f"--model.learning_rate={rate}")
        distances.append(rows[-1]["solution/relative_distance"])
    assert distances[2] > 1e-5
    ratios = [distances[0] / distances[1], distances[1] / distances[2]]
    assert ratios == pytest.approx([2, 2], rel=0.2)


# 4. The toy of Appendix A


@pytest.mark.parametrize(("twin", "power"), [([], 2), (GD, 1)], ids=["sgd", "gd"])
def test_the_toy_decays_by_its_printed_factors(twin: list[str], power: int, tmp_path: Path) -> None:
    run("toy", *twin, "--trainer.max_epochs=1")
    w = arrays(tmp_path, "final")["W"]
    keep = 1 - 0.1 * 0.1
    factor = keep * keep if power == 2 else keep
    assert w[:, 2].tolist() == [factor, -factor]
    assert factor != (keep if power == 2 else keep * keep)


# 5. Figure A.5


def test_a5_noise_at_a_constant_rate_does_not_decay(rows: Any) -> None:
    run("a5")
    last = rows[-1]
    for what in ("weights", "predictions"):
        before, after = (last[f"noise/{what}_{name}"] for name in ("tenth_before", "last_tenth"))
        assert after == pytest.approx(before, rel=0.1)
    run("a5", "--model.schedule=inverse_sqrt")
    for what in ("weights", "predictions"):
        assert rows[-1][f"noise/{what}_last_tenth"] < 0.5 * last[f"noise/{what}_last_tenth"]


@pytest.mark.soak
def test_a5_noise_is_the_stationary_covariance() -> None:
    training = replicas("a5", 150, num_train=20_000)
    training.eta.fill_(0.005)
    measured(training)
    w = training.weight.numpy()
    moments = gaussian_moments(torch.eye(10, dtype=torch.float64))
    noise = gaussian_noise(moments.second, torch.zeros(10, 10, dtype=torch.float64), 1.0, 0.01)
    predicted = stationary_covariance(moments, noise, 0.005, 0.01).numpy()
    deviation = w - w.mean(0)
    variance = np.einsum("rai,rai->ai", deviation, deviation) / (len(w) - 1)
    expected = np.einsum("aaii->ai", predicted)
    assert variance.mean() == pytest.approx(expected.mean(), rel=0.05)
    assert variance.mean(0) == pytest.approx(expected.mean(0), rel=0.15)  # each input coordinate
    doubled = stationary_covariance(moments, noise, 0.01, 0.01).numpy()
    assert variance.mean() != pytest.approx(np.einsum("aaii->ai", doubled).mean(), rel=0.05)


# The sweeps


@pytest.mark.parametrize(
    "sweep", sorted(p.stem for p in (CONFIGS / "sweeps").glob("linear_*.yaml"))
)
def test_a_sweep_runs_its_pair_from_one_problem(sweep: str, tmp_path: Path) -> None:
    spec = yaml.safe_load((CONFIGS / "sweeps" / f"{sweep}.yaml").read_text())
    assert spec["method"] == "grid"
    start = spec["command"].index("fit")
    problems, finals = [], []
    for value in spec["parameters"]["data.batch_size"]["values"]:
        chosen = tmp_path / f"{value}.json"
        chosen.write_text(json.dumps({"data.batch_size": value}))
        line = [str(chosen) if a == "${args_json_file}" else a for a in spec["command"][start:]]
        folder = tmp_path / str(value)
        epochs = "1" if sweep in ("linear_a4", "linear_a5") else "3"
        extra = ["--run_dir", str(folder), "--trainer.max_epochs", epochs, *PLAIN]
        extra += ["--data.num_train", "500"] if sweep == "linear_a5" else []
        assert main([*line, *extra]) == 0
        problems.append(arrays(folder, "problem"))
        finals.append(arrays(folder, "final")["W"])
        (config,) = folder.glob("**/config.yaml")
        resolved = yaml.safe_load(config.read_text())
        assert resolved["data"]["init_args"]["batch_size"] == value
        assert resolved["group"].startswith("linear-")
    for problem in problems[1:]:
        assert all(np.array_equal(problem[k], problems[0][k]) for k in ("X", "Y", "W0"))
    assert not np.array_equal(finals[0], finals[-1])
