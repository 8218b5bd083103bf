r"""The bound of weight decay on the tail of the spectrum, checked while training."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD, Optimizer

from janus_pl.callbacks._observer import LayerObserver
from janus_pl.errors import TheoremError, UsageError, check_integer
from janus_pl.observables.rank import singular_values
from janus_pl.observables.wide import at_home, home_of, wide
from janus_pl.run.rows import Value
from janus_pl.training.ranks import Ranks
from janus_pl.training.subject import Bounded, Subject
from janus_pl.training.subjects import subject_of

# A step's rounding is of full rank: some roundings of each entry of the weight and of the gradient.
ROUNDINGS = 16


class Step(NamedTuple):
    """One optimizer step, at the weights before it.

    Attributes:
        kept: a_k, shape (L,).
        norms: ||p_k||, float64, shape (L,).
        ranks: B m of this process's samples, by layer. The sum over processes bounds the rank of
            the step's dLoss/dW_k.
    """

    kept: Tensor
    norms: Tensor
    ranks: list[int]


class RankBound(LayerObserver):
    r"""Logs how much of the tail bound is used: `tail_bound/ratio/<layer>`, at most 1.

    Without momentum n steps make of the parameter p_k of layer k (W_k = s_k p_k/||p_k||)

        p_k(T) = (prod_t a_t) p_k(T - n) + U,    rank U <= n B m,
        sqrt(sum_{i > n B m} sigma_i(p_k(T))^2) <= prod_t |a_t| ||p_k(T - n)||

    (arXiv 2206.05794 for plain weights; `janus_pl.theory.tail_bound`). a_t is 1 - eta wd for plain
    weights, 1 - eta wd + (eta/||v||^2) <G, W> for weight normalization; where a norm is put back
    after the step, a_t is divided by the factor by which it had grown. B is the size of the
    minibatch, of all that a step accumulates, and m the number of positions at which a convolution
    is applied; 1 for a dense layer. The ratio is that of the left side to the
    right one and the rounding of n steps, the largest over all windows n = 1, 2, ... that leave a
    singular value and are not longer than `window`. `tail_bound/vacuous/<layer>` is 1 where there
    is no such window, because B m >= min(shape) or no step was taken yet, and 0 elsewhere.

    A ratio that is not at most 1 (NaN neither) stops the run with a `TheoremError`, after the row
    with the ratio is written: then the weights are not what SGD with this weight decay makes of
    them.

    Any other LightningModule is served for every `nn.Linear` and `nn.Conv*d` with a plain weight
    that no other module shares; a group of a convolution is a matrix of its own. All of a weight's
    gradient has to come through its own layer: a penalty in the loss gives it any rank.

    Args:
        every_n_epochs: The interval n of the looks: epochs 1, 2, 4, 8, ... up to n, the multiples
            of n, and the last epoch. 0 turns the callback off.
        window: The largest n.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers.

    Raises:
        UsageError: an option out of range; an optimizer other than SGD without momentum, whose
            buffer would hold gradients from before the window.
    """

    place = 0  # where the list has it, for it counts from the start of a batch to its end

    keys = ("tail_bound/ratio/LAYER", "tail_bound/vacuous/LAYER")

    def __init__(
        self,
        every_n_epochs: int = 1,
        window: int = 100,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        check_integer("callbacks.RankBound.window", window, 1)
        self.window = window
        self._bounded: Mapping[str, Bounded] = {}
        self._rows: list[int] = []
        self._counting = False
        self._steps: deque[Step] = deque(maxlen=window)
        self._hooks: list[Any] = []
        self._broken: str | None = None

    def readable(self, subject: Subject) -> Sequence[str]:
        return [*self.ask_before("callbacks.RankBound", subject, subject.bounded)]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._steps.clear()
        self._broken = None

    def state_dict(self) -> dict[str, Any]:
        steps = [[step.kept, step.norms, list(step.ranks)] for step in self._steps]
        return super().state_dict() | {"steps": steps, "broken": self._broken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._steps.extend(Step(*step) for step in state_dict["steps"])
        self._broken = state_dict["broken"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bounded = {}
        for optimizer in trainer.optimizers if self.every_n_epochs else ():
            check_optimizer(optimizer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if not self.every_n_epochs:
            return
        self._bounded = subject_of(trainer, pl_module).bounded()
        self._rows, self._counting = [0] * len(self._bounded), False
        device = home_of(pl_module.device)  # a checkpoint's steps were loaded to the CPU
        moved = [Step(s.kept.to(device), s.norms.to(device), s.ranks) for s in self._steps]
        self._steps = deque(moved, maxlen=self.window)
        for k, bound in enumerate(self._bounded.values()):
            count = self._counter(k, bound.channels)
            self._hooks.append(bound.layer.register_forward_hook(count))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._raise_if_broken()
        self._counting = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._counting = False  # other callbacks' looks are no part of a step

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if not self._bounded:
            return
        bounds = [*self._bounded.values()]
        norms = torch.stack([_norm(bound.matrix()) for bound in bounds])
        subject = subject_of(trainer, pl_module)
        kept, rows = subject.kept(optimizer), self._rows
        if not subject.shares_samples:
            rows = [_plain_rank(bound, n) for bound, n in zip(bounds, rows, strict=True)]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        steps = [id(bound.parameter) in held for bound in bounds]
        ranks = [n if step else 0 for n, step in zip(rows, steps, strict=True)]
        # Another optimizer's weights keep their gradients, for a step of their own.
        self._rows = [0 if step else n for n, step in zip(self._rows, steps, strict=True)]
        self._steps.append(Step(at_home(kept), norms, ranks))

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        values: dict[str, Value] = {}
        if not self._steps:
            return values
        chosen = {name: bound.matrix() for name, bound in self._bounded.items() if self.takes(name)}
        kept, norms, spectra = self._on_host([*chosen.values()])
        rows_of_steps = self._rows_of_steps(trainer)
        for name, sigma in zip(chosen, spectra, strict=True):
            k, weight = [*self._bounded].index(name), chosen[name]
            ranks = rows_of_steps[:, k]
            with np.errstate(over="ignore", invalid="ignore"):  # of a run that diverges
                tails, bounds = tail_windows(sigma, kept[:, k], norms[:, k], ranks)
                n = len(tails)
                values[f"tail_bound/vacuous/{name}"] = float(n == 0)
                if n == 0:
                    continue
                ratios = tails / (bounds + rounding(weight, norms[-n:, k]))
            values[f"tail_bound/ratio/{name}"] = float(ratios.max())
            if not (ratios <= 1).all():  # NaN is not above 1, and is not bounded either
                worst = int(ratios.argmax())
                self._broken = self._broken or (
                    f"the tail bound is broken in {name} at step {trainer.global_step}: over the"
                    f" last {worst + 1} steps the tail beyond rank {ranks[-worst - 1 :].sum()} is"
                    f" {tails[worst]:.6g}, its bound {bounds[worst]:.6g}"
                )
        return values

    def _on_host(self, weights: Sequence[Tensor]) -> tuple[Any, Any, list[Any]]:
        """Return a_t and norms, (T, L) each, and the spectra of weights; one transfer for all."""
        steps = [torch.stack((wide(step.kept), step.norms)) for step in self._steps]
        of_steps = torch.stack(steps, 1)  # (2, T, L)
        spectra = [_spectrum(weight) for weight in weights]
        sizes = [of_steps.numel(), *map(len, spectra)]
        flat = torch.cat([of_steps.flatten(), *spectra]).cpu()
        first, *rest = flat.split(sizes)
        kept, norms = first.view(of_steps.shape).numpy()
        return kept, norms, [sigma.numpy() for sigma in rest]

    def _rows_of_steps(self, trainer: Trainer) -> NDArray[np.int64]:
        """Return the sum over processes of the ranks of each step, (T, L)."""
        ranks, rows = Ranks(trainer), torch.tensor([step.ranks for step in self._steps])
        if ranks.size > 1:
            rows = rows.to(self._steps[0].norms.device)
            ranks.add_up([rows])
        return rows.cpu().numpy()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._raise_if_broken()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove_hooks()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._remove_hooks()  # Lightning calls no teardown then

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _counter(self, k: int, channels: int) -> Any:
        def count(layer: Any, inputs: Any, output: Tensor) -> None:
            # Rows of the matrix product: samples, times the positions of a convolution. Each group
            # of channels is a product of its own, with as many rows.
            if self._counting and torch.is_grad_enabled():
                self._rows[k] += output.numel() // channels

        return count

    def _raise_if_broken(self) -> None:
        if self._broken:
            raise TheoremError(self._broken)


def tail_windows(
    sigma: NDArray[np.float64],
    kept: NDArray[np.float64],
    norms: NDArray[np.float64],
    ranks: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return both sides of the tail bound for the windows of the last n = 1, 2, ... steps.

    Args:
        sigma: All singular values of the weight after the last step, largest first, (r,).
        kept: The a_t of all steps, oldest first, (T,).
        norms: The weight's norm before each step, (T,).
        ranks: An upper bound on the rank of each step's gradient, (T,).

    Returns:
        Tails and bounds, (n,) each, for those windows whose rank is below r.

    >>> sigma = np.array([2.0, 0.5, 0.25])
    >>> tails, bounds = tail_windows(sigma, np.full(4, 0.5), np.full(4, 4.0), np.ones(4, int))
    >>> tails.round(3).tolist(), bounds.tolist()
    ([0.559, 0.25], [2.0, 1.0])
    """
    windows = np.cumsum(ranks[::-1])
    windows = windows[windows < len(sigma)]
    tails = np.sqrt(np.cumsum(np.square(sigma[::-1])))[::-1][windows]
    n = len(windows)
    bounds = np.cumprod(np.abs(kept[::-1]))[:n] * norms[::-1][:n]
    return tails, bounds


