"""The stream of a JPEG file: whether it holds the blocks that its header claims.

libjpeg decodes a damaged stream to other pixels without an error, and Pillow keeps its warnings to
itself. Damage of a sequential Huffman stream often shifts the codes behind it, so that the stream
ends before or after its last block. Damage that keeps the number of blocks cannot be told.
"""

# mypy: disable-error-code="no-untyped-def"
# The types in compiled functions are numba's to infer.

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from janus_pl.data.boundary import Unusable

SEQUENTIAL, FRAMES = (0xC0, 0xC1), {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
TABLES, RESTARTS, SCAN, END, ALONE = 0xC4, 0xDD, 0xDA, 0xD9, (0x01, 0xD8)
NEXT = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
RESTART = re.compile(rb"\xff+([\xd0-\xd7])")


Codes = tuple[bytes, bytes]  # how many codes there are of 1 to 16 bits, and their symbols


class Frame(NamedTuple):
    """Height, width, and the sampling factors (across, down) of each component by its number."""

    height: int
    width: int
    factors: dict[int, tuple[int, int]]


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG whose stream has no end, restarts out of turn, or other blocks than claimed.

    The blocks of progressive streams are not counted.

    Raises:
        Unusable: The stream is damaged.
    """
    place, frame, interval = 2, None, 0
    tables: dict[int, Codes] = {}
    while found := NEXT.search(data, place):
        marker = found[1][0]
        if marker == END:
            return
        place = found.end()
        if marker in ALONE:
            continue
        body = data[place + 2 : place + int.from_bytes(data[place : place + 2], "big")]
        place += 2 + len(body)
        if marker == TABLES:
            tables |= _tables(body)
        elif marker == RESTARTS:
            interval = int.from_bytes(body[:2], "big")
        elif marker in FRAMES:
            frame = _frame(body) if marker in SEQUENTIAL else None
        elif marker == SCAN:
            after = NEXT.search(data, place)
            stop = after.start() if after else len(data)
            _check_scan(data[place:stop], body, frame, tables, interval)
            place = stop
    raise Unusable("its stream has no end")


def _frame(body: bytes) -> Frame:
    factors = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body), 3)}
    return Frame(int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), factors)


def _tables(body: bytes) -> dict[int, Codes]:
    """Return the codes of each table by its number, plus 16 of AC."""
    tables = {}
    while body:
        counts = body[1:17]
        tables[body[0]] = counts, body[17 : 17 + sum(counts)]
        body = body[17 + sum(counts) :]
    return tables


def _check_scan(
    stream: bytes,
    head: bytes,
    frame: Frame | None,
    tables: dict[int, Codes],
    interval: int,
) -> None:
    parts = RESTART.split(stream)
    turns = [mark[0] - 0xD0 for mark in parts[1::2]]
    if turns != [i % 8 for i in range(len(turns))]:
        raise Unusable("a part of its stream is missing")
    if frame is None:
        return
    chosen = [(head[i], head[i + 1]) for i in range(1, 1 + 2 * head[0], 2)]
    units, blocks = _blocks(frame, [number for number, _ in chosen])
    wanted = [n for _, pair in chosen for n in (pair >> 4, 16 + (pair & 15))]
    if not {*wanted} <= tables.keys():  # the tables that the standard prints
        return
    codes = lookups(*(tables[n] for n in wanted))
    order = np.repeat(np.arange(len(blocks)), blocks)
    each = interval or units
    if len(parts[::2]) != math.ceil(units / each):
        raise Unusable("a part of its stream is missing")
    for k, part in enumerate(parts[::2]):
        bits = np.frombuffer(part.replace(b"\xff\x00", b"\xff") + bytes(4), np.uint8)
        left = decoded(bits, min(each, units - k * each), order, codes)
        if left != 0:
            raise Unusable("its stream is damaged: " + _says(left))


def _says(left: int) -> str:
    if left == BROKEN:
        return "a code that no table has"
    return f"{left} bytes too many" if left > 0 else f"{-left} bits too few"


def _blocks(frame: Frame, numbers: list[int]) -> tuple[int, list[int]]:
    """Return the number of units of a scan, and how many blocks of each component are in one."""
    across, down = (max(factor[i] for factor in frame.factors.values()) for i in (0, 1))
    if len(numbers) > 1:
        units = math.ceil(frame.width / (8 * across)) * math.ceil(frame.height / (8 * down))
        return units, [math.prod(frame.factors[number]) for number in numbers]
    own = frame.factors[numbers[0]]
    width = math.ceil(frame.width * own[0] / across)
    height = math.ceil(frame.height * own[1] / down)
    return math.ceil(width / 8) * math.ceil(height / 8), [1]


@lru_cache(maxsize=8)
def lookups(*tables: Codes) -> NDArray[np.int32]:
    """Return for each table and all 16 bits the symbol that they begin with, or 0 of none.

    256 times the length of its code is added to a symbol.
    """
    return np.stack([_lookup(*table) for table in tables])


def _lookup(counts: bytes, symbols: bytes) -> NDArray[np.int32]:
    table, code, k = np.zeros(65536, np.int32), 0, 0
    for length, count in enumerate(counts, start=1):
        for symbol in symbols[k : k + count]:
            table[code << (16 - length) : (code + 1) << (16 - length)] = length * 256 + symbol
            code += 1
        k, code = k + count, code << 1
    return table


BROKEN = -(2**31)


@njit(cache=True, nogil=True)
def decoded(data, units, order, codes):
    """Return the whole bytes left behind the last block, bits missing as < 0, or BROKEN."""
    end, place = (len(data) - 4) * 8, 0
    for _ in range(units):
        for c in order:
            k = 0
            while k < 64:
                byte = place >> 3
                if byte + 3 >= len(data):
                    return end - place - 1
                window = (data[byte] << 16) | (data[byte + 1] << 8) | data[byte + 2]
                window = (window >> (8 - (place & 7))) & 0xFFFF
                found = codes[2 * c, window] if k == 0 else codes[2 * c + 1, window]
                if found == 0:
                    return -(2**31)
                symbol = found & 255
                size = symbol & 15
                run = 0 if k == 0 else symbol >> 4
                place += (found >> 8) + size
                if k > 0 and size == 0 and run < 15:
                    break
                k += run + 1
                if k > 64:
                    return -(2**31)
    if place > end:
        return end - place
    return (end - place) >> 3
