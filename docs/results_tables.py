"""The tables of the pages of results, from records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from janus_pl.records import late
from janus_pl.records.effects import mean, ratio
from janus_pl.records.families import families, is_zero_function, lambda_of, seed_of
from janus_pl.records.late import geometric_mean, window
from janus_pl.records.run import STEP, Run
from janus_pl.verify.claims import find_claims, read_claims
from janus_pl.verify.judge import Verdict, Verdicts
from janus_pl.verify.lines import LEGEND, STAR, left_out, lines
from janus_pl.verify.quantities import edge_before_rise, first_rise

MIDDLE = ("conv3", "conv4", "fc1")
NONE = "*No such runs are recorded yet.*"
FIFTH = 0.2  # of a run's epochs
CONFIRM = tuple(f"confirm_{what}" for what in ("cosine", "constant", "cross_entropy", "rho", "gd"))
EDGE = ("edge_sgd", "edge_gd")
DOSE = (
    "dose_batch",
    "dose_decay",
    "dose_rate_quarter",
    "dose_rate_half",
    "dose_rate_double",
    "dose_full",
)
RISES_FROM = {  # the epoch that a claim's window begins after, by dynamics
    claim.dynamics: claim.window[0]
    for claim in read_claims(find_claims("edge")).claims
    if claim.quantity == "edge_before_rise" and claim.window
}
WHOSE = ("whose_decay", "whose_held", "whose_plain", "whose_plain_slow")  # sweeps
GD = ("whose_gd", "dose_full")  # at as many steps as SGD


def of_sweeps(runs: Iterable[Run], *sweeps: str) -> list[Run]:
    """Those that belong to some sweeps, by their tags."""
    return [run for run in runs if set(run.config.get("tags") or ()) & set(sweeps)]


def at_equal_steps(runs: Iterable[Run]) -> list[Run]:
    """GD of `dose_gd.yaml`, and SGD with B = 8 of the same seed, rate, schedule and lambda."""
    runs = list(runs)
    sgd = [r for r in of_sweeps(runs, "whose_decay", "dose_batch") if factors(r)[0] == 8]
    gd = of_sweeps(runs, *GD)
    same = {_twin(run) for run in sgd} & {_twin(run) for run in gd}
    return [run for run in (*sgd, *gd) if _twin(run) in same]


def _twin(run: Run) -> tuple[Any, ...]:
    return run.options.get("model.schedule"), *factors(run)[1:], seed_of(run)


def left(runs: Iterable[Run]) -> list[Run]:
    """The networks that are not f = 0."""
    return [run for run in runs if not is_zero_function(run)]


def relative_spread(run: Run) -> float:
    """std/|mean| of the margins in the last row."""
    mean_of = abs(run.last("margin/mean"))
    return run.last("margin/std") / mean_of if mean_of else float("inf")


def velocity(run: Run) -> float:
    """Geometric mean of ||V_k dot|| over the layers in the last row."""
    return geometric_mean([run.last(f"velocity/{layer}") for layer in run.layers("velocity")])


def of_verdicts(found: Verdicts, claims_alone: bool = False) -> str:
    """The table of `verify`: a line for each primary claim, and each theorem unless left out."""
    claims = {verdict.claim.name for verdict in found.verdicts}
    kept = claims if claims_alone else claims | {line.name for line in lines(found)}
    left = f"\n\nLeft out of the claims: {left_out(found)}." if found.collapsed else ""
    return of_some(found, *kept, left=left)


def of_some(found: Verdicts, *names: str, left: str = "") -> str:
    """The primary lines of some names, in the order of the file; a star is retrospective."""
    shown = [line for line in lines(found) if line.primary and line.name in names]
    told = {v.claim.name: (_bound(v), *_level_and_power(v)) for v in found.verdicts}
    rows = [
        (
            f"**{line.answer}**{STAR * line.retrospective}",
            line.sentence,
            *told.get(line.name, ("-", "-", "-")),
            line.source,
        )
        for line in shown
    ]
    starred = any(line.retrospective for line in shown)
    legend = f"\n\n{LEGEND}." if starred else ""
    return table(("answer", "claim", "bound", "level", "power", "source"), rows) + left + legend


def _bound(verdict: Verdict) -> str:
    """The region that supports the claim."""
    ((kind, ends),) = verdict.claim.bound.items()
    return f"{kind} {' to '.join(map(str, ends)) if isinstance(ends, Sequence) else ends}"


def _level_and_power(verdict: Verdict) -> tuple[str, str]:
    """The level of the interval, and the chance that so many seeds support the stated effect."""
    first = next(iter(verdict.judged), None)
    if first is None or first.answer is None or first.power is None:
        return "-", "-"
    return f"{1 - first.level:.1%}", f"{first.power:.0%}"


def of_runs(runs: Sequence[Run]) -> dict[str, str]:
    """All the other tables, by name."""
    square = of_sweeps(runs, "two_cores_fig1", "two_cores_seeds")
    deep = {
        "sgd": square,
        "gd": of_sweeps(runs, "two_cores_fig2a"),
        "gd_converged": of_sweeps(runs, "two_cores_fig2b"),
        "cross_entropy": of_sweeps(runs, "two_cores_fig5a"),
        "rho": of_sweeps(runs, "two_cores_rho"),
        "lagrange": of_sweeps(runs, "two_cores_lagrange"),
        "constant": of_sweeps(runs, "two_cores_constant", "two_cores_constant_seeds"),
        "equal_steps": of_sweeps(runs, "two_cores_equal_steps", "two_cores_equal_steps_sgd"),
        "small": of_sweeps(runs, "small"),
        "default_network": of_sweeps(runs, "default_network"),
        "scale": of_sweeps(runs, "scale", "scale_gd"),
        "gd_steps": at_equal_steps(runs),
        **{sweep: of_sweeps(runs, sweep) for sweep in CONFIRM},
    }
    found = {name: ends(some) for name, some in deep.items()}
    return found | {
        "settled": settled(square),
        "edge": edge(of_sweeps(runs, *EDGE)),
        "dose": dose(of_sweeps(runs, *DOSE)),
        "whose": whose(of_sweeps(runs, *WHOSE)),
        "linear": linear(runs),
        "layers": layers(square),
        "lemma1": lemma1(of_sweeps(runs, "two_cores_theory")),
    }


def ends(runs: Sequence[Run]) -> str:
    """The last numbers of each group of runs that differ in seeds alone.

    Where a group has networks that are f = 0 and others, the numbers are of the others.
    """
    head = (
        *("dynamics", "lambda", "seeds", "epochs", "steps", "train error", "test error"),
        *("mu (1e-8)", "sigma/mu", "‖V̇‖", *(f"rank {layer}" for layer in MIDDLE)),
    )
    rows = []
    for group in groups(runs):
        first, every = group[0], group
        group = left(every) or every
        empty = f", {len(every) - len(group)} f = 0" * (len(group) < len(every))
        cells = [first.dynamics, f"{lambda_of(first):g}", seeds(every) + empty]
        cells += [_one(group, "epoch"), _one(group, STEP)]
        cells += [percent(group, "train/error"), percent(group, "val/error")]
        cells += [over(group, lambda r: 1e8 * r.last("margin/mean"), mean)]
        cells += [over(group, relative_spread, ratio), over(group, velocity, ratio)]
        for layer in MIDDLE:
            cells.append(over(group, partial(Run.last, key=f"effective_rank/{layer}"), mean, ".1f"))
        rows.append(tuple(cells))
    return table(head, rows)


class Arm(NamedTuple):
    """An arm of `whose.yaml`: the panel of the figure, and the arm in words."""

    kind: str
    words: str


def arms(runs: Sequence[Run]) -> dict[Arm, list[Run]]:
    """The runs of each arm of `whose.yaml`, in the order of its claims."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: str(seed_of(run))):
        seen, rate = run.description, run.options["model.learning_rate"]
        if seen.normalization == "none":
            place, arm = (2, -rate), Arm("none", f"none, rate {rate:g}")
        elif seen.hold_norms is not None:
            place, arm = (1, -seen.hold_norms), Arm("held", f"norms held at {seen.hold_norms:g}")
        elif seen.schedule == "growing":
            place, arm = (0, 1), Arm("weight_norm", "growing rate")
        else:
            place, arm = (0, 0), Arm("weight_norm", "decay of all")
        found.setdefault((place, arm), []).append(run)
    return {key[1]: found[key] for key in sorted(found)}


