"""A client goes away: for how long its answer goes on, and who may have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.errors import InvalidRequest
from llcuda_net.server.http.delivery.leaving import (
    MOST_REMEMBERED,
    REMEMBERED,
    Orphans,
    is_retry,
    seconds_without_reader,
)
from llcuda_net.server.http.request import Headers
from llcuda_protocol.kinds import MAX_LINGER
from tests.support.generations import generation_of
from tests.support.server.memory_server import (
    FakeUpstream,
    MemoryListener,
    all_quiet,
    paused,
    serving,
)
from tests.support.server.sse_client import CHAT, ask, chat, post, reply, resume

FIRST, RETRY = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}
KEY = {"Idempotency-Key": "one"}


def _headers(**fields: str) -> Headers:
    return Headers((n.replace("_", "-").encode(), v.encode()) for n, v in fields.items())


@pytest.mark.parametrize(
    ("fields", "with_key", "seconds"),
    [
        ({}, False, 0),
        ({}, True, 30),
        ({"x_stainless_retry_count": "0"}, False, 10),
        ({"x_stainless_retry_count": "0"}, True, 30),
        ({"x_llcuda_on_disconnect": "continue"}, False, MAX_LINGER),
        ({"x_llcuda_on_disconnect": " Cancel "}, True, 0),
        ({"x_llcuda_on_disconnect": "2.5", "x_stainless_retry_count": "0"}, True, 2.5),
        ({"x_llcuda_on_disconnect": "999999999999"}, False, MAX_LINGER),
    ],
)
def test_how_long_an_answer_goes_on(fields: dict[str, str], with_key: bool, seconds: float) -> None:
    assert seconds_without_reader(_headers(**fields), 30, with_key=with_key) == seconds


@pytest.mark.parametrize("word", ["", "later", "-1", "nan", "inf", "1e300", "1_0", "5s"])
def test_a_policy_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        seconds_without_reader(_headers(x_llcuda_on_disconnect=word), 30, with_key=False)


@pytest.mark.parametrize(
    ("count", "retry"), [("0", False), ("1", True), ("x", False), ("²", False)]
)
def test_what_is_a_retry(count: str, retry: bool) -> None:
    fields = [(b"x-stainless-retry-count", count.encode("latin-1", "replace"))]
    assert is_retry(Headers(fields)) is retry
    assert not is_retry(Headers())


async def test_orphans_are_remembered_for_a_while_and_not_too_many(
    autojump_clock: object,
) -> None:
    orphans = Orphans()
    first = generation_of()
    orphans.add(first)
    await trio.sleep(REMEMBERED - 1)
    assert list(orphans) == [first]
    await trio.sleep(1)
    assert not list(orphans)
    for _ in range(MOST_REMEMBERED + 5):
        orphans.add(generation_of())
    assert len(list(orphans)) == MOST_REMEMBERED


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, 0.0), (FIRST, 10.0), (KEY, 30.0), ({"x-llcuda-on-disconnect": "100"}, 100.0)],
)
async def test_a_client_that_goes_away_frees_its_slot_in_time(
    headers: Mapping[str, str], seconds: float, stream: bool, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        body = chat("a b", stream=stream)
        _, client = await ask(listener, "POST", CHAT, body, headers)
        await wait_all_tasks_blocked()
        assert upstream.active == 1
        await client.aclose()
        if seconds:
            await trio.sleep(seconds - 0.5)
            assert upstream.active == 1
            await trio.sleep(1)
        await all_quiet(server, upstream, listener)


async def test_of_three_choices_none_is_left_running(autojump_clock: object) -> None:
    upstream = paused(slots=2)
    async with serving(upstream) as (server, listener):
        _, client = await ask(listener, "POST", CHAT, chat("a b", n=3))
        await wait_all_tasks_blocked()
        await client.aclose()
        await all_quiet(server, upstream, listener)


async def test_a_refused_choice_takes_the_others_with_it(autojump_clock: object) -> None:
    upstream = paused(slots=1)
    async with serving(upstream, max_queue=1) as (server, listener):
        assert (await post(listener, chat("a b", n=4))).status == 429
        await all_quiet(server, upstream, listener)


async def test_the_retry_of_an_sdk_joins_what_it_began(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        for stream, choices in ((True, 1), (False, 1), (True, 2)):
            del upstream.calls[:]
            body = chat(f"a {stream} {choices}", stream=stream, n=choices)
            _, client = await ask(listener, "POST", CHAT, body, FIRST)
            await wait_all_tasks_blocked()
            await client.aclose()
            await trio.sleep(3)
            connection, client = await ask(listener, "POST", CHAT, body, RETRY)
            upstream.release(10)
            answer = await reply(connection, client)
            assert answer.status == 200
            assert f"{stream}" in (await answer.body()).decode()
            assert len(upstream.calls) == choices
            # It has ended meanwhile, and the client did not get to the end: once more.
            upstream.release(10)
            await _cut(listener, body)
            answer = await post(listener, body, RETRY)
            await answer.body()
            assert len(upstream.calls) == 2 * choices
        await all_quiet(server, upstream, listener)


async def _cut(listener: MemoryListener, body: Any) -> None:
    """A client that is cut off, and its answer comes to its end in the time it has."""
    _, client = await ask(listener, "POST", CHAT, body, FIRST)
    await client.aclose()
    await trio.sleep(5)


async def test_a_retry_joins_nobody_elses_and_nothing_that_is_read(
    autojump_clock: object,
) -> None:
    users = Users.parse("a name=ann\nb name=bob")
    ann, bob = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}
    upstream = paused()
    async with serving(upstream, users=users) as (_, listener):
        upstream.release(1000)
        first = await post(listener, chat("a b"), {**ann, **FIRST})
        await first.some(1)
        others = [
            await post(listener, chat("a b"), {**bob, **RETRY}),  # not hers
            await post(listener, chat("a c"), {**ann, **RETRY}),  # not the same
            await post(listener, chat("a b"), {**ann, **FIRST}),  # no retry
        ]
        found = {tuple(first.generations), *(tuple(one.generations) for one in others)}
        assert len(found) == 4
        for one in others:
            await one.all()
    upstream = paused()
    async with serving(upstream) as (_, listener):
        begun = await ask(listener, "POST", CHAT, chat("a b"), FIRST)
        await wait_all_tasks_blocked()
        again = await ask(listener, "POST", CHAT, chat("a b"), RETRY)  # the first is still read
        await wait_all_tasks_blocked()
        upstream.release(10)
        answers = [await reply(*begun), await reply(*again)]
        assert answers[0].generations != answers[1].generations
        for answer in answers:
            await answer.all()


async def test_whoever_comes_back_in_time_keeps_it_running(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b"), KEY)
        upstream.release()
        answer = await reply(connection, client)
        events = await answer.some(1)
        for _ in range(3):
            await trio.sleep(25)
            answer = await resume(listener, answer.generations[0], events[-1].id)
            await trio.sleep(25)
            await answer.stream.aclose()
        answer = await resume(listener, answer.generations[0], events[-1].id)
        upstream.release(10)
        events += await answer.all()
        assert "".join(event.text for event in events) == "user: a b"


async def test_a_reader_that_says_so_lets_it_go_on_for_ever(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b"))
        answer = await reply(connection, client)
        (id_,) = answer.generations
        for_ever = {"x-llcuda-on-disconnect": "continue"}
        other, theirs = await ask(listener, "GET", f"/v1/generations/{id_}/events", None, for_ever)
        assert (await reply(other, theirs)).status == 200
        await client.aclose()
        await theirs.aclose()
        await trio.sleep(500)
        upstream.release(10)
        assert (await (await resume(listener, id_)).all())[-1].done


async def test_an_idle_upstream_has_nothing_to_do_with_it(autojump_clock: object) -> None:
    """One that has ended is read by whoever asks, as often as they like."""
    async with serving(FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("a b"))
        events = await answer.all()
        for start in range(len(events) - 1):
            again = await resume(listener, answer.generations[0], events[start].id)
            assert [e.data for e in await again.all()][:-2] == [
                e.data for e in events[start + 1 : -2]
            ]
