"""How figures are written for people."""

from __future__ import annotations


def three_digits(value: float) -> str:
    """The number with three significant digits; from 1,000 on as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
