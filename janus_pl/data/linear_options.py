"""The options of a linear problem, and the check of their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from janus_pl.data.linear_files import MOST, SOURCES, SUFFIXES
from janus_pl.data.loader import check_batch_options
from janus_pl.errors import UsageError, check_integer, check_memory

LinearOrder = Literal["sequential", "shuffle", "with_replacement", "online"]
Init = Literal["zero", "gaussian", "given"]
MOST_SEED = 2**62
SIZES = ("num_train", "dim", "outputs")
# The options that the samples, W0 or the minibatches depend on.
OPTIONS: tuple[str, ...] = (
    *SIZES,
    "source",
    "informative",
    "empty",
    "init",
    "init_scale",
    "batch_size",
    "order",
)
OPTIONS += ("seed", "replicas")


def check_ranges(options: Mapping[str, Any]) -> None:
    """Refuse options of a linear problem that are out of their range; None is not set.

    Args:
        options: The values by the names in `OPTIONS`.

    Raises:
        UsageError: A value is out of its range.
    """
    for name in (*SIZES, "informative"):
        check_integer(f"data.{name}", 1 if options[name] is None else options[name], 1)
    check_integer("data.empty", options["empty"], 0)
    check_integer("data.replicas", options["replicas"], 1)
    check_batch_options(options["batch_size"], None, "sequential", options["seed"])
    if options["order"] not in get_args(LinearOrder):
        raise UsageError("data.order", options["order"], ", ".join(get_args(LinearOrder)))
    if options["init"] not in (None, *get_args(Init)):
        raise UsageError("data.init", options["init"], ", ".join(get_args(Init)))
    scale, source = options["init_scale"], options["source"]
    if not (isinstance(scale, int | float) and 0 <= scale <= MOST):
        raise UsageError("data.init_scale", scale, f"a number from 0 to {MOST}")
    if not isinstance(source, str):
        raise UsageError("data.source", source, SOURCES)
    if options["seed"] > MOST_SEED:
        raise UsageError("data.seed", options["seed"], f"an integer from 0 to {MOST_SEED}")
    if source not in ("gaussian", "toy") and Path(source).suffix.lower() not in SUFFIXES:
        raise UsageError("data.source", source, SOURCES)


def check_size(options: Mapping[str, Any]) -> None:
    """Refuse X, Y, W and matrices of a problem that the memory cannot hold; a stream is not held.

    Args:
        options: The settled values by the names in `OPTIONS`.

    Raises:
        UsageError: The machine has less memory.
    """
    samples, d, m, replicas = (options[name] for name in (*SIZES, "replicas"))
    rows = d + m if options["order"] == "online" else samples + d + m
    sizes = f"N = {samples}, d = {d}, m = {m}, replicas = {replicas}"
    check_memory("data", sizes, 8.0 * replicas * (d + m) * rows)
