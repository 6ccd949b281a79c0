"""Embeddings that are compared are all of one upstream, for as long as it is up."""

from __future__ import annotations

import pytest

from llcuda_net.analysis.embedding_backend import Elected
from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import ErrorCode
from tests.support.upstream.scripted_upstream import Talker, member

BOTH = frozenset([COMPLETIONS, EMBEDDINGS])


async def elected(*specs: tuple[str, str, frozenset[str]]) -> tuple[Pool, Elected]:
    """Of upstreams by name, model and roles; all watched, so that they may be down."""
    pool = Pool([member(Talker(model=m), name, model=m, roles=roles) for name, m, roles in specs])
    await pool.prepare()
    for one in pool.members:
        one.watched = True
    return pool, Elected(pool)


def name(of: Elected) -> str | None:
    return None if of.member is None else of.member.name


async def test_the_first_that_embeds_and_is_up() -> None:
    pool, one = await elected(
        ("a", "m", frozenset([COMPLETIONS])), ("b", "n", BOTH), ("c", "n", BOTH)
    )
    assert name(one) == "b"
    assert one.properties is not None
    assert (one.properties.model, one.need.only, one.need.role) == ("n", "b", EMBEDDINGS)
    assert (await one.ask()).model == "n"
    assert await one.embed(["four"]) == [[[4.0, 1.0]]]
    assert one.fingerprint()["name"] == "n"
    await one.settled()
    lease = pool.place(one.need)
    assert lease is not None
    assert lease.member.name == "b"


async def test_it_stays_as_long_as_it_is_up_and_another_of_its_model_follows() -> None:
    pool, one = await elected(("a", "m", BOTH), ("b", "n", BOTH), ("c", "m", BOTH))
    a, b, c = pool.members
    assert name(one) == "a"
    a.breaker.trip("gone")
    assert name(one) == "c"  # not b: its vectors would be of another model
    a.breaker.ok()
    assert name(one) == "c"
    pool.drain(c)
    assert name(one) == "a"
    a.breaker.trip("gone")
    assert name(one) is None  # b has another model
    a.breaker.ok()
    assert name(one) == "a"
    pool.drain(a)
    assert name(one) == "b"
    b.breaker.trip("gone")
    assert name(one) is None


async def test_where_there_is_none() -> None:
    pool, one = await elected(("a", "m", BOTH))
    pool.members[0].breaker.trip("gone")
    assert (one.member, one.properties, one.fingerprint()) == (None, None, {})
    await one.settled()
    with pytest.raises(RequestError) as caught:
        await one.embed(["x"])
    assert (caught.value.code, caught.value.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
    pool, one = await elected(("a", "m", frozenset([COMPLETIONS])))
    with pytest.raises(RequestError) as caught:
        await one.ask()
    assert (caught.value.code, caught.value.retry) == (ErrorCode.UNSUPPORTED, False)
