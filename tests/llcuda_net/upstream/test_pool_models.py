"""Which upstreams serve one model, and upstreams that come and go."""

from __future__ import annotations

import pytest
import trio

from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS
from llcuda_net.errors import RequestError
from llcuda_net.upstream.interface import Requirement
from llcuda_protocol import ErrorCode
from tests.support.upstream.pools import answered, name_of, place, running
from tests.support.upstream.scripted_upstream import Talker, backend, backends, gone

OTHER = {n + 700: -1.0 for n in range(20)}


# -- models -----------------------------------------------------------------------------------


async def test_upstreams_of_one_model_are_one(autojump_clock: object) -> None:
    async with running(backends(Talker(), Talker(), Talker(slots=1))) as pool:
        assert len({one.model_key for one in pool.backends}) == 1
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
    async with running(backends(one, other)) as pool:
        a, b = pool.backends
        assert a.model_key != b.model_key
        assert pool.key_of(None) == pool.key_of("fake") == a.model_key
        assert pool.key_of("other") == b.model_key
        assert [model["default"] for model in pool.models()] == [True, False]
        assert (pool.context(a.model_key), pool.context(b.model_key)) == (512, 256)
        with pytest.raises(RequestError, match="no upstream has the model 'third'") as caught:
            pool.key_of("third")
        assert caught.value.code == ErrorCode.UNKNOWN_MODEL
        assert "there are: fake, other" in caught.value.message
        requirement = Requirement(b.model_key)
        assert {name_of(pool.place(requirement)) for _ in range(3)} == {"b", ""}


async def test_the_operator_may_say_which_is_which(autojump_clock: object) -> None:
    found = [
        backend(Talker(model="x"), "a", model="big"),
        backend(Talker(model="y"), "b", model="big"),
        backend(Talker(model="z"), "c", model="small"),
    ]
    async with running(found) as pool:
        a, b, c = pool.backends
        assert a.model_key == b.model_key != c.model_key
        assert pool.key_of("big") == a.model_key
        assert pool.key_of("small") == c.model_key
        with pytest.raises(RequestError, match="there are: big, small"):
            pool.key_of("z")
        assert all(one.signature is None for one in pool.backends)  # nobody had to ask


async def test_a_model_that_is_away_is_known(autojump_clock: object) -> None:
    one, other = Talker(), Talker(model="other")
    other.logprobs = OTHER
    async with running(backends(one, other)) as pool:
        model_key = pool.backends[1].model_key
        other.die()
        await trio.sleep(3)
        assert not pool.backends[1].up
        assert pool.key_of("other") == model_key
        assert pool.may_recover(Requirement(model_key))
        pool.check(model_key)
        other.back()
        await trio.sleep(20)
        assert pool.backends[1].up
        assert pool.backends[1].model_key == model_key


async def test_one_that_comes_back_with_another_model(autojump_clock: object) -> None:
    upstreams = Talker(), Talker()
    async with running(backends(*upstreams)) as pool:
        a, b = pool.backends
        model_key = a.model_key
        assert b.model_key == model_key
        upstreams[0].die()
        await trio.sleep(3)
        upstreams[0].logprobs = OTHER
        upstreams[0].back(model="new")
        await trio.sleep(20)
        assert a.up
        assert b.model_key == model_key  # requests have that key
        assert a.model_key not in ("", model_key)
        assert pool.key_of("new") == a.model_key
        assert pool.key_of("fake") == model_key


async def test_another_model_is_noticed_without_a_failure(autojump_clock: object) -> None:
    """It was restarted while nobody looked; an answer tells another name, and it is asked anew."""
    upstreams = Talker(), Talker()
    async with running(backends(*upstreams)) as pool:
        a, b = pool.backends
        model_key = b.model_key
        upstreams[0].logprobs = OTHER
        upstreams[0].back(model="new")
        upstreams[0].forget()
        await trio.sleep(5)
        assert a.up
        assert b.model_key == model_key
        assert a.model_key not in ("", model_key)


async def test_one_that_tells_nothing_of_its_model_is_used_by_its_name(
    autojump_clock: object,
) -> None:
    one, other = Talker(), Talker(model="other")
    other.logprobs = None
    async with running(backends(one, other)) as pool:
        b = pool.backends[1]
        assert b.up
        assert b.model_key not in ("", pool.backends[0].model_key)
        assert pool.key_of("other") == b.model_key


