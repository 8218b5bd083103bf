"""Ranks in lockstep: every collective is compared before it is done, so that none is waited for.

A collective that one rank calls and another does not leaves a real run waiting for its timeout.
Here it is found when it is called. `Lanes` runs the ranks in one process, in turn; `announced` lets
real processes tell each other what they are about to call.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from environments import PACKAGE
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.utils import parametrize

Result = TypeVar("Result")
END = "the end"
REDUCE = torch.distributed.ReduceOp
# What is done for real; every other collective of torch.distributed is refused.
DONE = ("all_reduce", "broadcast", "barrier", "broadcast_object_list")
REFUSED: tuple[str, ...] = (
    "all_gather",
    "all_gather_object",
    "all_gather_into_tensor",
    "all_to_all",
    "gather",
)
REFUSED += ("gather_object", "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter")
REFUSED += ("scatter_object_list", "monitored_barrier", "send", "recv", "isend", "irecv")


class Unequal(AssertionError):
    """The ranks do not call the same collectives in the same order."""


class Call(NamedTuple):
    """A collective as a rank calls it."""

    name: str
    shape: tuple[int, ...]
    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.kind} ({self.place})"

    @property
    def what(self) -> tuple[str, tuple[int, ...], str]:
        """What has to be the same on every rank: all but the place."""
        return self.name, self.shape, self.kind


class Lanes:
    """Ranks of one process, each in a thread, of which one runs at a time.

    A rank runs until its next collective or its end. When all have come that far, their collectives
    are compared, done, and all go on. No clock decides: a rank that would wait for ever is seen
    from the end, or from another collective, of the others.

    Args:
        size: The number of ranks.

    Attributes:
        calls: The collectives of every rank.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: list[list[Call]] = [[] for _ in range(size)]
        self._lanes = [_Lane(rank) for rank in range(size)]

    def run(self, program: Callable[[int], Result]) -> list[Result]:
        """The results of `program(rank)` on every rank.

        Raises:
            Unequal: The first difference between the collectives of the ranks.
        """
        with pytest.MonkeyPatch.context() as patch, _states_kept():
            self._patch(patch)
            for lane in self._lanes:
                lane.start(program)
            try:
                while not self._advance():
                    pass
            finally:
                for lane in self._lanes:
                    lane.give_up()
        errors = [lane.error for lane in self._lanes if lane.error is not None]
        if errors:
            raise errors[0]
        return [lane.result for lane in self._lanes]

    def _advance(self) -> bool:
        """Let every rank run to its next collective; whether all have ended."""
        for lane in self._lanes:
            lane.go_on()
        waiting = [lane for lane in self._lanes if lane.call is not None]
        if not waiting:
            return True
        said = [str(lane.call or lane.ended) for lane in self._lanes]
        if len({lane.call and lane.call.what for lane in self._lanes}) > 1:
            number = len(self.calls[waiting[0].rank])
            each = "; ".join(f"rank {rank}: {what}" for rank, what in enumerate(said))
            raise Unequal(f"collective {number}: {each}")
        tensors = [lane.tensor for lane in self._lanes]
        _do(waiting[0].call, waiting[0].options, tensors)
        return False

    def _patch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda *_: self.size)
        patch.setattr(torch.distributed, "get_rank", lambda *_: self._here().rank)
        patch.setattr(torch.distributed, "get_backend", lambda *_: "lanes")
        for name in DONE:
            patch.setattr(torch.distributed, name, self._collective(name))
        for name in REFUSED:
            patch.setattr(torch.distributed, name, _refuse(name))

    def _here(self) -> _Lane:
        return next(lane for lane in self._lanes if lane.thread is threading.current_thread())

    def _collective(self, name: str) -> Callable[..., None]:
        def call(tensor: Any = None, *args: Any, **options: Any) -> None:
            lane = self._here()
            named = dict(zip(("op",) if name == "all_reduce" else ("src",), args, strict=False))
            lane.options = named | options
            seen = call_of(name, tensor)
            self.calls[lane.rank].append(seen)
            lane.wait(seen, tensor)

        return call


