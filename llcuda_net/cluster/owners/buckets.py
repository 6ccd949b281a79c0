"""Which server is to hold which buckets of vectors: a pure function of who takes part.

Rendezvous hashing, as for upstreams (spread.py): a server that comes or goes moves only its own
buckets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from llcuda_net.cluster.owners.spread import weight
from llcuda_net.storage.results.buckets import BUCKETS


@lru_cache(maxsize=256)
def _weights(server: int) -> list[int]:
    return [weight(f"bucket {bucket}", server) for bucket in range(BUCKETS)]


@lru_cache(maxsize=8)
def _assigned(servers: frozenset[int]) -> dict[int, int]:
    found = dict.fromkeys(servers, 0)
    ranked = [(server, _weights(server)) for server in sorted(servers)]
    for bucket in range(BUCKETS):
        best = max(ranked, key=lambda one: one[1][bucket])
        found[best[0]] |= 1 << bucket
    return found


def assigned(servers: Collection[int]) -> Mapping[int, int]:
    """The buckets of each of these servers: all buckets, each at one of them."""
    return _assigned(frozenset(servers))
