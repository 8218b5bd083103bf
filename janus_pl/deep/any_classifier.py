"""A classifier of any network and any number of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from janus_pl.data.loader import DEFAULT_MICRO_BATCH, Batch, InMemoryBatches
from janus_pl.data.standard import ByteImages
from janus_pl.deep.batches import labelled
from janus_pl.deep.checks import check_run
from janus_pl.deep.class_losses import CLASS_LOSSES, indices
from janus_pl.deep.compiled import check_compiler
from janus_pl.deep.growing import GROWING
from janus_pl.deep.normalizations import PARAMETRIZATIONS
from janus_pl.deep.optimizers import OptimizerFactory
from janus_pl.deep.parametrization import Groups
from janus_pl.deep.scaled import Scaled, batch_norms, is_homogeneous, scaled, shifts
from janus_pl.deep.trains import Trains
from janus_pl.errors import UsageError, check_name, check_number
from janus_pl.observables.sharpness import is_curved
from janus_pl.training.divergence import OnDivergence, check_on_divergence
from janus_pl.training.precision import full_precision
from janus_pl.training.samples import training_samples
from janus_pl.training.schedules import Interval, Schedule
from janus_pl.training.subject import Bounded, Buffers, NotOffered
from janus_pl.training.weights import evaluating, told_of, weights_of

NORMALIZATIONS = ("none", "weight_norm")


class Classifier(Trains):
    r"""Any network on K classes, trained by SGD or full-batch GD as `DeepReLUClassifier` is.

    f_W(x) = rho network(x). With `weight_norm` each nn.Linear and nn.Conv has W_k = g_k v_k/||v_k||
    with a frozen gain g_k, its norm at the start, and rho is learned. With `none` rho is 1.

    The margin of a sample is (f_y - max of the other outputs)/2, divided by |rho| prod_k ||W_k|| if
    twice any one weight gives twice the outputs, as measured at the start of a fit. If not, it is
    in the units of the outputs (`margin_raw/*`).

    Batch normalization takes statistics of the whole minibatch, so micro-batches and several
    processes are refused. Whatever callbacks read is in evaluation mode, with the running
    statistics.

    Args:
        network: The network, a `torch.nn.Module` with K outputs, as `class_path` and `init_args`:
            `janus_pl.deep.MLP`, `janus_pl.deep.ResNet18`, `janus_pl.deep.DeepReLU`, one of
            torchvision's, or your own.
        loss: The loss, a name in `janus_pl.deep.class_losses.CLASS_LOSSES`: `square` on outputs
            coded +1/-1, `square_one_hot` on outputs coded 1/0, `cross_entropy`, or another.
        learning_rate: The learning rate eta at the start.
        weight_decay: The paper's lambda.
        decay: The parameters that lambda acts on. `all`: every learned parameter w gets the
            gradient lambda w (PyTorch's `weight_decay` = lambda), biases too. `rho`: rho alone,
            with the gradient 2 lambda rho; it is of `weight_norm`.
        schedule: The schedule: `constant`, `cosine` (over the run), `inverse_sqrt`, or a PyTorch
            scheduler as `class_path` and `init_args`.
        optimizer: A PyTorch optimizer as `class_path` and `init_args`, called with the parameters
            and the learning rate. It takes the momentum, but no weight decay.
        normalization: `none` or `weight_norm`.
        on_divergence: The end of a run if a loss, gradient or weight is not finite. It keeps the
            last sound weights. `stop`: an error, exit code 3. `record`: an outcome, exit code 0.
        schedule_interval: What the schedule steps after, and a cosine runs over: `epoch` or `step`.
        compile: Whether the passes of training steps go through `torch.compile`, which takes some
            ten seconds or more at the start. Looks do not.

    Raises:
        UsageError: A value is outside its range.
    """

    keys = tuple(key for key in Trains.keys if not key.startswith("equilibrium/"))
    network: Scaled  # type: ignore[assignment]
    hold_norms = None
    _classes: int | None = None

    def __init__(
        self,
        network: nn.Module,
        loss: str = "cross_entropy",
        learning_rate: float = 0.1,
        weight_decay: float = 5e-4,
        decay: Literal["all", "rho"] = "all",
        schedule: Schedule = "constant",
        optimizer: OptimizerFactory = lambda params, lr: torch.optim.SGD(params, lr),
        normalization: str = "none",
        on_divergence: OnDivergence = "stop",
        schedule_interval: Interval = "epoch",
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_number("model.learning_rate", learning_rate, above=0)
        check_number("model.weight_decay", weight_decay)
        check_name("model.loss", loss, CLASS_LOSSES)
        check_name("model.decay", decay, ("all", "rho"))
        check_name("model.schedule_interval", schedule_interval, ("epoch", "step"))
        check_name("model.normalization", normalization, NORMALIZATIONS)
        check_on_divergence(on_divergence)
        if schedule == GROWING:
            raise UsageError("model.schedule", GROWING, "another one; it is of DeepReLUClassifier")
        self.save_hyperparameters(ignore=["network", "optimizer", "schedule"], logger=False)
        self.network_name = type(network).__name__
        self.hparams.update({"network": _size(network), **_parts(network)})
        self._skipped = _skipped(network)
        self.network = scaled(network)
        _check_nonzero(self.network, normalization)
        self.parametrization = PARAMETRIZATIONS[normalization](self.network)
        self.loss_name = loss
        self.losses = lambda outputs, y: CLASS_LOSSES[loss](outputs, indices(y))
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay = decay
        self.normalization = normalization
        self.schedule = schedule
        self.schedule_interval = schedule_interval
        self.on_divergence: OnDivergence = on_divergence
        self.make_optimizer = optimizer
        self.compiled = compile
        # Measured when a fit starts; None if it may be.
        self.homogeneous = False if shifts(self.network) else None
        self._told = False
        self.check_options()  # a mistake shows before the start

    # The contract of JanusTask

    def start(self) -> None:
        if self._told:  # asked for by each callback
            return
        self._told = True
        rank_zero_info(told_of(self.network_name, self.layers(), self._skipped))
        x = next(iter(training_samples(self.trainer, chunk=2)))[0]
        with full_precision(self.device):
            self._measure(x)
        self._check_loader(self.trainer.train_dataloader)

    def skipped(self) -> Mapping[str, str]:
        return self._skipped

    def unit(self) -> Tensor:
        return self.scale() if self.homogeneous else torch.ones((), device=self.device)

    def output_margins(self, outputs: Tensor, y: Tensor) -> Tensor:
        own = outputs.gather(1, indices(y)[:, None])
        others = outputs.scatter(1, indices(y)[:, None], -torch.inf).amax(dim=1)
        return (own[:, 0] - others) / 2

    @torch.no_grad()
    def margins_of(self, batch: Sequence[Any]) -> Tensor:
        x, y = batch[:2]
        with parametrize.cached(), evaluating(self):
            return self.output_margins(self(x), y) / self.unit()

    def equilibrium(self) -> dict[str, Tensor]:
        raise NotOffered("its equilibrium is known for the paper's network of two classes alone")

    def check_curvature(self) -> None:
        if found := batch_norms(self.network):
            raise NotOffered(f"the loss of a sample depends on the others, by {found[0]}")
        generator = torch.Generator().manual_seed(0)
        outputs = 3 * torch.randn(64, 4, generator=generator, dtype=torch.float64)
        y = torch.arange(64) % 4
        if not is_curved(lambda at: self.losses(at, y), outputs):
            name = self.loss_name
            raise NotOffered(f"model.loss: {name} has no second derivative in the outputs")

    def split_layers(self) -> Sequence[str]:
        self._need_homogeneity()
        return super().split_layers()

    def step(self, optimizer: Optimizer, buffers: Buffers) -> dict[str, dict[str, Tensor]]:
        self._need_homogeneity()
        return super().step(optimizer, buffers)

    def step_shares(self, optimizer: Optimizer, buffers: Buffers) -> Tensor:
        self._need_homogeneity()
        return super().step_shares(optimizer, buffers)

    def bounded(self) -> Mapping[str, Bounded]:
        self._need_homogeneity()
        return super().bounded()

    def facts(self) -> dict[str, Any]:
        own = {"network": self.network_name, "learning_rate": self.learning_rate}
        return {**super().facts(), "kind": "classifier", **own}

    # Options

    def check_run(self, trainer: Trainer, data: object = None) -> None:
        check_run(trainer, data, self.schedule)
        if self.compiled:
            check_compiler(trainer.strategy.root_device.type)
        found = batch_norms(self.network)
        if found and trainer.world_size > 1:
            allowed = f"1: the statistics of {found[0]} are of one process; GroupNorm has none"
            raise UsageError("trainer.devices", trainer.world_size, allowed)
        x, names = getattr(data, "train_x", None), getattr(data, "class_names", None)
        if isinstance(x, Tensor | ByteImages):
            classes = self._count_classes(x[:2])
            if isinstance(names, Sequence) and len(names) != classes:
                self._refuse_outputs(classes, len(names))
            self._check_batch(
                getattr(data, "batch_size", None), getattr(data, "micro_batch_size", None), len(x)
            )

    def fixed_options(self, training: bool) -> dict[str, Any]:
        names = ("network", "normalization", *(("loss", "schedule_interval") if training else ()))
        parts = [name for name in self.hparams if name.startswith("network.")]
        return {f"model.{name}": self.hparams[name] for name in (*names, *parts)}

    # Training

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._told = False

    def minibatch(self, batch: Any) -> Batch:
        given = batch if isinstance(batch, Batch) else self._labelled(batch)
        if self.homogeneous is None:  # no fit has measured it, as in `predict`
            with full_precision(self.device):
                self._measure(given.x[:2])
        return given

    def _labelled(self, batch: Any) -> Batch:
        """Return a minibatch for a pair (x, y) of somebody else's loader."""
        self.splits_epochs = False  # a DataLoader does not know where it was
        dtype = next(self.parameters()).dtype
        x = batch[0] if isinstance(batch, tuple | list) and batch else None
        if self._classes is None and isinstance(x, Tensor) and x.dtype == dtype:
            self._count_classes(x[:2])
        return labelled(batch, self._classes or 2, dtype, self.ranks)

    # Parts

    def other_groups(self) -> Groups:
        """Return the parameters that are no layer's weight, as a group of the optimizer."""
        known = {id(p) for p in self.parametrization.weights.values()} | {id(self.network.rho)}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        decays = self.weight_decay if self.decay == "all" else 0.0
        return [{"params": others, "weight_decay": decays}] if others else []

    def _measure(self, x: Tensor) -> None:
        """Measure K and whether the network is homogeneous, on two samples."""
        self._count_classes(x)
        self.homogeneous = is_homogeneous(self.network, x)
        self.margin = "normalized" if self.homogeneous else "raw"

    @torch.no_grad()
    def _count_classes(self, x: Tensor) -> int:
        """Return the number of outputs of samples (n, ...).

        Raises:
            UsageError: The network does not take them, or has not two outputs or more.
        """
        shape = f"samples of shape {tuple(x.shape[1:])}"
        try:
            with evaluating(self):
                outputs = self(x.to(next(self.parameters())))
        except Exception as error:  # of any network: torchvision's ViT asserts its image size
            why = " ".join(str(error).split())[:200]
            allowed = f"a network that takes {shape} ({why})"
            raise UsageError("model.network", self.network_name, allowed) from error
        seen = tuple(outputs.shape) if isinstance(outputs, Tensor) else None
        if seen is None or len(seen) != 2 or seen[1] < 2:
            given = f"{self.network_name} with outputs of shape {seen and seen[1:]}"
            raise UsageError("model.network", given, f"one with two outputs or more for {shape}")
        self._classes = seen[1]
        return seen[1]

    def _refuse_outputs(self, outputs: int, classes: int) -> None:
        given = f"{self.network_name} with {outputs} outputs"
        raise UsageError("model.network", given, f"one with {classes}, the classes of the data")

    def _check_loader(self, loader: object) -> None:
        """Refuse minibatches that the network cannot be trained on; a script may have made them."""
        if isinstance(loader, InMemoryBatches):
            self._check_batch(loader.batch_size, loader.micro_batch_size, loader.num_samples)
            labels = indices(loader.y)
            if int(labels.max()) >= (self._classes or 2) or int(labels.min()) < 0:
                self._refuse_outputs(self._classes or 2, int(labels.max()) + 1)

    def _check_batch(self, size: Any, micro: Any, count: int) -> None:
        found = batch_norms(self.network)
        whole = count if size == "full" else size
        pieces = micro or min(whole, DEFAULT_MICRO_BATCH)
        if found and whole > pieces:
            allowed = f"{whole}, the batch size: the statistics of {found[0]} are of a whole batch"
            raise UsageError("data.micro_batch_size", pieces, allowed)

    def _need_homogeneity(self) -> None:
        if self.normalization != "none" and self.homogeneous is False:
            raise NotOffered(
                "its network is not homogeneous, so the part of a gradient along v_k is not known"
            )


def _size(network: nn.Module) -> str:
    """Name a network by its class and its size, by which a checkpoint of another one is told.

    >>> _size(nn.Linear(3, 2))
    'Linear of 2 tensors and 8 parameters'
    """
    sizes = [p.numel() for p in network.parameters()]
    return f"{type(network).__name__} of {len(sizes)} tensors and {sum(sizes)} parameters"


def _parts(network: nn.Module) -> dict[str, str]:
    """Say what each part of a network is: another activation has the same size.

    >>> _parts(nn.Sequential(nn.Tanh()))
    {'network.class': 'Sequential()', 'network.0': 'Tanh()'}
    """
    found = {
        f"network.{name or 'class'}": f"{type(part).__name__}({part.extra_repr()})"
        for name, part in network.named_modules()
    }
    return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", text) for name, text in found.items()}


def _skipped(network: nn.Module) -> dict[str, str]:
    """Return the parameters that callbacks do not read, and why."""
    weights, skipped = weights_of(network)
    layers = scaled_layers(network)
    read = {id(layer.get_parameter("weight")) for layer in layers.values()}
    others = {
        name: "is no weight of an nn.Linear or nn.Conv in one group"
        for name, weight in weights.items()
        if weight.parametrized or id(weight.parameter) not in read
    }
    return skipped | others


def scaled_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers with a weight of a network that may have a scale already."""
    own = getattr(network, "weight_layers", None)
    return own() if own is not None else Scaled(network).weight_layers()


def _check_nonzero(network: Scaled, normalization: str) -> None:
    if normalization == "none":
        return
    for name, layer in network.weight_layers().items():
        if not layer.get_parameter("weight").any():
            allowed = f"none, for the weight of {name} is 0 at the start and has no direction"
            raise UsageError("model.normalization", normalization, allowed)
