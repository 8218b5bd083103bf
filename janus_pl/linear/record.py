"""The record of linear regression: snapshots become rows, replicas medians, runs files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from janus_pl.data.regression import LinearProblem
from janus_pl.linear.epochs import LAMBDA_FACTOR
from janus_pl.linear.landscape import noise
from janus_pl.linear.replicas import LinearTraining, Snapshot, Window, pooled
from janus_pl.run.files import save_arrays
from janus_pl.run.rows import Table, Value

QUANTILES = {"q05": 0.05, "q95": 0.95}
_NUMBERS = (
    *("train/loss", "train/mse_per_sample", "train/mse_per_entry", "rho", "learning_rate"),
    *("gradient_norm", "gradient_norm_full", "solution/distance", "solution/relative_distance"),
    *("null/norm", "null/predicted", "sigma_min", "noise/weights", "noise/predictions"),
)
KEYS = (
    *(key + end for key in _NUMBERS for end in ("", *(f"/{name}" for name in QUANTILES))),
    *("singular_value/*", "eigenvalue_modulus/*", "noise/*", "diverged"),
)


class LinearRecord:
    """The snapshots of a run, one for each row; many of them are measured in one call.

    Args:
        run: The replicas in training.
    """

    def __init__(self, run: LinearTraining) -> None:
        self.run = run
        self._seen: list[Snapshot] = []
        self._windows: list[tuple[int, Window]] = []  # with their ends; of the run's last fifth
        self._last: dict[str, Tensor] = {}  # the newest value of every number, (R,)

    def take(self) -> None:
        """Keep a snapshot of this moment for a row."""
        snapshot = self.run.snapshot()
        self._seen.append(snapshot)
        if snapshot.window is not None:
            self._windows.append((snapshot.done, snapshot.window))

    def rows(self) -> list[dict[str, float]]:
        """Return the rows since the last call; the row of this moment comes last."""
        if not self._seen or self._seen[-1].done < self.run.plan.done:
            self.take()
        # A callback may have changed W since the snapshot, and the row's looks are of this moment.
        self._seen[-1] = self._seen[-1]._replace(weight=self.run.weight.clone())
        return self.rows_before()

    def rows_before(self) -> list[dict[str, float]]:
        """Return the rows taken since the last call, measured together."""
        run, seen = self.run, self._seen
        self._seen = []
        if not seen:
            return []
        weight, log_decay, rate, eta_t = (
            torch.stack([getattr(s, name) for s in seen])
            for name in ("weight", "log_decay", "learning_rate", "eta_t")
        )
        values = run.landscape.measure(weight, log_decay) | {"learning_rate": rate}
        table = torch.stack([*values.values()], dim=1).cpu()  # (snapshots, names, R)
        rows = []
        for snapshot, numbers, times in zip(seen, table, eta_t.cpu(), strict=True):
            own = dict(zip(values, numbers.unbind(), strict=True))
            if snapshot.watch is not None:
                own |= {k: v.cpu() for k, v in noise(snapshot.watch).items()}
            lost = ~own["rho"].isfinite()
            if len(run.eta) > 1:  # every median is over the same replicas
                own = {k: torch.where(lost, torch.nan, v) for k, v in own.items()}
            row = self._medians(own)
            if len(run.eta) > 1:
                row["diverged"] = int(lost.sum())
            row["epoch"] = run.epochs(snapshot.done)
            row["trainer/global_step"] = snapshot.done * run.steps_per_unit
            row["eta_t"] = float(torch.nanquantile(torch.where(lost, torch.nan, times), 0.5))
            rows.append(row)
        return rows

    def last_row(self) -> dict[str, Value]:
        """Return the extra values of the last row: the noise over tenths, the table of replicas."""
        row: dict[str, Value] = {**self._tenths()}
        if len(self.run.eta) > 1:
            row["replicas"] = self._table()
            if lost := (self.run.diverged >= 0).nonzero()[:, 0].tolist():
                rank_zero_warn(f"{len(lost)} of {len(self.run.eta)} replicas diverged: {lost}")
        return row

    def state(self) -> dict[str, Any]:
        """Return the record's part of a checkpoint."""
        windows = [(end, tuple(window)) for end, window in self._windows]
        return {"windows": windows, "last": self._last}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the record from a checkpoint."""
        first = self.run.plan.total * 8 // 10
        windows = [(end, Window(*parts)) for end, parts in state["windows"]]
        self._windows = [(end, window) for end, window in windows if end > first]
        self._last = dict(state.get("last", {}))  # checkpoints of before did not hold it

    def _medians(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Return values (R,) as numbers of a row: the only value, or median and two quantiles."""
        self._last |= values
        table = torch.stack([*values.values()])
        if table.shape[1] == 1:
            return dict(zip(values, table[:, 0].tolist(), strict=True))
        quantiles = {"": 0.5, **{f"/{name}": level for name, level in QUANTILES.items()}}
        levels = torch.tensor([*quantiles.values()], dtype=table.dtype)
        spread = torch.nanquantile(table, levels, dim=1).tolist()
        return {
            f"{key}{name}": value
            for name, column in zip(quantiles, spread, strict=True)
            for key, value in zip(values, column, strict=True)
        }

    def _tenths(self) -> dict[str, float]:
        """Return the noise over the last tenth of the run, and over the tenth before it."""
        total = self.run.plan.total
        borders = [total * tenth // 10 for tenth in (8, 9, 10)]
        row: dict[str, float] = {}
        for name, first, last in zip(
            ("tenth_before", "last_tenth"), borders[:-1], borders[1:], strict=True
        ):
            windows = [window for end, window in self._windows if first < end <= last]
            seen = sum(window.steps for window in windows)
            if first == last or seen != (last - first) * self.run.steps_per_unit:
                return {}  # a short run, or one that was stopped
            variances = pooled(windows, self.run.probes)
            for what, variance in zip(("weights", "predictions"), variances, strict=True):
                row |= self._medians({f"noise/{what}_{name}": variance.sqrt().cpu()})
        return row

    def _table(self) -> Table:
        """Return a table with a row for each replica: its newest numbers."""
        run = self.run
        columns = {
            "seed": run.seed.tolist(),
            "weight_decay": run.lam.tolist(),
            "first_learning_rate": run.eta.tolist(),
            **{key: value.tolist() for key, value in self._last.items()},
        }
        rows = zip(range(len(run.eta)), *columns.values(), strict=True)
        return Table(("replica", *columns), [*rows])


def save_problem(folder: Path, data: LinearProblem) -> None:
    """Save X (d, N), Y (m, N) and W0 (m, d), so that the run can be computed again elsewhere.

    If the data have replicas, the arrays have a leading axis of seeds. For a stream the file holds
    W0 alone.
    """
    arrays = {"W0": data.w0()}
    if data.streamed:
        rank_zero_info("problem.npz holds W0 alone; LinearProblem.stream draws X and Y again")
    else:
        arrays["X"], arrays["Y"] = data.problem[:2]
    one = data.replicas == 1
    kept = {k: a[0] if one else a for k, a in arrays.items()}
    # Where N = d = m, the shapes do not say it.
    save_arrays(folder / "problem.npz", layout="features_first", **kept)


def save_result(folder: Path, run: LinearTraining) -> None:
    """Save W (m, d), or (R, m, d) of several replicas, with epochs, seeds, lambdas and rates."""
    w = run.weight.cpu()
    save_arrays(
        folder / "final.npz",
        W=w[0] if len(w) == 1 else w,
        epochs=run.epochs(run.plan.done),
        seed=run.seed,
        weight_decay=run.lam.cpu(),
        learning_rate=run.eta.cpu(),
    )


def facts_of(
    data: LinearProblem,
    lambdas: Sequence[float],
    replicas: LinearTraining,
    device: torch.device,
) -> dict[str, Any]:
    """Return the fields of a run's description: the steps of compiled code are those of SGD.

    Args:
        data: The problem.
        lambdas: The paper's lambda of each replica.
        replicas: The training, with its learning rates at the start and the decay in a step.
        device: The device of W.
    """
    # PyTorch's weight decay: W <- W - eta (gradient + 2 lambda W).
    decays = [2 * LAMBDA_FACTOR[replicas.decay_convention] * lam for lam in lambdas]
    rates = replicas.eta.unique().tolist()
    one = len(lambdas) == 1
    decay = {
        "kind": "coupled" if any(decays) else "none",
        "weight_decay": decays[0] if one else decays,
    }
    size = data.batch_size
    return {
        "kind": "linear",
        "optimizer": "SGD",
        "momentum": 0.0,
        "weight_decay": lambdas[0] if one else list(lambdas),
        "eta": rates[0] if len(rates) == 1 else rates,
        "decay": "all",
        "decays": {"fc1": decay},
        "whole": data.whole,
        "num_train": data.num_train,
        "batch_size": data.num_train if size == "full" else size,
        "steps_per_epoch": data.steps_per_epoch,
        "data_seed": data.seed,
        "precision": "64-true",
        "observed": "float64",
        "device": device.type,
    }
