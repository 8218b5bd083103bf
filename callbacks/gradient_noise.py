r"""The noise of SGD at frozen weights: V_k dot of minibatches against that of the whole set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks._observer import LayerObserver
from janus_pl.errors import UsageError, check_integer
from janus_pl.observables.noise import noise_estimate, noise_scale, sample_variance
from janus_pl.observables.norms import frobenius_norm
from janus_pl.run.rows import Value
from janus_pl.training.descended import pick
from janus_pl.training.samples import EVALUATION_CHUNK, training_samples
from janus_pl.training.subject import Subject, offers

Pairs = Sequence[tuple[Tensor, Tensor]]


class GradientNoise(LayerObserver):
    r"""Logs bias, variance and noise scale of the minibatches' V_k dot (Eq. 15) at frozen weights.

    Draws K minibatches of B of the N training samples, each without replacement and independent of
    the others, and compares them with the mean over all N. With the weights frozen V_k dot is
    linear in the gradient. Keys, norms not squared unless said:

        gradient_noise/bias/<layer>           ||mean of the K minibatches - whole set||
        gradient_noise/bias_expected/<layer>  what sampling alone leaves of it, as a root mean
                                              square: sqrt(variance/K). No bias: a ratio near 1
        gradient_noise/variance/<layer>       tr Cov of one minibatch, the unbiased estimate
        gradient_noise/scale/<layer>          tr S/||V_k dot||^2, in samples: the simple noise scale
                                              (McCandlish et al., 2018), of V_k dot
        gradient_noise/scale                  the same for all layers together

    S is the covariance of a single sample, variance = (tr S/B) (N - B)/(N - 1), so one estimate
    gives the variance at every other B (`janus_pl.observables.noise.minibatch_variance`). Where
    training draws with replacement (`data.order`), so does this, and the last factor is 1.

    A minibatch of the whole set has no noise: GD logs the variance 0, and nothing else, unless it
    is given a smaller `batch_size` to measure at.

    The draws depend on (seed, epoch) alone. A look costs a pass forward and back over N + K B
    samples, and memory for a few gradients. A module without `velocities_of` is refused: linear
    regression, whose noise `janus_pl.theory` knows in closed form, and modules of others.

    Args:
        every_n_epochs: look at epochs 0, 1, 2, 4, 8, ... up to this number, at its multiples, and
            at the last one; 0 is off.
        batch_size: B, 1 to N; not set, that of the data.
        batches: K.
        seed: of the draws.
        layers: globs of layers' names, such as `conv*`; not set: all layers. The scale of all
            layers together is that of the chosen ones.
    """

    keys = (
        *("gradient_noise/bias/LAYER", "gradient_noise/bias_expected/LAYER"),
        *("gradient_noise/variance/LAYER", "gradient_noise/scale/LAYER", "gradient_noise/scale"),
    )

    def __init__(
        self,
        every_n_epochs: int = 10,
        batch_size: int | None = None,
        batches: int = 32,
        seed: int = 0,
        layers: Sequence[str | int] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, layers)
        if batch_size is not None:
            check_integer("callbacks.GradientNoise.batch_size", batch_size, 1)
        check_integer("callbacks.GradientNoise.batches", batches, 2)
        check_integer("callbacks.GradientNoise.seed", seed, 0)
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed

    def check(self, subject: Subject) -> None:
        super().check(subject)
        if not offers(subject, "velocities_of"):
            field = "callbacks.GradientNoise"
            self.ask_before(field, subject, lambda: subject.velocities_of(()))

    def observe(self, trainer: Trainer, subject: Subject) -> Mapping[str, Value]:
        samples = [(x, y) for x, y, *_ in training_samples(trainer)]
        count = sum(len(y) for _, y in samples)
        size, replacement = self._draw(trainer.train_dataloader, count)
        if size == count and not replacement:
            if subject.completed() == 0:
                rank_zero_info(
                    f"GradientNoise: minibatches of all {count} samples have no noise; set its"
                    " batch_size below that for a noise scale"
                )
            chosen = filter(self.takes, subject.layers())
            return {f"gradient_noise/variance/{layer}": 0.0 for layer in chosen}

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
        rows = torch.stack((noise.bias, noise.bias_expected, noise.variance, scales)).tolist()
        names = ("bias", "bias_expected", "variance", "scale")
        values = {
            f"gradient_noise/{name}/{layer}": value
            for name, row in zip(names, rows, strict=True)
            for layer, value in zip(full, row, strict=True)
        }
        values["gradient_noise/scale"] = float(noise_scale(trace.sum(), signal.sum()))
        return {key: value for key, value in values.items() if math.isfinite(value)}

    def _mean_velocity(self, subject: Subject, samples: Pairs) -> dict[str, Tensor]:
        """V_k dot of the mean loss over all chunks, each sample weighing the same."""
        count = sum(len(y) for _, y in samples)
        mean: dict[str, Tensor] = {}
        for x, y in samples:
            for layer, velocity in subject.velocities_of((x, y)).items():
                if self.takes(layer):
                    part = velocity * (len(y) / count)
                    mean[layer] = mean[layer].add_(part) if layer in mean else part
        return mean

    def _draw(self, loader: Any, count: int) -> tuple[int, bool]:
        """The samples of a minibatch, and whether they are drawn with replacement."""
        size = self.batch_size or getattr(loader, "batch_size", None)
        if size is None or size > count:
            raise UsageError("callbacks.GradientNoise.batch_size", size, f"1 to {count}")
        whole = getattr(loader, "whole", False)
        return size, getattr(loader, "order", None) == "with_replacement" and not whole


def _pick(samples: Pairs, index: Tensor) -> Pairs:
    """The samples of these numbers, a few hundred at a time."""
    ((x, y),) = pick(samples, index)
    return list(zip(x.split(EVALUATION_CHUNK), y.split(EVALUATION_CHUNK), strict=True))


def _squared_norms(velocities: Mapping[str, Tensor]) -> Tensor:
    """Shape (L,), float64."""
    return torch.stack([frobenius_norm(v).double().square() for v in velocities.values()])
