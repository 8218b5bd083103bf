"""Sealed lines: no damage of a file goes unseen, and none takes a sound row away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from janus_pl.run.lines import SEAL, count_in, parse, ranges, seal

ROWS = [{"epoch": e, "trainer/global_step": 3 * e, "rho": 1 / (e + 3)} for e in range(6)]
LINES = [seal(row, number).encode() + b"\n" for number, row in enumerate(ROWS)]
WHOLE = b"".join(LINES)


def found(content: bytes) -> dict[int, Any]:
    return dict(parse(content).rows)


def test_a_sealed_file_is_read_whole_and_each_line_is_plain_json() -> None:
    lines = parse(WHOLE)
    assert list(lines.rows.values()) == ROWS
    assert (lines.sealed, lines.damaged, lines.doubled, lines.in_order) == (True, 0, (), True)
    assert lines.missing() == lines.missing(6) == []
    assert lines.missing(8) == [6, 7]
    for row, line in zip(ROWS, LINES, strict=True):
        plain = json.loads(line)
        assert list(plain) == [*row, SEAL], "the seal is the last key"
        assert {key: plain[key] for key in row} == row


def test_each_flipped_bit_is_seen_and_harms_at_most_two_rows() -> None:
    """Two where an end of a line is flipped, which joins them."""
    for place in range(len(WHOLE)):
        harmed = bytearray(WHOLE)
        harmed[place] ^= 1 << place % 8
        lines = parse(bytes(harmed))
        lost = lines.missing(6)
        assert all(lines.rows[number] == ROWS[number] for number in lines.rows)
        if place == len(WHOLE) - 1:  # the end of the last line
            assert lost == [5]
        else:
            assert 1 <= len(lost) <= 2
        assert lines.damaged


def test_without_seals_a_flipped_digit_is_not_seen() -> None:
    """Negative control: it is the seal that tells."""
    plain = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    harmed = plain.replace(b'"rho": 0.25', b'"rho": 0.35')
    assert harmed != plain
    lines = parse(harmed)
    assert not lines.sealed and not lines.damaged
    assert lines.rows[1]["rho"] == 0.35


@pytest.mark.parametrize(
    ("harm", "left", "said"),
    [
        (lambda x: [*x[:2], *x[3:]], [0, 1, 3, 4, 5], {}),
        (lambda x: [*x[:3], x[2], *x[3:]], [*range(6)], {"doubled": (2,)}),
        (lambda x: [x[1], x[0], *x[2:]], [*range(6)], {"in_order": False}),
        (lambda x: x[:4], [0, 1, 2, 3], {}),
        (lambda x: [*x[:5], x[5][:-20]], [0, 1, 2, 3, 4], {"damaged": 1}),
        (lambda x: [*x[:5], x[5][:-1]], [*range(6)], {}),
        (lambda x: [*x[:2], bytes(len(x[2]) + 7), x[3][7:], *x[4:]], [0, 1, 4, 5], {"damaged": 1}),
        (lambda x: [*x[:2], json.dumps(ROWS[2]).encode() + b"\n", *x[3:]],
         [0, 1, 3, 4, 5], {"damaged": 1}),
        (lambda x: [*x[:2], b"\n", *x[2:]], [*range(6)], {"damaged": 1}),
        (lambda x: [], [], {"sealed": False}),
    ],
    ids=["missing", "doubled", "reordered", "cut between lines", "cut within a line",
         "only the last end", "zeroed over two", "one seal gone", "an empty line", "emptied"],
)  # fmt: skip
def test_losses_are_told_by_numbers(
    harm: Callable[[list[bytes]], list[bytes]], left: list[int], said: dict[str, Any]
) -> None:
    lines = parse(b"".join(harm(LINES)))
    assert list(lines.rows) == left
    assert all(lines.rows[number] == ROWS[number] for number in left)
    usual = {"sealed": True, "damaged": 0, "doubled": (), "in_order": True}
    assert lines._asdict() == {"rows": lines.rows, **usual, **said}


@pytest.mark.parametrize(
    "line",
    [b"[1]", b"null", b"7", b'"x"', b"\xff", b"{", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"_seal": 7}', b'{"_seal": "7"}', b'{"_seal": "x:y"}', b'{"_seal": "-1:00000000"}',
     b'{"_seal": ":"}', b"1" * 5000, b'{"_seal": null}', b'{"_seal": "1:ffffffffffffffffffff"}'],
)  # fmt: skip
def test_lines_of_any_kind_are_damaged_lines(line: bytes) -> None:
    lines = parse(line + b"\n" + WHOLE)
    assert list(lines.rows.values()) == ROWS
    assert lines.damaged == 1


def test_old_lines_are_numbered_by_their_place() -> None:
    lines = parse(b'{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    assert lines.rows == {0: {"epoch": 0}, 2: {"epoch": 2}}
    assert (lines.sealed, lines.damaged, lines.missing()) == (False, 1, [1])


def test_the_count_is_that_of_the_last_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert count_in(tmp_path) is None
    for content, count in {
        WHOLE: 6,
        b"": None,
        LINES[3]: 4,  # a gap does not make it less
        WHOLE[:-1]: 6,
        WHOLE[:-9]: None,
        b'{"epoch": 0}\n': None,
    }.items():
        file.write_bytes(content)
        assert count_in(tmp_path) == count


def test_numbers_in_words() -> None:
    assert ranges([]) == ""
    assert ranges([0, 2, 3, 7]) == "0, 2 to 3, 7"
    assert ranges([*range(0, 40, 2)]) == "0, 2, 4, 6, 8, 10, 12, 14 and 12 more"