def whose(runs: Sequence[Run]) -> str:
    """The last numbers of the arms of `whose.yaml`; networks that are f = 0 are counted apart."""
    head: tuple[str, ...] = ("arm", "seeds", "f = 0", "epochs", "ηt", "train error", "spikes")
    head += ("rate's growth", "sigma/mu", "‖V̇‖")
    head += tuple(f"rank {layer}" for layer in MIDDLE)
    rows = []
    for arm, group in arms(runs).items():
        trained = left(group)
        cells = [arm.words, f"{len(group)}", f"{len(group) - len(trained)}"]
        if not trained:
            rows.append((*cells, *["-"] * (len(head) - len(cells))))
            continue
        cells += [_one(trained, "epoch"), _one(trained, "eta_t"), percent(trained, "train/error")]
        cells += [f"{np.mean([run.last('event/count') for run in trained]):.1f}"]
        cells += [over(trained, rate_growth, ratio)]
        cells += [over(trained, relative_spread, ratio), over(trained, velocity, ratio)]
        for layer in MIDDLE:
            cells.append(
                over(trained, partial(Run.last, key=f"effective_rank/{layer}"), mean, ".1f")
            )
        rows.append(tuple(cells))
    return table(head, rows)


def rate_growth(run: Run) -> float:
    """eta/||v_k||^2 at the last look over the first, geometric mean of the middle layers."""
    keys = [f"effective_rate/{layer}" for layer in MIDDLE]
    return geometric_mean([run.last(key) / run.first(key) for key in keys])


