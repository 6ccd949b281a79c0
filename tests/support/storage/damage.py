"""Damage to a database file, seeded: what a disk, a copy or a bad memory may do to it."""

from __future__ import annotations

import random

#: SQLite's page size, as the store has it.
PAGE = 4096


def damaged_file(data: bytes, seed: int) -> bytes:
    """The bytes of a file with some damage: bits, bytes, zeroed or exchanged pages, a cut."""
    rng = random.Random(seed)
    out = bytearray(data)
    pages = len(out) // PAGE
    how = rng.choice(("bit", "bit", "byte", "byte", "bytes", "run", "zero", "swap", "copy", "cut"))
    at = rng.randrange(100, len(out) - 64)
    if how == "bit":
        out[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        out[at] = rng.randrange(256)
    elif how == "bytes":
        for _ in range(8):
            out[rng.randrange(100, len(out))] = rng.randrange(256)
    elif how == "run":
        out[at : at + 64] = rng.randbytes(64)
    elif how == "zero":
        page = rng.randrange(1, pages)
        out[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    elif how == "cut":
        del out[rng.randrange(1, pages) * PAGE + rng.choice((0, 0, 1000)) :]
    else:
        one, other = rng.sample(range(1, pages), 2)
        first = slice(one * PAGE, (one + 1) * PAGE)
        second = slice(other * PAGE, (other + 1) * PAGE)
        kept = bytes(out[first])
        out[first] = out[second]
        if how == "swap":
            out[second] = kept
    return bytes(out)
