"""What electricity and a machine cost, as they are given: "0.30/kWh", "2.50 EUR", "$2.50"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llcuda_net.errors import ConfigError

#: Joules of a kilowatt-hour.
KWH = 3.6e6
#: Answers' tokens that a cost is told for.
TOKENS = 1_000_000
_PRICE = re.compile(
    r"(?P<before>[A-Z]{3}|[$€£¥])?\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<after>[A-Z]{3}|[$€£¥])?"
)


@dataclass(frozen=True, slots=True)
class Prices:
    """What is paid.

    Attributes:
        kwh: for a kilowatt-hour.
        hour: for an hour of the machine.
        currency: as it was given; "" where none was.
    """

    kwh: float | None = None
    hour: float | None = None
    currency: str = ""

    @classmethod
    def parse(cls, kwh: str | None, hour: str | None) -> Prices:
        """The prices as they were given.

        Raises:
            ConfigError: one is no price, or they are of two currencies.
        """
        power, own = _price(kwh, ("/kWh", "/kwh"), "0.30/kWh")
        rent, other = _price(hour, ("/hour", "/h"), "2.50")
        if own and other and own != other:
            raise ConfigError(f"the prices are of two currencies: {own} and {other}")
        return cls(power, rent, own or other)

    def as_dict(self) -> dict[str, Any] | None:
        """For JSON; None where nothing is paid."""
        if self.kwh is None and self.hour is None:
            return None
        return {"kwh": self.kwh, "hour": self.hour, "currency": self.currency}

    @classmethod
    def from_dict(cls, found: dict[str, Any] | None) -> Prices:
        """The inverse of `as_dict`."""
        return cls() if found is None else cls(**found)

    def cost(self, joules: float | None, seconds: float) -> float | None:
        """What so many joules and so much of the machine's time cost.

        Args:
            joules: None: not known.

        Returns:
            None where there is no price, or one for energy that is not known.
        """
        if self.kwh is None and self.hour is None:
            return None
        if self.kwh is not None and joules is None:
            return None
        power = 0.0 if self.kwh is None or joules is None else self.kwh * joules / KWH
        return power + (self.hour or 0.0) * seconds / 3600


def _price(text: str | None, units: tuple[str, ...], example: str) -> tuple[float | None, str]:
    if text is None:
        return None, ""
    bare = text.strip()
    for unit in units:
        bare = bare.removesuffix(unit).strip()
    match = _PRICE.fullmatch(bare)
    if match is None or (match["before"] and match["after"]):
        raise ConfigError(f"a price is such as {example}, or with a currency, not {text!r}")
    return float(match["value"]), match["before"] or match["after"] or ""
