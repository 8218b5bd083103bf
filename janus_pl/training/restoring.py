"""What a checkpoint brings and what the config decides, when training goes on from a checkpoint.

A checkpoint brings weights, buffers of the optimizer, counters and the states of generators. The
options of the optimizer's groups and of the schedule are those of the config. Lightning restores
them from the checkpoint, too, so they are set in the checkpoint's content before Lightning reads
it. What cannot be carried over is refused.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from janus_pl.errors import UsageError

CONFIGURED = "configured"  # in a checkpoint: the options as they were before the first step
OF_TRAINING = {"optimizer_states", "lr_schedulers"}
NO_OPTIONS = ("params", "param_names")  # of an optimizer's group
DRIVEN = {"lr", "initial_lr", "weight_decay"}  # options that no buffer depends on
NONE = -math.inf  # the learning rate of an optimizer that has none
FROM = "as in the checkpoint"


class Restoring(Callback):
    """Lets the config decide the options in force when a fit goes on from a checkpoint.

    The schedule is taken anew to the step of the checkpoint. For an unchanged config this gives the
    very numbers of the run that was broken off.

    Args:
        always: Whether all options follow from the config. If not, the options stay as the
            checkpoint has them unless the config changed: somebody else's module may set some
            while it trains.
    """

    def __init__(self, always: bool = True) -> None:
        self.always = always
        self._checkpoint: dict[str, Any] | None = None
        self._configured: dict[str, Any] = {}
        self._expected: list[list[dict[str, Any]]] | None = None
        self._rates: tuple[float, float] | None = None  # of the checkpoint, and from here on

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._checkpoint = checkpoint if trainer.state.fn == "fit" else None
        for early in trainer.early_stopping_callbacks:
            if (held := checkpoint["callbacks"].get(early.state_key)) is not None:
                held["patience"] = early.patience  # EarlyStopping would take the checkpoint's

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._configured = _configured(trainer)
        checkpoint, self._checkpoint = self._checkpoint, None
        self._expected = self._rates = None
        if checkpoint is None or not checkpoint.keys() >= OF_TRAINING:
            return
        optimizers = trainer.optimizers
        check_optimizers(optimizers, checkpoint)
        then = checkpoint.get(CONFIGURED, self._configured)
        if self.always or not same(then, self._configured):
            before = [_rate(state["param_groups"]) for state in checkpoint["optimizer_states"]]
            take_schedulers(_schedulers(trainer), checkpoint)
            self._expected = [_options(optimizer) for optimizer in optimizers]
            now = [_rate(optimizer.param_groups) for optimizer in optimizers]
            self._rates = max(before, default=NONE), max(now, default=NONE)
            self.put(trainer, checkpoint)

    def put(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Put the options of the config into a checkpoint's content, which is restored next."""
        states = checkpoint["optimizer_states"]
        for state, groups in zip(states, self._expected or (), strict=True):
            saved = state["param_groups"]
            state["param_groups"] = [s | g for s, g in zip(saved, groups, strict=True)]
        states = [scheduler.state_dict() for scheduler in _schedulers(trainer)]
        checkpoint["lr_schedulers"] = copy.deepcopy(states)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer)
        if self._rates is not None and not trainer.fit_loop.done:
            _tell_of_zero(*self._rates, trainer.global_step)

    def check(self, trainer: Trainer) -> None:
        """Compare the options in force with those of the config, before the first step.

        Raises:
            UsageError: An option differs.
        """
        if self._expected is None:
            return
        for optimizer, groups in zip(trainer.optimizers, self._expected, strict=True):
            for group, expected in zip(optimizer.param_groups, groups, strict=True):
                for name, value in expected.items():
                    if not same(group[name], value):
                        field = f"{type(optimizer).__name__}.{name}"
                        raise UsageError(field, group[name], f"{value!r}, as the config has it")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CONFIGURED] = self._configured


