"""Compiled code without a folder to keep it in."""

from __future__ import annotations

from typing import Any

import pytest

from janus_pl.linear import kernels


def square(x: float) -> float:
    return x * x


def test_without_a_folder_code_is_compiled_in_memory_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def njit(**options: Any) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'square': no locator available")
        return lambda function: function

    monkeypatch.setattr(kernels, "njit", njit)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR names one"):
        assert kernels._compiled(square) is square
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]


def test_with_a_folder_it_is_kept_there() -> None:
    """The negative control: of the kernels themselves."""
    assert kernels.run_replicas._cache.cache_path
    assert kernels.run_replicas.targetoptions["nogil"]
