"""Which upstream gets what: models, places, and upstreams that come and go."""

from __future__ import annotations

import math

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.lease import Lease, Requirement
from llcuda_net.upstream.pool import SLACK, Pool
from llcuda_net.upstream.prefix_cache import BLOCK, chain_of
from llcuda_net.upstream.slots import Use
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
    assert pool.elsewhere(requirement)
    b = pool.backends[1]
    b.watched = True
    b.breaker.trip("gone")
    # The only one that is there is better than none.
    assert name_of(place(pool, requirement)) == "a"


async def test_few_long_prompts_are_read_at_once() -> None:
    pool = Pool(backends(Talker(slots=4), Talker(slots=4), model="m"), long_prompts=1)
    await pool.prepare()
    news: list[int] = []
    pool.on_change = lambda: news.append(1)
    requirement = Requirement(pool.key_of(None), long=True)
    first, second = place(pool, requirement), place(pool, requirement)
    assert {name_of(first), name_of(second)} == {"a", "b"}
    assert place(pool, requirement) is None
    assert pool.why(requirement) == "another long prompt is being read"
    assert place(pool) is not None  # short ones go on
    assert first is not None
    news.clear()
    first.first_token()
    assert news
    third = place(pool, requirement)
    assert third is not None
    assert third.backend is first.backend
    third.release()
    assert place(pool, requirement) is not None


async def test_why_there_is_no_place_is_told() -> None:
    pool = await pool_of(Talker(slots=1))
    requirement = Requirement(pool.key_of(None))
    assert place(pool) is not None
    assert pool.why(requirement) == "the only slot is in use"
    pool.add(backend(Talker(slots=2), "b", model="m"))
    await pool.backends[1].properties()
    assert pool.why(requirement) == "all 3 slots are in use"
    for one in pool.backends:
        one.watched = True
        one.breaker.trip(f"{one.name} broke")
    assert pool.why(requirement) == "no upstream answers (a: a broke; b: b broke)"


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
        a.lease(
            Requirement(""), next(s for s in a.table if s.use is Use.FREE and not s.chain), 0, ""
        )
    assert math.ceil(SLACK * 3 / 2) == 2
    assert name_of(place(pool, text=CHAT)) == "b"
    for _ in range(2):
        b.lease(Requirement(""), next(s for s in b.table if s.use is Use.FREE), 0, "")
    assert name_of(place(pool, text=CHAT)) == "a"


async def test_not_where_the_cache_is_worth_nothing() -> None:
    pool = await pool_of(Talker(slots=8), Talker(slots=8))
    a = pool.backends[0]
    for _ in range(10):
        lease = a.lease(Requirement(""), next(iter(a.table)), 4, "")
        answered(lease, CHAT, cached=0)
    assert not a.trust.believed()
    a.lease(Requirement(""), list(a.table)[7], 0, "")  # so b is freer
    assert name_of(place(pool, text=CHAT)) == "b"
    for _ in range(10):
        lease = a.lease(Requirement(""), next(iter(a.table)), 4, "")
        answered(lease, CHAT, cached=4 * BLOCK // 4)
    assert name_of(place(pool, text=CHAT)) == "a"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_place_is_always_one_that_may_be_given(data: st.DataObject) -> None:
    """Whatever happens: up, able, one to a slot, and none only where there is none."""

    async def main() -> None:
        pool = Pool(long_prompts=1)
        pool.watched = True
        held: list[Lease] = []
        names = iter("abcdefghijklmnopqrstuvwxyz" * 4)
        model_keys: dict[Backend, str] = {}
        for _ in range(data.draw(st.integers(5, 40))):
            step = data.draw(
                st.sampled_from(["add", "drain", "trip", "ok", "give", *["place"] * 5])
            )
            if step == "add" and len(pool.backends) < 5:
                roles = data.draw(st.sampled_from([{COMPLETIONS}, {COMPLETIONS, EMBEDDINGS}]))
                new = backend(
                    Talker(slots=data.draw(st.integers(1, 3))),
                    f"{next(names)}{len(model_keys)}",
                    model=data.draw(st.sampled_from(["m", "n"])),
                    roles=frozenset(roles),
                    weight=data.draw(st.sampled_from([0.5, 1.0, 4.0])),
                )
                await new.properties()
                new.watched = True
                pool.add(new)
                model_keys[new] = new.model_key
            elif step == "give" and held:
                lease = held.pop(data.draw(st.integers(0, len(held) - 1)))
                lease.done(data.draw(st.sampled_from(["", CHAT])), None)
                lease.release()
            elif step != "place" and pool.backends:
                one = data.draw(st.sampled_from(pool.backends))
                if step == "drain":
                    pool.drain(one)
                elif step == "trip":
                    one.breaker.trip("test")
                elif step == "ok":
                    one.breaker.ok()
            elif pool.backends:
                requirement = Requirement(
                    data.draw(st.sampled_from(["", *{m.model_key for m in pool.backends}])),
                    data.draw(st.sampled_from([COMPLETIONS, EMBEDDINGS])),
                    data.draw(st.booleans()),
                    frozenset(
                        data.draw(st.lists(st.sampled_from([m.name for m in pool.backends])))
                    ),
                    data.draw(st.sampled_from([None, *[m.name for m in pool.backends]])),
                    chain_of(data.draw(st.sampled_from(["", CHAT]))),
                )
                check(pool, requirement, held)
            assert all(one.model_key == model_key for one, model_key in model_keys.items())
            for key in set(model_keys.values()):
                assert len({one.spec.model for one in model_keys if one.model_key == key}) == 1

    def check(pool: Pool, requirement: Requirement, held: list[Lease]) -> None:
        able = [
            m
            for m in pool.backends
            if m.breaker.closed
            and not m.draining
            and requirement.role in m.roles
            and requirement.model in ("", m.model_key)
            and requirement.only in (None, m.name)
        ]
        wanted = [m for m in able if m.name not in requirement.avoid] or able
        room = [
            m
            for m in wanted
            if m.free and not (requirement.long and any(x.reading for x in m.leases))
        ]
        lease = pool.place(requirement)
        assert (lease is not None) == bool(room)
        if lease is not None:
            assert lease.backend in room
            assert all(one.slot is not lease.slot for one in held)
            held.append(lease)

    trio.run(main)
