"""R replicas on their way, without a trainer: each is the plain loop of its own problem."""

from __future__ import annotations

import itertools
from typing import Any

import linear_oracles as oracle
import numpy as np
import pytest
import torch
from linear_oracles import relative

import janus_pl.linear.replicas
from janus_pl.data.regression import LinearProblem
from janus_pl.linear.replicas import LinearTraining, Window, pooled, window

# More samples than d + m, so that columns stand for them; the last minibatch of 4 is one of 2.
SHAPE = {"num_train": 30, "dim": 5, "outputs": 3, "seed": 4, "replicas": 2, "init_scale": 0.7}
LAMBDAS, RATES = [0.02, 0.0, 0.3], [0.03, "auto"]
DECAY = {"paper": 2.0, "appendix_a": 1.0}
EPOCHS = 9
MULTIPLIERS = {
    "constant": lambda e, total: 1.0,
    "inverse_sqrt": lambda e, total: 1 / np.sqrt(e + 1),
    "cosine": lambda e, total: (1 + np.cos(np.pi * e / total)) / 2,
}


def problem_of(**options: Any) -> LinearProblem:
    data = LinearProblem(**{**SHAPE, "order": "shuffle", "batch_size": 4, **options})
    data.setup()
    return data


def training_of(
    data: LinearProblem,
    lambdas: Any = LAMBDAS,
    rates: Any = RATES,
    schedule: Any = "constant",
    convention: Any = "paper",
    epochs: int = EPOCHS,
    records: int = 50,
    looks: int = 5,
) -> LinearTraining:
    w0 = torch.from_numpy(data.w0()).repeat_interleave(len(lambdas) * len(rates), dim=0)
    return LinearTraining(data, lambdas, rates, schedule, convention, epochs, records, looks, w0)


def run(training: LinearTraining) -> list[int]:
    """To the end of its plan; returns where its records are."""
    records = []
    for _ in training.plan.looks:
        for piece in training.plan:
            if training.run(piece):
                records.append(training.plan.done)
    assert training.plan.done == training.plan.total
    return records


def replicas_of(data: LinearProblem, lambdas: Any = LAMBDAS, rates: Any = RATES) -> list[Any]:
    """The single problem, lambda and rate of every replica: the seed is slowest, eta fastest."""
    found = []
    for offset, lam, rate in itertools.product(range(data.replicas), lambdas, rates):
        options = {**SHAPE, "batch_size": data.batch_size, "order": data.order}
        options |= {"num_train": data.num_train, "seed": data.seed + offset, "replicas": 1}
        alone = problem_of(**options)
        x = alone.problem.x[0]
        eta = 0.5 / np.linalg.svd(x, compute_uv=False)[0] if rate == "auto" else rate
        found.append((alone, data.seed + offset, lam, eta))
    return found


@pytest.mark.parametrize("schedule", MULTIPLIERS)
@pytest.mark.parametrize(
    ("batch_size", "order", "convention"),
    [(4, "shuffle", "paper"), (4, "with_replacement", "appendix_a"), ("full", "shuffle", "paper")],
)
def test_every_replica_is_the_plain_loop_of_its_own_problem(
    batch_size: Any, order: Any, convention: Any, schedule: str
) -> None:
    data = problem_of(batch_size=batch_size, order=order)
    training = training_of(data, schedule=schedule, convention=convention)
    assert (training.learning_rate == training.eta).all()  # of the first epoch, before any
    records = run(training)
    assert records == list(range(1, EPOCHS + 1))
    multipliers = [MULTIPLIERS[schedule](e, EPOCHS) for e in range(EPOCHS)]
    size, steps = (30, 1) if batch_size == "full" else (4, 8)
    expected = replicas_of(data)
    assert len(training.weight) == len(expected) == 12
    for r, (alone, seed, lam, eta) in enumerate(expected):
        etas = eta * np.array(multipliers)
        x, y, w0 = (a[0] for a in alone.problem)
        orders = [alone.indices(e)[0] for e in range(EPOCHS)]
        after = oracle.train(w0, x, y, orders, size, etas, lam, DECAY[convention])[0]
        assert relative(training.weight[r].numpy(), after[-1]) < 1e-12
        keep = np.abs(1 - DECAY[convention] * lam * etas)
        numbers = {
            "seed": training.seed[r],
            "lam": float(training.lam[r]),
            "eta": float(training.eta[r]),
            "eta_t": float(training.eta_t[r]),
            "log_decay": float(training.log_decay[r]),
            "rate": float(training.learning_rate[r]),
            "diverged": int(training.diverged[r]),
        }
        assert numbers == pytest.approx(
            {
                "seed": seed,
                "lam": lam,
                "eta": eta,
                "eta_t": steps * etas.sum(),
                "log_decay": steps * np.log(keep).sum(),
                "rate": etas[-1],
                "diverged": -1,
            },
            rel=1e-12,
            abs=1e-15,
        )
        # What is left of W_perp goes by the same number: lambda W* is that of this convention.
        solution = training.landscape.solution[r].numpy()
        half = {"paper": lam, "appendix_a": lam / 2}[convention]
        gradient = oracle.autograd_gradient(solution, x, y, range(30)) + 2 * half * solution
        assert np.abs(gradient).max() < 1e-12


