"""A reader that comes back goes on with the next event: nothing missing, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.generation.generation import Generation
from llcuda_net.storage.records import Level
from llcuda_net.upstream.interface import CompletionEvent, OnEvents
from llcuda_protocol import Attach
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import FakeUpstream, MemoryListener, paused, serving
from tests.support.server.sse_client import (
    CHAT,
    Reply,
    SseEvent,
    ask,
    chat,
    post,
    reply,
    resume,
    send,
)

KEY = {"Idempotency-Key": "one"}
WORDS = "a b c d e f g"
BODY = chat(WORDS, stream_options={"include_usage": True})


def _plain(events: list[SseEvent]) -> list[tuple[str, str]]:
    """Ids and what they carry; how long it took is another matter for each reader."""
    found = []
    for event in events:
        document = event.data if event.done else event.json
        if isinstance(document, dict):
            document.pop("llcuda", None)
        found.append((event.id if event.own_id else "", str(document)))
    return found


_WAYS = ["get", "post", "bare"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["get", "post", "bare"])), max_size=5
    ),
    choices=st.sampled_from([1, 1, 3]),
    released=st.integers(0, 30),
)
def test_any_sequence_of_cuts_and_resumes_is_the_stream_that_was_not_cut(
    cuts: list[tuple[int, str]], choices: int, released: int
) -> None:
    """By the id alone, or by the same POST with the key, or with the id and no key."""

    async def main() -> None:
        upstream = paused(slots=4)
        async with serving(upstream) as (_, listener):
            body = {**BODY, "n": choices}
            connection, stream = await ask(listener, "POST", CHAT, body, KEY)
            await wait_all_tasks_blocked()
            upstream.release(choices + released)  # the rest later
            answer = await reply(connection, stream)
            ids = answer.generations
            events: list[SseEvent] = []
            for number, (count, how) in enumerate(cuts):
                if number == 2:
                    upstream.release(1000)
                with trio.move_on_after(2):
                    events += await answer.some(count)
                await stream.aclose()
                await wait_all_tasks_blocked()
                if events and events[-1].done:
                    break  # there is nothing to come back for
                answer = await _again(listener, body, ids[0], events, how)
                stream = answer.stream
                assert answer.generations == ids
            upstream.release(1000)
            if not (events and events[-1].done):
                events += await answer.all()
            uncut = await (await resume(listener, ids[0])).all()
            if choices == 1:
                assert _plain(events) == _plain(uncut)
            for index in range(choices):
                assert _of(events, index) == _of(uncut, index) == ["user:", *_spaced(), "", "stop"]
            assert [event.done for event in events] == [False] * (len(events) - 1) + [True]
            await stream.aclose()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def _spaced() -> list[str]:
    return [f" {word}" for word in WORDS.split()]


def _of(events: list[SseEvent], index: int) -> list[str]:
    """The texts of a choice, and the reason for its end."""
    choices = [c for e in events if not e.done for c in e.json["choices"] if c["index"] == index]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return [choice["delta"].get("content", "") for choice in choices] + reasons


async def _again(
    listener: MemoryListener, body: Any, id_: str, events: list[SseEvent], how: str
) -> Reply:
    ids = [event.id for event in events if event.own_id]
    last = {"Last-Event-ID": ids[-1]} if ids else {}
    if how == "get":
        return await resume(listener, id_, last.get("Last-Event-ID", ""))
    if how == "bare" and last:
        return await post(listener, body, last)
    return await post(listener, body, {**KEY, **last})


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_key_joins_what_runs_and_what_is_over(
    stream: bool, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        one = await ask(listener, "POST", CHAT, chat("a b", stream=stream), KEY)
        await wait_all_tasks_blocked()
        two = await ask(listener, "POST", CHAT, chat("a b", stream=stream), KEY)
        await wait_all_tasks_blocked()
        upstream.release(10)
        answers = [await reply(*one), await reply(*two)]
        answers.append(await post(listener, chat("a b", stream=stream), KEY))
        bodies = [await answer.body() for answer in answers]
        assert len(upstream.calls) == 1
        assert len({tuple(answer.generations) for answer in answers}) == 1
        if stream:
            assert bodies[0].count(b"id: ") == bodies[2].count(b"id: ") == 4
        # The same key for something else, for more choices, and a key that cannot be one.
        for body in (chat("a c"), chat("a b", n=2), chat("a b", temperature=0.5)):
            refused = await post(listener, body, KEY)
            assert refused.status == 409
            assert (await refused.json())["error"]["code"] == "idempotency_key_in_use"
        refused = await post(listener, chat("a b"), {"Idempotency-Key": "x" * 300})
        assert refused.status == 400


async def test_an_id_of_something_else_is_refused(autojump_clock: object) -> None:
    users = Users.parse("a name=ann\nb name=bob")
    async with serving(FakeUpstream(), users=users) as (_, listener):
        ann, bob = {"Authorization": "Bearer a"}, {"x-api-key": "b"}
        answer = await post(listener, BODY, {**ann, **KEY})
        events = await answer.all()
        (id_,) = answer.generations
        path = f"/v1/generations/{id_}"
        for method, end in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            assert (await send(listener, method, path + end, None, bob)).status == 404
            assert (await send(listener, method, f"{path}0{end}", None, ann)).status == 404
        last = {"Last-Event-ID": events[2].id}
        assert (await post(listener, BODY, {**bob, **last})).status == 404
        # The key is ann's: bob's is another one.
        other = await post(listener, BODY, {**bob, **KEY})
        assert other.generations != [id_]
        await other.all()
        assert (await post(listener, chat("x"), {**ann, **last})).status == 409
        refused = await post(listener, BODY, {**ann, **last, "Idempotency-Key": "two"})
        assert refused.status == 409
        refused = await send(listener, "GET", f"{path}/events", None, {**ann, "Last-Event-ID": "?"})
        assert refused.status == 400
        ahead = {**ann, "Last-Event-ID": f"{id_}:99"}
        refused = await send(listener, "GET", f"{path}/events", None, ahead)
        assert refused.status == 409
        assert (await refused.json())["error"]["code"] == "ahead"
        query = f"{path}/events?last_event_id={events[-3].id}"
        assert len(await (await send(listener, "GET", query, None, ann)).all()) == 2


class _Speller(FakeUpstream):
    """A model of bytes: whatever part of TEXT is the prompt, it says the rest."""

    TEXT = "user: tell: one two three"

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        on_sent()
        ids = await self.tokenize(prompt, special=True) if isinstance(prompt, str) else prompt
        rest = self.TEXT.removeprefix(bytes(ids[1:]).decode())
        for count, letter in enumerate(rest, 1):
            await self._gate.acquire()
            on_events([CompletionEvent(letter, [ord(letter)], tokens_predicted=count)])
            self.poller.end_batch()
        end = CompletionEvent(
            stop=True,
            stop_type="eos",
            tokens_predicted=len(rest),
            tokens_evaluated=len(ids),
            model="fake",
        )
        on_events([end])


@pytest.mark.parametrize("choices", [1, 2])
async def test_a_killed_server_s_successor_goes_on_with_the_next_event(
    tmp_path: Path, choices: int
) -> None:
    body = chat("tell:", n=choices, stream_options={"include_usage": True}, model="fake")
    events: list[SseEvent] = []
    upstream = _Speller(slots=2)
    async with keeping(tmp_path, upstream, Level.PROCESS) as (_, listener):
        connection, stream = await ask(listener, "POST", CHAT, body, KEY)
        upstream.release(5 * choices)
        answer = await reply(connection, stream)
        events += await answer.some(5 * choices)
    for last_by in ("get", "post"):
        upstream = _Speller(slots=2)
        async with keeping(tmp_path, upstream, Level.PROCESS) as (_, listener):
            again = await _again(listener, body, answer.generations[0], events, last_by)
            assert again.generations == answer.generations
            upstream.release(3 * choices)
            events += await again.some(3 * choices)
    upstream = _Speller(slots=2)
    async with keeping(tmp_path, upstream, Level.PROCESS) as (_, listener):
        upstream.release(100)
        again = await _again(listener, body, answer.generations[0], events, "post")
        events += await again.all()
        for index in range(choices):
            assert "".join(_of(events, index)) == " one two three" + "stop"
        assert events[-1].done
        await _all_kept(listener, answer)
    # And once more, of what the store has: the same ids, from the first event to the last.
    async with keeping(tmp_path, _Speller(), Level.PROCESS) as (_, listener):
        stored = await (await resume(listener, answer.generations[0])).all()
        if choices == 1:
            assert _plain(stored) == _plain(events)
        assert stored[-2].id == events[-2].id
        replayed = await (await post(listener, body, KEY)).all()
        assert _plain(replayed) == _plain(stored)
        whole = await (await post(listener, {**body, "stream": False}, KEY)).json()
        assert [c["message"]["content"] for c in whole["choices"]] == [" one two three"] * choices


async def test_a_generation_that_ends_while_its_reader_comes_back_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up once while it runs and once in the store, as at the end of a server's start."""
    upstream = paused()
    async with keeping(tmp_path, upstream, Level.PROCESS) as (_, listener):
        server = listener.server
        connection, stream = await ask(listener, "POST", CHAT, BODY, KEY)
        upstream.release(2)
        answer = await reply(connection, stream)
        events = await answer.some(2)
        (running,) = server.registry
        find = server.generations.find

        async def slowly(request: Attach, user: User) -> Generation:
            found = await find(request, user)
            upstream.release(100)
            while server.registry.find(running.id, None) is not None:  # noqa: ASYNC110
                await trio.sleep(0.001)  # it is on its way to the store
            return found

        monkeypatch.setattr(server.generations, "find", slowly)
        again = await resume(listener, running.id, events[-1].id)
        assert again.status == 200
        events += await again.all()
        assert _of(events, 0) == ["user:", *_spaced(), "", "stop"]
        await stream.aclose()


async def test_after_a_restart_a_reader_has_time_to_come_back(tmp_path: Path) -> None:
    """Also one whose answer would soon end with its connection: it was the server that left."""
    for policy, seconds in (("5", 30.0), ("100", 100.0)):
        folder = tmp_path / policy
        async with keeping(folder, _Speller(), Level.PROCESS) as (_, listener):
            headers = {"x-llcuda-on-disconnect": policy}
            connection, stream = await ask(listener, "POST", CHAT, chat("tell:"), headers)
            answer = await reply(connection, stream)
        async with keeping(folder, _Speller(), Level.PROCESS) as (_, listener):
            (generation,) = listener.server.registry
            assert generation.id == answer.generations[0]
            assert generation.on_disconnect == seconds


async def _all_kept(listener: MemoryListener, answer: Reply) -> None:
    for id_ in answer.generations:
        shown = await (await send(listener, "GET", f"/v1/generations/{id_}")).json()
        assert shown["state"] == "done"
        assert shown["text"] == " one two three"
