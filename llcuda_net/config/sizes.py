"""Sizes in bytes as people write them: 1000000, 500MB, 2G, 1.5GiB."""

from __future__ import annotations

import re

#: The largest that a signed 64-bit integer holds, as SQLite's.
LARGEST = 2**63 - 1
#: What a size is, for messages.
SAYS = "a size (500MB, 2GB, 1.5GiB)"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """The bytes of a size; K, M, G and T are powers of 1000, and Ki, Mi, Gi and Ti of 1024.

    Raises:
        ValueError: it is none, or too large; the message says which.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"must be {SAYS}, not {text!r}")
    base = 1024 if found[3] else 1000
    power = " kmgt".index(found[2].lower()) if found[2] else 0
    size = float(found[1]) * base**power
    if size > LARGEST:
        raise ValueError(f"{text!r} is too large")
    return int(size)
