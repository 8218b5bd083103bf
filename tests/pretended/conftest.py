"""The library of the pretended device, built once for all tests and processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended.library import built, missing


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built library, in pytest's cache or, without one, beside its temporary folders."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    cache = getattr(request.config, "cache", None)
    if cache is not None:
        return built(cache.mkdir("pretended"))
    return built(tmp_path_factory.getbasetemp().parent / "pretended")
