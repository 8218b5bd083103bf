"""The paper's linear experiment: W x = y by SGD or GD, many steps in a step of the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from janus_pl.data.regression import LinearProblem
from janus_pl.errors import DivergenceError, UsageError, check_integer, check_name
from janus_pl.linear import Piece, Plan
from janus_pl.linear.checks import (
    MOST_PER_DECADE,
    check_options,
    check_restored,
    check_run,
    listed,
    warn_of_instability,
    warn_of_zero_targets,
)
from janus_pl.linear.curvature import Curved
from janus_pl.linear.epochs import LAMBDA_FACTOR, DecayConvention
from janus_pl.linear.record import KEYS, LinearRecord, facts_of, save_problem, save_result
from janus_pl.linear.replicas import LinearTraining
from janus_pl.observables.margins import regression_margins
from janus_pl.observables.velocity import weight_velocity
from janus_pl.run.record import record_of
from janus_pl.run.rows import AXES
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.divergence import OnDivergence, check_on_divergence, diverged
from janus_pl.training.resume import had_ended
from janus_pl.training.row import write_whole
from janus_pl.training.schedules import ScheduleName

LearningRate = float | Literal["auto"] | list[float | Literal["auto"]]
SAMPLES_AT_ONCE = 65_536


class LinearRegressor(Curved):
    r"""Linear regression W x = y by minibatch SGD or GD in float64, on a `LinearProblem`.

        L(W) = (1/N) sum_i ||W x_i - y_i||^2 + lambda ||W||^2                (Eq. 2, here a mean)
        W <- (1 - 2 eta lambda) W - (2 eta/B) sum_{i in S} (W x_i - y_i) x_i^T            (Eq. 5)

    GD (Eq. 4) is `data.batch_size: full`. Log-spaced epochs are recorded; of a stream (`data.order:
    online`), which is a single epoch, log-spaced steps.

    If `weight_decay` or `learning_rate` is a list, or the data have replicas, all combinations run
    at once, the seed slowest and eta fastest, each bitwise as its own single run. A number of the
    record is then the median over them, beside the quantiles `q05` and `q95`. The last row adds
    `replicas`, a table of all of them. Callbacks read the first one.

    Args:
        learning_rate: The learning rate eta at the start. "auto": 0.5/sigma_max(X) (Section 3.3
            prints 0.5 sigma_max, which diverges). A list: one replica each.
        gd_learning_rate: The learning rate if a batch is the whole set. Not set: `learning_rate`.
        weight_decay: The paper's lambda. A list: one replica each.
        schedule: The schedule: `constant`, `inverse_sqrt` (eta/sqrt(t)) or `cosine`. Its time t is
            the epoch, from 1; of a stream, which has only one epoch, the step.
        gd_schedule: The schedule if a batch is the whole set. Not set: `schedule`.
        decay_convention: The decay of W in a step. "paper": 1 - 2 eta lambda. "appendix_a":
            1 - eta lambda, as in the example of Appendix A.
        records_per_decade: The number of recorded epochs in a factor of ten.
        looks_per_decade: The number of epochs in a factor of ten at which callbacks run.
        on_divergence: The end of a run if W is finite in no replica. It keeps the last sound W.
            `stop`: an error, exit code 3. `record`: an outcome, exit code 0.

    Raises:
        UsageError: A value is outside its range.
    """

    # Eq. 2 prints a sum. All steps between two records are one call of compiled code, or several
    # calls of about a quarter of a second. An "epoch" of the trainer is the stretch up to the next
    # run of its callbacks.

    keys = KEYS
    splits_epochs, in_float64 = False, True  # an epoch of the trainer takes a few seconds

    def __init__(
        self,
        learning_rate: LearningRate = "auto",
        gd_learning_rate: LearningRate | None = None,
        weight_decay: float | list[float] = 0.01,
        schedule: ScheduleName = "inverse_sqrt",
        gd_schedule: ScheduleName | None = None,
        decay_convention: DecayConvention = "paper",
        records_per_decade: int = 50,
        looks_per_decade: int = 5,
        on_divergence: OnDivergence = "stop",
    ) -> None:
        super().__init__()
        check_options(
            learning_rate, gd_learning_rate, weight_decay, schedule, gd_schedule or schedule
        )
        check_name("model.decay_convention", decay_convention, LAMBDA_FACTOR)
        check_integer("model.records_per_decade", records_per_decade, 1, MOST_PER_DECADE)
        check_integer("model.looks_per_decade", looks_per_decade, 1, MOST_PER_DECADE)
        check_on_divergence(on_divergence)
        self.save_hyperparameters(logger=False)
        self.automatic_optimization = False
        self._rates = learning_rate, gd_learning_rate or learning_rate
        self._schedules: tuple[ScheduleName, ScheduleName] = schedule, gd_schedule or schedule
        self._lambdas = listed(weight_decay)
        self.decay_convention: DecayConvention = decay_convention
        self.on_divergence: OnDivergence = on_divergence
        self._per_decade = records_per_decade, looks_per_decade

    # The contract of JanusTask

    def layers(self) -> Sequence[str]:
        return ["fc1"]

    def directions(self) -> dict[str, Tensor]:
        w = self.weight.detach()[0]
        return {"fc1": w / torch.linalg.vector_norm(w)}

    def scale(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight.detach()[0])

    def matrices(self) -> dict[str, Tensor]:
        return {"fc1": self.weight.detach()[0]}

    def learning_rates(self) -> Tensor:
        return self.replicas.newest_rates()[:1]

    def velocities(self) -> dict[str, Tensor]:
        watch = self.replicas.watch
        return {"fc1": weight_velocity(watch.before[0], watch.slope[0])}

    def velocity_norms(self) -> Tensor:
        # It is a mean already, over the steps since the last row.
        return self.replicas.watch.velocity[:1]

    def full_velocity_norms(self) -> Tensor:
        w = self.weight.detach()
        velocity = weight_velocity(w[0], self.replicas.landscape.slope(w)[0])
        return torch.linalg.vector_norm(velocity)[None]

    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        return regression_margins(outputs, y)

    @torch.no_grad()
    def margins(self) -> Tensor:
        data, n = self.data, self.data.num_train
        margins = []
        for start in range(0, n, SAMPLES_AT_ONCE):
            chosen = slice(start, min(start + SAMPLES_AT_ONCE, n))
            if data.streamed:
                x, y = data.stream(chosen.start, chosen.stop)
            else:
                x, y = (a[:, :, chosen] for a in data.problem[:2])
            batch = [torch.from_numpy(a[0].T).to(self.device) for a in (x, y)]
            margins.append(self.margins_of(batch)[batch[1].any(1)])
        found = torch.cat(margins)
        left = n - len(found)
        if left and not self.without_margin:  # once in a fit
            warn_of_zero_targets(left, n)
        self.without_margin = left
        return found

    def completed(self) -> int:
        return self.replicas.plan.done

    def facts(self) -> dict[str, Any]:
        return facts_of(self.data, self._lambdas, self.replicas, self.device)

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        check_run(trainer, data, self._rates)

    # Training

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight[0].mT

    def epochs_to_run(self) -> Plan:
        """Return the plan, which `LinearProblem` hands to the trainer in place of minibatches."""
        return self.replicas.plan

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.row.forget()
        self.without_margin = 0
        self.data: LinearProblem = self.trainer.datamodule  # type: ignore[attr-defined]
        rates = listed(self._rates[self.data.whole])
        w0 = torch.from_numpy(self.data.w0())
        self.weight = nn.Parameter(w0.repeat_interleave(len(self._lambdas) * len(rates), dim=0))
        self._loaded: Mapping[str, Any] | None = None
        self._warned = False  # as the run that the checkpoint is of, if its options are these

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), _Rescue()]

    def configure_optimizers(self) -> Optimizer:
        return _Counter([self.weight])

    def on_fit_start(self) -> None:
        trainer = self.trainer
        whole = self.data.whole
        self._epochs = trainer.max_epochs or 1
        self.schedule = self._schedules[whole]
        self.replicas = LinearTraining(
            self.data,
            self._lambdas,
            listed(self._rates[whole]),
            self.schedule,
            self.decay_convention,
            self._epochs,
            *self._per_decade,
            self.weight.detach(),
        )
        self.record = LinearRecord(self.replicas)
        if self._loaded is not None:
            self.replicas.load(self._loaded["training"], had_ended(trainer))
            self.record.load(self._loaded["record"])
        if not self._warned:
            warn_of_instability(self.replicas, self.data)
        self.planned = self.replicas.plan.total
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            # The trainer's epochs are the stretches between looks; `training_step` ends the run.
            trainer.fit_loop.max_epochs = -1

    def on_train_start(self) -> None:
        if (folder := self._folder) is not None:
            save_problem(folder, self.data)
        if self.replicas.plan.done == 0:
            self._complete_row()
            self.row.write(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.row.write(self.trainer)

    @torch.no_grad()
    def training_step(self, piece: Piece, batch_idx: int) -> None:
        run = self.replicas
        start, look = run.plan.done, run.plan.look
        ends_at_record = run.run(piece)
        if (run.diverged >= 0).all():
            self.weight.copy_(run.sound)
            raise self._divergence(start)
        if ends_at_record:
            self.record.take()
        if run.plan.done == look:
            optimizer = self.optimizers()
            assert isinstance(optimizer, LightningOptimizer)
            optimizer.step()  # it takes no step: callbacks run, and the trainer counts
        if run.plan.done == run.plan.total:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        self._complete_row()
        if not (is_last_epoch(self.trainer) or self.trainer.early_stopping_callbacks):
            self.row.write(self.trainer)

    def on_train_end(self) -> None:
        if self.row.waits:
            self.row.put(self.record.last_row())
            self.row.write(self.trainer)
        if (folder := self._folder) is not None:
            save_result(folder, self.replicas)

    def teardown(self, stage: str) -> None:
        if stage == "fit" and hasattr(self, "_epochs"):
            self.trainer.fit_loop.max_epochs = self._epochs

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        return self.margins_of(batch)

    # State

    def check_fixed(self, checkpoint: Mapping[str, Any], training: bool) -> None:
        if "linear" not in checkpoint:
            given = "a checkpoint of another model"
            raise UsageError("--ckpt_path", given, "one of a LinearRegressor")

    def check_restored(
        self,
        checkpoint: Mapping[str, Any],
        trainer: Trainer,
        data: object = None,
        resumes: bool = True,
    ) -> None:
        assert isinstance(data, LinearProblem)
        check_restored(checkpoint, data, trainer.max_epochs or 1, self.hparams, resumes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        parts = {"training": self.replicas.state(), "record": self.record.state()}
        checkpoint["linear"] = parts
        checkpoint["row"] = self.row.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._loaded = checkpoint["linear"]
        self._warned = checkpoint.get("hyper_parameters") == dict(self.hparams)
        self.row.load(checkpoint["row"])
        w = checkpoint["state_dict"]["weight"]
        if not hasattr(self, "weight"):  # `load_from_checkpoint`, without a problem
            self.weight = nn.Parameter(torch.empty_like(w))
        if w.shape != self.weight.shape:
            given = f"W of {tuple(w.shape)}"
            raise UsageError("--ckpt_path", given, f"(R, m, d) = {tuple(self.weight.shape)}")

    # Parts

    def _complete_row(self) -> None:
        """Write the rows before that of this moment; complete that one, which callbacks began."""
        *earlier, last = self.record.rows()
        for row in earlier:
            write_whole(self.trainer, row)
        self.row.put(last)
        self.row.complete(self.trainer, {axis: last[axis] for axis in AXES})

    def _divergence(self, start: int) -> DivergenceError:
        """Return the error of a piece that left no replica finite; it names the last to diverge."""
        run, count = self.replicas, len(self.weight)
        for row in self.record.rows_before():
            write_whole(self.trainer, row)
        unit = "step" if run.in_steps else "epoch"
        last = int(run.diverged.argmax())
        lost = int(run.diverged[last])
        rate = float(run.eta[last]) * float(run.multipliers(lost, lost + 1)[0])
        who = "" if count == 1 else f" in all {count} replicas"
        first, step = lost * run.steps_per_unit + 1, (lost + 1) * run.steps_per_unit
        steps = "" if run.in_steps else f", step {step}"
        if first < step:
            steps = f", steps {first} to {step}"
        message = (
            f"weight of fc1 not finite{who} at {unit} {lost + 1}{steps}, learning rate {rate:g},"
            f" lambda {float(run.lam[last]):g}; the weights are those of {unit} {start}"
        )
        eta_t = float(run.eta_t[last])
        axes = {"epoch": run.epochs(lost + 1), "trainer/global_step": step, "eta_t": eta_t}
        return diverged(self.trainer, message, step, axes, self.on_divergence, count)

    @property
    def _folder(self) -> Path | None:
        """The folder for the files of the run, on the process that writes them; else None."""
        record = record_of(self.trainer)
        return None if record is None else record.folder


class _Rescue(Callback):
    """A callback that writes the rows that wait for the next look when a run breaks off."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(pl_module, LinearRegressor) and hasattr(pl_module, "record"):
            for row in pl_module.record.rows_before():
                write_whole(trainer, row)
            pl_module.teardown("fit")  # Lightning calls it only where nothing went wrong


class _Counter(Optimizer):
    """An optimizer that takes no step, since compiled code took them; the trainer counts."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            closure()  # Lightning calls `on_before_optimizer_step` in it
