"""`make bench`: every benchmark, printed as ratios."""

from __future__ import annotations

from benchmarks import epoch, host

epoch.main()
host.main()
