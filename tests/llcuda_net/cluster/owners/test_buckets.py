"""Which server holds which buckets: all are held, few move, and a search asks for each once."""

from __future__ import annotations

from functools import reduce
from operator import or_

from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.cluster.owners.buckets import asked, assigned, keeping
from llcuda_net.storage.results.buckets import ALL, BUCKETS, holds, packed, unpacked

SERVERS = st.sets(st.integers(1, 10**6), min_size=1, max_size=6)
SETS = st.integers(0, ALL)


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
