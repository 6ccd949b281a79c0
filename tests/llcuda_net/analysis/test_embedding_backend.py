"""Embeddings that are compared are all of one upstream, for as long as it is up."""

from __future__ import annotations

import pytest

from llcuda_net.analysis.embedding_backend import EmbeddingBackend
from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import ErrorCode
from tests.support.upstream.scripted_upstream import Talker, backend

BOTH = frozenset([COMPLETIONS, EMBEDDINGS])


async def elected(*specs: tuple[str, str, frozenset[str]]) -> tuple[Pool, EmbeddingBackend]:
    """Of upstreams by name, model and roles; all watched, so that they may be down."""
    pool = Pool([backend(Talker(model=m), name, model=m, roles=roles) for name, m, roles in specs])
    await pool.prepare()
    for one in pool.backends:
        one.watched = True
    return pool, EmbeddingBackend(pool)


def name(of: EmbeddingBackend) -> str | None:
    return None if of.backend is None else of.backend.name


async def test_the_first_that_embeds_and_is_up() -> None:
    pool, one = await elected(
        ("a", "m", frozenset([COMPLETIONS])), ("b", "n", BOTH), ("c", "n", BOTH)
    )
    assert name(one) == "b"
    assert one.properties is not None
    assert (one.properties.model, one.requirement.only, one.requirement.role) == (
        "n",
        "b",
        EMBEDDINGS,
    )
    assert (await one.ask()).model == "n"
    assert await one.embed(["four"]) == [[[4.0, 1.0]]]
    assert one.fingerprint()["name"] == "n"
    await one.settled()
    lease = pool.place(one.requirement)
    assert lease is not None
    assert lease.backend.name == "b"


async def test_it_stays_as_long_as_it_is_up_and_another_of_its_model_follows() -> None:
    pool, one = await elected(("a", "m", BOTH), ("b", "n", BOTH), ("c", "m", BOTH))
    a, b, c = pool.backends
    assert name(one) == "a"
    a.breaker.trip("gone")
    assert name(one) == "c"  # not b: its vectors would be of another model
    a.breaker.record_success()
    assert name(one) == "c"
    pool.drain(c)
    assert name(one) == "a"
    a.breaker.trip("gone")
    assert name(one) is None  # b has another model
    a.breaker.record_success()
    assert name(one) == "a"
    pool.drain(a)
    assert name(one) == "b"
    b.breaker.trip("gone")
    assert name(one) is None


async def test_where_there_is_none() -> None:
    pool, one = await elected(("a", "m", BOTH))
    pool.backends[0].breaker.trip("gone")
    assert (one.backend, one.properties, one.fingerprint()) == (None, None, {})
    await one.settled()
    with pytest.raises(RequestError) as caught:
        await one.embed(["x"])
    assert (caught.value.code, caught.value.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
    pool, one = await elected(("a", "m", frozenset([COMPLETIONS])))
    with pytest.raises(RequestError) as caught:
        await one.ask()
    assert (caught.value.code, caught.value.retry) == (ErrorCode.UNSUPPORTED, False)