class _Lane:
    """A rank: its thread, and the state of the process as this rank has left it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.call: Call | None = None
        self.tensor: Any = None
        self.options: dict[str, Any] = {}
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = ""
        self.thread: threading.Thread | None = None
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._given_up = False
        self._state = _state()

    def start(self, program: Callable[[int], Any]) -> None:
        self.thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self.thread.start()

    def _run(self, program: Callable[[int], Any]) -> None:
        self._turn.acquire()
        try:
            if not self._given_up:
                self.result = program(self.rank)
        except BaseException as error:
            self.error = error
        self.ended = END if self.error is None else f"{END}, {self.error!r}"
        self._done.release()

    def go_on(self) -> None:
        """Called by the one who runs the lanes: until the next collective, or the end."""
        if self.ended:
            return
        self.call = None
        _restore(self._state, self.rank)
        self._turn.release()
        self._done.acquire()
        self._state = _state()

    def wait(self, call: Call, tensor: Any) -> None:
        """Called by the rank: hand the turn back until all have come to this collective."""
        if self._given_up:  # on the way out
            raise Unequal("given up")
        self.call, self.tensor = call, tensor
        self._done.release()
        self._turn.acquire()
        if self._given_up:
            raise Unequal("given up")

    def give_up(self) -> None:
        self._given_up = True
        if self.thread is not None and not self.ended:
            self.call = None
            self._turn.release()
            self.thread.join()


class LaneStrategy(SingleDeviceStrategy):
    """The strategy of a trainer that is one of the ranks of `Lanes`."""

    strategy_name = "lane"

    def __init__(self, lanes: Lanes, rank: int) -> None:
        super().__init__(torch.device("cpu"))
        self.global_rank, self.world_size, self.local_rank = rank, lanes.size, rank

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    def reduce(self, tensor: Any, *args: Any, reduce_op: Any = "mean", **kwargs: Any) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        op = REDUCE.MAX if reduce_op == "max" else REDUCE.SUM
        torch.distributed.all_reduce(tensor, op)
        return tensor / self.world_size if reduce_op in ("mean", "avg") else tensor

    def barrier(self, name: str | None = None) -> None:
        torch.distributed.barrier()

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        held = [obj]
        torch.distributed.broadcast_object_list(held, src)
        return held[0]

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        votes = torch.tensor(int(decision))
        torch.distributed.all_reduce(votes)
        return bool(votes == self.world_size) if all else bool(votes > 0)


@contextmanager
def announced(store: Any, rank: int, world: int, case: str) -> Iterator[list[Call]]:
    """The collectives of a real process while the block lasts; each is told to the others before.

    A rank goes into a collective when all others are about to, and fails where one of them is
    about to do something else or has ended.

    Args:
        store: A `torch.distributed.Store` of all ranks.
        rank: This process.
        world: The number of processes.
        case: What is run, the same on every rank.

    Raises:
        Unequal: The first difference between the collectives of the ranks.
    """
    calls: list[Call] = []

    def tell(what: str, said: str) -> None:
        key = f"{case}/{len(calls)}"
        store.set(f"{key}/{rank}", f"{what}\n{said}")
        told = [store.get(f"{key}/{r}").decode().split("\n") for r in range(world)]
        if len({name for name, _ in told}) > 1:
            leave(store, rank, world, f"{key}/read")
            each = "; ".join(f"rank {r}: {text}" for r, (_, text) in enumerate(told))
            raise Unequal(f"{case}, collective {len(calls)}: {each}")

    with pytest.MonkeyPatch.context() as patch:
        for name in (*DONE, *REFUSED):
            original = getattr(torch.distributed, name)

            def call(tensor: Any = None, *args: Any, _of: Any = (name, original), **o: Any) -> Any:
                seen = call_of(_of[0], tensor)
                calls.append(seen)
                tell(str(seen.what), str(seen))
                return _of[1](*(() if tensor is None else (tensor,)), *args, **o)

            patch.setattr(torch.distributed, name, call)
        ended = END
        try:
            yield calls
        except BaseException as error:
            ended = f"{END}, {error!r}".replace("\n", " ")
            raise
        finally:
            calls.append(Call(END, (), "", ""))
            if "Unequal" not in ended:
                tell(END, ended)
            calls.pop()


def leave(store: Any, rank: int, world: int, where: str) -> None:
    """Ask the store for nothing more; the first process, which keeps it, waits for all others."""
    store.set(f"{where}/{rank}", "gone")
    if rank == 0:
        store.wait([f"{where}/{r}" for r in range(world)])


def call_of(name: str, tensor: Any) -> Call:
    """A collective and the first place outside of the libraries that it was called from."""
    shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else ()
    kind = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else "objects"
    frame = sys._getframe(2)
    while frame.f_back is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    file = Path(frame.f_code.co_filename).name
    return Call(name, shape, kind, f"{file}:{frame.f_lineno} {frame.f_code.co_name}")


def _is_library(file: str) -> bool:
    ours = file.startswith(f"{PACKAGE}/janus_pl/")  # a wheel lies among the libraries
    return not ours and ("site-packages" in file or file == __file__ or "<" in file)


def _refuse(name: str) -> Callable[..., None]:
    def call(*args: Any, **options: Any) -> None:
        raise NotImplementedError(f"{name} has no double here: add it to lockstep.py")

    return call


def _do(call: Call, options: dict[str, Any], tensors: list[Any]) -> None:
    """A collective of all ranks, in place."""
    if call.name == "all_reduce":
        stacked = torch.stack([tensor.detach() for tensor in tensors])
        op = options.get("op", REDUCE.SUM)
        assert op in (REDUCE.SUM, REDUCE.MAX), op
        total = stacked.sum(0) if op == REDUCE.SUM else stacked.amax(0)
        for tensor in tensors:
            tensor.detach().copy_(total)
    elif call.name == "broadcast":
        for tensor in tensors:
            tensor.detach().copy_(tensors[options.get("src", 0)].detach())
    elif call.name == "broadcast_object_list":
        for held in tensors:
            held[:] = tensors[options.get("src", 0)]


class _State(NamedTuple):
    """What processes have each of their own and the ranks of one process share."""

    torch: Tensor
    numpy: Any
    python: Any
    cached: tuple[int, dict[Any, Any]]
    rank: int | None


def _state() -> _State:
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cached = parametrize._cache_enabled, dict(parametrize._cache)  # of each rank one of its own
    return _State(*generators, cached, getattr(rank_zero_only, "rank", None))


def _restore(state: _State, rank: int | None) -> None:
    torch.set_rng_state(state.torch)
    np.random.set_state(state.numpy)
    random.setstate(state.python)
    parametrize._cache_enabled, parametrize._cache = state.cached
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


@contextmanager
def _states_kept() -> Iterator[None]:
    state = _state()
    try:
        yield
    finally:
        _restore(state, state.rank)
