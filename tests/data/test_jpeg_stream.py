"""Streams of JPEG: sound ones pass whatever their kind; shifted ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.awkward_files import truth, written
from data.mutations import mutated
from PIL import Image

from janus_pl.data.boundary import Unusable
from janus_pl.data.jpeg_stream import check_jpeg

KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 2},
    "own tables": {"optimize": True},
    "fine": {"quality": 100},
    "progressive": {"progressive": True},
}


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(height + width)
    small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_streams_pass(kind: str, mode: str) -> None:
    for size in ((1, 1), (8, 8), (17, 40), (64, 33), (150, 9)):
        check_jpeg(written(picture(*size, mode), "JPEG", **KINDS[kind]))


def start_of(data: bytes) -> int:
    head = data.index(b"\xff\xda") + 2
    return head + int.from_bytes(data[head : head + 2], "big")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "progressive"])
def test_streams_of_other_blocks_are_refused_that_pillow_decodes(kind: str) -> None:
    """The others have as many blocks as the sound one: no decoder can tell."""
    data = written(picture(64, 61), "JPEG", **KINDS[kind])
    start, found, silent = start_of(data), 0, 0
    right = truth(data)
    for stream in mutated(data[start:], 200):
        damaged = data[:start] + stream
        try:
            pixels = truth(damaged)
        except OSError:
            continue
        try:
            check_jpeg(damaged)
        except Unusable:
            found += 1
        else:
            silent += not np.array_equal(pixels, right)
    assert found > 50 and found > silent / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:90] + s[200:], "damaged"),
        (lambda s: s[:-2] + b"\x12" * 9 + s[-2:], "9 bytes too many"),
        (lambda s: s[:-40] + s[-2:], "bits too few"),
        (lambda s: s[:90] + b"\0" * 60 + s[150:], "damaged"),
        (lambda s: s[:-2], "no end"),
    ],
)
def test_damage_has_a_reason(change: Any, message: str) -> None:
    data = written(picture(64, 61), "JPEG", quality=90)
    start = start_of(data)
    with pytest.raises(Unusable, match=message):
        check_jpeg(data[:start] + change(data[start:]))
    check_jpeg(data + b"what a camera puts behind the end")
    check_jpeg(data[:-2] + b"\xff\xff\xff" + data[-2:])
