"""Buckets of results: equal parts, of which each server of a cluster searches some by meaning.

A result is in the bucket that its number leaves as the remainder; numbers follow each other, so the
parts are equal. A set of buckets is an integer: bit b says whether bucket b is in it.
"""

from __future__ import annotations

#: Never changes: servers of one cluster must agree.
BUCKETS = 1024
ALL = (1 << BUCKETS) - 1
#: Bytes of a set of buckets, as `packed` writes it.
SIZE = BUCKETS // 8


def holds(buckets: int, seq: int) -> bool:
    """Whether the result with this number is in one of the buckets."""
    return bool(buckets >> (seq % BUCKETS) & 1)


def packed(buckets: int) -> bytes:
    """A set as bytes: bit b % 8 of byte b // 8, as PostgreSQL's get_bit counts."""
    return buckets.to_bytes(SIZE, "little")


def unpacked(data: bytes) -> int:
    """A set of such bytes; what is too long is cut off."""
    return int.from_bytes(data[:SIZE], "little")
