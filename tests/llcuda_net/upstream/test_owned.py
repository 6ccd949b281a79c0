"""Upstreams of which another server of the cluster may have some: what is asked of those, and what
is not."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.errors import UnknownModel, UpstreamUnavailable
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.slots.table import Use
from tests.support.upstream.pools import name_of, place, running
from tests.support.upstream.scripted_upstream import Talker
from tests.support.upstream.watched import uses

A, B = "http://a:8080", "http://b:8080"


def two() -> tuple[Talker, Talker, list[Backend]]:
    first, second = Talker(slots=1), Talker(slots=1)
    specs = (
        UpstreamSpec("http://ann:secret@A:8080/", "a", model="m"),
        UpstreamSpec(B, "b", model="m"),
    )
    return first, second, [Backend(specs[0], first), Backend(specs[1], second)]


async def test_only_what_is_owned_gets_work(autojump_clock: object) -> None:
    _, _, backends = two()
    async with running(backends) as pool:
        requirement = Requirement(pool.key_of("m"))
        pool.own([A])
        await trio.sleep(1)
        assert [one.state for one in backends] == ["up", "elsewhere"]
        assert backends[1].reason == "another server of the cluster asks it"
        first = place(pool, requirement)
        assert name_of(first) == "a"
        assert place(pool, requirement) is None
        assert pool.why(requirement) == "the only slot is in use"
        assert pool.outage(requirement) == 0
        pool.own([B])
        assert first is not None
        assert first.backend.in_use  # what runs there goes on
        assert [one.slots_here for one in backends] == [1, 1]
        await trio.sleep(1)
        second = place(pool, requirement)
        assert name_of(second) == "b"
        first.release()
        await trio.sleep(1)
        assert [one.slots_here for one in backends] == [0, 1]
        assert place(pool, requirement) is None
        pool.own([])
        await trio.sleep(3)
        assert 3 <= pool.outage(requirement) < 5
        assert pool.can_serve(requirement) is False
        assert pool.may_recover(requirement)
        pool.own(None)
        await trio.sleep(1)
        assert name_of(place(pool, requirement)) == "a"


async def test_those_that_come_later_are_owned_by_the_same_rule(autojump_clock: object) -> None:
    _, _, backends = two()
    pool = Pool()
    pool.own([B])
    for backend in backends:
        pool.add(backend)
    assert [one.owned for one in backends] == [False, True]
    others = [Backend(UpstreamSpec(A, name, model="m"), Talker()) for name in ("c", "d")]
    pool.replace(backends[1], others)
    assert [one.owned for one in others] == [False, False]


async def test_who_gets_an_upstream_waits_until_its_slots_are_seen_to_be_free(
    autojump_clock: object,
) -> None:
    upstream, _, backends = two()
    async with running(backends) as pool:
        pool.own([B])
        upstream.working.add(0)  # another server's, who is gone
        await trio.sleep(5)
        assert uses(backends[0]) == ["free"]  # nobody looks
        requirement = Requirement(pool.key_of("m"), only="a")
        pool.own([A])
        assert place(pool, requirement) is None
        await trio.sleep(5)
        assert place(pool, requirement) is None
        upstream.working.clear()
        await trio.sleep(1.5)
        assert name_of(place(pool, requirement)) == "a"


async def test_what_another_server_has_is_not_made_to_generate(autojump_clock: object) -> None:
    # Their models are told apart by a token that each must make.
    upstream, other = Talker(slots=1), Talker(slots=1, model="other")
    backends = [Backend(UpstreamSpec(A, "a"), upstream), Backend(UpstreamSpec(B, "b"), other)]
    pool = Pool(backends)
    pool.own([B])
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        await pool.prepare()
        await trio.sleep(3)
        assert (upstream.probes, other.probes) == (0, 1)
        assert (backends[0].model, backends[0].model_key) == ("fake", "")
        with pytest.raises(UpstreamUnavailable, match="asked by this server") as refused:
            pool.key_of("fake")
        assert refused.value.retry
        with pytest.raises(UnknownModel):
            pool.key_of("no such")
        upstream.die()
        await trio.sleep(5)
        assert backends[0].state in ("down", "probing")
        upstream.back()
        await trio.sleep(120)
        assert (backends[0].state, upstream.probes) == ("elsewhere", 0)
        assert backends[0].table.count(Use.FREE) == 1
        pool.own([A, B])
        await trio.sleep(0.1)
        assert upstream.probes == 1
        assert backends[0].model_key
        nursery.cancel_scope.cancel()
