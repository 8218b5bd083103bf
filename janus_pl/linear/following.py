"""The steps of linear regression one at a time, as callbacks follow them; the trainer sees none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from janus_pl.data.regression import LinearProblem
from janus_pl.linear.replicas import LinearTraining
from janus_pl.training.samples import drawn
from janus_pl.training.subject import NotOffered, Take
from janus_pl.training.task import JanusTask


class Followed(JanusTask):
    """A linear task whose compiled steps can be followed.

    Attributes:
        data: The problem.
        replicas: The replicas in training, of which callbacks read the first.
    """

    data: LinearProblem
    replicas: LinearTraining

    def sample(self, count: int) -> Sequence[Any]:
        data = self.data
        if data.streamed:  # its samples are independent draws, and a choice would draw all of them
            x, y = (a[0].T for a in data.stream(0, min(count, data.num_train)))
        else:
            x, y = (a[0].T for a in data.problem[:2])
        having = y.any(1).nonzero()[0]  # y = 0 has no margin
        if not len(having):
            raise NotOffered("none of its samples has a margin: each y is 0")
        taken = having[drawn(len(having), count)]
        return [[torch.from_numpy(a[taken]).to(self.device) for a in (x, y)]]

    def steps_per_unit(self) -> int:
        return self.replicas.steps_per_unit

    def follow(self, count: int, due: Callable[[int], bool], take: Take) -> bool:
        self.replicas.follow(count, due, take)
        return True
