"""The loss that linear regression descends, for looks at its curvature."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from janus_pl.data.regression import LinearProblem
from janus_pl.linear.following import Followed
from janus_pl.linear.replicas import SAMPLES_AT_ONCE
from janus_pl.observables.edge import Edge
from janus_pl.observables.sharpness import stability_threshold
from janus_pl.training.descended import Descended
from janus_pl.training.ranks import Ranks


class Curved(Followed):
    """Linear regression whose Hessian is 2 (X X^T/N + lambda I), that of the first replica.

    Attributes:
        weight: W, (R, m, d).
    """

    weight: nn.Parameter

    def check_curvature(self) -> None:
        return  # the square loss has second derivatives

    def descended(self) -> Descended:
        w = self.weight.detach()[0].clone().requires_grad_()
        run = self.replicas
        data = run.data

        def losses(x: Tensor, y: Tensor) -> Tensor:
            return (x @ w.mT - y).square().sum(1)

        def decay() -> Tensor:
            return (2 * run.landscape.lam[0]).expand(w.numel())

        def drawn() -> tuple[int, bool]:
            size = data.num_train if data.whole else data.batch_size
            assert isinstance(size, int)
            return size, data.order == "with_replacement" and not data.whole

        def edge() -> Edge:
            return Edge(stability_threshold(float(run.newest_rates()[0])))

        samples = partial(_samples, data, w.device)
        return Descended([w], losses, decay, samples, drawn, edge, Ranks())


def _samples(data: LinearProblem, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x (n, d) and y (n, m) of the first replica in data order."""
    for start in range(0, data.num_train, SAMPLES_AT_ONCE):
        stop = min(start + SAMPLES_AT_ONCE, data.num_train)
        given = data.stream(start, stop) if data.streamed else data.problem[:2]
        cut = slice(None) if data.streamed else slice(start, stop)
        x, y = (torch.from_numpy(a[0].T[cut]).to(device) for a in given)
        yield x, y
