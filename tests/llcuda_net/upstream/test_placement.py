"""Which backend and slot a request gets, of those that are free."""

from __future__ import annotations

import math
from dataclasses import replace

from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.placement import SLACK, within_reach
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prompts.prefix_cache import BLOCK, chain_of
from llcuda_net.upstream.slots.lease import Lease
from llcuda_net.upstream.slots.step_time import Sample
from llcuda_net.upstream.slots.table import Use
from tests.support.upstream.pools import answered, name_of, place, pool_of
from tests.support.upstream.scripted_upstream import Talker, backend, backends

CHAT = "x" * 4 * BLOCK


# -- places -----------------------------------------------------------------------------------


async def test_work_is_shared_by_free_slots() -> None:
    pool = await pool_of(Talker(slots=2), Talker(slots=4))
    places = [name_of(place(pool)) for _ in range(7)]
    assert (places.count("a"), places.count("b"), places[-1]) == (2, 4, "")
    assert set(places[:2]) == {"a", "b"}


async def test_a_weight_is_a_greater_share() -> None:
    heavy, light = backends(Talker(slots=6), Talker(slots=6), model="m")
    heavy.spec = backend(Talker(), "a", model="m", weight=3.0).spec
    pool = Pool([light, heavy])
    await pool.prepare()
    places = [name_of(place(pool)) for _ in range(6)]
    assert places.count("a") >= 4


async def test_only_what_is_up_and_able_gets_work() -> None:
    pool = await pool_of(Talker(), Talker(), Talker())
    a, b, c = pool.backends
    for one in pool.backends:
        one.watched = True
    a.breaker.trip("gone")
    b.draining = True
    model_key = pool.key_of(None)
    assert {name_of(place(pool)) for _ in range(3)} == {"c", ""}
    assert place(pool, Requirement(model_key, only="a")) is None
    assert place(pool, Requirement("another")) is None
    assert place(pool, Requirement(model_key, role="none")) is None
    assert c.busy == 2


async def test_those_that_failed_at_it_are_avoided_while_there_are_others() -> None:
    pool = await pool_of(Talker(slots=4), Talker(slots=1))
    model_key = pool.key_of(None)
    requirement = Requirement(model_key, avoid=frozenset("a"))
    assert name_of(place(pool, requirement)) == "b"
    assert place(pool, requirement) is None  # there is one: it is waited for
    assert pool.can_serve(requirement)
    b = pool.backends[1]
    b.watched = True
    b.breaker.trip("gone")
    # The only one that is there is better than none.
    assert name_of(place(pool, requirement)) == "a"


async def test_tools_go_where_they_are_known() -> None:
    without, able = Talker(slots=4), Talker(slots=2)
    without.says = replace(without.says, tools=False)
    pool = await pool_of(without, able)
    tools = Requirement(pool.key_of(None), abilities=frozenset({"tools"}))
    assert [name_of(place(pool, tools)) for _ in range(3)] == ["b", "b", ""]
    assert name_of(place(pool)) == "a"


async def test_images_go_where_they_are_seen() -> None:
    blind, seeing = Talker(slots=4), Talker(slots=2)
    seeing.says = replace(seeing.says, images=True)
    pool = await pool_of(blind, seeing)
    images = Requirement(pool.key_of(None), abilities=frozenset({"images"}))
    both = Requirement(pool.key_of(None), abilities=frozenset({"images", "audio"}))
    assert [name_of(place(pool, images)) for _ in range(3)] == ["b", "b", ""]
    assert pool.can_serve(images)
    # One that failed at it is better than one that cannot do it at all.
    a, b = pool.backends
    reach = within_reach(pool.backends, replace(images, avoid=frozenset("b")), 0.0)
    assert (b.meets(reach), a.meets(reach)) == (True, False)
    # Where nobody can, whoever gets it says so.
    assert not pool.can_serve(both)
    assert name_of(place(pool, both)) == "a"
    # What is not known of one that is away does not rule it out.
    b.upstream.forget()
    assert b.meets(both)


# -- prefixes ---------------------------------------------------------------------------------


async def test_a_conversation_stays_where_it_began() -> None:
    pool = await pool_of(Talker(slots=4), Talker(slots=4))
    leases = [place(pool) for _ in range(5)]
    for n, one in enumerate(leases):
        assert one is not None
        answered(one, f"{n}" * 4 * BLOCK)
    for n, one in enumerate(leases):
        assert one is not None
        again = place(pool, text=f"{n}" * 4 * BLOCK + " and then?")
        assert again is not None
        assert again.slot is one.slot
        again.release()


async def test_not_where_its_upstream_has_more_than_its_share() -> None:
    pool = await pool_of(Talker(slots=8), Talker(slots=8))
    a, b = pool.backends
    first = place(pool)
    assert first is not None
    answered(first, CHAT)
    assert first.backend is a
    # a has two to do, and b nothing: of three the share is 1.5, and 2 with slack.
    for _ in range(2):
        Lease(a, next(s for s in a.table if s.use is Use.FREE and not s.chain), Requirement(""))
    assert math.ceil(SLACK * 3 / 2) == 2
    assert name_of(place(pool, text=CHAT)) == "b"
    for _ in range(2):
        Lease(b, next(s for s in b.table if s.use is Use.FREE), Requirement(""))
    assert name_of(place(pool, text=CHAT)) == "a"


async def test_not_where_the_cache_is_worth_nothing() -> None:
    pool = await pool_of(Talker(slots=8), Talker(slots=8))
    a = pool.backends[0]
    for _ in range(10):
        lease = Lease(a, next(iter(a.table)), Requirement(""), 4)
        answered(lease, CHAT, cached=0)
    assert not a.hit_rate.trusted()
    Lease(a, list(a.table)[7], Requirement(""))  # so b is freer
    assert name_of(place(pool, text=CHAT)) == "b"
    for _ in range(10):
        lease = Lease(a, next(iter(a.table)), Requirement(""), 4)
        answered(lease, CHAT, cached=4 * BLOCK // 4)
    assert name_of(place(pool, text=CHAT)) == "a"


async def test_each_keeps_what_it_runs_together_and_both_have_their_share() -> None:
    pool = await pool_of(Talker(slots=8), Talker(slots=8))
    leases = [place(pool) for _ in range(8)]
    assert [one.table.active() for one in pool.backends] == [[0, 1, 2, 3]] * 2
    ended = leases[2]
    assert ended is not None
    ended.release()
    again = place(pool)
    assert again is not None
    assert (again.backend, again.slot) == (ended.backend, ended.slot)  # the gap is closed


async def test_a_prefix_that_is_not_worth_a_split_does_not_decide_the_upstream() -> None:
    pool = await pool_of(Talker(slots=8), Talker(slots=8))
    a, b = pool.backends
    for one in (a, b):
        for _ in range(3):
            one.speeds.record_steps(Sample(3.0, 2, 1, 50))
            one.speeds.record_steps(Sample(13.0, 2, 2, 50))
            one.speeds.reading.record(100, 1.0)
    list(a.table)[7].chain = chain_of(CHAT)
    for one in (a, b, a):
        Lease(one, next(s for s in one.table if s.use is Use.FREE), Requirement(""))
    # Far from those that a runs, and of 256 tokens, which are read in less than a step.
    placed = place(pool, text=CHAT)
    assert placed is not None
    assert (placed.backend, placed.slot.number) == (b, 1)