def test_a_decay_beyond_zero_is_that_of_its_size() -> None:
    """1 - 2 eta lambda = -2.6, three epochs of GD without data to speak of."""
    data = problem_of(batch_size="full")
    training = training_of(data, lambdas=[30.0], rates=[0.06], epochs=3)
    run(training)
    assert training.log_decay.tolist() == pytest.approx([3 * np.log(2.6)] * 2, rel=1e-12)


@pytest.mark.parametrize("schedule", MULTIPLIERS)
def test_a_stream_steps_at_the_rate_of_each_step_however_it_is_cut(
    schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"order": "online", "num_train": 50}
    whole = training_of(problem_of(**options), schedule=schedule)
    run(whole)
    monkeypatch.setattr(janus_pl.linear.replicas, "SAMPLES_AT_ONCE", 11)  # two minibatches of 4
    data = problem_of(**options)
    training = training_of(data, schedule=schedule)
    assert training.plan.size == 2
    assert (training.plan.total, training.steps_per_unit, training.in_steps) == (13, 1, True)
    run(training)
    assert torch.equal(training.weight, whole.weight)
    multipliers = [MULTIPLIERS[schedule](t, 13) for t in range(13)]
    assert [training.epochs(done) for done in (0, 1, 13)] == [0, 1 / 13, 1]
    for r, (alone, _, lam, eta) in enumerate(replicas_of(data)):
        etas = eta * np.array(multipliers)
        x, y, w0 = (a[0] for a in alone.problem)
        after = oracle.train(w0, x, y, [range(50)], 4, [etas], lam)[0][-1]
        assert relative(training.weight[r].numpy(), after) < 1e-12
        assert float(training.eta_t[r]) == pytest.approx(etas.sum(), rel=1e-12)
        decay = np.log(np.abs(1 - 2 * lam * etas)).sum()
        assert float(training.log_decay[r]) == pytest.approx(decay, rel=1e-12, abs=1e-15)


def test_epochs_are_counted_as_they_are_but_in_a_stream() -> None:
    assert [training_of(problem_of()).epochs(done) for done in (0, 1, 7)] == [0, 1, 7]


# Pieces, looks and records


