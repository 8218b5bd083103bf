r"""The sharpness of the loss during training, and the limit up to which steps are stable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from janus_pl.callbacks._observer import Observer
from janus_pl.errors import check_integer, check_number
from janus_pl.observables.edge import Edge, NoLimit
from janus_pl.observables.onto import onto
from janus_pl.observables.sharpness import Eigenpair, directional_curvature, tracked_eigenvalue
from janus_pl.observables.wide import wide
from janus_pl.run.rows import Value
from janus_pl.training.descended import Descended, Samples, pick
from janus_pl.training.descending import curved
from janus_pl.training.samples import drawn
from janus_pl.training.subject import NotOffered, Subject
from janus_pl.training.subjects import subject_of

PASSES = 4  # a product with the Hessian takes at most as long as so many passes of training


class Sharpness(Observer):
    r"""Logs the largest curvature of the loss that training descends, and the limit of its steps.

        sharpness/hessian         largest eigenvalue of the Hessian H of the descended loss in all
                                  trained parameters, rho included, as they are trained
        sharpness/preconditioned  the same of S^(1/2) H S^(1/2), where a step is -eta S m: of Adam,
                                  AdamW and RMSprop, and of groups with unequal learning rates
        sharpness/batch           mean of g^T H g/||g||^2 over minibatches, with g and H of the
                                  minibatch (Andreyev and Beneventano, 2024)
        sharpness/limit           the curvature above which steps on a quadratic diverge: 2/eta,
                                  2(1 + beta)/eta with momentum, 38/eta of Adam with beta_1 = 0.9
        sharpness/ratio           `preconditioned`, or else `hessian`, over `limit`
        sharpness/residual        ||H x - h x||/|h| of the eigenvalue h and its vector x, the larger
                                  one of two: some eigenvalue lies so close, as a part of h
        sharpness/products        products with H that the eigenvalues took

    The descended loss is the training loss, a mean over samples, plus the coupled weight decay:
    (wd/2) ||p||^2 for every parameter p with PyTorch's `weight_decay` wd. H is that of `samples`
    training samples, drawn by a fixed seed and the same at every look. All other limits, and S, are
    in `janus_pl.observables.edge`. Before the first step of Adam there is no S, and so no
    ratio. If the limit of an optimizer is not known, neither limit nor ratio is logged.

    With `lagrange` H is taken in the trained v_k, without the constraint to the sphere. The
    loss does not depend on ||v_k||, so along the sphere H is the Riemannian Hessian. Across it
    H v_k = -dLoss/dv_k, which is 0 where the gradient is.

    The eigenvalues are found by products with H. A look starts from the eigenvectors of the last
    look, and also takes a few products from a random vector: else an eigenvalue that overtakes the
    last one would be missed. Draws depend on (seed, epoch) alone.

    No config has this callback, because it is expensive: a look costs up to `products`
    products with H for each eigenvalue, and one for each minibatch. One line says the cost at the
    start. A module without `descended` and a loss without a second derivative are refused. The
    loss of somebody else's module is that of its `training_step` in evaluation, as in
    `GradientNoise`.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        samples: The number of samples in H; all N if there are fewer.
        batches: The minibatches of `sharpness/batch`; 0: no such number. One if a minibatch is
            the whole set.
        products: The largest number of products with H for one eigenvalue.
        tolerance: An eigenvalue h is found once ||H x - h x|| is at most this part of |h|.
        seed: The seed of the draws.
    """

    keys = (
        *("sharpness/hessian", "sharpness/preconditioned", "sharpness/batch", "sharpness/limit"),
        *("sharpness/ratio", "sharpness/residual", "sharpness/products"),
    )

    def __init__(
        self,
        every_n_epochs: int = 100,
        samples: int = 1000,
        batches: int = 8,
        products: int = 100,
        tolerance: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        for name, value, least in (
            *(("samples", samples, 1), ("batches", batches, 0)),
            *(("products", products, 1), ("seed", seed, 0)),
        ):
            check_integer(f"callbacks.Sharpness.{name}", value, least)
        check_number("callbacks.Sharpness.tolerance", tolerance, above=0)
        self.samples, self.batches, self.products = samples, batches, products
        self.tolerance, self.seed = tolerance, seed
        self._vectors: dict[str, Tensor] = {}
        self._no_limit = ""
        self._count = 0  # N

    def check(self, subject: Subject) -> None:
        self.ask_before("callbacks.Sharpness", subject, subject.check_curvature)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._vectors, self._no_limit = {}, ""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs:
            try:
                descended = subject_of(trainer, pl_module).descended()
                self._count = sum(len(y) for _, y in descended.samples())
                self._tell_cost(descended)
            except NotOffered as reason:
                self.refuse(subject_of(trainer, pl_module), reason)
        super().on_train_start(trainer, pl_module)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        descended = subject.descended()
        rng = np.random.default_rng((self.seed, subject.completed()))
        of_h = torch.from_numpy(drawn(self._count, self.samples))
        own, *minibatches = pick(descended.samples(), of_h, *self._draws(descended, rng))
        product = curved(descended.over(*own).product)
        found = {"hessian": self._largest("hessian", product, descended, rng)}
        limit = math.nan
        edge = self._edge(descended)
        if edge is not None:
            limit = edge.limit
            if edge.begun and not (edge.scales is None and edge.shift is None):
                scaled = edge.product(product)
                found["preconditioned"] = self._largest("preconditioned", scaled, descended, rng)
        values = self._numbers(found, _curvatures(descended, minibatches))
        values["limit"] = limit
        if edge is not None and edge.begun and math.isfinite(limit):
            values["ratio"] = values[[*found][-1]] / limit
        return {f"sharpness/{k}": v for k, v in values.items() if math.isfinite(v)}

    def _numbers(
        self, found: Mapping[str, Eigenpair], curvatures: Sequence[Tensor]
    ) -> dict[str, float]:
        """Return the numbers of eigenpairs and minibatches, and keep the sound eigenvectors."""
        pairs, count = found.values(), len(found)
        sound = [pair.vector.isfinite().all() for pair in pairs]
        eigenvalues = [pair.value for pair in pairs]
        residuals = [pair.residual / pair.value.abs() for pair in pairs]
        # One transfer, since each makes the host wait.
        asked = (*sound, *eigenvalues, *residuals, *curvatures)
        told = torch.stack([wide(number) for number in asked]).tolist()
        self._vectors |= {
            k: pair.vector for (k, pair), ok in zip(found.items(), told, strict=False) if ok
        }
        values = dict(zip(found, told[count:], strict=False))
        values["residual"] = max(told[2 * count : 3 * count])
        values["products"] = float(sum(pair.products for pair in pairs))
        of_batches = told[3 * count :]
        values["batch"] = sum(of_batches) / len(of_batches) if of_batches else math.nan
        return values

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"vectors": dict(self._vectors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._vectors = dict(state_dict["vectors"])

    def _largest(
        self,
        name: str,
        product: Callable[[Tensor], Tensor],
        descended: Descended,
        rng: np.random.Generator,
    ) -> Eigenpair:
        """Return the largest eigenvalue; the last look's vector helps to find it."""
        like = descended.parameters[0].detach()
        size = sum(p.numel() for p in descended.parameters)
        fresh = torch.from_numpy(rng.standard_normal(size, np.float32))
        fresh = onto(fresh.to(like.dtype), like.device)
        last = self._vectors.get(name)
        if last is not None:
            last = onto(last.to(like.dtype), like.device) if len(last) == size else None
        agree = descended.ranks.agree
        return tracked_eigenvalue(product, last, fresh, self.tolerance, self.products, agree)

    def _edge(self, descended: Descended) -> Edge | None:
        try:
            return descended.edge()
        except NoLimit as reason:
            if not self._no_limit:
                rank_zero_info(f"Sharpness records no limit and no ratio: {reason}")
            self._no_limit = str(reason)
            return None

    def _draws(self, descended: Descended, rng: np.random.Generator) -> list[Tensor]:
        """Return the indices of the samples of each minibatch."""
        if not self.batches:
            return []
        size, replacement = descended.drawn()
        whole = not replacement and size >= self._count
        times, size = (1, self._count) if whole else (self.batches, size)
        draws = [rng.choice(self._count, size, replace=replacement) for _ in range(times)]
        return [torch.from_numpy(draw) for draw in draws]

    def _tell_cost(self, descended: Descended) -> None:
        count, taken = self._count, min(self.samples, self._count)
        draws = self._draws(descended, np.random.default_rng(0))
        passes = PASSES * self.products * taken + (PASSES + 1) * sum(map(len, draws))
        of = f"all {count}" if taken == count else f"{taken}"
        rank_zero_info(
            f"Sharpness: a look costs up to {self.products} Hessian products over {of} samples for"
            f" each eigenvalue, as much as {max(1, round(passes / count))} epochs of training"
        )


def _curvatures(descended: Descended, minibatches: Sequence[Samples]) -> list[Tensor]:
    """Return g^T H g/||g||^2 of each minibatch, ()."""
    losses = [descended.over(*minibatch) for minibatch in minibatches]
    return [directional_curvature(loss.gradient(), loss.product) for loss in losses]