async def test_what_embeds_only_is_found_by_its_name(autojump_clock: object) -> None:
    found = [
        backend(Talker(), "a", roles=frozenset([COMPLETIONS])),
        backend(Talker(model="vectors"), "b", roles=frozenset([EMBEDDINGS])),
    ]
    async with running(found) as pool:
        key = pool.key_of("vectors", EMBEDDINGS)
        assert name_of(pool.place(Requirement(key, EMBEDDINGS))) == "b"
        assert pool.key_of(None, EMBEDDINGS) == key
        assert pool.key_of(None) == pool.backends[0].model_key != key


async def test_a_role_that_nobody_has(autojump_clock: object) -> None:
    found = [backend(Talker(), "a", roles=frozenset([COMPLETIONS]))]
    async with running(found) as pool:
        with pytest.raises(RequestError, match="no upstream is used for embeddings") as caught:
            pool.key_of(None, EMBEDDINGS)
        assert caught.value.code == ErrorCode.UNSUPPORTED


async def test_what_nobody_has_seen_yet_is_refused_at_once(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.away = gone("connection refused")
    async with running(backends(upstream)) as pool:
        with pytest.raises(RequestError, match="a: connection refused") as caught:
            pool.check(pool.key_of(None))
        assert (caught.value.code, caught.value.retry) == (ErrorCode.UPSTREAM_UNAVAILABLE, True)
        assert not pool.may_recover(Requirement(pool.key_of(None)))
        upstream.back()
        await trio.sleep(30)
        pool.check(pool.key_of(None))


async def test_how_long_a_model_has_been_away(autojump_clock: object) -> None:
    upstreams = Talker(), Talker()
    async with running(backends(*upstreams, model="m")) as pool:
        model_key = pool.key_of(None)
        a, b = pool.backends
        a.record_failure(gone())
        upstreams[0].die()
        assert pool.outage(Requirement(model_key)) == 0.0
        await trio.sleep(5)
        upstreams[1].die()
        b.record_failure(gone())
        await trio.sleep(7)
        assert pool.outage(Requirement(model_key)) == pytest.approx(7)
        upstreams[0].back()
        await trio.sleep(20)
        assert pool.outage(Requirement(model_key)) == 0.0


# -- upstreams that come and go ---------------------------------------------------------------


async def test_one_more_takes_work_and_one_that_is_drained_ends_its_own(
    autojump_clock: object,
) -> None:
    async with running(backends(Talker(slots=1))) as pool:
        (a,) = pool.backends
        model_key = a.model_key
        first = place(pool)
        assert first is not None
        assert place(pool) is None
        pool.add(backend(Talker(slots=1), "b"))
        await trio.sleep(3)
        # The one that was alone is told from others now, when its slot allows.
        pool.drain(a)
        assert (a.state, place(pool, Requirement(model_key))) == ("draining", None)
        assert a in pool.backends
        answered(first)
        await trio.sleep(3)
        assert a not in pool.backends
        assert a not in pool._scopes
        assert name_of(place(pool)) == "b"


async def test_one_that_is_drained_while_it_idles_goes_at_once(autojump_clock: object) -> None:
    async with running(backends(Talker(), Talker(), model="m")) as pool:
        a, b = pool.backends
        pool.drain(a)
        assert pool.backends == [b]


async def test_a_drained_one_goes_when_what_it_did_was_broken_off(autojump_clock: object) -> None:
    async with running(backends(Talker(slots=1), Talker(slots=1), model="m")) as pool:
        a, b = pool.backends
        lease = pool.place(Requirement("", only=a.name))
        assert lease is not None
        lease.sent()
        pool.drain(a)
        lease.release()
        await trio.sleep(3)
        assert pool.backends == [b]


async def test_one_that_goes_as_soon_as_it_came_is_not_watched(autojump_clock: object) -> None:
    async with running(backends(Talker(), model="m")) as pool:
        upstream = Talker()
        late = backend(upstream, "b", model="m")
        pool.add(late)
        pool.drain(late)
        await trio.sleep(3)
        assert late not in pool._scopes
        assert len(pool.backends) == 1


async def test_a_model_that_left_for_good_is_an_outage(autojump_clock: object) -> None:
    """Or what waits for it would wait for ever."""
    one, other = Talker(), Talker(model="other")
    other.logprobs = OTHER
    async with running(backends(one, other)) as pool:
        model_key = pool.key_of("other")
        pool.drain(pool.backends[1])
        pool.outage(Requirement(model_key))
        await trio.sleep(9)
        assert pool.outage(Requirement(model_key)) == pytest.approx(9)
