"""A table of every option of model, optimizer, schedule and data, changed at a checkpoint.

A row names an option, another value, and what is to be seen in the objects that train: the live
value. A row without one is refused in a line that names the option.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from lightning.pytorch import Callback


class Seen(NamedTuple):
    """What trains at the first step of a fit: copies of options, and the objects."""

    groups: list[dict[str, Any]]
    scheduler: dict[str, Any]
    module: Any
    loader: Any


class Probe(Callback):
    """Notes the live values at the first step of each fit."""

    seen: list[Seen] = []  # noqa: RUF012

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.seen and self.seen[-1].module is pl_module:
            return
        groups = [{k: v for k, v in g.items() if k != "params"} for g in _groups(trainer)]
        states = [each.scheduler.state_dict() for each in trainer.lr_scheduler_configs]
        state = copy.deepcopy(states[0]) if states else {}
        self.seen.append(Seen(copy.deepcopy(groups), state, pl_module, trainer.train_dataloader))


def _groups(trainer: Any) -> list[dict[str, Any]]:
    return trainer.optimizers[0].param_groups


class Row(NamedTuple):
    """An option, its other value, the live value and what it is to be; refused without `live`."""

    option: str
    value: str
    live: Callable[[Seen], Any] | None = None
    expected: Any = None
    says: str = ""  # in the refusal; not set: the option's name
    other_data: bool = False  # whether other data are allowed


def group(name: str) -> Callable[[Seen], Any]:
    """The option of that name in each group of the optimizer."""
    return lambda seen: [g[name] for g in seen.groups]


def state(name: str) -> Callable[[Seen], Any]:
    """The option of that name in the scheduler."""
    return lambda seen: seen.scheduler[name]


def of_module(path: str) -> Callable[[Seen], Any]:
    """An attribute of the module, or of its parts."""

    def live(seen: Seen) -> Any:
        value = seen.module
        for name in path.split("."):
            value = getattr(value, name)
        return value.tolist() if hasattr(value, "tolist") else value

    return live


def of_loader(name: str) -> Callable[[Seen], Any]:
    return lambda seen: getattr(seen.loader, name)


rates = group("lr")
OPTIMIZER, SCHEDULE = "model.optimizer.init_args.", "model.schedule.init_args."
# The checkpoint is of epoch 1 of 2, where the cosine is at half of the rate.
MODEL = [
    Row("model.loss", "logistic"),
    Row("model.learning_rate", "0.01", rates, [0.005] * 2),
    Row("model.weight_decay", "0.5", group("weight_decay"), [0.5] * 2),
    Row("model.decay", "rho", group("weight_decay"), [0.0, 0.008]),
    Row("model.schedule", "constant", rates, [0.03] * 2),
    Row("model.schedule", "inverse_sqrt", rates, [0.03 / 2**0.5] * 2),
    Row("model.schedule", "torch.optim.lr_scheduler.ConstantLR", rates, [0.01] * 2),
    Row("model.schedule", "growing"),
    Row("model.schedule_interval", "step"),
    Row("model.hold_norms", "0.5"),
    Row("model.optimizer", "torch.optim.Adam"),
    Row("model.strides", "[2, 1, 2, 2]"),
    Row("model.channels", "[2, 3, 4, 5]"),
    Row("model.hidden", "9"),
    Row("model.depth", "7"),
    Row("model.kernel_size", "2"),
    Row("model.image_size", "64"),
    Row("model.init_scale", "0.5"),
    Row("model.normalization", "lagrange"),
    Row("model.normalization", "per_layer"),
    Row("model.normalization", "none"),
    Row("model.on_divergence", "record", of_module("on_divergence"), "record"),
    Row("model.compile", "true", of_module("compiled"), True),
]
DATA = [
    Row("data.batch_size", "50", of_loader("batch_size"), 50),
    Row("data.batch_size", "full", of_loader("whole"), True),
    Row("data.micro_batch_size", "7", of_loader("micro_batch_size"), 7),
    Row("data.num_train", "60", of_loader("num_samples"), 60, other_data=True),
    Row("data.num_train", "60", says="data: got"),
    Row("data.order", "sequential", of_loader("order"), "sequential"),
    Row("data.seed", "5", of_loader("seed"), 5, other_data=True),
    Row("data.seed", "5", says="data: got"),
    Row("data.classes", "[3, 5]"),
]
FOLDER = [
    Row("data.root", "elsewhere", of_loader("num_samples"), 8),
    Row("data.classes", "[b, a]"),
    Row("data.image_size", "32"),
]
SGD = [
    Row(f"{OPTIMIZER}momentum", "0.5", group("momentum"), [0.5] * 2),
    Row(f"{OPTIMIZER}momentum", "0", group("momentum"), [0] * 2),
    Row(f"{OPTIMIZER}dampening", "0.25", group("dampening"), [0.25] * 2),
    Row(f"{OPTIMIZER}nesterov", "true", group("nesterov"), [True] * 2),
    Row(f"{OPTIMIZER}maximize", "true", group("maximize"), [True] * 2),
    Row(f"{OPTIMIZER}foreach", "true", group("foreach"), [True] * 2),
    Row(f"{OPTIMIZER}differentiable", "true"),
    Row(f"{OPTIMIZER}fused", "true", group("fused"), [True] * 2),
    Row(f"{OPTIMIZER}weight_decay", "0.1"),
]
ADAM = [
    Row(f"{OPTIMIZER}betas", "[0.5, 0.9]", group("betas"), [(0.5, 0.9)] * 2),
    Row(f"{OPTIMIZER}eps", "0.1", group("eps"), [0.1] * 2),
    Row(f"{OPTIMIZER}amsgrad", "true"),
    Row(f"{OPTIMIZER}maximize", "true", group("maximize"), [True] * 2),
    Row(f"{OPTIMIZER}foreach", "true", group("foreach"), [True] * 2),
    Row(f"{OPTIMIZER}capturable", "true"),
    Row(f"{OPTIMIZER}differentiable", "true"),
    Row(f"{OPTIMIZER}fused", "true", group("fused"), [True] * 2),
    Row(f"{OPTIMIZER}decoupled_weight_decay", "true", group("decoupled_weight_decay"), [True] * 2),
    Row(f"{OPTIMIZER}weight_decay", "0.1"),
]
# StepLR with step_size 1 and gamma 0.5, after one step.
STEPS = [
    Row(f"{SCHEDULE}step_size", "2", rates, [0.03] * 2),
    Row(f"{SCHEDULE}gamma", "0.1", rates, [0.003] * 2),
    Row("model.learning_rate", "0.01", rates, [0.005] * 2),
]
# CosineAnnealingLR over 4 steps, after one step.
ANNEALING = [
    Row(f"{SCHEDULE}T_max", "2", rates, [0.015] * 2),
    Row(f"{SCHEDULE}eta_min", "0.01", rates, [0.01 + 0.02 * (1 + 0.5**0.5) / 2] * 2),
]
# What decides alpha stays.
GROWING = [
    Row("model.learning_rate", "0.01"),
    Row("model.weight_decay", "0.001"),
    Row("model.schedule", "constant"),
    Row(f"{OPTIMIZER}momentum", "0.5", says="model.optimizer.momentum"),
    Row(f"{OPTIMIZER}nesterov", "true", says="model.optimizer.nesterov"),
    Row("data.batch_size", "50", of_loader("batch_size"), 50),
]
RECORDS = [1, 2, 3, 4, 6, 8, 9, 10]  # the looks, and where the last tenths begin
LINEAR = [
    Row("model.learning_rate", "0.01", of_module("replicas.eta"), [0.01]),
    Row("model.learning_rate", "[0.01, 0.02]"),
    Row("model.weight_decay", "0.5", of_module("replicas.lam"), [0.5]),
    Row("model.weight_decay", "[0.1, 0.5]"),
    Row("model.schedule", "constant", of_module("replicas.schedule"), "constant"),
    Row(
        "model.decay_convention",
        "appendix_a",
        of_module("replicas.decay_convention"),
        "appendix_a",
    ),
    Row("model.records_per_decade", "1", of_module("replicas.plan.records"), RECORDS),
    Row("model.looks_per_decade", "1", of_module("replicas.plan.looks"), [1, 10]),
    Row("model.on_divergence", "record", of_module("on_divergence"), "record"),
]
GD = [
    Row("model.gd_learning_rate", "0.01", of_module("replicas.eta"), [0.01]),
    Row("model.gd_schedule", "constant", of_module("replicas.schedule"), "constant"),
]
PROBLEM = [
    Row("data.source", "other.npz", says="X, Y and W0"),
    Row("data.num_train", "9"),
    Row("data.dim", "10"),
    Row("data.outputs", "2"),
    Row("data.informative", "4"),
    Row("data.empty", "1"),
    Row("data.init", "zero"),
    Row("data.init_scale", "0.2"),
    Row("data.batch_size", "3"),
    Row("data.order", "shuffle"),
    Row("data.seed", "5"),
    Row("data.replicas", "2"),
    # Of files alone, which this problem is not from.
    Row("data.layout", "samples_first"),
    Row("data.x_columns", "[a]"),
    Row("data.y_columns", "[b]"),
]
