"""Identifiers that grow with time, and are random besides: of generations, and of their runs."""

from __future__ import annotations

import re
import secrets
import time

#: Random bits of an epoch, below its milliseconds.
_EPOCH_BITS = 11
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def uuid7() -> str:
    """A UUID that sorts by time: RFC 9562, section 5.7, with random bits after the milliseconds."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | (7 << 76)
    value = value & ~(0b11 << 62) | (0b10 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid7(text: str) -> bool:
    """Whether a text is a UUID as `uuid7` makes them."""
    return _UUID7.fullmatch(text) is not None


def next_epoch(last: int) -> int:
    """What names the run after that of `last`; 0 is the first.

    Epochs grow with time: two runs from one position keep their order. They are random besides,
    so that one that was lost with the power is never taken for the one that came after it.
    """
    milliseconds = time.time_ns() // 1_000_000 & ((1 << 41) - 1)
    return max(milliseconds << _EPOCH_BITS | secrets.randbits(_EPOCH_BITS), last + 1)


def epoch_time(epoch: int) -> int:
    """When an epoch began, in nanoseconds since 1970."""
    return (epoch >> _EPOCH_BITS) * 1_000_000
