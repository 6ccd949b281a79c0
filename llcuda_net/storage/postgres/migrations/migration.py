"""One change of the schema."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """One change of the schema."""

    number: int
    name: str
    sql: str
