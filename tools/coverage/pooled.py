"""What was done before: one bootstrap of the requests of all runs together, neighbours in blocks.

Sources: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993); H. Künsch, "The
jackknife and the bootstrap for general stationary observations" (1989). It is here to be compared
with, and so that the tests of the coverage can be seen to fail.
"""

from __future__ import annotations

import math

import numpy as np

from llcuda_net.bench.statistics.samples import of_records, pooled
from llcuda_net.util.quantile import supported
from tools.coverage.count import Estimates
from tools.coverage.modes import QUANTILES, Mode, Runs

#: Resamples of the requests.
RESAMPLES = 200


def pool(mode: Mode, runs: Runs) -> tuple[Estimates, dict[str, str]]:
    """Mean and percentiles of a mode's latencies, with a percentile interval."""
    values = pooled([of_records(records, mode.metric) for records in runs.repeats]).values * 1e3
    count = len(values)
    block = max(1, round(math.cbrt(count)))
    rng = np.random.default_rng(0)
    starts = rng.integers(0, count, (RESAMPLES, math.ceil(count / block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :count] % count
    resampled = values[drawn]
    found: Estimates = {}
    for name in mode.truth:
        share = QUANTILES.get(name)
        if share is None:
            value, each = float(values.mean()), resampled.mean(axis=1)
        elif not supported(count, share):
            continue
        else:
            value = float(np.quantile(values, share, method="inverted_cdf"))
            each = np.quantile(resampled, share, axis=1, method="inverted_cdf")
        low, high = np.quantile(each, (0.025, 0.975))
        found[name] = {"value": value, "low": float(low), "high": float(high)}
    return found, {}
