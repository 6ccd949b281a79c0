"""What cannot be continued from its tokens is run again, on upstreams that fail when told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.generation.dispatcher import MOST_LOST
from llcuda_net.storage.records import Switch
from llcuda_net.upstream.interface import REASONING, TOOL_CALL, Channel
from llcuda_protocol import Accepted, Attach, Cancel, Done, Error, ErrorCode, Tokens
from tests.support.server.durable_server import keeping, stored
from tests.support.server.failing_upstreams import begin, pair, read, rest
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    all_quiet,
    ask,
    paused,
    ready,
    serving,
    status,
)
from tests.support.upstream.scripted_upstream import ANSWER, STALL, TEXT, gone


async def test_a_second_run_that_says_something_else_ends_it(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener, params={"mirostat": 2})
        a.release(4)
        so_far = await read(peer, 4)
        b.text = TEXT.replace("one", "ome")
        a.die()
        b.release(100)
        text, _, error = await rest(peer, so_far)
        assert (text, error.code, error.retry) == (ANSWER[:4], ErrorCode.INTERRUPTED, True)
        assert "said something else: after 2 of 4 pieces" in error.message
        assert (await status(listener))["requests"]["interrupted"] == 1
        # That is not its fault: it goes on to serve.
        peer, _ = await begin(listener)
        assert (await rest(peer))[2].reason == "stop"
        await all_quiet(server, b, listener)


async def test_one_that_fails_while_it_repeats_is_not_the_last(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener, params={"mirostat": 2})
        a.release(6)
        so_far = await read(peer, 6)
        a.lose()
        b.release(3)
        await wait_all_tasks_blocked()  # it has said half of what was said
        b.lose()
        a.release(100)
        b.release(100)
        text, splices, done = await rest(peer, so_far)
        assert (text, set(splices), done.reason) == (ANSWER, {6}, "stop")
        assert done.usage["completion_tokens"] == len(ANSWER)
        assert len(a.prompts) + len(b.prompts) == 3
        await all_quiet(server, a, listener)


async def test_a_request_that_brings_all_down_where_it_was_is_given_up(
    autojump_clock: object,
) -> None:
    """Tokens that were there before are no sign that all is well."""
    a, b, both = pair()
    a.paused = b.paused = False
    a.fails = b.fails = gone()
    a.fail_after = b.fail_after = 5
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener, params={"mirostat": 2})
        text, _, error = await rest(peer)
        assert (text, error.code) == (ANSWER[:5], ErrorCode.UPSTREAM_UNAVAILABLE)
        assert len(a.prompts) + len(b.prompts) == MOST_LOST


async def test_one_that_repeats_slowly_makes_progress(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener, params={"mirostat": 2})
        a.release(8)
        so_far = await read(peer, 8)
        a.die()
        for _ in range(8):
            await trio.sleep(STALL - 1)
            b.release(1)
        b.release(100)
        text, _, done = await rest(peer, so_far)
        assert (text, done.reason) == (ANSWER, "stop")
        assert len(b.prompts) == 1
        await all_quiet(server, b, listener)


async def test_it_can_be_cancelled_while_it_repeats(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (server, listener):
        peer, _ = await begin(listener, params={"mirostat": 2})
        a.release(5)
        await read(peer, 5)
        a.die()
        b.release(2)
        await wait_all_tasks_blocked()
        await peer.send(Cancel(1))
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        await all_quiet(server, b, listener)


async def test_where_a_schema_was_begun_it_is_held_to_it(autojump_clock: object) -> None:
    a, b, both = pair()
    async with serving(both) as (_, listener):
        peer, _ = await begin(listener, params={"json_schema": {}})
        a.release(4)
        so_far = await read(peer, 4)
        a.die()
        b.release(100)
        text, _, error = await rest(peer, so_far)
        assert text == ANSWER
        assert "it is not JSON" in error.message


# -- chats, where they are not continued from their text ------------------------------------------

CHAT: dict[str, Any] = {
    "text": None,
    "messages": [{"role": "user", "content": "1 + 2?"}],
    "chat": {"tools": [{"type": "function", "function": {"name": "add"}}]},
    "channels": True,
}
THOUGHT = Channel(REASONING)


def call(id_: str, name: str = "add") -> Channel:
    return Channel(TOOL_CALL, 0, id_, name)


def says(id_: str, name: str = "add") -> list[tuple[str, Channel | None]]:
    channel = call(id_, name)
    return [("h", THOUGHT), ("m", THOUGHT), ("I add.", None), ("", channel), ('{"a":1}', channel)]


async def cut(folder: Path, count: int) -> Accepted:
    """A server that is killed after so many pieces of the answer."""
    upstream = paused()
    upstream.answer = says("call_1")
    async with keeping(folder, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(**CHAT))
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        upstream.release(count)
        seen = 0
        while seen < count:
            event = await peer.next()
            seen += len(event.pieces) if isinstance(event, Tokens) else 0
    return accepted


async def go_on(listener: MemoryListener, begun: Accepted) -> tuple[str, Any]:
    peer = await ready(listener)
    await peer.send(Attach(1, begun.id, CREDIT, first=0, channels=True))
    text = ""
    while True:
        event = await peer.next()
        if isinstance(event, Tokens):
            text += "".join(event.pieces)
        elif isinstance(event, Done | Error):
            return text, event


@pytest.mark.parametrize("count", range(1, 5))
async def test_a_chat_is_run_again_after_a_kill(tmp_path: Path, count: int) -> None:
    begun = await cut(tmp_path, count)
    second = FakeUpstream()
    # Other borders, and another id for what may have been called already.
    second.answer = [("hm", THOUGHT), ("I ", None), ("add.", None), ('{"a":1}', call("call_2"))]
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, begun)
    assert (text, done.reason) == ('hmI add.{"a":1}', "tool_calls")
    assert done.usage["completion_tokens"] == 4
    assert second.chats == [(CHAT["messages"], CHAT["chat"])]
    assert second.calls[0]["cache_prompt"] is False
    (result,) = stored(tmp_path)
    assert result.text == "I add."
    assert [switch.kind for switch in result.switches] == ["reasoning", "text", "tool_call"]
    assert result.switches[-1].id == ("call_1" if count > 3 else "call_2")


@pytest.mark.parametrize("count", range(1, 5))
async def test_a_chat_goes_on_from_its_text_until_a_tool_is_called(
    tmp_path: Path, count: int
) -> None:
    """The second one says other words, as it may: nothing of the first ones is asked for again."""
    begun = await cut(tmp_path, count)
    second = FakeUpstream()
    second.prefills = True
    second.answer = says("call_2") if count > 3 else [("!", THOUGHT), ("No.", None)][count > 2 :]
    async with keeping(tmp_path, second) as (_, listener):
        text, done = await go_on(listener, begun)
    ((messages, options),) = second.chats
    (result,) = stored(tmp_path)
    if count > 3:
        assert (messages, options) == (CHAT["messages"], CHAT["chat"])
        assert (text, done.reason) == ('hmI add.{"a":1}', "tool_calls")
        return
    so_far = "".join(piece for piece, _ in says("")[:count])
    thought, said = so_far[:2], so_far[2:]
    answer = {"role": "assistant", "content": said, "reasoning_content": thought}
    assert messages == [*CHAT["messages"], answer]
    assert options == CHAT["chat"] | {"continue_final_message": True}
    assert "cache_prompt" not in second.calls[0]
    assert text == so_far + ("No." if count > 2 else "!No.")
    assert result.text == said + "No."
    assert done.usage["completion_tokens"] == count + len(second.answer)


@pytest.mark.parametrize("name", ["sub", ""])
async def test_another_tool_is_another_answer(tmp_path: Path, name: str) -> None:
    begun = await cut(tmp_path, 4)
    second = FakeUpstream()
    second.answer = says("call_2", name)
    async with keeping(tmp_path, second) as (_, listener):
        _, error = await go_on(listener, begun)
    assert error.code == ErrorCode.INTERRUPTED
    (result,) = stored(tmp_path)
    assert (result.state, result.text) == ("interrupted", "I add.")
    assert result.switches[-1] == Switch(3, "tool_call", 0, "call_1", "add")


async def test_a_key_and_the_cache_bring_the_channels_back(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    upstream.answer = says("call_1")
    request = CHAT | {"params": {"temperature": 0}, "cache": True}
    async with keeping(tmp_path, upstream) as (_, listener):
        keys: list[dict[str, Any]] = [{"key": "k"}, {"key": "k"}, {}]
        for options in keys:
            peer = await ready(listener)
            await peer.send(ask(**request, **options))
            pieces, done = await peer.until(Done)
            assert pieces == [piece for piece, _ in says("call_1")]
            assert done.reason == "tool_calls"
    assert len(upstream.chats) == 1
    first, copy = stored(tmp_path)
    assert copy.cached_from == first.id
    assert copy.switches == first.switches != []


@pytest.mark.parametrize(("said", "failed"), [('{"b":1}', False), ('{"c":1}', True)])
async def test_a_schema_is_for_the_text_and_not_for_what_is_thought(
    said: str, failed: bool
) -> None:
    upstream = FakeUpstream()
    upstream.answer = [("hm", THOUGHT), (said, None)]
    options = {"chat": {"chat_template_kwargs": {"enable_thinking": True}}}
    schema = {"type": "object", "required": ["b"]}
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(**{**CHAT, **options, "params": {"json_schema": schema}}))
        while not isinstance(end := await peer.next(), Done | Error):
            pass
    assert isinstance(end, Error) == failed, end
