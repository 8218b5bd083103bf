"""`make bench`: every benchmark, printed as ratios."""

from __future__ import annotations

from benchmarks import (
    epoch,
    full_batch,
    host,
    lean,
    linear,
    noise_time,
    operations,
    waiting,
)

epoch.main()
full_batch.main()
host.main()
linear.main()
noise_time.main()
operations.main()
lean.main()
waiting.main()
