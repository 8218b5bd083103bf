r"""The noise of SGD at frozen weights: minibatches' V_k dot and gradients against the whole set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.parameter import is_lazy

from janus_pl.callbacks._observer import LayerObserver
from janus_pl.errors import UsageError, check_integer, check_number
from janus_pl.observables.covariance import covariance_of
from janus_pl.observables.noise import noise_estimate, noise_scale, sample_variance
from janus_pl.observables.norms import frobenius_norm
from janus_pl.observables.onto import onto
from janus_pl.observables.sharpness import largest_eigenvalue
from janus_pl.observables.wide import wide
from janus_pl.run.rows import Value
from janus_pl.training.descended import Descended, pick
from janus_pl.training.descending import curved
from janus_pl.training.samples import EVALUATION_CHUNK, drawn, training_pairs
from janus_pl.training.subject import NotOffered, Subject, offers

Pairs = Sequence[tuple[Tensor, Tensor]]
MOST = 64  # gradients in a Gram matrix
ROOM = 300_000_000  # bytes of them


class GradientNoise(LayerObserver):
    r"""Logs bias, variance and noise scale of the minibatches' V_k dot (Eq. 15) at frozen weights.

    It draws K independent minibatches of B of the N training samples, each without replacement, and
    compares them with the mean over all N. At frozen weights V_k dot is linear in the gradient.
    Norms are not squared unless a key says so:

        gradient_noise/bias/<layer>           ||mean of the K minibatches - whole set||
        gradient_noise/bias_expected/<layer>  what sampling alone leaves of it, as a root mean
                                              square: sqrt(variance/K). No bias: a ratio near 1
        gradient_noise/variance/<layer>       tr Cov of one minibatch, the unbiased estimate
        gradient_noise/scale/<layer>          tr S/||V_k dot||^2, in samples: the simple noise scale
                                              (McCandlish et al., 2018), of V_k dot
        gradient_noise/scale                  the same for all layers together

    S is the covariance of a single sample: variance = (tr S/B) (N - B)/(N - 1). So one estimate
    gives the variance at every other B (`janus_pl.observables.noise.minibatch_variance`). If
    training draws with replacement (`data.order`), so does this callback, and the last factor is 1.

    With `gram` G it draws G minibatches more. They give the covariance C of a minibatch's gradient
    g_S in all P trained parameters, as they are trained, without the weight decay. C itself is
    never formed. Its eigenvalues are those of the Gram matrix of the G gradients (G, P), with their
    mean taken out, over G - 1.

        gradient_noise/covariance/trace           tr C
        gradient_noise/covariance/scale           tr S/||g||^2, in samples, as above, of gradients
        gradient_noise/covariance/top             largest eigenvalue of C
        gradient_noise/covariance/effective_rank  exp(entropy of the eigenvalues over their sum), at
                                                  most G - 1
        gradient_noise/covariance/alignment       |cos| of the angle between the eigenvectors of the
                                                  largest eigenvalues of C and of the Hessian H of
                                                  the descended loss; 1/sqrt(P) is chance
        gradient_noise/covariance/residual        ||H x - h x||/|h| of that eigenvector x of H: what
                                                  the alignment is to be trusted for

    A minibatch of the whole set has no noise. So GD logs the variance (and trace) 0 and nothing
    else, unless `batch_size` is smaller than N.

    The draws depend on (seed, epoch) alone. A look costs a pass forward and back over N + K B
    samples, and memory for a few gradients. With `gram` it also costs a pass over N + G B samples,
    memory for G gradients, at most 300 MB of them, and `products` products with H.

    Of somebody else's LightningModule the loss is that of its `training_step`, on a copy in
    evaluation: BatchNorm takes its running statistics, dropout drops nothing, and nothing is
    logged. Its batches have to be (x, y), and its loss a mean over samples; a trial shows whether
    it is. Linear regression is refused: `janus_pl.theory` has its noise in closed form.

    Args:
        every_n_epochs: The interval n of the looks: epochs 0, 1, 2, 4, 8, ... up to n, the
            multiples of n, and the last epoch. 0 turns the callback off.
        batch_size: The size B of a minibatch, 1 to N. Not set: that of the data.
        batches: The number K of minibatches.
        seed: The seed of the draws.
        layers: Globs of layers' names, such as `conv*`. Not set: all layers. The scale of all
            layers together is that of the chosen ones; the covariance is of all parameters.
        gram: The number G of minibatches for `covariance/*`, 2 to 64; 0 leaves these keys out.
        hessian_samples: The number of samples in H; all N if there are fewer. 0: no alignment.
        products: The largest number of products with H.
        tolerance: The residual at which the eigenvector of H counts as found.
    """

    keys = (
        *("gradient_noise/bias/LAYER", "gradient_noise/bias_expected/LAYER"),
        *("gradient_noise/variance/LAYER", "gradient_noise/scale/LAYER", "gradient_noise/scale"),
        *(f"gradient_noise/covariance/{name}" for name in ("trace", "scale", "top")),
        *(f"gradient_noise/covariance/{name}" for name in ("effective_rank", "alignment")),
        "gradient_noise/covariance/residual",
    )

    def __init__(
        self,
        every_n_epochs: int = 10,
        batch_size: int | None = None,
        batches: int = 32,
        seed: int = 0,
        layers: Sequence[str | int] | None = None,
        gram: int = 0,
        hessian_samples: int = 1000,
        products: int = 100,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        if batch_size is not None:
            check_integer("callbacks.GradientNoise.batch_size", batch_size, 1)
        check_integer("callbacks.GradientNoise.batches", batches, 2)
        check_integer("callbacks.GradientNoise.seed", seed, 0)
        if gram:
            check_integer("callbacks.GradientNoise.gram", gram, 2, MOST)
        check_integer("callbacks.GradientNoise.hessian_samples", hessian_samples, 0)
        check_integer("callbacks.GradientNoise.products", products, 1)
        check_number("callbacks.GradientNoise.tolerance", tolerance, above=0)
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.gram = gram
        self.hessian_samples = hessian_samples
        self.products, self.tolerance = products, tolerance
        self._no_alignment = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.every_n_epochs:
            double = str(trainer.precision).startswith("64")
            learned = [p for p in pl_module.parameters() if p.requires_grad and not is_lazy(p)]
            sizes = [p.numel() * (8 if double else p.element_size()) for p in learned]
            check_room(self.gram, sum(p.numel() for p in learned), sum(sizes))

    def check(self, subject: Subject) -> None:
        super().check(subject)
        if not offers(subject, "velocities_of"):
            field = "callbacks.GradientNoise"
            self.ask_before(field, subject, lambda: subject.velocities_of(()))
        if self.gram and not offers(subject, "descended"):
            self.ask_before("callbacks.GradientNoise.gram", subject, subject.descended)
        self._no_alignment = not (self.gram and self.hessian_samples)
        if not self._no_alignment:
            try:
                subject.check_curvature()
            except NotOffered as reason:
                self._leave_alignment_out(reason)

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        samples = [*training_pairs(trainer)]
        count = sum(len(y) for _, y in samples)
        size, replacement = self._draw(trainer.train_dataloader, count)
        if size == count and not replacement:
            if subject.completed() == 0:
                rank_zero_info(
                    f"GradientNoise: minibatches of all {count} samples have no noise; set its"
                    " batch_size below that for a noise scale"
                )
            chosen = filter(self.takes, subject.layers())
            none = {f"gradient_noise/variance/{layer}": 0.0 for layer in chosen}
            return none | ({"gradient_noise/covariance/trace": 0.0} if self.gram else {})

        rng = np.random.default_rng((self.seed, subject.completed()))
        full = self._mean_velocity(subject, samples)
        resultants = {layer: torch.zeros_like(velocity) for layer, velocity in full.items()}
        squares = torch.zeros_like(_squared_norms(full))
        for _ in range(self.batches):
            index = torch.from_numpy(rng.choice(count, size, replace=replacement))
            deviation = self._mean_velocity(subject, _pick(samples, index))
            for layer, velocity in deviation.items():
                resultants[layer] += velocity.sub_(full[layer])
            squares += _squared_norms(deviation)
        noise = noise_estimate(_squared_norms(resultants).sqrt(), squares, self.batches)

        trace = sample_variance(noise.variance, size, count, replacement)
        signal = _squared_norms(full)
        scales = noise_scale(trace, signal)
        rows = (noise.bias, noise.bias_expected, noise.variance, scales)
        names = ("bias", "bias_expected", "variance", "scale")
        found = {
            f"gradient_noise/{name}/{layer}": value
            for name, row in zip(names, rows, strict=True)
            for layer, value in zip(full, row, strict=True)
        }
        found["gradient_noise/scale"] = noise_scale(trace.sum(), signal.sum())
        if self.gram:
            own = self._covariance(subject, samples, size, replacement)
            found |= {f"gradient_noise/covariance/{name}": value for name, value in own.items()}
        # One transfer, since each makes the host wait.
        values = zip(found, torch.stack([*found.values()]).tolist(), strict=True)
        return {key: value for key, value in values if math.isfinite(value)}

    def _covariance(
        self, subject: Subject, samples: Pairs, size: int, replacement: bool
    ) -> dict[str, Tensor]:
        """Return the numbers of the minibatch gradients' covariance, from draws of its own.

        They are (), in float64; NaN if there is no such number.
        """
        loss = subject.descended()
        count = sum(len(y) for _, y in samples)
        parameters = loss.parameters
        entries = sum(p.numel() for p in parameters)
        check_room(self.gram, entries, sum(p.numel() * p.element_size() for p in parameters))
        rng = np.random.default_rng((self.seed, subject.completed(), 1))
        full = parameters[0].new_zeros(entries).detach()
        for x, y in samples:
            full += loss.over(x, y).loss_gradient() * (len(y) / count)
        rows = full.new_empty((self.gram, entries))
        for row in rows:
            index = torch.from_numpy(rng.choice(count, size, replace=replacement))
            ((x, y),) = pick(samples, index)
            torch.sub(loss.over(x, y).loss_gradient(), full, out=row)
        found = covariance_of(rows)
        del rows
        trace = sample_variance(found.trace, size, count, replacement)
        values = {
            "trace": found.trace,
            "scale": noise_scale(trace, wide(full).square().sum()),
            "top": found.top,
            "effective_rank": found.effective_rank,
        }
        return values | self._alignment(loss, samples, found.vector, rng)

    def _alignment(
        self, loss: Descended, samples: Pairs, vector: Tensor, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Return the alignment of the covariance's first eigenvector with that of the Hessian."""
        if self._no_alignment:
            return {}
        count = sum(len(y) for _, y in samples)
        (own,) = pick(samples, torch.from_numpy(drawn(count, self.hessian_samples)))
        drawn_start = torch.from_numpy(rng.standard_normal(len(vector), np.float32))
        start = onto(drawn_start.to(vector.dtype), vector.device)
        try:
            pair = largest_eigenvalue(
                curved(loss.over(*own).product),
                start,
                self.tolerance,
                self.products,
                loss.ranks.agree,
            )
        except NotOffered as reason:
            self._leave_alignment_out(reason)
            return {}
        value = wide(pair.value)
        found = {
            "alignment": torch.dot(wide(pair.vector), wide(vector)).abs(),
            "residual": wide(pair.residual / pair.value.abs()),
        }
        # Of a Hessian that is 0 there is no first eigenvector.
        return {key: torch.where(value == 0, torch.nan, number) for key, number in found.items()}

    def _leave_alignment_out(self, reason: NotOffered) -> None:
        rank_zero_info(f"GradientNoise records no alignment: {reason}")
        self._no_alignment = True

    def _mean_velocity(self, subject: Subject, samples: Pairs) -> dict[str, Tensor]:
        """Return V_k dot of the mean loss over all chunks; each sample has the same weight."""
        count = sum(len(y) for _, y in samples)
        mean: dict[str, Tensor] = {}
        for x, y in samples:
            for layer, velocity in subject.velocities_of((x, y)).items():
                if self.takes(layer):
                    part = velocity * (len(y) / count)
                    mean[layer] = mean[layer].add_(part) if layer in mean else part
        return mean

    def _draw(self, loader: Any, count: int) -> tuple[int, bool]:
        """Return the samples of a minibatch, and whether they are drawn with replacement."""
        size = self.batch_size or getattr(loader, "batch_size", None)
        if size is None or size > count:
            raise UsageError("callbacks.GradientNoise.batch_size", size, f"1 to {count}")
        whole = getattr(loader, "whole", False)
        return size, getattr(loader, "order", None) == "with_replacement" and not whole


def check_room(gram: int, entries: int, one: int) -> None:
    """Refuse gradients that need more than 300 MB.

    Args:
        gram: The number of gradients.
        entries: The number of entries of one gradient.
        one: The size of one gradient, in bytes.

    Raises:
        UsageError: They need more.
    """
    if gram * one > ROOM:
        most = ROOM // one
        fits = f"{most} fit" if most > 1 else "not even 2 fit; 0 leaves covariance/* out"
        raise UsageError(
            "callbacks.GradientNoise.gram",
            gram,
            f"at most {ROOM / 1e6:g} MB of gradients: {gram} x {entries:,} parameters x"
            f" {one // entries} bytes are {gram * one / 1e6:,.0f} MB; {fits}",
        )


def _pick(samples: Pairs, index: Tensor) -> Pairs:
    """Return the samples of these indices, a few hundred at a time."""
    ((x, y),) = pick(samples, index)
    return list(zip(x.split(EVALUATION_CHUNK), y.split(EVALUATION_CHUNK), strict=True))


def _squared_norms(velocities: Mapping[str, Tensor]) -> Tensor:
    """Return the squared norms by layer: shape (L,), float64."""
    return wide(torch.stack([frobenius_norm(v) for v in velocities.values()])).square()