def layers(runs: Sequence[Run]) -> str:
    """||V_k dot|| by layer at the end, and the effective ranks."""
    names = runs[0].layers("velocity") if runs else []
    head = ("lambda", "seeds", *(f"‖V̇‖ {k}" for k in names), *(f"rank {k}" for k in names))
    rows = []
    for group in groups(runs):
        cells = [f"{lambda_of(group[0]):g}", seeds(group)]
        for kind, way, form in (("velocity", ratio, ".2g"), ("effective_rank", mean, ".1f")):
            for k in names:
                values = [run.last(f"{kind}/{k}") for run in group]
                cells.append(f"{way('', values).value:{form}}")
        rows.append(tuple(cells))
    return table(head, rows)


def settled(runs: Sequence[Run]) -> str:
    """What the last fifth of the epochs still changes, against the fifth before it."""
    head: tuple[str, ...] = ("lambda", "seeds", "‖V̇‖, last fifth/fifth before", "sigma/mu, same")
    head += tuple(f"rank {layer}, same" for layer in MIDDLE)
    rows = []
    for group in groups(runs):
        quantities: list[Callable[[Run], float]] = [
            lambda r: _fifths(r, [f"velocity/{k}" for k in r.layers("velocity")]),
            lambda r: _fifths(r, ["margin/std"]) / _fifths(r, ["margin/mean"]),
        ]
        quantities += [partial(_fifths, keys=[f"effective_rank/{k}"]) for k in MIDDLE]
        cells = [over(group, quantity, ratio, ".4g") for quantity in quantities]
        rows.append((f"{lambda_of(group[0]):g}", seeds(group), *cells))
    return table(head, rows)


def lemma1(runs: Sequence[Run]) -> str:
    """The tail bound by layer, and the minibatches' V_k dot against the whole set's at the end."""
    head: tuple[str, ...] = (
        "layer",
        "tail/bound, largest",
        "‖V̇‖ of the whole set",
        "of a minibatch, about it",
    )
    head += ("its mean's distance from the whole set's", "what sampling leaves of that")
    rows = []
    for run in runs:
        n, b = run.description.num_train, run.description.batch_size
        assert n is not None and b is not None
        for layer in run.layers("velocity"):
            key = f"tail_bound/ratio/{layer}"
            tail = f"{run.rows[key].max():.3f}" if run.has(key) else "vacuous"
            variance = run.last(f"gradient_noise/variance/{layer}")
            of_one = variance * b * (n - 1) / (n - b)
            whole = (of_one / run.last(f"gradient_noise/scale/{layer}")) ** 0.5
            parts = ("bias", "bias_expected")
            bias = [run.last(f"gradient_noise/{part}/{layer}") for part in parts]
            rows.append((layer, tail, *(f"{v:.3g}" for v in (whole, variance**0.5, *bias))))
    return table(head, rows)


def edge(runs: Sequence[Run]) -> str:
    """Where each run's loss rises, and the curvature over its limit before that, and at most."""
    head: tuple[str, ...] = ("dynamics", "lambda", "seed", "steps", "the loss rises in epoch")
    head += ("curvature/limit before", "at most", "train error", "mean middle rank")
    rows = []
    for run in sorted(runs, key=lambda run: (run.dynamics, run.description.seed)):
        at = window(run, start=RISES_FROM[run.dynamics])
        ranks = [run.last(f"effective_rank/{layer}") for layer in MIDDLE]
        cells = [run.dynamics, f"{lambda_of(run):g}", f"{run.description.seed}"]
        cells += [f"{run.last(STEP):,.0f}", f"{first_rise(at):.0f}", f"{edge_before_rise(at):.2f}"]
        cells += [f"{at.rows['sharpness/ratio'].max():.2f}", f"{run.last('train/error'):.1%}"]
        rows.append((*cells, f"{np.mean(ranks):.1f}"))
    return table(head, rows)


