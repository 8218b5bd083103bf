"""The page as one file: template, styles, code, plotly.js and the data."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Protocol

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

from janus_pl.records.run import Run
from janus_pl.report.page.content import content
from janus_pl.report.page.numbers import inline_json
from janus_pl.report.page.series import limits, smaller
from janus_pl.run.files import write_atomically

ROOM = 5_000_000  # characters of data for 20 runs; plotly.js has as many
# In this order: each uses what those before it define.
SCRIPTS = ("data.js", "colours.js", "plots.js", "runs.js", "layers.js", "whole.js", "main.js")


def write(
    runs: Sequence[Run],
    file: Path,
    verdicts: Mapping[str, Any] | None = None,
    command: str = "",
    scans: Sequence[Picture] = (),
) -> Path:
    """Write one page that shows some runs; it opens from disk and asks nothing of any network.

    Equal runs give equal bytes. Names and all else that comes from records is text on the page,
    never markup: data is JSON, put in place as text, and the page's policy runs its own two scripts
    and loads nothing.

    Args:
        runs: 1 to some hundred; the more there are, the fewer points a curve has.
        file: where to write it; its folder is made where there is none.
        verdicts: The JSON of `verify` on them.
        command: what made the page, shown at its head.
        scans: figures of a scan, each with a PNG among its files.

    Returns:
        The file.

    Raises:
        StorageError: the file cannot be written.
    """
    page = _page(_data(runs, verdicts or {}, command, _pictures(scans))).encode()
    write_atomically(file, lambda out: out.write(page))
    return file


class Picture(Protocol):
    """A figure with its title, caption and files."""

    @property
    def title(self) -> str: ...
    @property
    def caption(self) -> str: ...
    @property
    def files(self) -> Sequence[Path]: ...


def _pictures(scans: Sequence[Picture]) -> list[dict[str, str]]:
    """Return pictures with their captions; the page loads no other file, so they are in it."""
    found = []
    for figure in scans:
        (png,) = (file for file in figure.files if file.suffix == ".png")
        data = base64.b64encode(png.read_bytes()).decode()
        found.append({"title": figure.title, "caption": figure.caption, "png": data})
    return found


def _data(
    runs: Sequence[Run],
    verdicts: Mapping[str, Any],
    command: str,
    scans: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return the data, thinned to fit the room of the page as far as thinning helps."""
    most = limits(len(runs))
    room = ROOM * math.sqrt(max(1, len(runs) / 20))
    while True:
        data = inline_json(content(runs, verdicts, command, most, scans))
        # Thinned curves shrink by less than the share that stays: then once more.
        fewer = smaller(most, min(0.9, room / len(data)))
        if len(data) <= room or fewer == most:
            return data
        most = fewer


def _page(data: str) -> str:
    plotly = _plotly()
    code = "\n".join(["'use strict';", *(_asset(name) for name in SCRIPTS)])
    return Template(_asset("page.html")).substitute(
        policy=f"script-src {_digest(plotly)} {_digest(code)}",
        style=_asset("page.css"),
        data=data,
        plotly=plotly,
        code=code,
    )


@cache
def _plotly() -> str:
    # A browser turns CR and CR LF into LF before it takes the digest.
    script = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    return script.replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return files("janus_pl.report.page").joinpath("static", name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """Return the name of a script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
