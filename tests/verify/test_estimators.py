"""Effects of a seed, from records of which every number is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from report.generic import LAYERS, STEP, network
from scipy import stats

from janus_pl.records.families import lambda_of
from janus_pl.records.late import MIDDLE, window
from janus_pl.records.run import Run
from janus_pl.verify.estimators import Evidence, evidence
from janus_pl.verify.quantities import QUANTITIES

EPOCHS = tuple(range(11))


def run(lam: float = 1e-3, batch: int | str = 32, seed: int = 0, **options: Any) -> Run:
    return network(lam, batch, seed, epochs=options.pop("epochs", EPOCHS), **options)


def found(runs: list[Run], name: str, quantity: str = "velocity", **options: str) -> list[Evidence]:
    dynamics, clock = options.get("dynamics", "SGD"), options.get("clock", "epochs")
    return evidence(runs, name, QUANTITIES[quantity], dynamics, clock)[0]


def late(one: Run, key: str, first: int = 9) -> float:
    """The mean over the last fifth of ten epochs: rows 9 and 10."""
    return float(one.rows[key].iloc[first:11].mean())


def velocity(one: Run, first: int = 9) -> float:
    return math.exp(np.mean([math.log(late(one, f"velocity/{k}", first)) for k in LAYERS]))


def test_quantities_are_means_over_the_last_fifth() -> None:
    one = run()
    at = window(one)
    assert at.rows["epoch"].tolist() == [9, 10]
    assert QUANTITIES["velocity"].of(at) == pytest.approx(velocity(one), rel=1e-12)
    ranks = [math.log(late(one, f"effective_rank/{k}")) for k in MIDDLE]
    assert QUANTITIES["rank"].of(at) == pytest.approx(math.exp(np.mean(ranks)), rel=1e-12)
    starts = [math.log(one.rows[f"effective_rank/{k}"].iloc[0]) for k in MIDDLE]
    kept = math.exp(np.mean(ranks) - np.mean(starts))
    assert QUANTITIES["rank_kept"].of(at) == pytest.approx(kept, rel=1e-12)
    spread = (one.rows["margin/std"] / one.rows["margin/mean"].abs()).iloc[9:].mean()
    assert QUANTITIES["spread"].of(at) == pytest.approx(spread, rel=1e-12)
    assert QUANTITIES["mean_margin"].of(at) == late(one, "margin/mean")
    others = [late(one, f"velocity/{k}") for k in LAYERS]
    assert QUANTITIES["top_layer"].of(at) == pytest.approx(others[-1] / min(others[:-1]))
    rest = late(one, "equilibrium/residual") - late(one, "equilibrium/common_mode")
    mu = late(one, "margin/mean") * late(one, "rho") / abs(late(one, "rho_learned"))
    assert QUANTITIES["equilibrium"].of(at) == pytest.approx(abs(rest) / mu)


def test_ranks_kept_are_one_where_nothing_moves_and_half_where_they_halve() -> None:
    still = {f"effective_rank/{k}": [100.0] * 11 for k in MIDDLE}
    halved = {key: [100.0] + [50.0] * 10 for key in still}
    kept = QUANTITIES["rank_kept"]
    assert kept.of(window(run(columns=still))) == pytest.approx(1)
    assert kept.of(window(run(columns=halved))) == pytest.approx(0.5)
    lost = {**halved, f"effective_rank/{MIDDLE[0]}": [0.0] + [50.0] * 10}
    assert math.isnan(kept.of(window(run(columns=lost))))  # no rank at the start to compare with


def test_the_edge_before_a_rise_is_that_of_the_last_look_before_it() -> None:
    ratio = [0.1, math.nan, 0.2, math.nan, 0.3, math.nan, math.nan, 0.9, 2.0, 3.0, 0.5]
    loss = [math.nan, 0.9, 0.04, 0.03, 0.02, 0.19, 0.21, 0.03, 0.001, 0.04, 0.7]
    one = run(columns={"sharpness/ratio": ratio, "train/loss_running": loss})
    before = QUANTITIES["edge_before_rise"]
    # 0.19 in epoch 5 is 9.5 times the least loss so far, 0.21 in epoch 6 is 10.5 times.
    assert before.of(window(one, start=0)) == 0.3
    assert before.of(window(one, start=6)) == 2.0  # 0.04 in epoch 9, against 0.001
    assert math.isnan(before.of(window(one, start=0, end=5)))  # no rise yet
    late = run(columns={"sharpness/ratio": [math.nan] * 10 + [1.0], "train/loss_running": loss})
    assert math.isnan(before.of(window(late, start=0)))  # no look before it
    assert QUANTITIES["edge"].of(window(one)) == pytest.approx((3.0 + 0.5) / 2, rel=1e-12)


def test_what_a_run_lacks_is_no_number() -> None:
    one = run(columns={"margin/std": None, "rho": [math.nan] * 11})
    assert math.isnan(QUANTITIES["spread"].of(window(one)))
    assert math.isnan(QUANTITIES["equilibrium"].of(window(one)))


def test_sgd_over_gd_pairs_seeds() -> None:
    runs = [run(seed=s, batch=b) for s in (0, 1, 2) for b in (32, "full")]
    (one,) = found(runs[:-1], "sgd_over_gd")
    assert one.arms == "B 32, lambda 0.001"
    expected = [math.log(velocity(runs[k]) / velocity(runs[k + 1])) for k in (0, 2)]
    assert one.effects == pytest.approx(expected, rel=1e-12)
    assert one.runs == runs[:4]


def test_the_setting_with_the_most_seeds_decides_then_that_of_the_largest_lambda() -> None:
    runs = [run(lam, b, s) for lam in (1e-3, 2e-3) for b in (32, "full") for s in (0, 1)]
    assert [e.arms for e in found(runs, "sgd_over_gd")] == [
        "B 32, lambda 0.002",
        "B 32, lambda 0.001",
    ]
    more = [*runs, *(run(1e-3, b, 2) for b in (32, "full"))]
    assert [len(e.effects) for e in found(more, "sgd_over_gd")] == [3, 2]
    assert found(more, "sgd_over_gd")[0].arms == "B 32, lambda 0.001"
    assert found([run(0.0), run(0.0, "full")], "sgd_over_gd") == []


def test_at_equal_steps_the_longer_run_is_read_at_the_end_of_the_shorter() -> None:
    """Seven steps an epoch: GD's 70 epochs are SGD's ten."""
    sgd, gd = run(), run(batch="full", epochs=range(71))
    (one,) = found([sgd, gd], "sgd_over_gd", clock="steps")
    inside = gd.rows[STEP] > 0.8 * 70
    of_gd = [math.log(gd.rows.loc[inside, f"velocity/{k}"].mean()) for k in LAYERS]
    assert one.effects == pytest.approx([math.log(velocity(sgd)) - np.mean(of_gd)])
    short = run(batch="full", epochs=range(11))  # its end is within SGD's second epoch
    _, why = evidence([sgd, short], "sgd_over_gd", QUANTITIES["velocity"], "SGD", "steps")
    (line,) = why
    assert line.startswith(f"{sgd.name} has no row in the last fifth of the common steps; a sweep")


def test_a_claim_may_fix_its_window() -> None:
    sgd, gd = run(), run(batch="full")
    quantity = QUANTITIES["velocity"]
    (one,), _ = evidence([sgd, gd], "sgd_over_gd", quantity, "SGD", "epochs", [2, 4])
    of = [
        np.mean([math.log(r.rows[f"velocity/{k}"].iloc[3:5].mean()) for k in LAYERS])
        for r in (sgd, gd)
    ]
    assert one.effects == pytest.approx([of[0] - of[1]])
    got, why = evidence([sgd, gd], "sgd_over_gd", quantity, "SGD", "epochs", [8, 11])
    assert (got, why) == ([], [f"{sgd.name} has no row in [8, 11]"]), "it ends at epoch 10"


def test_decay_over_none() -> None:
    runs = [run(lam, seed=s) for lam in (0.0, 2e-3) for s in (0, 1)]
    (one,) = found(runs, "decay_over_none")
    expected = [math.log(velocity(runs[2 + s]) / velocity(runs[s])) for s in (0, 1)]
    assert one.effects == pytest.approx(expected)


def test_a_slope_is_one_least_squares_line_over_all_lambdas_above_zero() -> None:
    lambdas = (0.0, 1e-4, 1e-3, 5e-3)
    runs = [run(lam, seed=s) for lam in lambdas for s in (0, 1)]
    (one,) = found(runs, "slope")
    assert one.arms == "lambda 0.0001, 0.001, 0.005"
    for s, effect in enumerate(one.effects):
        mine = [r for r in runs if r.description.seed == s and lambda_of(r) > 0]
        x = np.log([lambda_of(r) for r in mine])
        assert effect == pytest.approx(stats.linregress(x, np.log([*map(velocity, mine)])).slope)
    assert found(runs, "slope", dynamics="GD") == []
    assert found([run(1e-3), run(0.0)], "slope") == [], "a single lambda above 0"


def test_seeds_are_pooled_over_the_lambdas_that_most_of_them_have() -> None:
    runs = [run(lam, seed=s) for s in range(4) for lam in (1e-3, 5e-3)]
    runs += [run(2e-3, seed=s) for s in (0, 1)] + [run(1e-4, seed=3)]
    (one,) = found(runs, "slope")
    assert one.arms == "lambda 0.001, 0.005"
    assert len(one.effects) == 4


def test_a_level_is_the_mean_of_logarithms_over_lambdas() -> None:
    runs = [run(lam) for lam in (1e-3, 5e-3)]
    (one,) = found(runs, "level", "rank")
    values = [QUANTITIES["rank"].of(window(r)) for r in runs]
    assert one.effects == pytest.approx([np.mean(np.log(values))])


def test_losses_are_compared_without_decay() -> None:
    runs = [run(0.0, loss=loss) for loss in ("square", "cross_entropy")] + [run(1e-3)]
    (one,) = found(runs, "loss_over_square", "spread")
    values = [QUANTITIES["spread"].of(window(r)) for r in runs[:2]]
    assert one.effects == pytest.approx([math.log(values[1] / values[0])])
    assert one.arms == "cross_entropy"


def test_rank_and_velocity_are_compared_within_layers_between_lambdas() -> None:
    runs = [run(lam) for lam in (1e-4, 1e-3, 2e-3, 5e-3)]
    (one,) = found(runs, "tau_of_velocity", "rank")
    taus = [
        stats.kendalltau(
            [late(r, f"effective_rank/{k}") for r in runs], [late(r, f"velocity/{k}") for r in runs]
        ).statistic
        for k in MIDDLE
    ]
    assert one.effects == pytest.approx([np.mean(taus)])
    # A layer's width does not matter: other units, the same tau.
    for r in runs:
        r.rows["effective_rank/fc1"] *= 100
    assert found(runs, "tau_of_velocity", "rank")[0].effects == one.effects
    assert found(runs[:2], "tau_of_velocity", "rank") == []


@pytest.mark.parametrize("odd", [0.0, -1.0, math.nan])
def test_a_number_without_a_logarithm_makes_a_setting_untestable_and_is_named(odd: float) -> None:
    runs = [run(lam, seed=s) for lam in (1e-3, 5e-3) for s in (0, 1)]
    runs[0].rows["margin/mean"] = odd
    got, why = evidence(runs, "slope", QUANTITIES["mean_margin"], "SGD", "epochs")
    assert got == []
    (line,) = why
    assert runs[0].name in line
    missing = f"{runs[0].name} has no mean margin in the last fifth of its epochs: callbacks"
    assert line.startswith(missing if math.isnan(odd) else "mean margin is ")
