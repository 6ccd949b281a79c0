"""How figures are written for people: never with an exponent."""

from __future__ import annotations

import math

#: Decimals at most; what is smaller is written as 0.
_DECIMALS = 12


def three_digits(value: float) -> str:
    """The number with three significant digits; from 1,000 on as a whole number."""
    return _written(value, 3)


def plain(value: float, digits: int = 6) -> str:
    """The number with so many significant digits at most, as it could be given: 1000, 2.5."""
    text = _written(value, digits).replace(",", "")
    return text.rstrip("0").rstrip(".") if "." in text else text


def probability(value: float) -> str:
    """A probability: "0.032"; under one in ten thousand it is only said to be so."""
    return "< 0.0001" if value < 1e-4 else plain(value, 2)


def _written(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return str(value)
    # Rounded first: 999.6 is 1,000 in three digits, and has a digit more than 999.
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) < 10.0**-_DECIMALS:
        rounded = 0.0
    place = 0 if rounded == 0 else math.floor(math.log10(abs(rounded)) + 1e-12)
    if place >= digits:
        return f"{value:,.0f}"
    return f"{rounded:,.{min(_DECIMALS, digits - 1 - place)}f}"
