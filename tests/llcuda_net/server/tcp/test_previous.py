"""Conversations that go on from one connection to the next, and over the end of the server.

The fake upstream answers with the words of its prompt, which are `ROLE: CONTENT` per message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llcuda_net.config.token_file import Users
from llcuda_net.server.tcp.session import FEATURES
from llcuda_net.storage.records import Level
from llcuda_net.upstream.interface import Channel
from llcuda_protocol import (
    Accepted,
    Attach,
    Cancel,
    Delete,
    Deleted,
    Done,
    Error,
    Event,
    Generate,
    Tokens,
)
from tests.support.server.durable_server import keeping, stored
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    MemoryListener,
    Peer,
    paused,
    ready,
    serving,
)
from tests.support.server.sse_client import chat, post, send

_FIRST = {"role": "user", "content": "I am Ada"}
_ANSWER = {"role": "assistant", "content": "user: I am Ada"}
_NEXT = {"role": "user", "content": "who am I"}
_TOOLS = [{"type": "function", "function": {"name": "add"}}]


def _ask(stream: int = 1, **given: Any) -> Generate:
    return Generate(stream, CREDIT, **given)


async def _answered(peer: Peer, stream: int = 1, **given: Any) -> tuple[str, str]:
    """The id of the generation of a request, and its text."""
    await peer.send(_ask(stream, **given))
    return await _read(peer, stream)


async def _until(peer: Peer, kind: type[Event], stream: int = 1) -> tuple[list[str], Any]:
    """As `Peer.until`, but a stream that ends otherwise is a failure."""
    pieces: list[str] = []
    while True:
        event = await peer.next()
        if getattr(event, "stream", 0) != stream:
            continue
        if isinstance(event, Tokens):
            pieces += event.pieces
        if isinstance(event, kind):
            return pieces, event
        assert not isinstance(event, Done | Error), event


async def _read(peer: Peer, stream: int) -> tuple[str, str]:
    _, accepted = await _until(peer, Accepted, stream)
    pieces, _ = await _until(peer, Done, stream)
    return accepted.id, "".join(pieces)


async def _refused(peer: Peer, stream: int = 1, **given: Any) -> tuple[str, str]:
    await peer.send(_ask(stream, **given))
    _, error = await _until(peer, Error, stream)
    return str(error.code), error.message


async def _first(listener: MemoryListener, **given: Any) -> str:
    id_, _ = await _answered(await ready(listener), messages=[_FIRST], **given)
    return id_


def test_the_server_says_that_it_can() -> None:
    assert "previous" in FEATURES


async def test_a_conversation_goes_on_and_can_be_followed_back(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        first = await _first(listener)
        peer = await ready(listener)
        second, text = await _answered(peer, messages=[_NEXT], previous=first)
        assert text == "user: I am Ada assistant: user: I am Ada user: who am I"
        third, text = await _answered(peer, 2, prompt="bye", previous=second)
        assert text.endswith("user: who am I user: bye")
    found = {one.id: one for one in stored(tmp_path)}
    assert found[second].request["messages"] == [_FIRST, _ANSWER, _NEXT]
    assert found[second].request["previous"] == first
    assert found[third].request["previous"] == second
    assert len(found[third].request["messages"]) == 5
    assert "previous" not in found[first].request


async def test_what_is_kept_in_memory_only_stays_there_unless_it_is_to_be_stored(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        first = await _first(listener, level=Level.MEMORY)
        peer = await ready(listener)
        second, text = await _answered(peer, messages=[_NEXT], previous=first)
        assert text == "user: I am Ada assistant: user: I am Ada user: who am I"
        third, _ = await _answered(peer, 2, prompt="bye", previous=second, level=Level.DISK)
    (found,) = stored(tmp_path)
    assert (found.id, found.request["previous"]) == (third, second)


async def test_what_goes_on_with_a_transient_one_is_transient(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        first = await _first(listener, transient=True)
        peer = await ready(listener)
        _, text = await _answered(peer, messages=[_NEXT], previous=first)
        assert text == "user: I am Ada assistant: user: I am Ada user: who am I"
    assert not stored(tmp_path)


async def test_the_answer_has_its_tool_calls(tmp_path: Path) -> None:
    upstream = FakeUpstream()
    call = Channel("tool_call", 0, "c0", "add")
    upstream.answer = [("hm", Channel("reasoning")), ('{"a":', call), ("1}", call)]
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        first, _ = await _answered(peer, messages=[_FIRST], chat={"tools": _TOOLS})
        reply = {"role": "tool", "content": "3", "tool_call_id": "c0"}
        await _answered(peer, 2, messages=[reply], previous=first)
    messages, options = upstream.chats[-1]
    function = {"name": "add", "arguments": '{"a":1}'}
    assert messages == [
        _FIRST,
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c0", "type": "function", "function": function}],
        },
        reply,
    ]
    assert options["tools"] == _TOOLS


async def test_it_goes_on_from_what_was_cancelled(tmp_path: Path) -> None:
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(_ask(messages=[_FIRST]))
        _, accepted = await _until(peer, Accepted)
        upstream.release(2)
        pieces, _ = await _until(peer, Tokens)
        while len(pieces) < 2:
            pieces += (await _until(peer, Tokens))[0]
        code, message = await _refused(peer, 2, messages=[_NEXT], previous=accepted.id)
        assert (code, accepted.id in message) == ("invalid_request", True)
        assert "still runs" in message
        await peer.send(Cancel(1))
        await _until(peer, Done)
        upstream.paused = False
        _, text = await _answered(peer, 3, messages=[_NEXT], previous=accepted.id)
        assert text == "user: I am Ada assistant: user: I user: who am I"


async def test_there_must_be_such_a_generation(tmp_path: Path) -> None:
    users = Users.parse("a name=ada\nb name=bob\nr name=root role=admin")
    async with keeping(tmp_path, FakeUpstream(), users=users) as (_, listener):
        ada = await ready(listener, "a")
        first, _ = await _answered(ada, messages=[_FIRST])
        bob = await ready(listener, "b")
        for stream, id_ in enumerate((first, "none", ""), 1):
            code, message = await _refused(bob, stream, messages=[_NEXT], previous=id_)
            assert (code, repr(id_) in message) == ("unknown_generation", True)
        root = await ready(listener, "r")
        second, _ = await _answered(root, messages=[_NEXT], previous=first)
        code, _ = await _refused(ada, 2, messages=[_NEXT], previous=second)
        assert code == "unknown_generation"
        _, text = await _answered(bob, 9, prompt="bob is still here")  # his session goes on
        assert text == "bob is still here"


async def test_what_is_wrong_is_said() -> None:
    async with serving(FakeUpstream()) as (_, listener):
        first = await _first(listener)
        peer = await ready(listener)
        code, message = await _refused(peer, 1, previous=first)
        assert (code, "give messages" in message) == ("invalid_request", True)
        code, message = await _refused(peer, 2, prompt=[1, 2], previous=first)
        assert (code, "token ids" in message) == ("invalid_request", True)
        code, message = await _refused(peer, 3, prompt="a", previous=first, params={"x": 1})
        assert code == "unknown_parameter"
        code, message = await _refused(peer, 4, prompt="a", previous=first, model="none")
        assert code == "unknown_model"


async def test_a_key_means_one_generation_though_the_previous_one_is_deleted(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        first = await _first(listener)
        other = await _first(listener)
        peer = await ready(listener)
        asked: dict[str, Any] = {"messages": [_NEXT], "previous": first, "key": "k"}
        second, text = await _answered(peer, fresh=True, **asked)
        assert await _answered(peer, 2, **asked) == (second, text)
        await peer.send(Delete(3, first))
        await _until(peer, Deleted, 3)
        assert await _answered(peer, 4, **asked) == (second, text)
        # Another one with the same key is refused, and names what is wrong.
        for stream, change in (
            (5, {"previous": other}),
            (6, {"messages": [_FIRST]}),
            (7, {"previous": None}),
            (8, {"messages": [_FIRST]}),
        ):
            code, _ = await _refused(peer, stream, **asked | change)
            assert code == "key_conflict"
        code, _ = await _refused(peer, 9, **asked | {"key": "new"})
        assert code == "unknown_generation"
    assert len(stored(tmp_path)) == 2


async def test_a_key_joins_what_still_runs_though_the_previous_one_is_deleted(
    tmp_path: Path,
) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        first = await _first(listener)
        upstream.paused = True
        asked: dict[str, Any] = {"messages": [_NEXT], "previous": first, "key": "k"}
        peer = await ready(listener)
        await peer.send(_ask(fresh=True, **asked))
        _, accepted = await _until(peer, Accepted)
        await peer.send(Delete(2, first))
        await _until(peer, Deleted, 2)
        again = await ready(listener)
        await again.send(_ask(**asked))
        _, joined = await _until(again, Accepted)
        assert joined.id == accepted.id
        upstream.release(20)
        await _until(again, Done)
        await _until(peer, Done)


async def test_a_cancel_reaches_a_request_whose_previous_one_is_looked_for(
    tmp_path: Path,
) -> None:
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        first = await _first(listener)
        upstream.paused = True
        peer = await ready(listener)
        await peer.send(_ask(messages=[_NEXT], previous=first), Cancel(1))
        _, done = await _until(peer, Done)
        assert done.reason == "cancelled"


async def test_a_kill_loses_nothing_of_a_conversation(tmp_path: Path) -> None:
    """The next server needs the previous generation no more."""
    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        first = await _first(listener)
        upstream.paused = True
        peer = await ready(listener)
        await peer.send(_ask(messages=[_NEXT], previous=first, on_disconnect=1e9))
        _, accepted = await _until(peer, Accepted)
        await peer.send(Delete(2, first))
        await _until(peer, Deleted, 2)
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        peer = await ready(listener)
        await peer.send(Attach(1, accepted.id, CREDIT))
        _, text = await _read(peer, 1)
        assert text == "user: I am Ada assistant: user: I am Ada user: who am I"
        code, _ = await _refused(peer, 2, messages=[_NEXT], previous=first)
        assert code == "unknown_generation"
        await _answered(peer, 3, messages=[_NEXT], previous=accepted.id)
    second, third = stored(tmp_path)
    assert (second.request["previous"], third.request["previous"]) == (first, accepted.id)


async def test_what_it_goes_on_with_is_shown_over_http(tmp_path: Path) -> None:
    """While it runs, when it is over, and by the next server."""

    async def shown(id_: str) -> Any:
        answer = await send(listener, "GET", f"/v1/generations/{id_}")
        return (await answer.json()).get("previous")

    upstream = FakeUpstream()
    async with keeping(tmp_path, upstream) as (_, listener):
        first = await _first(listener)
        upstream.paused = True
        peer = await ready(listener)
        await peer.send(_ask(messages=[_NEXT], previous=first, on_disconnect=1e9))
        _, accepted = await _until(peer, Accepted)
        second = accepted.id
        assert (await shown(first), await shown(second)) == (None, first)
    upstream = paused()
    async with keeping(tmp_path, upstream) as (_, listener):
        assert await shown(second) == first
        upstream.release(20)
        peer = await ready(listener)
        await peer.send(Attach(1, second, CREDIT))
        await _read(peer, 1)
        assert await shown(second) == first


async def test_an_answer_over_http_goes_on_here(tmp_path: Path) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        answer = await post(listener, chat("I am Ada", stream=False))
        await answer.body()
        (first,) = answer.generations
        _, text = await _answered(await ready(listener), messages=[_NEXT], previous=first)
        assert text == "user: I am Ada assistant: user: I am Ada user: who am I"


async def test_a_stored_answer_answers_the_same_question_of_the_same_conversation(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path, FakeUpstream()) as (_, listener):
        first, other = await _first(listener), await _first(listener)
        peer = await ready(listener)
        asked: dict[str, Any] = {
            "messages": [_NEXT],
            "cache": True,
            "params": {"temperature": 0},
        }
        for stream, (previous, cached) in enumerate(
            ((first, False), (first, True), (other, False)), 1
        ):
            await peer.send(_ask(stream, previous=previous, **asked))
            _, accepted = await _until(peer, Accepted, stream)
            assert accepted.cached is cached
            await _until(peer, Done, stream)
