"""Linear regression through the trainer: the loop's trajectory, the record, resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from janus_pl import LinearRegressor
from janus_pl.callbacks import LayerRank, LayerVelocity, MarginHistogram, ProgressBar, RunCheckpoint
from janus_pl.data import LinearProblem
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.linear import log_spaced
from janus_pl.linear.replicas import LinearTraining

SMALL = {"num_train": 7, "dim": 9, "outputs": 3}


@pytest.fixture
def train(fit: Any) -> Any:
    """A fit of a regressor on a problem, given by their options."""

    def run(epochs: int, callbacks: Any = (), data: Any = None, **options: Any) -> LinearRegressor:
        trainer_options = {k: options.pop(k) for k in ("ckpt_path",) if k in options}
        module = LinearRegressor(**{"learning_rate": 0.05, "schedule": "constant", **options})
        problem = LinearProblem(**{**SMALL, **(data or {})})
        fit(module, problem, epochs, callbacks, **trainer_options)
        return module

    return run


def problem_of(**options: Any) -> Any:
    data = LinearProblem(**{**SMALL, **options})
    data.setup()
    return data


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def weight(module: LinearRegressor) -> Any:
    return module.weight.detach().numpy()


SCHEDULES = {
    "constant": lambda e, total: 0.05 + 0 * e,
    "inverse_sqrt": lambda e, total: 0.05 / np.sqrt(e + 1),
    "cosine": lambda e, total: 0.025 * (1 + np.cos(np.pi * e / total)),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("batch_size", "order"),
    [(1, "sequential"), (1, "shuffle"), (3, "with_replacement"), ("full", "shuffle")],
)
def test_ten_thousand_steps_are_those_of_the_plain_loop(
    train: Any, schedule: str, batch_size: Any, order: str
) -> None:
    data = {"batch_size": batch_size, "order": order, "seed": 4}
    problem = problem_of(**data)
    epochs = 10_000 // problem.steps_per_epoch
    module = train(epochs, data=data, schedule=schedule)
    etas = SCHEDULES[schedule](np.arange(epochs), epochs)
    size = 7 if batch_size == "full" else batch_size
    orders = [problem.indices(e)[0] for e in range(epochs)]
    x, y, w0 = (a[0] for a in problem.problem)
    after = oracle.train(w0, x, y, orders, size, etas, 0.01)[0]
    assert relative(weight(module)[0], after[-1]) < 1e-10
    assert relative(after[-2], after[-1]) > 1e-9 or batch_size == "full" or schedule == "cosine"


class PlainRegression(LightningModule):
    """The same step as everybody would write it: autograd, torch.optim.SGD, one batch a step."""

    def __init__(self, w0: Any, learning_rate: float, lam: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(w0.copy()))
        self.learning_rate, self.lam = learning_rate, lam

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return (batch.x @ self.weight.T - batch.y).square().sum() / len(batch.y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.weight], self.learning_rate, weight_decay=2 * self.lam)


@pytest.mark.parametrize("order", ["sequential", "shuffle", "with_replacement"])
def test_the_plain_lightning_loop_on_the_same_problem_ends_at_the_same_w(
    train: Any, fit: Any, order: Any
) -> None:
    problem = problem_of(order=order, batch_size=2)
    plain = PlainRegression(problem.w0()[0], 0.05, 0.01)
    fit(plain, problem, 20)
    module = train(20, data={"order": order, "batch_size": 2})
    assert relative(weight(module)[0], plain.weight.detach().numpy()) < 1e-13
    other = train(20, data={"order": order, "batch_size": 2}, decay_convention="appendix_a")
    assert relative(weight(other)[0], plain.weight.detach().numpy()) > 1e-4


def test_a_stream_visits_every_sample_once_at_the_rates_of_its_steps(train: Any, rows: Any) -> None:
    data = {"num_train": 500, "order": "online", "batch_size": 3, "outputs": 2, "dim": 4}
    module = train(1, data=data, schedule="inverse_sqrt")
    problem = problem_of(**data)
    etas = 0.05 / np.sqrt(np.arange(167) + 1)
    x, y = (a[0] for a in problem.stream(0, 500))
    expected = oracle.train(problem.w0()[0], x, y, [range(500)], 3, [etas], 0.01)[0][-1]
    assert relative(weight(module)[0], expected) < 1e-12
    assert rows[-1]["epoch"] == 1.0
    assert rows[-1]["trainer/global_step"] == 167
    assert rows[-1]["eta_t"] == pytest.approx(etas.sum(), rel=1e-12)
    assert 0 < rows[3]["epoch"] < 1


def test_the_numbers_of_every_row_are_the_oracles(train: Any, rows: Any) -> None:
    data = {"outputs": 9, "num_train": 30, "empty": 2, "batch_size": 4, "order": "shuffle"}
    train(40, data=data, weight_decay=0.02, schedule="inverse_sqrt")
    problem = problem_of(**data)
    x, y, w0 = (a[0] for a in problem.problem)
    etas = 0.05 / np.sqrt(np.arange(40) + 1)
    orders = [problem.indices(e)[0] for e in range(40)]
    after = [w0, *oracle.train(w0, x, y, orders, 4, etas, 0.02)[0]]
    basis = oracle.null_basis(x)
    predicted = [np.linalg.norm(w0 @ basis)]
    predicted += oracle.null_norms(predicted[0], etas, 0.02, 8)
    solution = oracle.ridge(x, y, 0.02)
    assert [row["epoch"] for row in rows][:5] == [0, 1, 2, 3, 4]
    assert rows[-1]["epoch"] == 40
    for row in rows:
        e = int(row["epoch"])
        w = after[e]
        residual = w @ x - y
        gradient = 2 / 30 * residual @ x.T + 2 * 0.02 * w
        sigma = np.sqrt(np.linalg.eigvalsh(w.T @ w).clip(0))[::-1]
        moduli = np.sort(np.abs(np.linalg.eigvals(w)))[::-1]
        expected = {
            "trainer/global_step": 8 * e,
            "eta_t": 8 * etas[:e].sum(),
            "learning_rate": etas[max(e - 1, 0)],
            "train/loss": (residual**2).sum(0).mean(),
            "train/mse_per_sample": (residual**2).sum(0).mean(),
            "train/mse_per_entry": (residual**2).mean(),
            "rho": np.linalg.norm(w),
            "gradient_norm_full": np.linalg.norm(gradient),
            "solution/distance": np.linalg.norm(w - solution),
            "solution/relative_distance": relative(w, solution),
            "null/norm": np.linalg.norm(w @ basis),
            "null/predicted": predicted[e],
            **{f"singular_value/{i + 1}": sigma[i] for i in range(8)},
            **{f"eigenvalue_modulus/{i + 1}": moduli[i] for i in range(9)},
        }
        assert {k: row[k] for k in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert row["sigma_min"] == row["singular_value/9"] == pytest.approx(sigma[8], abs=1e-7)


def test_noise_and_velocities_are_those_of_the_steps_since_the_last_row(
    train: Any, rows: Any
) -> None:
    data = {"batch_size": 2, "order": "with_replacement"}
    train(5, [LayerVelocity(full_every_n_epochs=1)], data, weight_decay=0.03)
    problem = problem_of(**data)
    x, y, w0 = (a[0] for a in problem.problem)
    orders = [problem.indices(e)[0] for e in range(5)]
    steps = oracle.steps_of(w0, x, y, orders, 2, [0.05] * 5, 0.03)
    for row in rows[1:]:
        e = int(row["epoch"])
        seen = steps[4 * (e - 1) : 4 * e]
        expected = oracle.statistics(seen, x.T)
        assert row["gradient_norm"] == pytest.approx(expected["speed"], rel=1e-12)
        assert row.get("velocity/fc1", expected["velocity"]) == pytest.approx(
            expected["velocity"], rel=1e-12
        )
        assert row["noise/weights"] ** 2 == pytest.approx(expected["variance"], rel=1e-10)
        predictions = row["noise/predictions"] ** 2
        assert predictions == pytest.approx(expected["probe_variance"], rel=1e-10)
    assert "gradient_norm" not in rows[0]
    assert [int(row["epoch"]) for row in rows if "velocity/fc1" in row] == [1, 2, 3, 4, 5]


def test_shared_callbacks_are_the_oracles(train: Any, rows: Any) -> None:
    looks = [MarginHistogram(1), LayerRank(1), LayerVelocity(full_every_n_epochs=1)]
    module = train(6, looks, {"batch_size": 3})
    x, y, _ = (a[0] for a in problem_of(batch_size=3).problem)
    w = weight(module)[0]
    v = w / np.linalg.norm(w)
    row = rows[-1]
    margins = [(y[:, n] @ v @ x[:, n]) / (y[:, n] @ y[:, n]) for n in range(7)]
    assert row["margin/mean"] == pytest.approx(np.mean(margins), rel=1e-12)
    assert row["margin/std"] == pytest.approx(np.std(margins), rel=1e-12)
    assert row["margin/min"] == pytest.approx(min(margins), rel=1e-12)
    assert row["margin/hist"].counts.sum() == 7
    sigma = np.linalg.svd(v, compute_uv=False)
    p = sigma / sigma.sum()
    assert row["effective_rank/fc1"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert row["stable_rank/fc1"] == pytest.approx(1 / sigma[0] ** 2, rel=1e-9)
    assert row["rank/fc1"] == (sigma > 1e-3).sum()
    tensor = torch.tensor(w, requires_grad=True)
    outputs = tensor @ torch.from_numpy(x)
    (outputs - torch.from_numpy(y)).square().sum().div(7).backward()
    full = oracle.tangent_velocity(w, tensor.grad.numpy())
    assert row["velocity_full/fc1"] == pytest.approx(np.linalg.norm(full), rel=1e-12)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    looked = [row["epoch"] for row in rows if "margin/mean" in row and "rank/fc1" in row]
    assert looked == [0, 1, 2, 3, 4, 6]
    assert [row["epoch"] for row in rows if "velocity/fc1" in row] == looked[1:]
    last = oracle.steps_of(*start_of(3), [range(7)] * 6, 3, [0.05] * 6, 0.01)[-1]
    velocity = oracle.tangent_velocity(last.before, last.gradient)
    assert relative(module.velocities()["fc1"].numpy(), velocity) < 1e-10


def start_of(batch_size: int) -> Any:
    x, y, w0 = (a[0] for a in problem_of(batch_size=batch_size).problem)
    return w0, x, y


def test_margins_are_one_over_rho_at_interpolation(train: Any) -> None:
    data = {"informative": 9, "num_train": 30}
    module = train(20_000, data=data, weight_decay=0.0, learning_rate=0.02)
    scaled = module.margins() * module.scale()
    assert scaled.tolist() == pytest.approx([1.0] * 30, abs=1e-9)


class StopAt(Callback):
    """Stops the run after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.seen = looks, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen += 1
        trainer.should_stop |= self.seen == self.looks