def rounding(weight: Tensor, norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound what the rounding of the last n = 1, 2, ... steps adds to a tail, (n,).

    Args:
        weight: The weight; its dtype and number of entries count.
        norms: The weight's norm before each of these steps, (n,).
    """
    numbers = torch.finfo(weight.dtype)
    # Entries below the least normal number are rounded as those at it.
    size = np.maximum(norms.max(), numbers.tiny * weight.numel() ** 0.5)
    return ROUNDINGS * numbers.eps * size * np.arange(1, len(norms) + 1)


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse all but SGD without momentum; the bound of other optimizers is not known."""
    allowed = "torch.optim.SGD with momentum 0, for callbacks.RankBound"
    if not isinstance(optimizer, SGD):
        raise UsageError("model.optimizer", type(optimizer).__name__, allowed)
    for group in optimizer.param_groups:
        if group["momentum"] != 0:
            raise UsageError("model.optimizer.momentum", group["momentum"], allowed)


def _norm(weight: Tensor) -> Tensor:
    """Return ||p_k|| in float64; in float32 squares of norms below 1e-23 are 0."""
    rows = torch.linalg.vector_norm(at_home(weight).flatten(1), dim=1, dtype=torch.float64)
    return torch.linalg.vector_norm(rows)


def _spectrum(weight: Tensor) -> Tensor:
    """Return the singular values in float64, largest first, to the weight's own rounding."""
    matrix = weight.detach().flatten(1)
    if matrix.dtype == torch.float64:
        finite = matrix.isfinite().all()
        # `where` and not `if`: the host must not wait for the device here.
        return torch.where(finite, torch.linalg.svdvals(torch.where(finite, matrix, 0)), torch.nan)
    # A quarter of the time. Its rounding, 4e-8 of the largest, is below one of float32.
    return singular_values(matrix)


def _plain_rank(bound: Bounded, rows: int) -> int:
    """Return B m, or full rank if the gradient bypassed the layer, as in nn.MultiheadAttention."""
    unknown = rows == 0 and bound.parameter.grad is not None
    return min(bound.matrix().shape) if unknown else rows
