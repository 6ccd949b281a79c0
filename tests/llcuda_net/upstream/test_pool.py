"""Which upstream gets what: models, places, and upstreams that come and go."""

from __future__ import annotations

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.interface import Requirement
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.prompts.prefix_cache import BLOCK, chain_of
from llcuda_net.upstream.slots.lease import Lease
from tests.support.upstream.pools import name_of, place, pool_of
from tests.support.upstream.scripted_upstream import Talker, backend, backends

CHAT = "x" * 4 * BLOCK


async def test_few_long_prompts_are_read_at_once() -> None:
    pool = Pool(backends(Talker(slots=4), Talker(slots=4), model="m"), long_prompts=1)
    await pool.prepare()
    requirement = Requirement(pool.key_of(None), long=True)
    first, second = place(pool, requirement), place(pool, requirement)
    assert {name_of(first), name_of(second)} == {"a", "b"}
    assert place(pool, requirement) is None
    assert pool.why(requirement) == "another long prompt is being read"
    assert place(pool) is not None  # short ones go on
    assert first is not None
    await pool.wait_change()
    with trio.move_on_after(0):  # nothing is new
        await pool.wait_change()
        raise AssertionError
    first.first_token()
    await pool.wait_change()
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
    await pool.properties(pool.backends[1])
    assert pool.why(requirement) == "all 3 slots are in use"
    for one in pool.backends:
        one.watched = True
        one.breaker.trip(f"{one.name} broke")
    assert pool.why(requirement) == "no upstream answers (a: a broke; b: b broke)"


@settings(max_examples=60, deadline=None, derandomize=True)
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
                new.learn(await new.upstream.ask())
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
                    one.breaker.record_success()
            elif pool.backends:
                requirement = Requirement(
                    data.draw(st.sampled_from(["", *sorted({m.model_key for m in pool.backends})])),
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
