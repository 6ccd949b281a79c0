"""What is held and asked for: nothing is dropped too early, and each bucket is asked for once."""

from __future__ import annotations

from functools import reduce
from operator import or_

from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.analysis.sharing import asked, keeping
from llcuda_net.cluster.owners.buckets import assigned
from llcuda_net.storage.results.buckets import ALL, BUCKETS, holds, packed, unpacked

SERVERS = st.sets(st.integers(1, 10**6), min_size=1, max_size=6)
SETS = st.integers(0, ALL)


@given(SETS, SETS, st.lists(SETS, max_size=3))
def test_nothing_is_dropped_that_no_other_server_has(
    before: int, mine: int, others: list[int]
) -> None:
    held = keeping(before, mine, others)
    assert held & mine == mine
    assert held & ~(before | mine) == 0
    assert before & ~held & ~reduce(or_, others, 0) == 0
    assert not held & ~mine & reduce(or_, others, 0)


@given(SETS, st.dictionaries(st.integers(1, 5), SETS, max_size=5), st.data())
def test_each_bucket_is_asked_for_once(own: int, held: dict[int, int], data: st.DataObject) -> None:
    servers = data.draw(SERVERS)
    parts = {server: part for server, part in assigned(servers).items() if server != min(servers)}
    found = asked(own, parts, held)
    total = own
    for server, buckets in found.items():
        assert buckets
        assert not buckets & total
        assert not buckets & ~(parts.get(server, 0) | held.get(server, 0))
        total |= buckets
    known = reduce(or_, [own, *parts.values(), *held.values()])
    assert total == known


@given(SETS, st.integers(0, 10**15))
def test_a_set_as_bytes(buckets: int, seq: int) -> None:
    data = packed(buckets)
    assert unpacked(data) == unpacked(data + b"more") == buckets
    bit = seq % BUCKETS
    assert holds(buckets, seq) == bool(data[bit // 8] >> (bit % 8) & 1)
