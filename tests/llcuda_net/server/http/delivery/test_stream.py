"""A stream of events: what is sent, when, and that a slow reader costs nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import trio
from openai._streaming import SSEDecoder
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import UpstreamError
from llcuda_net.server.tcp.write_buffer import HIGH_WATER
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_protocol import Done
from tests.support.server.durable_server import keeping
from tests.support.server.memory_server import (
    FakeUpstream,
    all_quiet,
    paused,
    ready,
    serving,
)
from tests.support.server.memory_server import ask as generate
from tests.support.server.sse_client import CHAT, ask, chat, post, reply, resume, send

USAGE = {"stream_options": {"include_usage": True}}


async def test_each_piece_is_an_event_that_says_how_far_the_reader_is(
    autojump_clock: object,
) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("a b", **USAGE))
        events = await answer.all()
        (id_,) = answer.generations
        assert answer.headers["content-type"] == "text/event-stream"
    assert [event.text for event in events] == ["user:", " a", " b", "", "", ""]
    assert [event.id for event in events[:-1]] == [f"{id_}:{n}" for n in range(1, 6)]
    assert events[3].json["choices"][0]["finish_reason"] == "stop"
    assert events[4].json["usage"]["completion_tokens"] == 3
    assert events[-1].done
    assert not events[-1].own_id


async def test_without_usage_there_is_no_such_event(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        events = await (await post(listener, chat("a b"))).all()
    assert [event.id.partition(":")[2] for event in events] == ["1", "2", "3", "4", "4"]
    assert events[-1].done


async def test_the_pieces_of_a_batch_leave_together(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        connection, stream = await ask(listener, "POST", CHAT, chat("a b c d"))
        upstream.release()
        answer = await reply(connection, stream)
        await answer.part()
        (generation,) = server.registry
        server._publisher.extend(generation, [CompletionEvent(c, [0]) for c in "xyz"])
        server._publisher.publish()
        data = await answer.part()
        assert data.count(b"\ndata: ") == 3
        await stream.aclose()


async def test_waiting_is_seen_and_no_comment_ends_an_event(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        first = await ask(listener, "POST", CHAT, chat("a"))
        await wait_all_tasks_blocked()
        connection, stream = await ask(listener, "POST", CHAT, chat("b"))
        third = await ask(listener, "POST", CHAT, chat("c"))
        answer = await reply(connection, stream)
        raw = b""
        with trio.move_on_after(31):
            while part := await answer.part():
                raw += part
        lines = raw.decode().splitlines()
        assert lines[0].startswith(": queued 1 of ")
        assert len(lines) in (3, 4)  # at least every 15 seconds
        assert b"\n\n" not in raw
        await first[1].aclose()  # its slot is free at once, and the prompt is read
        await wait_all_tasks_blocked()
        upstream.release(2)
        events = await answer.all()
        assert [event.text for event in events] == ["user:", " b", "", ""]
        assert answer.comments[0] == "the prompt is being read"
        await third[1].aclose()


async def test_a_silent_upstream_is_bridged_by_comments(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, stream = await ask(listener, "POST", CHAT, chat("a b"))
        answer = await reply(connection, stream)  # after a second, though there is nothing yet
        assert answer.status == 200
        await trio.sleep(30)
        upstream.release(3)
        assert (await answer.all())[-1].done
        assert 2 <= len(answer.comments) <= 4
        assert set(answer.comments) == {"the prompt is being read"}


async def test_a_comment_behind_an_event_is_no_event_for_openai_s_client(
    autojump_clock: object,
) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        connection, stream = await ask(listener, "POST", CHAT, chat("a b"))
        upstream.release()
        answer = await reply(connection, stream)
        raw = await answer.part()
        await trio.sleep(20)
        upstream.release(10)
        raw += await answer.body()
        assert b": the answer goes on\n" in raw
        decoded = list(SSEDecoder().iter_bytes(iter([raw])))
        assert [event.data for event in decoded if not event.data.startswith('{"id"')] == ["[DONE]"]
        assert [event.id for event in decoded][:4] == [
            f"{answer.generations[0]}:{n}" for n in range(1, 5)
        ]


async def test_a_refusal_has_its_status_and_a_later_failure_is_an_event(
    autojump_clock: object,
) -> None:
    upstream = FakeUpstream()
    upstream.failure = UpstreamError("it cannot do this")
    async with serving(upstream, failover_seconds=1) as (server, listener):
        answer = await post(listener, chat("a b"))
        assert answer.status == 502
        assert "it cannot do this" in (await answer.json())["error"]["message"]
        assert len(answer.generations) == 1
        upstream.fail_after = 2
        answer = await post(listener, chat("a b"))
        assert answer.status == 200
        events = await answer.all()
        assert [event.own_id for event in events] == [True, True, False]
        error = events[-1].json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        await all_quiet(server, upstream, listener)


async def test_a_slow_reader_waits_and_takes_no_memory(autojump_clock: object) -> None:
    count = 4000
    text = "x" * 200
    upstream = FakeUpstream(context=10_000)
    async with serving(upstream, write_timeout=3600) as (server, listener):
        connection, stream = await ask(
            listener, "POST", CHAT, chat(" ".join([text] * count)), unread=True
        )
        while len(server.registry) or not upstream.calls:  # a thread reads so large a body
            await wait_all_tasks_blocked(0.01)
        # It is over, and was not held up.
        assert 0 < server.unsent.waiting < HIGH_WATER + 64_000
        answer = await reply(connection, stream)
        events = await answer.all()
        assert "".join(event.text for event in events) == "user: " + " ".join([text] * count)
        assert len(events) == count + 3


async def test_a_log_that_was_dropped_from_memory_comes_back(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Threads read it again, so no virtual time may pass meanwhile: nobody sleeps here."""
    count, text = 3000, "y" * 300
    upstream = FakeUpstream(context=10_000)
    async with keeping(tmp_path, upstream, write_timeout=math.inf) as (_, listener):
        connection, stream = await ask(
            listener, "POST", CHAT, chat(" ".join([text] * count)), unread=True
        )
        while len(listener.server.registry) or not upstream.calls:
            await trio.testing.wait_all_tasks_blocked(0.01)
        listener.server._shelf.clear()
        answer = await reply(connection, stream)
        events = await answer.all()
        assert listener.server._shelf.read_again
        assert "".join(event.text for event in events) == "user: " + " ".join([text] * count)


