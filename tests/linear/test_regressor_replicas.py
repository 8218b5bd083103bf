"""LinearRegressor at generic options: the first of several replicas, twins, limits, divergence."""

from __future__ import annotations

import re
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch

import janus_pl.linear.checks
import janus_pl.linear.regressor
from janus_pl import LinearRegressor
from janus_pl.data import LinearProblem
from janus_pl.errors import DivergenceError, UsageError
from janus_pl.theory import stability_limit

SHAPE = {"num_train": 10, "dim": 6, "outputs": 3, "seed": 2, "batch_size": 4, "replicas": 2}
LAMBDAS, RATES = [0.02, 0.3], [0.03, 0.08]
EPOCHS = 3


@pytest.fixture
def train(fit: Any) -> Any:
    """A fit of a regressor on a problem, given by their options."""

    def run(data: Any = None, epochs: int = EPOCHS, **options: Any) -> LinearRegressor:
        module = LinearRegressor(
            **{
                "learning_rate": RATES,
                "weight_decay": LAMBDAS,
                "schedule": "inverse_sqrt",
                **options,
            }
        )
        fit(module, LinearProblem(**{**SHAPE, **(data or {})}), epochs)
        return module

    return run


def first_steps(module: LinearRegressor, epochs: int = EPOCHS) -> list[oracle.Step]:
    """Those of the first seed, lambda and rate."""
    data = module.data
    x, y, w0 = (a[0] for a in data.problem)
    etas = RATES[0] / np.sqrt(np.arange(epochs) + 1)
    orders = [data.indices(e)[0] for e in range(epochs)]
    return oracle.steps_of(w0, x, y, orders, 4, etas, LAMBDAS[0])


def test_callbacks_see_the_first_of_the_replicas(train: Any) -> None:
    module = train()
    steps = first_steps(module)
    w, data = steps[-1].after, module.data
    x, y = data.problem.x[0], data.problem.y[0]
    norm = np.linalg.norm(w)
    assert oracle.relative(module.weight[0].detach().numpy(), w) < 1e-13
    assert oracle.relative(module.weight[-1].detach().numpy(), w) > 1e-2
    assert float(module.scale()) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_allclose(module.directions()["fc1"].numpy(), w / norm, rtol=1e-11)
    margins = [(y[:, n] @ w @ x[:, n]) / (y[:, n] @ y[:, n]) / norm for n in range(10)]
    assert module.margins().tolist() == pytest.approx(margins, rel=1e-11)
    inputs = torch.from_numpy(x.T.copy())
    np.testing.assert_allclose(module(inputs).detach().numpy(), (w @ x).T, rtol=1e-11)
    # V dot of the last minibatch, the mean of its norm since the last row, and of all samples.
    last = oracle.tangent_velocity(steps[-1].before, steps[-1].gradient)
    np.testing.assert_allclose(module.velocities()["fc1"].numpy(), last, rtol=1e-9)
    norms = [np.linalg.norm(oracle.tangent_velocity(s.before, s.gradient)) for s in steps[-3:]]
    assert module.velocity_norms().tolist() == pytest.approx([np.mean(norms)], rel=1e-11)
    full = oracle.tangent_velocity(w, oracle.autograd_gradient(w, x, y, range(10)))
    expected = [np.linalg.norm(full)]
    assert module.full_velocity_norms().tolist() == pytest.approx(expected, rel=1e-11)
    assert module.completed() == EPOCHS


