"""Which server is to hold which buckets: each is held by one, and few move."""

from __future__ import annotations

from functools import reduce
from operator import or_

from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.cluster.owners.buckets import assigned
from llcuda_net.storage.results.buckets import ALL, BUCKETS

SERVERS = st.sets(st.integers(1, 10**6), min_size=1, max_size=6)


@settings(max_examples=20, deadline=None)
@given(SERVERS, st.integers(1, 10**6))
def test_each_bucket_has_one_server_and_few_move(servers: set[int], other: int) -> None:
    before = assigned(servers)
    assert reduce(or_, before.values()) == ALL
    assert sum(part.bit_count() for part in before.values()) == BUCKETS
    after = assigned(servers | {other})
    for server in servers - {other}:
        assert after[server] & ~before[server] == 0  # it gets nothing by another one's coming
    even = BUCKETS / len(servers)
    assert all(0.5 * even < part.bit_count() < 1.5 * even for part in before.values())
