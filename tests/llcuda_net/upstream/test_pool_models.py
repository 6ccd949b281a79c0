"""Which upstreams serve one model, and upstreams that come and go."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.upstream.lease import Need
from llcuda_protocol import ErrorCode
from tests.support.upstream.pools import answered, name_of, place, running
from tests.support.upstream.scripted_upstream import Talker, gone, member, members

OTHER = {n + 700: -1.0 for n in range(20)}


# -- models -----------------------------------------------------------------------------------


async def test_upstreams_of_one_model_are_one(autojump_clock: object) -> None:
    async with running(members(Talker(), Talker(), Talker(slots=1))) as pool:
        assert len({one.group for one in pool.members}) == 1
        (model,) = pool.models()
        assert model == {
            "name": "fake",
            "upstreams": ["a", "b", "c"],
            "slots": 5,
            "free": 5,
            "context": 512,
            "default": True,
        }


async def test_two_models_are_told_apart(autojump_clock: object) -> None:
    one, other = Talker(), Talker(model="other", context=256)
    other.logprobs = OTHER
    async with running(members(one, other)) as pool:
        a, b = pool.members
        assert a.group != b.group
        assert pool.key_of(None) == pool.key_of("fake") == a.group
        assert pool.key_of("other") == b.group
        assert [model["default"] for model in pool.models()] == [True, False]
        assert (pool.context(a.group), pool.context(b.group)) == (512, 256)
        with pytest.raises(RequestError, match="no upstream has the model 'third'") as caught:
            pool.key_of("third")
        assert caught.value.code == ErrorCode.UNKNOWN_MODEL
        assert "there are: fake, other" in caught.value.message
        need = Need(b.group)
        assert {name_of(pool.place(need)) for _ in range(3)} == {"b", ""}


async def test_the_operator_may_say_which_is_which(autojump_clock: object) -> None:
    found = [
        member(Talker(model="x"), "a", model="big"),
        member(Talker(model="y"), "b", model="big"),
        member(Talker(model="z"), "c", model="small"),
    ]
    async with running(found) as pool:
        a, b, c = pool.members
        assert a.group == b.group != c.group
        assert pool.key_of("big") == a.group
        assert pool.key_of("small") == c.group
        with pytest.raises(RequestError, match="there are: big, small"):
            pool.key_of("z")
        assert all(one.signature is None for one in pool.members)  # nobody had to ask


async def test_a_model_that_is_away_is_known(autojump_clock: object) -> None:
    one, other = Talker(), Talker(model="other")
    other.logprobs = OTHER
    async with running(members(one, other)) as pool:
        group = pool.members[1].group
        other.die()
        await trio.sleep(3)
        assert not pool.members[1].up
        assert pool.key_of("other") == group
        assert pool.hope(Need(group))
        pool.check(group)
        other.back()
        await trio.sleep(20)
        assert pool.members[1].up
        assert pool.members[1].group == group


async def test_one_that_comes_back_with_another_model(autojump_clock: object) -> None:
    upstreams = Talker(), Talker()
    async with running(members(*upstreams)) as pool:
        a, b = pool.members
        group = a.group
        assert b.group == group
        upstreams[0].die()
        await trio.sleep(3)
        upstreams[0].logprobs = OTHER
        upstreams[0].back(model="new")
        await trio.sleep(20)
        assert a.up
        assert b.group == group  # requests have that key
        assert a.group not in ("", group)
        assert pool.key_of("new") == a.group
        assert pool.key_of("fake") == group


async def test_another_model_is_noticed_without_a_failure(autojump_clock: object) -> None:
    """It was restarted while nobody looked; an answer tells another name, and it is asked anew."""
    upstreams = Talker(), Talker()
    async with running(members(*upstreams)) as pool:
        a, b = pool.members
        group = b.group
        upstreams[0].logprobs = OTHER
        upstreams[0].back(model="new")
        upstreams[0].forget()
        await trio.sleep(5)
        assert a.up
        assert b.group == group
        assert a.group not in ("", group)


async def test_one_that_tells_nothing_of_its_model_is_used_by_its_name(
    autojump_clock: object,
) -> None:
    one, other = Talker(), Talker(model="other")
    other.logprobs = None
    async with running(members(one, other)) as pool:
        b = pool.members[1]
        assert b.up
        assert b.group not in ("", pool.members[0].group)
        assert pool.key_of("other") == b.group


async def test_what_embeds_only_is_found_by_its_name(autojump_clock: object) -> None:
    found = [
        member(Talker(), "a", roles=frozenset([COMPLETIONS])),
        member(Talker(model="vectors"), "b", roles=frozenset([EMBEDDINGS])),
    ]
    async with running(found) as pool:
        key = pool.key_of("vectors", EMBEDDINGS)
        assert name_of(pool.place(Need(key, EMBEDDINGS))) == "b"
        assert pool.key_of(None, EMBEDDINGS) == key
        assert pool.key_of(None) == pool.members[0].group != key


async def test_a_role_that_nobody_has(autojump_clock: object) -> None:
    found = [member(Talker(), "a", roles=frozenset([COMPLETIONS]))]
    async with running(found) as pool:
        with pytest.raises(RequestError, match="no upstream is used for embeddings") as caught:
            pool.key_of(None, EMBEDDINGS)
        assert caught.value.code == ErrorCode.UNSUPPORTED


async def test_what_nobody_has_seen_yet_is_refused_at_once(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.away = gone("connection refused")
    async with running(members(upstream)) as pool:
        with pytest.raises(RequestError, match="a: connection refused") as caught:
            pool.check(pool.key_of(None))
        assert (caught.value.code, caught.value.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
        assert not pool.hope(Need(pool.key_of(None)))
        upstream.back()
        await trio.sleep(30)
        pool.check(pool.key_of(None))


async def test_how_long_a_model_has_been_away(autojump_clock: object) -> None:
    upstreams = Talker(), Talker()
    async with running(members(*upstreams, model="m")) as pool:
        group = pool.key_of(None)
        a, b = pool.members
        a.failed(gone())
        upstreams[0].die()
        assert pool.outage(Need(group)) == 0.0
        await trio.sleep(5)
        upstreams[1].die()
        b.failed(gone())
        await trio.sleep(7)
        assert pool.outage(Need(group)) == pytest.approx(7)
        upstreams[0].back()
        await trio.sleep(20)
        assert pool.outage(Need(group)) == 0.0


# -- upstreams that come and go ---------------------------------------------------------------


async def test_one_more_takes_work_and_one_that_is_drained_ends_its_own(
    autojump_clock: object,
) -> None:
    async with running(members(Talker(slots=1))) as pool:
        (a,) = pool.members
        group = a.group
        first = place(pool)
        assert first is not None
        assert place(pool) is None
        pool.add(member(Talker(slots=1), "b"))
        await trio.sleep(3)
        # The one that was alone is told from others now, when its slot allows.
        pool.drain(a)
        assert (a.state, place(pool, Need(group))) == ("draining", None)
        assert a in pool.members
        answered(first)
        await trio.sleep(3)
        assert a not in pool.members
        assert a not in pool._scopes
        assert name_of(place(pool)) == "b"


async def test_one_that_is_drained_while_it_idles_goes_at_once(autojump_clock: object) -> None:
    async with running(members(Talker(), Talker(), model="m")) as pool:
        a, b = pool.members
        pool.drain(a)
        assert pool.members == [b]


async def test_a_drained_one_goes_when_what_it_did_was_broken_off(autojump_clock: object) -> None:
    async with running(members(Talker(slots=1), Talker(slots=1), model="m")) as pool:
        a, b = pool.members
        lease = a.lease(Need(""), next(iter(a.table)), 0, "")
        lease.sent()
        pool.drain(a)
        lease.release()
        await trio.sleep(3)
        assert pool.members == [b]


async def test_one_that_goes_as_soon_as_it_came_is_not_watched(autojump_clock: object) -> None:
    async with running(members(Talker(), model="m")) as pool:
        upstream = Talker()
        late = member(upstream, "b", model="m")
        pool.add(late)
        pool.drain(late)
        await trio.sleep(3)
        assert late not in pool._scopes
        assert len(pool.members) == 1


async def test_a_model_that_left_for_good_is_an_outage(autojump_clock: object) -> None:
    """Or what waits for it would wait for ever."""
    one, other = Talker(), Talker(model="other")
    other.logprobs = OTHER
    async with running(members(one, other)) as pool:
        group = pool.key_of("other")
        pool.drain(pool.members[1])
        pool.outage(Need(group))
        await trio.sleep(9)
        assert pool.outage(Need(group)) == pytest.approx(9)
