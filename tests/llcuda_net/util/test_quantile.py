"""The sample quantile: one definition, and no figure that the sample cannot support."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.util.numbers import three_digits
from llcuda_net.util.quantile import percentiles_ms, quantile, supported


@pytest.mark.parametrize(
    ("count", "share", "known"),
    [(19, 0.5, False), (20, 0.5, True), (999, 0.99, False), (1000, 0.99, True), (99, 0.9, False)],
)
def test_no_percentile_that_the_sample_cannot_support(
    count: int, share: float, known: bool
) -> None:
    assert supported(count, share) is known
    assert (quantile(list(range(count)), share) is not None) is known


def test_percentiles_are_quantiles_in_milliseconds() -> None:
    seconds = [n / 1000 for n in range(1000, 0, -1)]
    found = percentiles_ms(seconds)
    assert found == {"p50": 500.0, "p90": 900.0, "p99": 990.0, "p99.9": None}
    assert percentiles_ms([]) == dict.fromkeys(found)


def test_a_quantile_is_a_value_of_the_sample() -> None:
    values = list(range(1, 1001))
    assert quantile(values, 0.5) == 500
    assert quantile(values, 0.99) == 990
    assert quantile(values, 0.9) == 900


@given(st.lists(st.floats(0, 1e6), min_size=100, max_size=300), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_quantile_has_its_share_at_or_below_it(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found is not None
    below = sum(value <= found for value in values)
    strictly = sum(value < found for value in values)
    assert below >= share * len(values) - 1e-9
    assert strictly < share * len(values)


def test_the_median_of_an_even_sample_is_the_lower_of_the_middle_two() -> None:
    assert quantile(range(20), 0.5) == 9.0
    assert quantile(range(1000), 0.99) == 989.0


def test_figures_have_three_digits() -> None:
    assert three_digits(1234.5) == "1,234"
    assert three_digits(0.012345) == "0.0123"
    assert three_digits(12.0) == "12.0"
    assert three_digits(123.4) == "123"
