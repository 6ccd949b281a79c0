"""What a server holds of the vectors, and whom a search asks for what: pure functions.

What servers think of each other may be a moment old, and differ: that costs time only, since each
says with its answer what it has searched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from llcuda_net.storage.results.buckets import ALL


def keeping(before: int, mine: int, others: Collection[int]) -> int:
    """What a server is to hold: its own part, and of what it had before what no other one has yet.

    Args:
        mine: its part.
        others: what each of the other servers says that it holds.
    """
    elsewhere = 0
    for held in others:
        elsewhere |= held
    return mine | (before & ~elsewhere)


def asked(own: int, parts: Mapping[int, int], held: Mapping[int, int]) -> dict[int, int]:
    """Which other server a search asks for which buckets; each one once.

    Args:
        own: what the server that searches holds itself.
        parts: the buckets of each other server.
        held: what each of them says that it holds.
    """
    found: dict[int, int] = {}
    left = ALL & ~own

    def take(server: int, buckets: int) -> None:
        nonlocal left
        if buckets & left:
            found[server] = found.get(server, 0) | (buckets & left)
            left &= ~buckets

    for server, part in parts.items():  # who should hold it, and says so
        take(server, part & held.get(server, 0))
    for server, buckets in held.items():  # who still holds it
        take(server, buckets)
    for server, part in parts.items():  # who may hold it by now
        take(server, part)
    return found