@pytest.mark.parametrize(("looks", "order"), [(1, "shuffle"), (6, "sequential"), (8, "online")])
def test_a_run_resumed_at_a_look_is_the_uninterrupted_run(
    train: Any, rows: Any, tmp_path: Path, looks: int, order: Any
) -> None:
    data = {"order": order, "batch_size": 2, "seed": 3}
    epochs = 40
    if order == "online":
        data["num_train"], epochs = 200, 1
    callbacks = [MarginHistogram(1), LayerVelocity(), LayerRank(1)]
    whole = train(epochs, callbacks, data, schedule="cosine")
    uninterrupted = list(rows)
    rows.clear()
    stopped = train(epochs, [*callbacks, StopAt(looks)], data, schedule="cosine")
    path = tmp_path / "stopped.ckpt"
    stopped.trainer.save_checkpoint(path)
    first = list(rows)
    rows.clear()
    resumed = train(epochs, callbacks, data, schedule="cosine", ckpt_path=path)
    assert np.array_equal(weight(resumed), weight(whole))
    assert len(first) < len(uninterrupted) - 1
    assert [r["epoch"] for r in [*first, *rows]] == [r["epoch"] for r in uninterrupted]
    # The row of the stop holds late looks at an end that was none.
    stop = len(first) - 1
    for i, row in enumerate([*first, *rows]):
        numbers = {k: v for k, v in uninterrupted[i].items() if isinstance(v, float)}
        assert i == stop or {k: row[k] for k in numbers} == numbers
    afresh = train(epochs, callbacks, {**data, "seed": 4}, schedule="cosine")
    assert not np.array_equal(weight(afresh), weight(whole))


