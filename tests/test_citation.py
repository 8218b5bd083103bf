"""CITATION.cff names this version and the paper."""

from __future__ import annotations

from typing import Any

import yaml
from conftest import ROOT

from janus_pl.version import __version__

REQUIRED = {"cff-version", "message", "title", "authors"}  # of the Citation File Format 1.2.0


def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_is_of_this_version() -> None:
    found = citation()
    assert found.keys() >= REQUIRED
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == __version__
    assert (found["title"], found["type"], found["license"]) == ("janus_pl", "software", "MIT")


def test_it_cites_the_paper() -> None:
    (paper,) = citation()["references"]
    assert paper.keys() >= {"type", "title", "authors"}
    assert paper["title"] == "The Janus effects of SGD vs GD: high noise and low rank"
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Xu", "Galanti", "Rangamani", "Rosasco", "Poggio"]
    assert (paper["number"], paper["year"]) == ("144", 2023)
