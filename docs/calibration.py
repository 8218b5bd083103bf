"""The tables of docs/claims.md: how often the rules of `verify` are wrong, and find an effect.

python docs/calibration.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from janus_pl.run.claims import SHIPPED
from janus_pl.verify.calibration import Calibrated, calibrate
from janus_pl.verify.claims import PAPER, read_claims

PAGE = Path(__file__).parent / "claims.md"


def main() -> int:
    """Simulate and write; returns 0."""
    files = [PAPER, *sorted(file for file in SHIPPED.glob("*.yaml") if file != PAPER)]
    parts = [f"`{file.name}`:\n\n{table(calibrate(read_claims(file).claims))}" for file in files]
    found = "\n\n".join(parts)
    page = PAGE.read_text(encoding="utf-8")
    place = r"<!-- calibration -->.*?<!-- end -->"
    text = f"<!-- calibration -->\n\n{found}\n\n<!-- end -->"
    PAGE.write_text(re.sub(place, lambda _: text, page, flags=re.DOTALL), encoding="utf-8")
    print(found)
    return 0


def table(found: Sequence[Calibrated]) -> str:
    """The table in Markdown."""
    head = ("claim", "normal", "heavy tails", "one exploded", "power", "power by formula")
    lines = [head, ["---"] * len(head)]
    for each in found:
        lines.append((f"`{each.claim}`", *(f"{value:.1%}" for value in each[1:])))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
