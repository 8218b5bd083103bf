"""`make bench`: every benchmark, printed as ratios."""

from __future__ import annotations

from benchmarks import epoch, host, linear

epoch.main()
host.main()
linear.main()