@pytest.mark.parametrize("held", [True, False])
def test_margins_are_taken_in_parts(
    held: bool, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = train({"order": "online"}, epochs=1, schedule="constant")
    whole = module.margins().tolist()
    w = module.weight.detach().numpy()[0]
    x, y = module.data.problem.x[0], module.data.problem.y[0]
    norm = np.linalg.norm(w)
    margins = [(y[:, n] @ w @ x[:, n]) / (y[:, n] @ y[:, n]) / norm for n in range(10)]
    assert whole == pytest.approx(margins, rel=1e-11)
    monkeypatch.setattr(janus_pl.linear.regressor, "SAMPLES_AT_ONCE", 4)
    if not held:
        monkeypatch.setattr("janus_pl.data.regression.HELD", 0)
    assert module.data.streamed != held
    assert module.margins().tolist() == pytest.approx(margins, rel=1e-11)


@pytest.mark.parametrize(
    ("batch_size", "order", "whole"),
    [
        ("full", "shuffle", True),
        (10, "shuffle", True),
        (10, "with_replacement", False),
        (4, "shuffle", False),
    ],
)
def test_gradient_descent_may_have_a_rate_and_a_schedule_of_its_own(
    batch_size: Any, order: Any, whole: bool, train: Any
) -> None:
    data = {"batch_size": batch_size, "order": order, "replicas": 1}
    options = {"learning_rate": 0.01, "schedule": "constant", "weight_decay": 0.1}
    twin = train(data, gd_learning_rate=0.02, gd_schedule="cosine", **options)
    assert twin.replicas.eta.tolist() == [0.02 if whole else 0.01]
    assert twin.schedule == ("cosine" if whole else "constant")
    same = train(data, **options)
    assert same.replicas.eta.tolist() == [0.01] and same.schedule == "constant"


def test_a_list_of_rates_for_gradient_descent_is_a_replica_each(train: Any) -> None:
    module = train({"batch_size": "full"}, gd_learning_rate=[0.01, 0.02, 0.03])
    assert module.weight.shape == (12, 3, 6)
    assert module.replicas.eta.tolist() == [0.01, 0.02, 0.03] * 4
    assert module.replicas.lam.tolist() == ([0.02] * 3 + [0.3] * 3) * 2
    w0 = module.data.w0()
    for r in range(12):  # each from the start of its own seed
        assert np.array_equal(module.replicas.landscape.w0[r].numpy(), w0[r // 6])


# Limits of stability


def limits_of(module: LinearRegressor, lambdas: Any) -> list[float]:
    """By seed and lambda, from each problem's own samples."""
    data, size = module.data, "full" if module.data.whole else module.data.batch_size
    return [
        stability_limit(torch.from_numpy(x.copy()), size, lam, data.order)
        for x in data.problem.x
        for lam in lambdas
    ]


@pytest.mark.parametrize("convention", ["paper", "appendix_a"])
@pytest.mark.parametrize("batch_size", [4, "full"])
def test_each_replica_is_held_against_the_limit_of_its_problem_and_decay(
    batch_size: Any, convention: Any, train: Any
) -> None:
    data = {"batch_size": batch_size, "order": "sequential"}
    lambdas = [0.02, 40.0]
    calm = train(data, learning_rate=1e-4, weight_decay=lambdas, decay_convention=convention)
    shares = {"paper": 1.0, "appendix_a": 0.5}[convention]
    limits = limits_of(calm, [lam * shares for lam in lambdas])
    assert min(limits[0], limits[2]) > 2 * max(limits[1], limits[3])
    # Between the limits of the two decays: two replicas of four are above.
    rate = 1.5 * max(limits[1], limits[3])
    options = {"weight_decay": lambdas, "decay_convention": convention}
    with pytest.warns(UserWarning, match="is above") as caught:
        train(data, learning_rate=rate, schedule="constant", **options)
    (said,) = [str(w.message) for w in caught if "is above" in str(w.message)]
    assert said.startswith(f"model.learning_rate: {rate:.4g} is above {limits[1]:.4g}, where")
    assert said.endswith("at a constant rate (2 of 4 replicas; this is 1)")


@pytest.mark.parametrize(
    ("schedule", "total"), [("inverse_sqrt", 30), ("cosine", 30), ("inverse_sqrt", 3)]
)
def test_a_schedule_that_comes_below_the_limit_says_when(
    schedule: Any, total: int, train: Any
) -> None:
    data = {"replicas": 1, "order": "sequential"}
    options = {"weight_decay": 0.1, "schedule": schedule}
    (limit,) = limits_of(train(data, learning_rate=1e-4, **options), [0.1])
    eta = 2.2 * limit
    e = np.arange(total)
    curve = {"cosine": (1 + np.cos(np.pi * e / total)) / 2, "inverse_sqrt": (e + 1) ** -0.5}
    above = [epoch + 1 for epoch, m in enumerate(curve[schedule]) if eta * m > limit]
    with pytest.warns(UserWarning, match="is above") as caught:
        train(data, total, learning_rate=eta, **options)
    (said,) = [str(w.message) for w in caught if "is above" in str(w.message)]
    assert "replicas" not in said
    if len(above) == total:
        assert said.endswith("at a constant rate")
    else:
        assert said.endswith(f"; {schedule} is below it after epoch {above[-1]}")
        assert 1 < above[-1] < total - 1


def test_some_limits_are_computed_and_no_more(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janus_pl.linear.checks, "CHECKED", 3)
    with pytest.warns(UserWarning, match=r"3 of 4 replicas; this is 0"):
        train(learning_rate=1.0, epochs=1)
    monkeypatch.setattr(janus_pl.linear.checks, "CHECKED", 4)
    with pytest.warns(UserWarning, match=r"4 of 4 replicas; this is 0"):
        train(learning_rate=1.0, epochs=1)


# Divergence


@pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")
@pytest.mark.parametrize(("num_train", "batch_size", "each"), [(10, 4, 3), (5, "full", 1)])
def test_a_divergence_names_epoch_steps_and_the_last_replica_to_go(
    num_train: int, batch_size: Any, each: int, train: Any, rows: Any
) -> None:
    lambdas, rates = [0.02], [9.0, 3.0, 30.0]
    own = {"num_train": num_train, "batch_size": batch_size}
    with pytest.raises(DivergenceError) as caught:
        options = {"weight_decay": lambdas, "schedule": "constant"}
        train(own, 2000, learning_rate=rates, **options)
    data = LinearProblem(**{**SHAPE, **own})
    data.setup()
    lost = []
    with np.errstate(all="ignore"):
        for r in range(6):
            x, y, w0 = (a[r // 3] for a in data.problem)
            orders, etas = [range(num_train)] * 900, [rates[r % 3]] * 900
            size = num_train if each == 1 else 4
            after = oracle.train(w0, x, y, orders, size, etas, 0.02)[0]
            lost.append(next(e for e, w in enumerate(after) if not np.isfinite(w).all()))
    last = int(np.argmax(lost))
    assert last % 3 == 1 and sorted(lost)[-2] < max(lost)  # neither the first nor the last one
    epoch = max(lost) + 1
    steps = f", steps {each * epoch - 2} to {each * epoch}" if each > 1 else f", step {epoch}"
    message = str(caught.value)
    expected = (
        f"not finite in all 6 replicas at epoch {epoch}{steps}, learning rate 3, lambda 0.02;"
    )
    assert expected in message
    outcome = rows[-1]
    assert outcome["diverged"] == 6
    assert outcome["epoch"] == outcome["diverged/epoch"] == epoch
    assert outcome["trainer/global_step"] == outcome["diverged/step"] == each * epoch
    kept = int(re.search(r"those of epoch (\d+)", message)[1])  # type: ignore[index]
    assert kept < epoch
    counted = outcome["eta_t"] / (3 * each)  # steps of the rate of that replica, no other's
    assert counted == int(counted) and epoch <= counted < 2 * epoch


@pytest.mark.filterwarnings("ignore:model.learning_rate. .* is above:UserWarning")
def test_a_divergence_of_a_stream_names_the_step(train: Any, rows: Any) -> None:
    data = {"order": "online", "num_train": 4000, "replicas": 1}
    with pytest.raises(DivergenceError) as caught:
        train(data, 1, learning_rate=60.0, weight_decay=0.02, schedule="inverse_sqrt")
    problem = LinearProblem(**{**SHAPE, **data})
    problem.setup()
    x, y, w = (a[0] for a in problem.problem)
    with np.errstate(all="ignore"):
        for step, start in enumerate(range(0, 4000, 4)):
            eta = 60.0 / np.sqrt(step + 1)
            w = oracle.train(w, x, y, [range(start, start + 4)], 4, [eta], 0.02)[0][-1]
            if not np.isfinite(w).all():
                break
    assert 10 < step < 900
    message = str(caught.value)
    told = [re.search(word, message) for word in (r"at step (\d+)", r"of step (\d+)")]
    named, kept = (int(found[1]) for found in told if found)
    # A piece of a stream is one call: the step named lies in the piece, up to the one that did it.
    assert kept < named <= step + 1
    eta = 60.0 / np.sqrt(named)
    assert f"not finite at step {named}, learning rate {eta:g}, lambda 0.02;" in message
    assert rows[-1]["epoch"] == pytest.approx(named / 1000, rel=1e-12)
    assert rows[-1]["diverged/step"] == rows[-1]["trainer/global_step"] == named
    assert rows[-1]["diverged"] is True
    assert [row["trainer/global_step"] for row in rows[-2:]] == [kept, named]


# Options


@pytest.mark.parametrize("field", ["learning_rate", "gd_learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "0.1", [], [0.1, -1], 0])
def test_numbers_out_of_range_are_named(field: str, value: Any) -> None:
    if field == "weight_decay" and value == 0 and value is not True:
        LinearRegressor(weight_decay=value)
        return
    with pytest.raises(UsageError, match=f"model.{field}: got "):
        LinearRegressor(**{field: value})


def test_only_a_rate_may_be_auto() -> None:
    rates: list[Any] = ["auto", 0.1]
    LinearRegressor(learning_rate=rates, gd_learning_rate="auto")
    with pytest.raises(UsageError, match=r"model.weight_decay: got 'auto'"):
        LinearRegressor(weight_decay="auto")


@pytest.mark.parametrize("field", ["records_per_decade", "looks_per_decade"])
def test_counts_go_from_one_to_ten_thousand(field: str) -> None:
    for good in (1, 10_000):
        LinearRegressor(**{field: good})
    for bad in (0, 10_001, 2.5, True):
        with pytest.raises(UsageError, match=f"model.{field}: got {bad}"):
            LinearRegressor(**{field: bad})
