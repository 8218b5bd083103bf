"""Subject: the questions that callbacks may ask of a module while it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from janus_pl.observables.norms import frobenius_norm
from janus_pl.observables.update import PARTS
from janus_pl.observables.wide import wide
from janus_pl.run.description import Description, MarginKind
from janus_pl.run.rows import Value
from janus_pl.training.descended import Descended
from janus_pl.training.row import Row

Take = Callable[[Sequence[int]], None]
Buffers = dict[str, dict[str, Tensor]]
"""By layer, what a callback keeps between two calls of `Subject.step`."""


class NotOffered(Exception):
    """A question that a subject cannot answer; its text is the reason."""


class Features(NamedTuple):
    """The inputs of a network's last dense layer over a training set of K classes.

    Attributes:
        features: The inputs, (N, d).
        labels: The classes, 0 to K - 1, (N,), on the host.
        classes: K.
        outputs: The module's outputs, (N, K), or (N, 1) of two classes.
        weight: The layer's weight as the outputs use it, (K, d) or (1, d). Its sign is turned if
            the module multiplies by a negative number: (rho, W) and (-rho, -W) are one function.
    """

    features: Tensor
    labels: Tensor
    classes: int
    outputs: Tensor
    weight: Tensor


class Forward(NamedTuple):
    """A forward pass of some training samples.

    Attributes:
        features: The outputs of chosen parts by name, (n, d).
        labels: The classes, 0 to K - 1, (n,).
        classes: K.
        outputs: The module's outputs, (n, K), or (n, 1) of two classes.
    """

    features: dict[str, Tensor]
    labels: Tensor
    classes: int
    outputs: Tensor


class Bounded(NamedTuple):
    """A parameter p_k to which the tail bound applies, and the layer that fills its gradient.

    Attributes:
        parameter: The parameter p_k.
        layer: The layer; each row of the product that it computes adds 1 to the gradient's rank.
        part: The rows of the parameter that are this matrix, such as one group of a convolution.
        channels: The channels of the layer's whole output.
    """

    parameter: nn.Parameter
    layer: nn.Module
    part: slice
    channels: int

    def matrix(self) -> Tensor:
        """Return p_k as a matrix (out, rest), detached."""
        return self.parameter.detach()[self.part].flatten(1)


class Subject(ABC):
    """What callbacks may ask of a module while it trains; layers in the order of the forward pass.

    V_k is the weight of layer k as a matrix (out, rest), divided by its Frobenius norm. A question
    that a subject cannot answer raises `NotOffered` with the reason.

    Attributes:
        description: What this run measurably is; there from the start of training.
        row: The epoch's row.
        margin: The kind of its margins: `normalized`, `raw` or `none`.
        shares_samples: Whether the processes of a run share its samples, and each of them has the
            results of all samples. If not, each process looks by itself.
        without_margin: The number of samples that `margins` left out, for they have none.
        keys: The keys that the module itself puts on a row; LAYER stands for a layer's name, and *
            for anything.
        planned: The length of the run in the units of `completed`, if a progress bar should show
            the whole run and not an epoch; else None.
    """

    description: Description
    row: Row
    margin: MarginKind = "none"
    shares_samples: bool = True
    without_margin: int = 0
    keys: Sequence[str] = ()
    planned: int | None = None

    def start(self) -> None:
        """Get ready, for training starts now; a second call in a fit does nothing."""
        return

    @abstractmethod
    def layers(self) -> Sequence[str]:
        """Return the names of the layers that can be read, in the order of the forward pass."""

    def skipped(self) -> Mapping[str, str]:
        """Return the parameters that are not read, by name, and why."""
        return {}

    @abstractmethod
    def directions(self) -> dict[str, Tensor]:
        """Return V_k by layer: unit Frobenius norm, shape (out, rest), detached."""

    @abstractmethod
    def velocities(self) -> dict[str, Tensor]:
        r"""Return V_k dot of the last minibatch (Eq. 15), from the gradients of its backward pass.

        Shapes as `directions`. It is the loss's part alone: weight decay moves no V_k.
        """

    @abstractmethod
    def velocity_norms(self) -> Tensor:
        """Return the Frobenius norms of `velocities`, shape (L,); NaN if no gradient came."""

    def full_velocity_norms(self) -> Tensor:
        """Return the same norms for the gradient over the whole training set at these weights."""
        raise NotOffered("the loss of a single minibatch is known, not that of the whole set")

    def minibatch(self, batch: Any) -> Any:
        """Return a batch of the loader, which may be somebody else's, as the task takes it.

        Raises:
            UsageError: The task cannot take it.
        """
        return batch

    def velocities_of(self, batch: Sequence[Any]) -> dict[str, Tensor]:
        """Return V_k dot of the mean loss over a batch (x, y, ...) at these weights.

        Neither the weights nor the gradients of the last backward pass change. Several processes
        share the work: each has to ask, with the same batch.
        """
        raise NotOffered("the gradient of a chosen batch is not known (velocities_of)")

    def check_curvature(self) -> None:
        """Raise NotOffered, before the run, unless `descended` will have second derivatives."""
        raise NotOffered("its loss of chosen samples is not known (descended)")

    def descended(self) -> Descended:
        """Return the loss that training descends, at these weights."""
        raise NotOffered("its loss of chosen samples is not known (descended)")

    def matrices(self) -> dict[str, Tensor]:
        """Return p_k by layer with V_k = p_k/||p_k||, as it is trained: (out, rest), detached.

        It is v_k under weight normalization, and W_k of a plain weight.
        """
        raise NotOffered("the parameters behind its layers are not known")

    def learning_rates(self) -> Tensor:
        """Return the learning rate of the newest step on each p_k, (L,).

        NaN stands for a weight that is computed from others.
        """
        raise NotOffered("the learning rates of its layers are not known")

    def running_loss(self) -> Tensor:
        """Return the mean loss over the samples of the epoch that ends, as they were seen; ().

        Several processes share the work, so each has to ask.
        """
        raise NotOffered("the loss of its epochs is not known")

    def margins(self) -> Tensor:
        """Return the margins of all N training samples in the unit of `margin`, (N,).

        They are in data order, if it is known. Samples without one (y = 0) are left out.
        """
        raise NotOffered("it has no margins")

    def noisy(self) -> Tensor | None:
        """Return which samples of `margins` have a label that is replaced by another, (N,).

        None if none has, or it is not known.
        """
        return None

    def sample(self, count: int) -> Sequence[Any]:
        """Return batches (x, y) of a fixed sample of the training set, for `margins_of`.

        It has the samples that have a margin, at most `count` of them, and depends on N and `count`
        alone.
        """
        raise NotOffered("its training samples cannot be chosen")

    def margins_of(self, batch: Sequence[Any]) -> Tensor:
        """Return the margins of a batch (x, y) at these weights, in the unit of `margin`; (B,)."""
        raise NotOffered("it has no margins")

    def steps_per_unit(self) -> int:
        """Return the optimizer steps in a unit of `completed`."""
        raise NotOffered("its epochs have no known number of steps")

    def follow(self, count: int, due: Callable[[int], bool], take: Take) -> bool:
        """Follow steps that the trainer does not see; False if it sees each of them.

        Args:
            count: The number of steps before a look that are followed, the look's own one included.
            due: Tells whether a look is due, by the value of `completed`; the last look always is.
            take: Called after each followed step, with the looks that it is followed for.
        """
        return False

    def features(self) -> Features:
        """Return the inputs of the last dense layer over the training set."""
        raise NotOffered("it has no nn.Linear")

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the parts whose outputs `forwards` can read, by name."""
        return {}

    def forwards(self, names: Sequence[str]) -> Iterator[Forward]:
        """Yield forward passes over the training set, in evaluation, with the outputs of parts.

        Several processes share the work, so each has to ask.
        """
        raise NotOffered("the outputs of its parts are not known")

    def equilibrium(self) -> dict[str, Tensor]:
        """Return the scale's distance from rest over the training set: values by name, ()."""
        raise NotOffered("it has no learned scale rho")

    def split_layers(self) -> Sequence[str]:
        """Return the layers whose steps `step` splits into parts."""
        raise NotOffered("its steps are not those of an optimizer of PyTorch")

    def step(self, optimizer: Optimizer, buffers: Buffers) -> dict[str, dict[str, Tensor]]:
        r"""Return the parts of p_k(t+1) - p_k(t) for the step that the optimizer will take.

        Call it after the backward pass and before each step. The parts are those of
        `janus_pl.observables.update.PARTS`: gradient, decay, projection. They sum to the step.

        Args:
            optimizer: The optimizer that steps.
            buffers: By layer, empty before the first step; changed in place.

        Returns:
            By layer, the parts by name. Layers that this optimizer does not step are left out.
        """
        raise NotOffered("its steps are not those of an optimizer of PyTorch")

    def step_shares(self, optimizer: Optimizer, buffers: Buffers) -> Tensor:
        """Return the norm of each part of `step` over the sum of the three norms, (3, L).

        The layers are those of `split_layers`. NaN stands for a layer that this optimizer does not
        step. Arguments and errors as `step`.
        """
        parts = self.step(optimizer, buffers)
        columns = []
        for layer in self.split_layers():
            if layer in parts:
                norms = torch.stack([frobenius_norm(parts[layer][name]) for name in PARTS])
                columns.append(wide(norms / norms.sum()).cpu())
            else:
                columns.append(torch.full((3,), torch.nan, dtype=torch.float64))
        return torch.stack(columns, dim=1)

    def bounded(self) -> Mapping[str, Bounded]:
        """Return the parameters to which the tail bound of SGD applies, by layer."""
        raise NotOffered("no weight of it is trained by the steps of Lightning")

    def kept(self, optimizer: Optimizer) -> Tensor:
        """Return a_k for `bounded`, the factor of p_k that one step of SGD keeps; (L,)."""
        raise NotOffered("no weight of it is trained by the steps of Lightning")

    @abstractmethod
    def completed(self) -> int:
        """Return the completed epochs, by which callbacks count; in a pass over a stream, steps."""

    def put(self, values: Mapping[str, Value], by: object = None) -> None:
        """Add values to the row of this epoch.

        Args:
            values: The values.
            by: The callback that writes them, for its keys are its own.

        Raises:
            UsageError: Another one has written one of these keys.
        """
        self.row.put(values, by)

    def facts(self) -> dict[str, Any]:
        """Return the fields of `Description` that only the subject knows."""
        return {"kind": "module"}


def offers(subject: Subject, question: str) -> bool:
    """Tell whether a subject has an answer of its own to a question, by the question's name."""
    return getattr(type(subject), question) is not getattr(Subject, question)
