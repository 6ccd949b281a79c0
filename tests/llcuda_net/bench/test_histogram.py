"""Histograms merge without loss, and read back within their precision."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.bench.histogram import LONGEST, PRECISION, Histogram
from llcuda_net.util.quantile import quantile

times = st.lists(st.floats(1e-6, 3000.0), min_size=1, max_size=200)


# A histogram is 200 kB of counts: what these look for is found in few examples.
few = settings(max_examples=15, deadline=None)


@few
@given(st.lists(times, min_size=1, max_size=4))
def test_merged_is_pooled(parts: list[list[float]]) -> None:
    merged = Histogram()
    for part in parts:
        merged.merge(Histogram.decode(Histogram(part).encode()))
    pooled = Histogram(value for part in parts for value in part)
    assert len(merged) == len(pooled)
    assert merged.steps() == pooled.steps()
    for share in (0.1, 0.5, 0.9, 0.99):
        assert merged.quantile(share) == pooled.quantile(share)


@few
@given(st.lists(st.floats(0.001, 3000.0), min_size=100, max_size=300))
def test_quantiles_are_the_samples_within_the_precision(values: list[float]) -> None:
    histogram = Histogram(values)
    for share in (0.5, 0.9):
        exact = quantile(values, share)
        assert exact is not None
        assert histogram.quantile(share) == pytest.approx(exact, rel=2 * PRECISION, abs=2e-6)


def test_what_is_out_of_range_is_counted_at_the_end() -> None:
    histogram = Histogram([-1.0, 1e9])
    assert len(histogram) == 2
    (low, _), (high, share) = histogram.steps()
    assert low == 0
    assert high == pytest.approx(LONGEST / 1e6, rel=PRECISION)
    assert share == 1


def test_no_percentile_of_too_few() -> None:
    assert Histogram([0.1] * 999).quantile(0.99) is None
    assert Histogram([0.1] * 1000).quantile(0.99) == pytest.approx(0.1, rel=PRECISION)


@pytest.mark.parametrize("text", ["", "x", "HISTFAAAA", "%%%"])
def test_what_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an encoded histogram"):
        Histogram.decode(text)