async def test_the_choices_of_an_answer_come_in_one_stream(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("a b c", n=3, **USAGE))
        events = await answer.all()
        assert len(answer.generations) == 3
    texts = {0: "", 1: "", 2: ""}
    for event in events[:-2]:
        (choice,) = event.json["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    assert set(texts.values()) == {"user: a b c"}
    assert events[-2].json["usage"]["completion_tokens"] == 12
    ids = [event.id for event in events[:-1]]
    assert len(set(ids)) == len(ids)
    assert ids[-1] == ",".join(f"{id_}:6" for id_ in answer.generations)
    assert len({event.json["id"] for event in events[:-1]}) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_stops_says_so_and_the_rest_may_be_asked_for(
    stream: bool, autojump_clock: object
) -> None:
    upstream = paused()
    async with serving(upstream) as (server, listener):
        connection, client = await ask(listener, "POST", CHAT, chat("a b", stream=stream))
        await wait_all_tasks_blocked()
        upstream.release()
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 5.0)
            answer = await reply(connection, client)
            if stream:
                events = await answer.all()
                assert [event.own_id for event in events] == [True, False]
                document = events[-1].json
            else:
                assert answer.status == 503
                document = await answer.json()
        assert document["error"]["code"] == "shutting_down"


async def test_what_another_protocol_began_is_read_as_a_chat(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(generate("a b"))
        _, done = await peer.until(Done)
        events = await (await resume(listener, done.id)).all()
        assert "".join(event.text for event in events) == "a b"
        assert events[-1].done
        shown = await (await send(listener, "GET", f"/v1/generations/{done.id}")).json()
        assert shown["text"] == "a b"
