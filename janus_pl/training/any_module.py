"""AnyModule, the answers for a LightningModule that knows nothing of callbacks' questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from janus_pl.observables.margins import class_margins
from janus_pl.observables.norms import frobenius_norm
from janus_pl.observables.update import NoSplit, decay_of, split_step
from janus_pl.observables.velocity import weight_velocity
from janus_pl.observables.wide import home_of
from janus_pl.training.clock import epochs_of
from janus_pl.training.features import features_of, forwards_of, named_parts
from janus_pl.training.optimizers import decays_of, initial_rate_of, learning_rate_of
from janus_pl.training.ranks import Ranks
from janus_pl.training.row import Row
from janus_pl.training.samples import (
    STREAM,
    chosen_samples,
    is_stream,
    noisy_samples,
    steps_per_epoch,
    training_samples,
)
from janus_pl.training.subject import (
    Bounded,
    Buffers,
    Features,
    Forward,
    NotOffered,
)
from janus_pl.training.trial import Tries
from janus_pl.training.weights import Weight, evaluating, in_order, told_of, weights_of

Dense = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d  # the rank of their gradients is known


class AnyModule(Tries):
    """A LightningModule that trains itself, seen from outside.

    Its weights are found by parameter (`janus_pl.training.weights`). The order of layers is that of
    a forward pass of two samples; if the module's `forward` cannot take them, it is the order of
    registration.

    Args:
        trainer: The trainer of the fit.
        module: The module.

    Attributes:
        eta_t: The sum of the learning rates of all steps so far, of the first optimizer.

    Raises:
        UsageError: Two layers have one name.
    """

    shares_samples = False

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.trainer = trainer
        self.module = module
        self.row = Row()
        self.eta_t = 0.0
        self._weights, self._skipped = weights_of(module)
        self._gradients: dict[str, Tensor] = {}  # of parametrized weights, by place
        self._handles: list[Any] = []
        self._started = self._counting = False
        self._no_forward = ""  # why `forward` takes no samples

    def start(self) -> None:
        if self._started:
            return
        self._started = True
        self._order()
        self._probe_margins()
        rank_zero_info(told_of(type(self.module).__name__, self._weights, self._skipped))
        for weight in {w.place: w for w in self._weights.values() if w.parametrized}.values():
            computed = weight.computed
            self._handles.append(computed.register_forward_hook(self._watch(weight.place)))
        if self._handles:
            hooks = [o.register_step_post_hook(self._forget) for o in self.trainer.optimizers]
            self._handles.extend(hooks)

    def stop(self) -> None:
        """Leave the module as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._gradients.clear()

    def count(self, counting: bool) -> None:
        """Tell whether the forward passes from now on belong to a step of the training."""
        self._counting = counting
        if counting:
            self.drop_trial()

    # The contract of Subject

    def layers(self) -> Sequence[str]:
        return list(self._weights)

    def skipped(self) -> Mapping[str, str]:
        return self._skipped

    def directions(self) -> dict[str, Tensor]:
        matrices = {name: weight.matrix() for name, weight in self._weights.items()}
        return {name: matrix / frobenius_norm(matrix) for name, matrix in matrices.items()}

    def velocities(self) -> dict[str, Tensor]:
        return {name: self._velocity(weight) for name, weight in self._weights.items()}

    def velocity_norms(self) -> Tensor:
        # One after the other: the memory of all velocities at once costs three times their sums.
        norms = [frobenius_norm(self._velocity(weight)) for weight in self._weights.values()]
        return torch.stack(norms)

    def matrices(self) -> dict[str, Tensor]:
        return {name: weight.matrix() for name, weight in self._weights.items()}

    def learning_rates(self) -> Tensor:
        found = []
        for weight in self._weights.values():
            rates = [0.0]
            if not weight.parametrized:
                optimizers = self.trainer.optimizers
                rates += [learning_rate_of(each, weight.parameter) for each in optimizers]
            found.append(torch.nan if weight.parametrized else max(rates))
        return torch.tensor(found, dtype=torch.float64)

    @torch.no_grad()
    def margins(self) -> Tensor:
        self._check_passes()
        outputs, y = self._outputs(training_samples(self.trainer))
        return _margins(outputs, y)

    def noisy(self) -> Tensor | None:
        return noisy_samples(self.trainer)

    def sample(self, count: int) -> Sequence[Any]:
        self._check_passes()
        return chosen_samples(self.trainer, count)

    @torch.no_grad()
    def margins_of(self, batch: Sequence[Any]) -> Tensor:
        return _margins(*self._outputs([batch]))

    def steps_per_unit(self) -> int:
        return steps_per_epoch(self.trainer)

    def features(self) -> Features:
        owners = [weight.owner for weight in self._weights.values()]
        dense = [owner for owner in owners if isinstance(owner, nn.Linear)]
        if not dense:
            raise NotOffered("it has no nn.Linear")
        self._check_passes()
        return features_of(self.trainer, self.module, dense[-1], Ranks())

    def parts(self) -> Mapping[str, nn.Module]:
        return named_parts(self.module)

    def forwards(self, names: Sequence[str]) -> Iterator[Forward]:
        self._check_passes()
        chosen = {name: self.parts()[name] for name in names}
        return forwards_of(self.trainer, self.module, chosen, Ranks())

    def split_layers(self) -> Sequence[str]:
        plain = [name for name, weight in self._weights.items() if not weight.parametrized]
        if not plain:
            raise NotOffered("each of its weights is computed from other parameters")
        return plain

    @torch.no_grad()
    def step(self, optimizer: Optimizer, buffers: Buffers) -> dict[str, dict[str, Tensor]]:
        if self.trainer.gradient_clip_val:
            raise NotOffered("trainer.gradient_clip_val changes gradients before the step")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        parts = {}
        for name in self.split_layers():
            weight = self._weights[name]
            gradient = weight.parameter.grad
            if gradient is None or id(weight.parameter) not in held:
                continue
            own = {"gradient": weight.read(gradient)}
            try:
                parts[name] = split_step(
                    optimizer, weight.parameter, own, buffers.setdefault(name, {}), weight.read
                )
            except NoSplit as reason:
                raise NotOffered(str(reason)) from reason
        return parts

    def bounded(self) -> Mapping[str, Bounded]:
        found = {
            name: Bounded(weight.parameter, weight.owner, *_rows_of(weight))
            for name, weight in self._weights.items()
            if isinstance(weight.owner, Dense) and not weight.parametrized
        }
        modules = self.module.modules()
        uses = Counter(id(p) for part in modules for p in part.parameters(recurse=False))
        own = {k: bound for k, bound in found.items() if uses[id(bound.parameter)] == 1}
        if not own:
            raise NotOffered("it has no nn.Linear or nn.Conv*d with a plain weight of its own")
        return own

    def kept(self, optimizer: Optimizer) -> Tensor:
        kept = []
        for bound in self.bounded().values():
            rate, decay = learning_rate_of(optimizer, bound.parameter), 0.0
            if bound.parameter.grad is not None:  # SGD decays what a backward pass has reached
                decay = decay_of(optimizer, bound.parameter)[1]
            kept.append(1 - float(rate) * float(decay))
        return torch.tensor(kept, dtype=torch.float64, device=home_of(self.module.device))

    def completed(self) -> int:
        return epochs_of(self.trainer)

    def facts(self) -> dict[str, Any]:
        optimizers, owners = self.trainer.optimizers, self._owners()
        rates = {initial_rate_of(optimizers, parameter) for parameter in owners.values()}
        return {
            "kind": "module",
            "decays": decays_of(optimizers, owners),
            "learning_rate": rates.pop() if len(rates) == 1 else None,
        }

    # Parts

    def _owners(self) -> dict[str, nn.Parameter]:
        """Return a parameter behind each layer, from which its decay is read."""
        return {
            name: next(weight.computed.parameters()) if weight.parametrized else weight.parameter
            for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def _velocity(self, weight: Weight) -> Tensor:
        """Return V dot of a weight; NaN if the loss did not reach it."""
        matrix, gradient = weight.matrix(), self._gradient(weight)
        if gradient is None:
            return torch.full_like(matrix, torch.nan)
        return weight_velocity(matrix, weight.read(gradient))

    def _gradient(self, weight: Weight) -> Tensor | None:
        if not weight.parametrized:
            return weight.parameter.grad
        gradient = self._gradients.get(weight.place)
        if gradient is None:
            return None
        if self.trainer.world_size > 1:  # DDP averages the gradients of parameters alone
            gradient = gradient.clone()
            Ranks(self.trainer).add_up([gradient])
            gradient /= self.trainer.world_size
        return gradient

    def _watch(self, place: str) -> Callable[..., None]:
        def add(gradient: Tensor) -> None:
            before = self._gradients.get(place)
            self._gradients[place] = gradient if before is None else before + gradient

        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            if self._counting and output.requires_grad:
                output.register_hook(add)

        return hook

    def _forget(self, *_: Any) -> None:
        self._gradients.clear()

    def _order(self) -> None:
        """Put the layers in the order of a forward pass; callbacks see no other."""
        calls: list[nn.Module] = []
        hooks = [
            part.register_forward_pre_hook(lambda called, _: calls.append(called))
            for part in self.module.modules()
        ]
        try:
            self._outputs(self._two_samples())
        except Exception:  # somebody else's `forward` may want anything
            calls.clear()
        finally:
            for hook in hooks:
                hook.remove()
        if calls:
            self._weights = in_order(self._weights, calls, self.module)

    def _probe_margins(self) -> None:
        self.margin = "none"
        try:
            _margins(*self._outputs(self._two_samples()))
        except NotOffered:
            return
        except Exception as error:  # somebody else's code may raise anything; it is the reason
            why = " ".join(str(error).split())
            self._no_forward = f"its forward does not take its samples ({why[:200]})"
        else:
            self.margin = "raw"

    def _check_passes(self) -> None:
        """Refuse a pass over the training set that would not end, or that `forward` cannot make."""
        if is_stream(self.trainer):
            raise NotOffered(STREAM)
        if self._no_forward:
            raise NotOffered(self._no_forward)

    def _two_samples(self) -> list[Any]:
        """Return a batch of two samples, or none if to look would take them from a stream."""
        return (
            [] if is_stream(self.trainer) else [next(iter(training_samples(self.trainer, chunk=2)))]
        )

    @torch.no_grad()
    def _outputs(self, batches: Any) -> tuple[Tensor, Tensor]:
        """Return the outputs and labels of batches (x, y); each part's mode is put back."""
        pieces: list[tuple[Tensor, Tensor]] = []
        with evaluating(self.module):
            for batch in batches:
                if not isinstance(batch, tuple | list) or len(batch) != 2:
                    raise NotOffered("its batches are not pairs (x, y)")
                outputs, y = self.module(batch[0]), batch[1]
                if not isinstance(outputs, Tensor) or not isinstance(y, Tensor):
                    raise NotOffered("its outputs or labels are no tensors")
                pieces.append((outputs, y))
        if not pieces:
            raise NotOffered("its training set is empty")
        outputs, y = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return outputs, y


def _margins(outputs: Tensor, y: Tensor) -> Tensor:
    try:
        return class_margins(outputs, y)
    except ValueError as reason:
        raise NotOffered(str(reason)) from reason


def _rows_of(weight: Weight) -> tuple[slice, int]:
    """Return the rows of a parameter that a weight reads, and the channels of its whole layer."""
    channels = len(weight.parameter)
    groups = getattr(weight.owner, "groups", 1)
    if groups == 1:
        return slice(None), channels
    number, size = int(weight.name.rpartition("group")[2]), channels // groups
    return slice(number * size, (number + 1) * size), channels