def test_a_checkpoint_of_another_shape_or_at_its_end_is_refused(train: Any, tmp_path: Path) -> None:
    path = tmp_path / "done.ckpt"
    module = train(10)
    module.trainer.save_checkpoint(path)
    with pytest.raises(UsageError, match=r"trainer.max_epochs: got 10, allowed: above 10"):
        train(10, ckpt_path=path)
    with pytest.raises(UsageError, match=r"data.outputs: got 4, allowed: 3, as in the checkpoint"):
        train(20, data={"outputs": 4}, ckpt_path=path)
    longer, whole = train(20, ckpt_path=path), train(20)
    assert np.array_equal(weight(longer), weight(whole))
    loaded = LinearRegressor.load_from_checkpoint(path)
    assert np.array_equal(weight(loaded), weight(module))
    x = torch.randn(5, 9, dtype=torch.float64)
    assert torch.equal(loaded(x), x @ module.weight[0].T)


def test_early_stopping_ends_a_run_whose_last_row_is_whole(train: Any, rows: Any) -> None:
    stop = EarlyStopping("solution/distance", min_delta=0.0, patience=2, mode="min")
    data = {"batch_size": "full"}
    module = train(100_000, [MarginHistogram(1), stop], data, weight_decay=0.5)
    epoch = rows[-1]["epoch"]
    assert epoch < 100_000
    assert module.completed() == epoch
    assert "margin/mean" in rows[-1] and rows[-1]["epoch"] > rows[-2]["epoch"]
    assert len({row["epoch"] for row in rows}) == len(rows)