@pytest.mark.parametrize(
    ("options", "samples"),
    [({}, 30), ({"batch_size": "full"}, 30), ({"order": "online", "batch_size": 3}, 3)],
)
def test_a_piece_takes_so_many_multiplications(
    options: Any, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_unit = 12 * 5 * 3 * 4 * samples  # replicas, d, m, four for each sample and entry
    monkeypatch.setattr(janus_pl.linear.replicas, "PIECE", 3.5 * per_unit)
    training = training_of(problem_of(**options), epochs=200)
    assert training.plan.size == 3
    monkeypatch.setattr(janus_pl.linear.replicas, "PIECE", 0.5 * per_unit)
    assert training_of(problem_of(**options), epochs=200).plan.size == 1


def test_looks_come_after_so_many_pieces_at_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janus_pl.linear.replicas, "PIECE", 2.0 * 12 * 5 * 3 * 4 * 30)
    plan = training_of(problem_of(), epochs=1000, records=20, looks=1).plan
    assert plan.size == 2
    gaps = np.diff([0, *plan.looks])
    assert plan.looks[:2] == [1, 10] and len(plan.looks) > 8
    # Twenty pieces of two epochs, or the next record where records are further apart.
    for before, look, gap in zip([0, *plan.looks], plan.looks, gaps, strict=False):
        between = [record for record in plan.records if before < record < look]
        assert gap <= 40 or not between


def test_records_and_looks_are_so_many_a_decade() -> None:
    plan = training_of(problem_of(), epochs=100, records=4, looks=2).plan
    assert plan.records == [1, 2, 3, 6, 10, 18, 32, 56, 80, 90, 100]
    assert plan.looks == [1, 3, 10, 32, 100]


