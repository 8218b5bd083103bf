"""The epochs at which callbacks look, the layers they read, and questions without an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from janus_pl.errors import UsageError, check_integer
from janus_pl.observables.onto import onto
from janus_pl.run.rows import Value
from janus_pl.training.clock import is_last_epoch
from janus_pl.training.precision import full_precision
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import prepare, subject_of

T = TypeVar("T")
BINS = 512  # the most that W&B keeps of a histogram


class Mean:
    """The mean of a tensor over an epoch's steps; a checkpoint within the epoch keeps it."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.steps = 0

    def clear(self) -> None:
        """Drop the sum, because a new epoch begins."""
        self.total, self.steps = None, 0

    def add(self, value: Tensor) -> None:
        """Add the value of one more step."""
        self.total = value if self.total is None else beside(self.total, value) + value
        self.steps += 1

    def result(self) -> Tensor | None:
        """Return the mean so far; None without a step."""
        return None if self.total is None else self.total / self.steps

    def state(self) -> dict[str, Any]:
        """Return the sum for a checkpoint."""
        return {"total": self.total, "steps": self.steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the sum from a checkpoint."""
        self.total, self.steps = state["total"], state["steps"]


def beside(total: Tensor, value: Tensor) -> Tensor:
    """Move a sum to the device of a step's value; a checkpoint has left it on the host."""
    return onto(total, value.device)


class Observer(Callback, ABC):
    """Looks at log-spaced epochs and then every n-th, at the start, and always at the last one.

    Epochs are counted when completed: 0 is the initialization. Up to n the epochs 1, 2, 4, 8, ...
    are due, from then on the multiples of n; n = 0 turns the callback off. Linear regression
    records log-spaced epochs by itself (of a stream: steps), and of those the due ones are looked
    at.

    It looks after all other callbacks had their turn, in float32 or better, whatever the precision
    of the training.

    A question that the module cannot answer is said once in a fit, and then the callback records
    nothing.

    Args:
        every_n_epochs: n.

    Attributes:
        keys: The keys that it may put on a row, by which a monitor is known to come; LAYER stands
            for a layer's name, and * for anything. None: any.
        tables: The keys of its tables.

    Raises:
        UsageError: n is no integer from 0 up.
    """

    keys: tuple[str, ...] | None = None  # of somebody else's: not known before the first look
    tables: tuple[str, ...] = ()
    place = 1  # after the callbacks that may change the weights

    def __init__(self, every_n_epochs: int) -> None:
        check_integer(f"callbacks.{type(self).__name__}.every_n_epochs", every_n_epochs, 0)
        self.every_n_epochs = every_n_epochs
        self._last_seen = -1
        self._refused = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._last_seen, self._refused = -1, False  # of an earlier fit
        if stage != "fit":
            return
        prepare(trainer, pl_module)
        subject = subject_of(trainer, pl_module)
        if self.every_n_epochs:
            self.check(subject)
            if trainer.world_size > 1 and not subject.shares_samples:
                rank_zero_info(
                    f"{type(self).__name__}: each of {trainer.world_size} processes looks by"
                    " itself, at gradients after DDP's reduction and at all training samples;"
                    " recorded is what the first one sees"
                )

    @property
    def state_key(self) -> str:
        # Two of a kind, with other options, may look at the same run.
        options = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        simple = {k: v for k, v in options.items() if isinstance(v, int | float | str | tuple)}
        return self._generate_state_key(**simple)

    def state_dict(self) -> dict[str, Any]:
        return {"last_seen": self._last_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_seen = state_dict["last_seen"]

    @abstractmethod
    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        """Return the values of this callback at the current weights.

        Raises:
            NotOffered: The subject has no answer.
        """

    def check(self, subject: Subject) -> None:
        """Refuse, before the run, a subject of which nothing can be recorded.

        Raises:
            UsageError: It is such a subject.
        """

    def ask_before(self, question: str, subject: Subject, ask: Callable[[], T]) -> T:
        """Return the answer to a question before the run; raise an error if no layer has one.

        Args:
            question: The callback or its option, for the message.
            subject: The subject.
            ask: Asks the question.

        Raises:
            UsageError: There is no answer.
        """
        try:
            return ask()
        except NotOffered as reason:
            allowed = f"a module that can answer; {reason}"
            raise UsageError(question, owner_of(subject), allowed) from reason

    def is_due(self, epoch: int) -> bool:
        n = self.every_n_epochs
        if n == 0:
            return False
        return epoch % n == 0 or (epoch < n and epoch & (epoch - 1) == 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        subject = subject_of(trainer, pl_module)
        subject.start()
        # A run that goes on within its first epoch has looked at the start, and is past it.
        past = self._last_seen == 0 and trainer.global_step > 0
        if subject.completed() == 0 and not past and self.is_due(0):
            self._look(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = subject_of(trainer, pl_module).completed()
        if self.is_due(epoch) or (self.every_n_epochs > 0 and is_last_epoch(trainer)):
            self._look(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Early stopping decides after this callback has had its turn.
        epoch = subject_of(trainer, pl_module).completed()
        if self.every_n_epochs > 0 and self._last_seen < epoch:
            self._look(trainer, pl_module, epoch)

    def refuse(self, subject: Subject, reason: NotOffered) -> None:
        """Say once in a fit that a question has no answer; the callback stops asking."""
        if not self._refused:
            rank_zero_info(
                f"{type(self).__name__} records nothing of {owner_of(subject)}: {reason}"
            )
        self._refused = True

    @property
    def refused(self) -> bool:
        """Tell whether a question had no answer in this fit."""
        return self._refused

    def _look(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        self._last_seen = epoch
        if self._refused:
            return
        subject = subject_of(trainer, module)
        try:
            with full_precision(module.device):
                subject.put(self.observe(trainer, subject), self)
        except NotOffered as reason:
            self.refuse(subject, reason)


class LayerObserver(Observer):
    """An observer of layers, some of them chosen by globs.

    Args:
        every_n_epochs: n, as in `Observer`.
        layers: Globs of layers' names, such as `conv*`. None: all layers.

    Raises:
        UsageError: A glob matches no layer, or the module has no weight to read.
    """

    def __init__(self, every_n_epochs: int, layers: Sequence[str | int] | None) -> None:
        super().__init__(every_n_epochs)
        self.layers = globs_of(self, layers, "null for all")

    def check(self, subject: Subject) -> None:
        names = subject.layers()
        if not names:
            left = ", ".join(f"{name} {why}" for name, why in subject.skipped().items())
            allowed = f"a module with a readable weight; here {left or 'there is no parameter'}"
            raise UsageError(f"callbacks.{type(self).__name__}", "no layer", allowed)
        check_globs(self, self.layers or (), self.readable(subject))

    def readable(self, subject: Subject) -> Sequence[str]:
        """Return the layers that can answer this callback; a glob has to match one of them.

        Raises:
            UsageError: No layer can answer.
        """
        return subject.layers()

    def takes(self, layer: str) -> bool:
        """Tell whether a layer is among the chosen ones."""
        return self.layers is None or any(fnmatchcase(layer, glob) for glob in self.layers)


def globs_of(
    observer: Observer, layers: Sequence[str | int] | None, unset: str
) -> tuple[str, ...] | None:
    """Return the option `layers` of an observer; `unset` says what null stands for.

    Raises:
        UsageError: It is no list of globs.
    """
    if layers is not None and (isinstance(layers, str) or not layers):
        field = f"callbacks.{type(observer).__name__}.layers"
        raise UsageError(field, layers, f"a list of globs such as [conv*, fc1], or {unset}")
    return None if layers is None else tuple(map(str, layers))  # 0 of a Sequential


def check_globs(observer: Observer, globs: Sequence[str], names: Sequence[str]) -> None:
    """Refuse globs of the option `layers` that match none of the names.

    Raises:
        UsageError: There is one.
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            field = f"callbacks.{type(observer).__name__}.layers"
            allowed = f"globs that match a layer: {', '.join(names) or 'there is none'}"
            raise UsageError(field, glob, allowed)


def owner_of(subject: Subject) -> str:
    """Return the name of the module's class."""
    return type(getattr(subject, "module", subject)).__name__
