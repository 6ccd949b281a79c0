"""Joules, watts and money by token, from windows of which all is known."""

from __future__ import annotations

import pytest

from llcuda_net.bench.energy import economy
from llcuda_net.bench.energy.economy import Window
from llcuda_net.bench.energy.money import Prices
from llcuda_net.errors import ConfigError


def windows(*joules: float | None) -> list[Window]:
    """Ten seconds, 1,000 tokens and 10 requests each."""
    return [Window(10.0, 1000, 10, {"GPU 0": each, "processor 0": 500.0}) for each in joules]


def test_by_token_and_by_request() -> None:
    found = economy.figures(windows(2400, 2500, 2600), Prices(), idle_watts=100)
    assert found["watts"]["value"] == pytest.approx(300)
    assert found["joules_per_token"]["value"] == pytest.approx(3.0)
    assert found["joules_per_token"]["low"] == pytest.approx(3.0 - 4.3027 * 0.1 / 3**0.5, rel=1e-3)
    assert found["joules_per_token_above_idle"]["value"] == pytest.approx(2.0)
    assert found["joules_per_request"]["value"] == pytest.approx(300)
    assert found["cost_per_million_tokens"] is None


def test_one_window_has_no_interval_and_says_so() -> None:
    found = economy.figures(windows(2500), Prices())
    assert found["joules_per_token"] == {
        "value": 3.0,
        "low": None,
        "high": None,
        "why": "one repeat",
    }
    assert found["joules_per_token_above_idle"] is None
    assert economy.figures(windows(1, 2), Prices())["watts"]["why"] == "2 repeats"


def test_what_one_window_does_not_know_none_does() -> None:
    found = economy.figures(windows(2500, None, 2500), Prices(kwh=1.0))
    assert set(found.values()) == {None}
    assert (
        economy.figures([Window(1.0, 0, 0, {"GPU 0": 5.0})], Prices())["joules_per_token"] is None
    )
    assert set(economy.figures([Window(1.0, 5, 5, {})], Prices()).values()) == {None}


def test_cost_of_a_million_tokens() -> None:
    """A million takes 3 MJ, which are 0.8333 kWh, and 10,000 s, which are 2.778 hours."""
    prices = Prices.parse("0.30 EUR/kWh", None)
    found = economy.figures(windows(2500), prices)["cost_per_million_tokens"]
    assert found["value"] == pytest.approx(0.25)
    both = Prices.parse("0.30/kWh", "€2.50")
    found = economy.figures(windows(2500), both)["cost_per_million_tokens"]
    assert found["value"] == pytest.approx(0.25 + 2.5 / 0.36)
    # Rent needs no meter; power does.
    nothing = [Window(10.0, 1000, 10, {})]
    rent = economy.figures(nothing, Prices(hour=3.6))["cost_per_million_tokens"]
    assert rent["value"] == pytest.approx(10)
    assert economy.figures(nothing, both)["cost_per_million_tokens"] is None


def test_what_runs_are_compared_by() -> None:
    found = economy.per_window(windows(2400, 2600), Prices(hour=3.6))
    assert found["joules_per_token"] == [pytest.approx(2.9), pytest.approx(3.1)]
    assert found["cost_per_million_tokens"] == [pytest.approx(10)] * 2
    assert economy.per_window([], Prices()) == {}


@pytest.mark.parametrize(
    ("text", "value", "currency"),
    [
        ("0.30/kWh", 0.3, ""),
        ("0.30 EUR/kWh", 0.3, "EUR"),
        ("$0.12/kwh", 0.12, "$"),
        ("1", 1.0, ""),
    ],
)
def test_prices(text: str, value: float, currency: str) -> None:
    assert Prices.parse(text, None) == Prices(kwh=value, currency=currency)


def test_what_is_no_price() -> None:
    for text in ("", "cheap", "-1/kWh", "EUR 1 EUR", "1/hour"):
        with pytest.raises(ConfigError, match=r"such as 0\.30/kWh"):
            Prices.parse(text, None)
    with pytest.raises(ConfigError, match="two currencies: EUR and USD"):
        Prices.parse("0.3 EUR/kWh", "2 USD/hour")
    assert Prices().as_dict() is None
    assert Prices.parse(None, "2 USD/hour").as_dict() == {
        "kwh": None,
        "hour": 2.0,
        "currency": "USD",
    }
