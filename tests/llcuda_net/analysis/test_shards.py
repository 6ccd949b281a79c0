"""Vectors in parts: whoever holds what, and whoever fails, what is found is what is nearest."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.analysis import shards
from llcuda_net.analysis.owner_vectors import Nearest
from llcuda_net.analysis.vector_index import VectorIndex
from llcuda_net.storage.results.buckets import ALL, BUCKETS
from llcuda_net.storage.results.interface import Embedding
from tests.support.analysis.stored import DIM, SPACE, Server, Stored

#: Few directions, so that many results are equally near; and more than one result in a bucket.
DIRECTIONS = [(1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1), (-1, 0, 0, 1)]
QUERY = [0.9, 0.3, 0.1, 0.0]
ROWS = st.lists(
    st.tuples(st.sampled_from(DIRECTIONS), st.sampled_from(["ann", "bob"])), max_size=40
)
SETS = st.integers(0, ALL)


def embedding(place: int, direction: tuple[int, ...], owner: str, step: int = 100) -> Embedding:
    codes = bytes((100 * part) % 256 for part in direction)
    return Embedding(place + 1, 1 + place * step, owner, 0.01, codes)


def nearest(stored: Stored, owner: str | None, k: int) -> list[int]:
    """By one index with all, and by the order of their numbers where they are equally near."""
    index = VectorIndex(DIM)
    index.add([(one.owner, one.seq, one.scale, one.codes) for one in stored.rows])
    best: Nearest = index.answer(QUERY, 1000, owner, ALL, ()).best
    there = [one for one in best if one[1] not in stored.gone | stored.damaged]
    assert len(best) == sum(owner in (None, one.owner) for one in stored.rows)
    return [seq for _, seq in sorted(there, key=lambda one: (-one[0], one[1]))][:k]


async def found(server: Server, owner: str | None, k: int) -> tuple[list[int], int]:
    hits, searched = await server.shards.search(SPACE, QUERY, k, owner)
    assert all(owner in (None, summary.owner) for summary, _, _ in hits)
    assert [score for _, _, score in hits] == sorted((hit[2] for hit in hits), reverse=True)
    return [int(summary.id) for summary, _, _ in hits], searched


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(1, 4), st.integers(1, 9), st.data())
def test_it_is_what_one_server_with_all_vectors_finds(
    rows: list[tuple[tuple[int, ...], str]], count: int, k: int, data: st.DataObject
) -> None:
    """Whatever each holds, and says that it holds, whoever does not answer, or drops its vectors
    when it is asked; also what is deleted, and where vectors come in another order than results.
    """
    there = [embedding(place, *row) for place, row in enumerate(rows)]
    order = data.draw(st.permutations([one.seq for one in there]))
    stored = Stored(
        Embedding(one.id, seq, one.owner, one.scale, one.codes)
        for one, seq in zip(there, order, strict=True)
    )
    servers: dict[int, Server] = {}
    for number in range(1, count + 1):
        Server(stored, servers, number)
    first = servers[1]
    first_rows = data.draw(st.integers(0, len(there)))

    async def search() -> None:
        later, stored.rows = stored.rows[first_rows:], stored.rows[:first_rows]
        for server in servers.values():
            index = VectorIndex.load(stored, SPACE, data.draw(SETS))  # type: ignore[arg-type]
            server.shards._held[SPACE.id] = SPACE, index
            server.up = data.draw(st.booleans(), "up")
            server.says = data.draw(st.none() | SETS, "says")
            moves = data.draw(st.sampled_from(["not", "before", "between"]), "moves")
            if moves != "not":
                hold = partial(index.hold, stored, SPACE, data.draw(SETS))  # type: ignore[arg-type]
                setattr(server, moves, hold)
        stored.rows += later  # by whichever server
        seqs = [one.seq for one in there]
        if seqs:
            stored.gone = data.draw(st.sets(st.sampled_from(seqs), max_size=8), "gone")
            stored.damaged = data.draw(st.sets(st.sampled_from(seqs), max_size=2), "damaged")
        for owner in (None, "ann", "carl"):
            seen, searched = await found(first, owner, k)
            assert seen == nearest(stored, owner, k)
            mine = {one.seq for one in stored.rows if owner in (None, one.owner)}
            kept = mine - stored.gone - stored.damaged
            assert len(kept) <= searched <= len(mine)

    trio.run(search)


def four(rows: int = 64) -> tuple[Stored, dict[int, Server]]:
    directions = [DIRECTIONS[place % 5] for place in range(rows)]
    stored = Stored(
        [embedding(place, one, "ann", 31) for place, one in enumerate(directions)], page=16
    )
    servers: dict[int, Server] = {}
    for number in range(1, 5):
        Server(stored, servers, number)
    return stored, servers


async def settled(servers: dict[int, Server]) -> None:
    for _ in range(2):  # what others hold is known then
        for server in servers.values():
            await server.shards.settle()


def held(server: Server) -> int:
    return server.shards.holds().get(SPACE.id, 0)


async def test_each_holds_its_part_and_moves_little() -> None:
    stored, servers = four()
    expected = nearest(stored, None, 10)
    # The first search reads what nobody has, and tells the others.
    assert await found(servers[1], None, 10) == (expected, 64)
    await settled(servers)
    assert sum(held(one).bit_count() for one in servers.values()) == BUCKETS
    sizes = {number: one.shards.count(None) for number, one in servers.items()}
    assert sum(sizes.values()) == 64
    assert max(sizes.values()) < 32
    read = stored.read
    assert await found(servers[1], None, 10) == (expected, 64)
    assert stored.read == read
    # One dies. What it held is read from the database until the others have it.
    before = {number: held(one) for number, one in servers.items()}
    del servers[3]
    assert await found(servers[1], None, 10) == (expected, 64)
    assert stored.read == read + sizes[3]
    await settled(servers)
    for number, one in servers.items():
        assert held(one) & before[number] == before[number]
        assert held(one) & ~before[number] & ~before[3] == 0
    assert stored.read == read + 2 * sizes[3]
    assert await found(servers[2], None, 10) == (expected, 64)
    # Another one comes. The others hold what is to be its until it has it.
    Server(stored, servers, 9)
    assert await found(servers[9], None, 10) == (expected, 64)
    await servers[2].shards.settle()
    assert await found(servers[2], None, 10) == (expected, 64)
    await settled(servers)
    assert sum(held(one).bit_count() for one in servers.values()) == BUCKETS
    assert held(servers[9]).bit_count() > BUCKETS // 8
    read = stored.read
    assert await found(servers[4], "ann", 10) == (expected, 64)
    assert stored.read == read


async def test_what_comes_while_a_part_is_read_is_in_it() -> None:
    stored, servers = four()
    await servers[1].shards.index_of(SPACE)
    index = servers[1].shards._held[SPACE.id][1]
    part = held(servers[1])
    more = iter([embedding(place, DIRECTIONS[0], "bob", 31) for place in range(64, 96)])
    true_read = stored.embeddings

    def read(space: int, after: int, **options: Any) -> Any:
        for page in true_read(space, after, **options):
            # Once that is read, what came meanwhile is, and nobody follows.
            if not after and (one := next(more, None)) is not None:
                stored.rows.append(one)
                stored.embeddings = true_read  # type: ignore[method-assign]
                index.follow(stored, SPACE)  # type: ignore[arg-type]
                stored.embeddings = read  # type: ignore[method-assign,assignment]
            yield page

    stored.embeddings = read  # type: ignore[method-assign,assignment]
    index.hold(stored, SPACE, ALL)  # type: ignore[arg-type]
    stored.embeddings = true_read  # type: ignore[method-assign]
    assert part != ALL
    assert len(stored.rows) > 66
    stored.rows += more
    assert index.follow(stored, SPACE) == ALL  # type: ignore[arg-type]
    assert index.count(None) == len(stored.rows) == 96
    best = index.answer(QUERY, 96, None, ALL, ()).best
    assert len({seq for _, seq in best}) == 96


async def test_a_part_that_cannot_be_read_leaves_what_is_there() -> None:
    stored, servers = four()
    await found(servers[1], None, 3)
    index = servers[1].shards._held[SPACE.id][1]
    part, count = index.buckets, index.count(None)
    true_read, pages = stored.embeddings, 0

    def broken(*arguments: Any, **options: Any) -> Any:
        nonlocal pages
        for page in true_read(*arguments, **options):
            pages += 1
            if pages > 1:
                raise OSError("gone")
            yield page

    stored.embeddings = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="gone"):
        index.hold(stored, SPACE, ALL)  # type: ignore[arg-type]
    stored.embeddings = true_read  # type: ignore[method-assign]
    assert (index.buckets, index.count(None)) == (part, count)
    index.hold(stored, SPACE, ALL)  # type: ignore[arg-type]
    assert index.count(None) == 64


async def test_vectors_that_nobody_searches_any_more_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, servers = four()
    await found(servers[1], None, 3)
    await servers[2].shards.settle()
    assert held(servers[2])
    servers[1].shards._held.clear()
    for number in (3, 4):
        servers[number].shards._held.clear()
    monkeypatch.setattr(shards, "KEPT", -1.0)
    await servers[2].shards.settle()
    assert not held(servers[2])