def dose(runs: Sequence[Run]) -> str:
    """Noise and rank over the last fifth of the steps, by B, the learning rate and lambda."""
    head: tuple[str, ...] = ("B", "rate", "lambda", "seeds", "f = 0", "steps", "train error")
    head += ("sigma/mu", "‖V̇‖", "rank")
    rows = []
    for group in sorted(families(runs), key=lambda group: factors(group[0])):
        trained = left(group)
        batch, *others = factors(group[0])
        cells = [batch if group[0].dynamics == "SGD" else "full", *others]
        line = [f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]
        line += [f"{len(group)}", f"{len(group) - len(trained)}", _one(group, STEP)]
        if trained:
            line += [percent(trained, "train/error")]
            line += [over(trained, at_end(of), ratio) for of in (late.spread, late.velocity)]
            line += [over(trained, at_end(late.rank), ratio, ".1f")]
        rows.append((*line, *["-"] * (len(head) - len(line))))
    return table(head, rows)


def factors(run: Run) -> tuple[int, float, float]:
    """B, the learning rate and lambda; B is N if each batch is the whole training set."""
    seen = run.description
    batch = seen.num_train if seen.whole else seen.batch_size
    return int(batch or 0), float(run.options["model.learning_rate"]), lambda_of(run)


def at_end(quantity: Callable[[late.Window], float]) -> Callable[[Run], float]:
    """A quantity of claims, over the last fifth of a run's epochs."""
    return lambda run: quantity(window(run))


def linear(runs: Sequence[Run]) -> str:
    """The last numbers of the linear runs at one lambda."""
    head: tuple[str, ...] = ("sweep", "run", "epochs", "steps", "mean squared error")
    head += ("‖W_perp‖, of its start", "smallest singular value", "noise, last tenth/tenth before")
    rows = []
    for run in runs:
        sweep = (run.config.get("tags") or [""])[0]
        if not sweep.startswith("linear"):
            continue
        start = run.first("null/norm")
        left = _quantiles(run, "null/norm", start) if start > 1e-12 else "empty"
        before = run.last("noise/weights_tenth_before")
        noise = run.last("noise/weights_last_tenth") / before if before else float("nan")
        cells = [f"`{sweep}`", f"{run.name}", f"{run.last('epoch'):g}", f"{run.last(STEP):g}"]
        cells += [f"{run.last('train/mse_per_sample'):.3g}", left]
        cells += [_quantiles(run, "sigma_min"), f"{noise:.3g}"]
        rows.append(tuple("-" if cell == "nan" else cell for cell in cells))
    return table(head, sorted(rows))


def _quantiles(run: Run, key: str, unit: float = 1.0) -> str:
    """The last number; of many seeds the median with the 5 and 95 percent quantiles."""
    ends = [f"{key}/{end}" for end in ("q05", "q95")]
    low, high = (f"{run.last(end) / unit:.3g}" for end in ends)
    return f"{run.last(key) / unit:.3g}" + (f" [{low}, {high}]" if run.has(*ends) else "")


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in seeds alone, together; SGD first, by lambda, by epochs."""
    together = [sorted(group, key=lambda r: str(seed_of(r))) for group in families(runs)]
    return sorted(
        together, key=lambda g: (g[0].dynamics == "GD", lambda_of(g[0]), g[0].last("epoch"))
    )


def seeds(group: Sequence[Run]) -> str:
    """How many, and those that diverged."""
    lost = sum(run.has("diverged") for run in group)
    return f"{len(group)}" + (f" ({lost} diverged)" if lost else "")


def over(
    group: Sequence[Run], quantity: Callable[[Run], float], way: Callable, form: str = ".3g"
) -> str:
    """A quantity over seeds, with its 95% interval where there are several."""
    values = [quantity(run) for run in group]
    if not np.isfinite(values).all():
        return "-"
    found = way("", values)
    interval = "" if found.low is None else f" [{found.low:{form}}, {found.high:{form}}]"
    return f"{found.value:{form}}{interval}"


def percent(group: Sequence[Run], key: str) -> str:
    """A share over seeds."""
    values = [run.last(key) for run in group]
    return "-" if not np.isfinite(values).all() else f"{np.mean(values):.1%}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a line of words where it has no rows."""
    if not rows:
        return NONE
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|")


def _one(group: Sequence[Run], key: str) -> str:
    values = sorted({round(run.last(key)) for run in group})
    return ", ".join(f"{value:,}" for value in values)


def _fifths(run: Run, keys: Sequence[str]) -> float:
    """Geometric mean over some keys of the mean in the last fifth over that in the fifth before."""
    end = run.last("epoch")
    changes = []
    for key in keys:
        values = run.rows.set_index("epoch")[key].dropna().abs()
        last = values[values.index > (1 - FIFTH) * end]
        before = values[
            (values.index > (1 - 2 * FIFTH) * end) & (values.index <= (1 - FIFTH) * end)
        ]
        changes.append(np.log(last.mean() / before.mean()))
    return float(np.exp(np.mean(changes)))