@pytest.mark.parametrize(
    ("steps_per_unit", "done", "units", "most"),
    [
        # One step in 64 from 8 looks up to 64, and an epoch of minibatches whole.
        (1, 0, 1, 1),
        (1, 2, 8, 8),
        (1, 10, 90, 8),
        (1, 100, 900, 14),
        (1, 1000, 7000, 64),
        (8, 10, 90, 11),
        (8, 1000, 7000, 64),
        (30, 10, 90, 42),
        (100, 10, 90, 100),
    ],
)
def test_a_watch_looks_at_some_of_the_steps(
    steps_per_unit: int, done: int, units: int, most: int
) -> None:
    sizes = {1: "full", 8: 4, 30: 1, 100: 3}
    num_train = 300 if steps_per_unit == 100 else 30
    data = problem_of(batch_size=sizes[steps_per_unit], num_train=num_train)
    training = training_of(data, epochs=10_000, records=1, looks=1)
    training.load({**training.state(), "done": done})
    steps = steps_per_unit * units
    assert training.watch.steps == steps
    stride = -(-steps // most)
    while stride > 1 and np.gcd(stride, steps_per_unit) > 1:
        stride += 1
    assert training.watch.stride == stride


def test_a_watch_of_a_stream_looks_at_five_hundred_steps() -> None:
    data = problem_of(order="online", num_train=40_000, replicas=1)
    training = training_of(data, records=1, looks=1)
    training.load({**training.state(), "done": 1000})
    assert training.watch.steps == 7000  # to the eight tenths of 10,000 steps
    assert training.watch.stride == 14


@pytest.mark.parametrize("num_train", [7, 40])
def test_the_first_inputs_of_each_seed_are_watched(num_train: int) -> None:
    data = problem_of(num_train=num_train, dim=4, outputs=2)
    training = training_of(data)
    x = data.problem.x
    assert training.probes.shape == (12, min(num_train, 32), 4)
    for r in range(12):
        expected = x[r // 6].T[:32]
        assert np.array_equal(training.probes[r].numpy(), expected)
    assert not torch.equal(training.probes[0], training.probes[6])


# What a run leaves behind


def test_a_replica_diverges_at_its_own_epoch_of_a_later_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(janus_pl.linear.replicas, "PIECE", 1.0)
    data = problem_of()
    rates = [0.01, 40.0]
    training = training_of(data, lambdas=[0.1], rates=rates, epochs=80)
    assert training.plan.size == 1
    sound_then = None
    for _ in training.plan.looks:
        for piece in training.plan:
            before = training.weight.clone()
            training.run(piece)
            assert torch.equal(training.sound.nan_to_num(7), before.nan_to_num(7))
            if (training.diverged >= 0).any() and sound_then is None:
                sound_then = training.sound
    expected = []
    with np.errstate(all="ignore"):
        for alone, _, lam, eta in replicas_of(data, [0.1], rates):
            x, y, w0 = (a[0] for a in alone.problem)
            orders = [alone.indices(e)[0] for e in range(80)]
            after = oracle.train(w0, x, y, orders, 4, [eta] * 80, lam)[0]
            lost = [e for e, w in enumerate(after) if not np.isfinite(w).all()]
            expected.append(lost[0] if lost else -1)
    assert training.diverged.tolist() == expected
    assert expected[0] == expected[2] == -1 and min(expected[1], expected[3]) > 1
    assert sound_then is not None and torch.isfinite(sound_then).all()


def test_a_snapshot_is_of_its_moment() -> None:
    training = training_of(problem_of(), schedule="inverse_sqrt")
    first = training.snapshot()
    assert first.watch is None and first.done == 0
    assert first.eta_t.tolist() == first.log_decay.tolist() == [0.0] * 12
    kept = [part.clone() for part in first[1:5]]
    for piece in training.plan:
        training.run(piece)
    later = training.snapshot()
    assert all(torch.equal(a, b) for a, b in zip(first[1:5], kept, strict=True))
    assert later.done == 1 and later.watch is training.watch
    assert not torch.equal(later.weight, first.weight)
    assert (later.log_decay[training.lam > 0] < 0).all()


def test_a_training_goes_on_from_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training_of(problem_of(), schedule="cosine")
    run(whole)
    first = training_of(problem_of(), schedule="cosine")
    for _ in range(4):  # looks at 1, 2, 3 and 4
        for piece in first.plan:
            first.run(piece)
    first.run(next(iter(first.plan)))
    second = training_of(problem_of(), schedule="cosine")
    second.weight.copy_(first.weight)
    second.load(first.state())
    assert second.plan.done == 5
    run(second)
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.eta_t, whole.eta_t)
    assert torch.equal(second.log_decay, whole.log_decay)


# Noise over several windows


def windows_of(lengths: list[int]) -> tuple[Any, Any, list[Window]]:
    """Random W of so many steps, probes, and the windows that they are cut into."""
    rng = np.random.default_rng(6)
    w = rng.standard_normal((sum(lengths), 2, 3, 5)) * np.array([1.0, 20.0])[:, None, None]
    w += 3 * np.arange(sum(lengths))[:, None, None, None]  # means far apart
    probes = rng.standard_normal((2, 4, 5))
    cut = np.split(w, np.cumsum(lengths)[:-1])
    windows = []
    for part in cut:
        variances = moments(part, probes)
        tensors = [torch.from_numpy(a) for a in (part.mean(0), *variances)]
        windows.append(Window(len(part), *tensors))
    return w, probes, windows


def moments(w: Any, probes: Any) -> tuple[Any, Any]:
    """Mean squares of ||W - mean W|| and, a mean over probes, of ||(W - mean W) z||."""
    deviation = w - w.mean(0)
    outputs = np.einsum("trij,rkj->trik", deviation, probes)
    return (deviation**2).sum((2, 3)).mean(0), (outputs**2).sum(2).mean((0, 2))


@pytest.mark.parametrize("lengths", [[6], [1, 9], [5, 2, 11], [3, 3, 3]])
def test_windows_pool_to_the_variance_of_all_their_steps(lengths: list[int]) -> None:
    w, probes, windows = windows_of(lengths)
    expected = moments(w, probes)
    measured = pooled(windows, torch.from_numpy(probes))
    for variance, value in zip(measured, expected, strict=True):
        assert variance.numpy() == pytest.approx(value, rel=1e-12)
    if len(lengths) > 1:  # not the mean of the windows' own
        own = torch.stack([part.variance for part in windows]).sum(0) / len(windows)
        assert float(own[0]) != pytest.approx(expected[0][0], rel=0.1)


def test_a_window_counts_all_steps_of_its_watch() -> None:
    training = training_of(problem_of(), records=1)
    run(training)
    watch = training.watch
    seen = window(watch)
    assert seen.steps == watch.steps == 8
    assert torch.equal(seen.mean, watch.mean)
    assert torch.equal(seen.variance, watch.variance)
    assert torch.equal(seen.prediction_variance, watch.probe_variance)
    assert not torch.equal(seen.variance, seen.prediction_variance)
