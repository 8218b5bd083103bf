"""`make bench`: every benchmark, printed as ratios."""

from __future__ import annotations

from benchmarks import epoch, full_batch, host, linear, noise_time, waiting

epoch.main()
full_batch.main()
host.main()
linear.main()
noise_time.main()
waiting.main()