def test_batched_pytorch_gives_the_same_run(train: Any, rows: Any, monkeypatch: Any) -> None:
    data = {"replicas": 3, "order": "shuffle", "batch_size": 2}
    compiled = train(30, data=data, weight_decay=[0.01, 0.1])
    first = list(rows)
    rows.clear()
    take = LinearTraining._take_steps
    calls = []

    def on_a_device(self: LinearTraining, *args: Any) -> Any:
        self.compiled = False
        calls.append(args)
        return take(self, *args)

    monkeypatch.setattr(LinearTraining, "_take_steps", on_a_device)
    batched = train(30, data=data, weight_decay=[0.01, 0.1])
    assert len(calls) >= 30 / 5
    assert relative(weight(batched), weight(compiled)) < 1e-13
    assert len(rows) == len(first)
    for row, expected in zip(rows, first, strict=True):
        numbers = {k: v for k, v in expected.items() if k != "replicas"}
        assert {k: row[k] for k in numbers} == pytest.approx(numbers, rel=1e-8, abs=1e-13)


def test_a_run_cut_into_small_pieces_is_the_same_bitwise(
    train: Any, rows: Any, monkeypatch: Any
) -> None:
    whole = train(500, [LayerVelocity()], {"order": "shuffle"})
    first = list(rows)
    rows.clear()
    monkeypatch.setattr("janus_pl.linear.replicas.PIECE", 7 * 9 * 3 * 4 * 6)
    cut = train(500, [LayerVelocity()], {"order": "shuffle"})
    assert cut.replicas.plan.size == 6
    assert len(cut.replicas.plan.looks) > len(whole.replicas.plan.looks)
    assert np.array_equal(weight(cut), weight(whole))
    for row, expected in zip(rows, first, strict=True):
        numbers = {k: v for k, v in expected.items() if k not in ("eta_t", "null/predicted")}
        assert {k: row[k] for k in numbers} == numbers
        assert row == pytest.approx({**row, **expected}, rel=1e-13)


def test_a_divergence_says_where_and_keeps_the_last_finite_weights(train: Any) -> None:
    with (
        pytest.warns(UserWarning, match=r"model.learning_rate: 3 is above 0\.\d+"),
        pytest.raises(DivergenceError, match=r"epoch 46, .*learning rate 3, lambda 0.01") as caught,
    ):
        train(5000, learning_rate=3.0)
    assert "the weights are those of epoch" in str(caught.value)


