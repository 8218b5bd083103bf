"""Text from elsewhere, made harmless for a terminal, a spreadsheet or a figure."""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@")  # begins a formula in a spreadsheet


def printable(text: str) -> str:
    r"""Return a text with its control characters, escape sequences among them, spelled out.

    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def all_printable(value: Any) -> Any:
    """Return plain nested values with every text in them printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {all_printable(key): all_printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_printable(each) for each in value]
    return value


def cell(value: Any) -> Any:
    """Return a value for a CSV; a text that a spreadsheet would compute gets an apostrophe.

    >>> cell("=1+1"), cell("sgd"), cell(-1.5)
    ("'=1+1", 'sgd', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
