"""What a failover cannot save: requests and upstreams that are given up, and other models."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import UpstreamLacks, request_error
from llcuda_net.generation.dispatcher import MOST_FAILURES, MOST_LOST, OTHERS
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_protocol import (
    Accepted,
    Cancel,
    Done,
    Embed,
    Error,
    ErrorCode,
    Queue,
)
from tests.support.server.failing_upstreams import begin, pair, read, rest
from tests.support.server.memory_server import all_quiet, ask, ready, serving, status
from tests.support.upstream.scripted_upstream import (
    ANSWER,
    PROMPT,
    STALL,
    Talker,
    backend,
    backends,
    broken,
    gone,
)

# -- what is given up, and what is not ---------------------------------------------------------


async def test_what_brings_all_down_is_given_up(autojump_clock: object) -> None:
    a, b, both = pair()
    a.fails = b.fails = gone("it fell over")
    async with serving(both, watched=True) as (server, listener):
        peer, _ = await begin(listener)
        _, error = await peer.until(Error)
        assert (error.code, error.message) == (ErrorCode.UPSTREAM_UNAVAILABLE, "it fell over")
        assert {len(a.prompts), len(b.prompts)} == {1, MOST_LOST - 1}
        a.fails = b.fails = None
        a.release(100)
        b.release(100)
        await trio.sleep(30)
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        await trio.sleep(2)
        await all_quiet(server, b, listener)


async def test_a_token_shows_that_it_was_not_the_request(autojump_clock: object) -> None:
    a, b, both = pair()
    a.paused = b.paused = False
    a.fails = b.fails = broken()
    a.fail_after = b.fail_after = 1
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener)
        text, splices, done = await rest(peer)
        assert (text, done.reason) == (ANSWER, "stop")
        assert len(splices) > MOST_FAILURES


@pytest.mark.parametrize(
    "code", [ErrorCode.INVALID_REQUEST, ErrorCode.CONTEXT_EXCEEDED, ErrorCode.UNSUPPORTED]
)
async def test_what_the_request_is_to_blame_for_is_not_tried_again(
    autojump_clock: object, code: str
) -> None:
    a, b, both = pair()
    a.fails = request_error(code, "the upstream refused it")
    async with serving(both, watched=True) as (_, listener):
        peer, _ = await begin(listener)
        _, error = await peer.until(Error)
        assert error.code == code
        assert (len(a.prompts), len(b.prompts)) == (1, 0)
        assert (both[0].state, both[0].failures, both[0].failovers) == ("up", 0, 0)


async def test_what_one_lacks_another_may_have(autojump_clock: object) -> None:
    a, b, both = pair()
    a.fails = UpstreamLacks("this llama-server has no /v1/chat/completions")
    b.release(100)
    async with serving(both, watched=True) as (_, listener):
        peer, _ = await begin(listener)
        text, splices, done = await rest(peer)
        assert (text, splices, done.reason) == (ANSWER, [], "stop")
        assert (len(a.prompts), len(b.prompts)) == (1, 1)
        assert (both[0].state, both[0].failures) == ("up", 0)


@pytest.mark.parametrize("count", [1, 2])
async def test_what_all_lack_is_the_requests_own_error(autojump_clock: object, count: int) -> None:
    some = [Talker() for _ in range(count)]
    for one in some:
        one.fails = UpstreamLacks("this llama-server has no /v1/chat/completions")
    both = backends(*some, model="m")
    async with serving(both, watched=True) as (_, listener):
        for _ in range(5):  # one that failed so often would be down
            peer, _ = await begin(listener)
            _, error = await peer.until(Error)
            assert error.code == ErrorCode.UNSUPPORTED
        assert [len(one.prompts) for one in some] == [5] * count
        assert {(one.state, one.failures) for one in both} == {("up", 0)}


@pytest.mark.parametrize("comes_back", [True, False])
async def test_where_the_other_one_is_away_it_is_waited_for_a_while(
    autojump_clock: object, comes_back: bool
) -> None:
    a, b, both = pair()
    a.fails = UpstreamLacks("this llama-server has no /v1/chat/completions")
    async with serving(both, watched=True) as (_, listener):
        await trio.sleep(2)
        b.die()
        await trio.sleep(2)
        begun = trio.current_time()
        peer, _ = await begin(listener)
        if comes_back:
            await trio.sleep(1)
            b.back()
            b.release(100)
            assert (await rest(peer))[0] == ANSWER
        else:
            _, error = await peer.until(Error)
            assert error.code == ErrorCode.UNSUPPORTED
            assert trio.current_time() - begun == pytest.approx(OTHERS, abs=2)
        assert len(a.prompts) == (1 if comes_back else 2)


async def test_an_error_of_the_only_one_is_believed(autojump_clock: object) -> None:
    upstream = Talker()
    upstream.fails = broken("out of memory")
    async with serving([backend(upstream)], watched=True) as (_, listener):
        peer, _ = await begin(listener)
        _, error = await peer.until(Error)
        assert (error.code, error.message) == (ErrorCode.UPSTREAM_ERROR, "out of memory")
        assert len(upstream.prompts) == 1


async def test_the_only_one_goes_on_when_it_is_back(autojump_clock: object) -> None:
    """As the built-in engine, when it is started again."""
    upstream = Talker()
    upstream.paused = True
    only = backend(upstream)
    async with serving([only], watched=True) as (_, listener):
        peer, _ = await begin(listener)
        upstream.release(6)
        so_far = await read(peer, 6)
        await wait_all_tasks_blocked()
        upstream.die(gone("it was killed"))
        event = await peer.next()
        while not isinstance(event, Queue):
            event = await peer.next()
        assert (event.position, event.reason) == (1, "no upstream answers (a: it was killed)")
        await trio.sleep(20)
        upstream.back()
        upstream.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason, done.splices) == (ANSWER, "stop", [6])
        assert upstream.probes >= 1


@pytest.mark.parametrize("comes_back", [True, False])
async def test_one_that_says_no_is_not_asked_at_once_while_another_may_come_back(
    autojump_clock: object, comes_back: bool
) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (_, listener):
        b.die()
        await trio.sleep(2)  # it is known to be down
        a.fails = broken()
        peer, _ = await begin(listener)
        await trio.sleep(OTHERS / 4)
        assert len(a.prompts) == 1
        a.fails = None
        a.release(100)
        if comes_back:
            b.back()
            b.release(100)
        text, splices, _ = await rest(peer)
        assert (text, splices) == (ANSWER, [])
        assert len(a.prompts) == (1 if comes_back else 2)


async def test_with_all_down_it_waits_and_goes_on(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True, failover_seconds=60) as (server, listener):
        peer, _ = await begin(listener)
        a.release(2)
        so_far = await read(peer, 2)
        a.die()
        b.die()
        await trio.sleep(30)
        assert (await status(listener))["requests"]["queued"] == 1
        second = await ready(listener)
        await second.send(ask(PROMPT, tokens=True))
        b.back()
        b.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, set(splices), done.splices) == (ANSWER, {2}, [2])
        assert (await rest(second))[0] == ANSWER
        await trio.sleep(2)
        await all_quiet(server, b, listener)


async def test_after_failover_seconds_it_fails(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True, failover_seconds=10) as (server, listener):
        peer, _ = await begin(listener)
        a.release(2)
        so_far = await read(peer, 2)
        a.die(gone("connection refused"))
        b.die(gone("connection refused"))
        start = trio.current_time()
        text, _, error = await rest(peer, so_far)
        assert 10 <= trio.current_time() - start <= 16
        assert (text, error.code, error.retry) == (
            ANSWER[:2],
            ErrorCode.UPSTREAM_UNAVAILABLE,
            True,
        )
        assert "no upstream answers (a: connection refused" in error.message
        await all_quiet(server, a, listener)


async def test_what_waits_again_can_be_cancelled(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both, watched=True) as (server, listener):
        peer, _ = await begin(listener)
        a.release(2)
        await read(peer, 2)
        a.die()
        b.die()
        await trio.sleep(5)
        await peer.send(Cancel(1))
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        await all_quiet(server, a, listener)
        assert all(not one.leases for one in both)


async def test_it_comes_before_those_who_wait(autojump_clock: object) -> None:
    a, b = Talker(slots=1), Talker(slots=1)
    a.paused = b.paused = True
    both = backends(a, b, model="m")
    async with serving(both) as (_, listener):
        first, _ = await begin(listener)
        second, _ = await begin(listener)
        third, waits = await begin(listener)
        assert waits.position == 1
        a.release(2)
        so_far = await read(first, 2)
        both[0].watched = True
        a.die()
        await wait_all_tasks_blocked()
        b.release(100)  # the second ends, and its slot goes to the one that was first
        assert (await rest(second))[0] == ANSWER
        assert (await rest(first, so_far))[0] == ANSWER
        assert (await rest(third))[0] == ANSWER
        assert isinstance(b.prompts[1], list)
        assert b.prompts[2] == PROMPT


async def test_an_end_that_was_told_is_the_end(autojump_clock: object) -> None:
    """A connection that breaks behind the last event takes nothing away."""
    a, b, both = pair()

    async def complete(prompt: Any, params: Any, on_events: Any, on_sent: Any) -> None:
        on_sent()
        await trio.lowlevel.checkpoint()
        on_events([CompletionEvent("all", tokens=[1], tokens_predicted=1)])
        on_events([CompletionEvent(stop=True, stop_type="eos", tokens_predicted=1)])
        raise gone("reset")

    a.complete = complete  # type: ignore[method-assign]
    async with serving(both) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(PROMPT))
        pieces, done = await peer.until(Done)
        assert (pieces, done.reason, done.splices) == (["all"], "stop", [])
        assert b.prompts == []


# -- upstreams that only seem to be well -------------------------------------------------------


async def test_one_that_makes_no_token_is_given_up(autojump_clock: object) -> None:
    """It says that it is well, and takes the request."""
    a, b, both = pair()
    a.mute = True
    b.paused = False
    async with serving(both, watched=True) as (_, listener):
        start = trio.current_time()
        peer, _ = await begin(listener)
        text, splices, _ = await rest(peer)
        assert (text, splices) == (ANSWER, [])
        assert trio.current_time() - start == pytest.approx(STALL, abs=0.1)
        await trio.sleep(60)
        assert both[0].state in ("down", "probing")  # its probes make none either
        a.mute = False
        await trio.sleep(60)
        assert both[0].state == "up"


async def test_one_that_falls_silent_is_given_up_sooner(autojump_clock: object) -> None:
    a, b, both = pair()
    b.paused = False
    async with serving(both, watched=True) as (server, listener):
        peer, _ = await begin(listener)
        a.release(3)
        so_far = await read(peer, 3)
        a.silent = True
        start = trio.current_time()
        text, splices, _ = await rest(peer, so_far)
        assert (text, splices) == (ANSWER, [3])
        assert trio.current_time() - start < 15 < STALL
        assert not both[0].up
        await all_quiet(server, b, listener)


async def test_a_model_that_was_restarted_with_another_does_not_continue(
    autojump_clock: object,
) -> None:
    upstream = Talker()
    upstream.paused = True
    async with serving([backend(upstream)], watched=True) as (_, listener):
        peer, _ = await begin(listener)
        upstream.release(3)
        so_far = await read(peer, 3)
        upstream.die()
        upstream.back(model="another")
        upstream.release(100)
        text, _, error = await rest(peer, so_far)
        assert (text, error.code) == (ANSWER[:3], ErrorCode.INTERRUPTED)
        assert "another model" in error.message
        # What begins anew takes what there is.
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER


async def test_of_two_models_the_other_does_not_continue(autojump_clock: object) -> None:
    a, b, both = pair(model=None)
    b.logprobs = {n + 700: -1.0 for n in range(20)}
    b.says = type(b.says)("other", 2, 512, True, "test")
    async with serving(both, watched=True, failover_seconds=5) as (_, listener):
        await trio.sleep(3)
        peer, _ = await begin(listener, model="fake")
        a.release(3)
        so_far = await read(peer, 3)
        a.die()
        b.release(100)
        text, _, error = await rest(peer, so_far)
        assert (text, error.code) == (ANSWER[:3], ErrorCode.UPSTREAM_UNAVAILABLE)
        assert b.prompts == []


async def test_nor_while_it_is_not_known_whether_they_are_two(autojump_clock: object) -> None:
    """A request may come and its upstream fail before anybody could compare the two."""
    a, b, both = pair(model=None)
    b.logprobs = {n + 700: -1.0 for n in range(20)}
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener)
        assert both[0].model_key == both[1].model_key == ""
        assert [m.name for m in both if m.leases] == ["a"]
        a.release(3)
        so_far = await read(peer, 3)
        a.die()
        b.release(100)
        text, _, error = await rest(peer, so_far)
        assert (text, error.code) == (ANSWER[:3], ErrorCode.UPSTREAM_UNAVAILABLE)
        assert b.prompts == []


async def test_the_first_need_not_be_there_at_the_start(autojump_clock: object) -> None:
    a, b, both = pair(model=None)
    a.away = gone()
    b.paused = False
    async with serving(both, watched=True) as (_, listener):
        await trio.sleep(5)
        peer, _ = await begin(listener)
        assert (await rest(peer))[0] == ANSWER
        model_key = both[1].model_key
        a.back()
        await trio.sleep(20)
        assert both[0].model_key == both[1].model_key == model_key


# -- requests that name a model, and vectors ----------------------------------------------------


async def test_a_request_names_its_model(autojump_clock: object) -> None:
    a, b = Talker(model="x"), Talker(model="y")
    found = [backend(a, "a", model="x"), backend(b, "b", model="y")]
    async with serving(found) as (_, listener):
        for number, (name, upstream) in enumerate({"x": a, "y": b}.items(), 1):
            peer = await ready(listener)
            await peer.send(ask(PROMPT, model=name))
            await peer.until(Done)
            assert len(upstream.prompts) == 1
            assert len(a.prompts) + len(b.prompts) == number
        peer = await ready(listener)
        await peer.send(ask(PROMPT, model="z"))
        error = await peer.next()
        assert isinstance(error, Error)
        assert error.code == ErrorCode.UNKNOWN_MODEL
        assert "there are: x, y" in error.message
        await peer.send(Embed(3, ["text"], model="z"))
        _, error = await peer.until(Error, 3)
        assert error.code == ErrorCode.UNKNOWN_MODEL


async def test_equal_keys_of_two_models_are_a_conflict(autojump_clock: object) -> None:
    found = [backend(Talker(model=name), name, model=name) for name in "xy"]
    async with serving(found) as (_, listener):
        for one in found:
            assert isinstance(one.upstream, Talker)
            one.upstream.paused = True
        peer = await ready(listener)
        await peer.send(ask(PROMPT, model="x", key="k"))
        await peer.until(Accepted)
        await peer.send(ask(PROMPT, 3, model="y", key="k"))
        _, error = await peer.until(Error, 3)
        assert error.code == ErrorCode.KEY_CONFLICT