def test_the_trainer_is_left_as_it_was(fit: Any) -> None:
    module = LinearRegressor(learning_rate=0.05)
    trainer = fit(module, LinearProblem(**SMALL), 30)
    assert trainer.max_epochs == 30
    first = weight(module).copy()
    trainer.fit(module, datamodule=LinearProblem(**SMALL))
    assert np.array_equal(weight(module), first)


def test_progress_bar_and_checkpoints_follow_the_run(
    fit: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    module = LinearRegressor(learning_rate=0.05)
    bar = ProgressBar()
    options = {"enable_progress_bar": True, "enable_checkpointing": True}
    fit(module, LinearProblem(**SMALL), 300, [bar, RunCheckpoint(1)], **options)
    assert "300/300" in capsys.readouterr().out
    (path,) = tmp_path.rglob("last.ckpt")
    state = torch.load(path, weights_only=True)["linear"]["training"]
    assert state["done"] == 300


def test_a_divergence_leaves_the_rows_before_it(train: Any, rows: Any) -> None:
    with (
        pytest.warns(UserWarning, match="is above"),
        pytest.raises(DivergenceError, match=r"epoch (\d+)") as caught,
    ):
        train(100_000, learning_rate=0.4)
    lost = int(str(caught.value).split("epoch ")[1].split(",")[0])
    outcome = rows.pop()
    assert (outcome["diverged"], outcome["epoch"], outcome["diverged/epoch"]) == (True, lost, lost)
    epochs = [int(row["epoch"]) for row in rows]
    assert epochs[-1] < lost
    following = next(e for e in log_spaced(100_000, 50) if e > epochs[-1])
    assert following >= lost


def test_a_stopped_run_knows_no_tenths(train: Any, rows: Any) -> None:
    train(200, data={"batch_size": 2})
    assert "noise/weights_last_tenth" in rows[-1]
    assert "noise/weights_last_tenth" not in rows[-2]
    rows.clear()
    train(200, [StopAt(9)], data={"batch_size": 2})
    assert "noise/weights_last_tenth" not in rows[-1]


def test_noise_of_a_tenth_is_that_of_its_steps(train: Any, rows: Any) -> None:
    train(50, data={"batch_size": 2, "order": "shuffle"})
    problem = problem_of(batch_size=2, order="shuffle")
    x, y, w0 = (a[0] for a in problem.problem)
    orders = [problem.indices(e)[0] for e in range(50)]
    steps = oracle.steps_of(w0, x, y, orders, 2, [0.05] * 50, 0.01)
    for name, first, last in (("tenth_before", 40, 45), ("last_tenth", 45, 50)):
        expected = oracle.statistics(steps[4 * first : 4 * last], x.T)
        weights, predictions = (rows[-1][f"noise/{k}_{name}"] for k in ("weights", "predictions"))
        assert weights**2 == pytest.approx(expected["variance"], rel=1e-10)
        assert predictions**2 == pytest.approx(expected["probe_variance"], rel=1e-10)


class Interrupt(Callback):
    """Ctrl-C in the middle of a stretch between two looks."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.completed() == 29:
            raise KeyboardInterrupt


def test_the_rows_before_an_interruption_are_written(train: Any, rows: Any) -> None:
    with pytest.raises(SystemExit):
        train(100, [Interrupt()])
    assert [int(row["epoch"]) for row in rows][-5:] == [24, 25, 26, 28, 29]


def test_a_second_fit_is_looked_at_from_its_start(fit: Any, rows: Any) -> None:
    module = LinearRegressor(learning_rate=0.05)
    trainer = fit(module, LinearProblem(**SMALL), 10, [MarginHistogram(1)])
    rows.clear()
    trainer.fit(module, datamodule=LinearProblem(**SMALL))
    assert rows[0]["epoch"] == 0 and "margin/mean" in rows[0]


def test_a_long_epoch_is_looked_at_in_part(train: Any, rows: Any) -> None:
    data = {"num_train": 9000, "dim": 2, "outputs": 1}
    module = train(1, data=data, learning_rate=0.01)
    watch = module.replicas.watch
    assert watch.stride == 7  # the first above 9000/4096 without a factor of 9000
    assert watch.sums[0, 0] == 1286