def check_options(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse options that cannot differ from those of the checkpoint.

    Args:
        now: The options by field, such as `model.loss`.
        then: Those of the checkpoint; a field that it does not know may have any value.

    Raises:
        UsageError: A field has two values.
    """
    for field, value in now.items():
        if field in then and not same(_plain(value), _plain(then[field])):
            raise UsageError(field, _plain(value), f"{_plain(then[field])!r}, {FROM}")


def check_optimizers(optimizers: Sequence[Optimizer], checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose optimizer states are not those of these optimizers.

    Raises:
        UsageError: The class, the number of groups or parameters, or the buffers differ.
    """
    then = (checkpoint.get(CONFIGURED) or {}).get("classes")
    names = _names(optimizers)
    if then not in (None, names):
        raise UsageError("model.optimizer", "+".join(names), f"{'+'.join(then)}, {FROM}")
    states = checkpoint["optimizer_states"]
    sizes = [[len(group["params"]) for group in o.param_groups] for o in optimizers]
    saved = [[len(group["params"]) for group in state["param_groups"]] for state in states]
    if sizes != saved:
        allowed = f"groups of {saved} parameters, {FROM}"
        raise UsageError("model.optimizer", f"groups of {sizes} parameters", allowed)
    for optimizer, state in zip(optimizers, states, strict=True):
        _try_buffers(optimizer, state)


def take_schedulers(schedulers: Sequence[Any], checkpoint: Mapping[str, Any]) -> None:
    """Let fresh schedulers take the steps that those of a checkpoint have taken.

    Raises:
        UsageError: Their number differs, or they cannot be taken to that step.
    """
    states = checkpoint["lr_schedulers"]
    if len(schedulers) != len(states):
        raise UsageError("model.schedule", f"{len(schedulers)} of them", f"{len(states)}, {FROM}")
    with warnings.catch_warnings():
        # PyTorch warns of steps of a scheduler before the optimizer's, and of its own habits.
        warnings.simplefilter("ignore")
        for scheduler, state in zip(schedulers, states, strict=True):
            taken = _steps_of(state)
            name = type(scheduler).__name__
            if taken is None or isinstance(scheduler, ReduceLROnPlateau):
                allowed = f"unchanged options, {FROM}: its rate does not follow from the step"
                raise UsageError("model.schedule", name, allowed)
            try:
                for _ in range(taken):
                    scheduler.step()
            except ValueError as error:
                allowed = f"one of at least {taken} steps, where the checkpoint is ({error})"
                raise UsageError("model.schedule", name, allowed) from error


def same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal, all the way down.

    >>> same({"betas": (0.9, 0.95), "lr": torch.tensor(1.0)}, {"betas": [0.9, 0.95], "lr": 1.0})
    True
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        if not all(isinstance(each, Tensor | int | float) for each in (a, b)):
            return False
        one, other = (torch.as_tensor(each).cpu() for each in (a, b))
        return one.shape == other.shape and bool((one == other).all())
    return bool(a == b)


def check_steps_left(
    checkpoint: Mapping[str, Any], epochs: int | None, steps: int, resumes: bool
) -> None:
    """Refuse a checkpoint from which no step is left.

    Args:
        checkpoint: The content of the checkpoint.
        epochs: The option `trainer.max_epochs`.
        steps: The option `trainer.max_steps`; -1 if there is no limit.
        resumes: Whether the run itself is resumed; it may have been killed at its very end.

    Raises:
        UsageError: The checkpoint is at the end or, if it resumes, beyond it.
    """
    taken, done = int(checkpoint["global_step"]), epochs_done(checkpoint)
    if epochs is not None and 0 <= epochs < done + (not resumes):
        allowed = f"above {done}, where the checkpoint is"
        raise UsageError("trainer.max_epochs", epochs, allowed)
    if 0 <= steps < taken + (not resumes):
        raise UsageError("trainer.max_steps", steps, f"above {taken}, where the checkpoint is")


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    """Return the trainer's epochs that a checkpoint has completed."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return int(progress["processed"])


def _configured(trainer: Trainer) -> dict[str, Any]:
    """Return a copy of the options of all optimizers and schedulers, with their classes."""
    schedulers = _schedulers(trainer)
    return {
        "classes": _names(trainer.optimizers),
        "optimizers": [_options(optimizer) for optimizer in trainer.optimizers],
        "schedules": _names(schedulers),
        "schedulers": copy.deepcopy([scheduler.state_dict() for scheduler in schedulers]),
    }


def _schedulers(trainer: Trainer) -> list[Any]:
    return [each.scheduler for each in trainer.lr_scheduler_configs]


def _names(objects: Sequence[object]) -> list[str]:
    return [type(each).__name__ for each in objects]


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return a copy of the options of each group."""
    groups = [
        {key: value for key, value in group.items() if key not in NO_OPTIONS}
        for group in optimizer.param_groups
    ]
    return copy.deepcopy(groups)


def _steps_of(state: Mapping[str, Any]) -> int | None:
    """Return the steps that a scheduler has taken; those of a chain are of its first link."""
    if "last_epoch" in state:
        return int(state["last_epoch"])
    links = state.get("_schedulers")
    return _steps_of(links[0]) if links else None


def _try_buffers(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Let a copy of an optimizer take a step with the buffers of a checkpoint, of small tensors.

    Options such as Adam's `amsgrad` ask for buffers that a run without them has never made.
    """
    indices = [i for group in state["param_groups"] for i in group["params"]]
    stepped = [i for i in indices if i in state["state"]]
    if not stepped:
        return
    trial = copy.copy(optimizer)
    trial.__dict__ |= {"_optimizer_step_pre_hooks": {}, "_optimizer_step_post_hooks": {}}
    options = {k: v for k, v in optimizer.param_groups[0].items() if k not in NO_OPTIONS}
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    buffers = {key: _small(value) for key, value in state["state"][stepped[0]].items()}
    trial.param_groups = [{**copy.deepcopy(options), "params": [parameter]}]
    trial.state = defaultdict(dict, {parameter: buffers})
    try:
        type(optimizer).step(trial)
    except KeyError as error:
        saved = state["param_groups"][0]
        other = [
            k for k in options if k in saved.keys() - DRIVEN and not same(options[k], saved[k])
        ]
        now, then = ({name: of[name] for name in other} for of in (options, saved))
        allowed = f"{then or 'the one of the run'}, {FROM}, whose buffers lack {error}"
        raise UsageError("model.optimizer", now or type(optimizer).__name__, allowed) from error
    except Exception:  # some optimizers take no step of a small tensor: nothing is known
        return


def _small(value: Any) -> Any:
    """Return a small stand-in for a buffer; a number, such as a count of steps, stays."""
    if isinstance(value, Tensor):
        return torch.ones(2, 2) if value.dim() else value.clone()
    return value


def _tell_of_zero(then: float, now: float, step: int) -> None:
    """Say that the schedule of the checkpoint, or that of the config, has reached zero."""
    if now == 0:
        rank_zero_warn(
            f"model.schedule: the learning rate is 0 at step {step}, where the checkpoint is: the"
            " schedule has ended there, and weights stay until it rises again"
        )
    elif then == 0:
        rank_zero_info(
            f"The checkpoint's schedule had reached 0 at step {step}; the learning rate goes on at"
            f" {now:.4g}, where the config's schedule is then."
        )


def _rate(groups: Sequence[Mapping[str, Any]]) -> float:
    return max((float(group["lr"]) for group in groups if "lr" in group), default=NONE)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value
