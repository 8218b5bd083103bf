"""One page for some runs: tables and charts that open from disk, with no network."""

from janus_pl.report.page.document import write

__all__ = ["write"]
