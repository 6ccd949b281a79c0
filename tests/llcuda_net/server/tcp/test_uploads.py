"""Uploads: pieces between the frames of other streams, bounded, and used up by one request."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.errors import InvalidRequest, Overloaded, RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.server.gateway import Gateway
from llcuda_net.server.tcp import uploads
from llcuda_net.server.tcp.room import Incoming
from llcuda_net.storage.records import Result
from llcuda_protocol import (
    Accepted,
    Cancel,
    Done,
    Error,
    Frame,
    Generate,
    GoAway,
    Ping,
    Pong,
    Tokens,
    Upload,
)
from tests.support.server.memory_server import (
    CREDIT,
    FakeUpstream,
    Peer,
    ask,
    paused,
    ready,
    serving,
)

PNG = b"\x89PNG" + bytes(range(256)) * 400
LONG = PNG[:65_536]


def image(number: int) -> dict[str, Any]:
    return {"type": "image", "media_type": "image/png", "upload": number}


def asking(stream: int, *parts: dict[str, Any]) -> Generate:
    content = [{"type": "text", "text": "what is it?"}, *parts]
    return Generate(stream, CREDIT, messages=[{"role": "user", "content": content}])


def pieces(stream: int, data: bytes = PNG, size: int = 65_536) -> list[Frame]:
    cuts = [data[at : at + size] for at in range(0, len(data), size)]
    return [Upload(stream, cut, more=cut is not cuts[-1]) for cut in cuts]


class Asked:
    """Takes the place of submit: what the gateway would be asked, and an answer of text."""

    def __init__(self, server: Gateway) -> None:
        self.messages: list[Any] = []
        self.error: RequestError | None = None
        self._submit = server.intake.submit
        server.intake.submit = self.submit  # type: ignore[method-assign]

    def submit(
        self,
        request: Generate,
        user: User,
        api: dict[str, Any] | None = None,
        previous: Result | None = None,
        id_: str | None = None,
    ) -> Generation:
        self.messages.append(request.messages)
        if self.error is not None:
            raise self.error
        return self._submit(ask("one two", stream=request.stream), user)


async def expect_error(peer: Peer, stream: int, code: str, words: str) -> Error:
    _, error = await peer.until(Error, stream)
    assert isinstance(error, Error)
    assert error.code == code
    assert words in error.message
    return error


async def still_there(peer: Peer) -> None:
    await peer.send(Ping(b"p"))
    while (event := await peer.next()) != Pong(b"p"):
        assert not isinstance(event, Error)


async def test_an_image_in_pieces_is_a_data_url(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        asked = Asked(server)
        peer = await ready(listener)
        await peer.send(*pieces(1), asking(2, image(1)))  # without waiting for done
        _, done = await peer.until(Done)
        assert (done.reason, done.usage) == ("complete", {})
        _, done = await peer.until(Done, 2)
        assert done.reason == "stop"
        url = "data:image/png;base64," + b64encode(PNG).decode()
        content = [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        assert asked.messages == [[{"role": "user", "content": content}]]
        assert server.memory.report()["incoming"] == 0


async def test_other_streams_go_on_between_the_pieces(autojump_clock: object) -> None:
    upstream = paused()
    async with serving(upstream) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask("one two three four"))
        assert isinstance(await peer.next(), Accepted)
        *before, last = pieces(2, PNG, 40_000)
        for frame in before:
            await peer.send(frame)
            upstream.release()
            assert isinstance(await peer.next(), Tokens)
        await peer.send(last)
        _, done = await peer.until(Done, 2)
        assert done.reason == "complete"


async def test_data_in_the_message_needs_no_upload(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        asked = Asked(server)
        peer = await ready(listener)
        sound = {"type": "audio", "format": "wav", "data": b"RIFF"}
        call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
        messages: list[dict[str, Any]] = [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [sound]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": ""},
            {"role": "user", "content": "plain"},
        ]
        await peer.send(Generate(1, CREDIT, messages=messages))
        await peer.until(Done)
        heard = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
        assert asked.messages == [
            [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [heard]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", **call}],
                },
                {"role": "tool", "tool_call_id": "c", "content": ""},
                {"role": "user", "content": "plain"},
            ]
        ]


async def test_an_upload_is_used_up(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        Asked(server)
        peer = await ready(listener)
        await peer.send(*pieces(1), asking(2, image(1)))
        await peer.until(Done, 2)
        await peer.send(asking(3, image(1)))
        await expect_error(peer, 3, "invalid_request", "there is no upload 1 on this connection")


async def test_but_not_by_a_request_that_may_be_repeated(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        asked = Asked(server)
        asked.error = Overloaded("full", retry=True)
        peer = await ready(listener)
        await peer.send(*pieces(1), asking(2, image(1)))
        await expect_error(peer, 2, "overloaded", "full")
        asked.error = InvalidRequest("never")
        await peer.send(asking(3, image(1)), asking(4, image(1)))
        await expect_error(peer, 3, "invalid_request", "never")
        await expect_error(peer, 4, "invalid_request", "there is no upload 1")
        assert server.memory.report()["incoming"] == 0


async def test_what_is_not_whole_cannot_be_used(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        Asked(server)
        peer = await ready(listener)
        await peer.send(Upload(1, b"a", more=True), asking(2, image(1)), asking(3, image(9)))
        await expect_error(peer, 2, "invalid_request", "there is no upload 1")
        await expect_error(peer, 3, "invalid_request", "there is no upload 9")
        await peer.send(Upload(4, b"a"), asking(5, image(4), image(4)))
        await expect_error(peer, 5, "invalid_request", "in one place")
        await peer.send(Upload(6, b"", more=True), Upload(6, b""))
        await expect_error(peer, 6, "invalid_request", "no bytes")
        await still_there(peer)


async def test_a_large_one_is_refused_and_the_rest_of_it_dropped(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(uploads, "MOST", 100_000)
    async with serving(FakeUpstream()) as (server, listener):
        peer = listener.connect()
        assert (await peer.greet()).max_upload == 100_000
        # All on their way before the error comes.
        await peer.send(Upload(1, LONG, more=True), Upload(1, LONG, more=True), Upload(1, b"rest"))
        await expect_error(peer, 1, "invalid_request", "may have 100,000 bytes")
        await still_there(peer)
        assert server.memory.report()["incoming"] == 0
        await peer.send(Upload(2, LONG))
        await peer.until(Done, 2)


async def test_one_that_does_not_go_on_times_out(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        Asked(server)
        peer = await ready(listener)
        await peer.send(Upload(1, LONG, more=True))
        await trio.sleep(50)
        await peer.send(Upload(2, LONG), Upload(1, LONG, more=True))
        await peer.until(Done, 2)
        await trio.sleep(50)
        await peer.send(Upload(3, LONG), asking(4, image(2)))  # in time
        await peer.until(Done, 4)
        error = await expect_error(peer, 1, "timeout", "no piece of the upload came for 60 s")
        assert error.retry
        await trio.sleep(uploads.PATIENCE)
        assert server.memory.report()["incoming"] == 0
        await peer.send(asking(5, image(3)))
        await expect_error(peer, 5, "invalid_request", "there is no upload 3")
        # And so later, when there was nothing to watch.
        await peer.send(Upload(6, b"a", more=True))
        await expect_error(peer, 6, "timeout", "no piece")


@pytest.mark.parametrize("detach", [False, True])
async def test_one_can_be_cancelled(detach: bool, autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        peer = await ready(listener)
        await peer.send(Upload(1, LONG, more=True), Cancel(1, detach))
        _, done = await peer.until(Done)
        assert done.reason == "cancelled"
        assert server.memory.report()["incoming"] == 0
        await still_there(peer)


async def test_they_take_half_of_the_room_and_leave_half_to_others(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    users = Users.parse("secret-a name=ann\nsecret-b name=bob\n", "tokens")
    async with serving(FakeUpstream(), users=users) as (server, listener):
        room = server.incoming = Incoming(800_000)  # 300,000 of one user's uploads
        monkeypatch.setattr(server.memory, "incoming", room)
        ann = await ready(listener, "secret-a")
        await ann.send(*(Upload(n, LONG, more=True) for n in (1, 2, 3, 4)))
        await ann.send(Upload(5, LONG))
        error = await expect_error(ann, 5, "overloaded", "300,000 bytes of memory, your uploads")
        assert error.retry
        # Frames have their room, and another user has theirs.
        await ann.send(ask("x" * 200_000, stream=6))
        assert isinstance(await ann.next(), Accepted)
        bob = await ready(listener, "secret-b")
        await bob.send(Upload(1, LONG, more=True), Upload(1, LONG, more=True))
        await bob.send(Upload(2, LONG))
        await expect_error(bob, 2, "overloaded", "the uploads of all clients")
        await bob.send(Cancel(1))
        await bob.until(Done)
        # A connection that ends holds nothing.
        await ann.stream.aclose()
        await wait_all_tasks_blocked()
        assert room.waiting == 0
        assert repr(room) == "<Incoming 0 of 800,000 bytes>"


async def test_an_error_in_a_value_ends_its_stream_alone(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        peer = await ready(listener)
        await peer.send(Upload(1, LONG, more=True))
        wrong = b"\x94\x0b\x01\xc4\x01a\x01"  # more: 1
        await peer.stream.send_all(len(wrong).to_bytes(4, "big") + wrong)
        await expect_error(peer, 1, "invalid_request", "more must be true or false")
        await wait_all_tasks_blocked()
        assert server.memory.report()["incoming"] == 0
        await still_there(peer)


async def test_a_server_that_stops_ends_them(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (server, listener):
        peer = await ready(listener)
        await peer.send(Upload(1, LONG, more=True))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain, 5.0)
            assert isinstance(await peer.next(), GoAway)
            await peer.send(Upload(1, LONG, more=True))  # it goes on in the time that is left
            error = await expect_error(peer, 1, "shutting_down", "stopped")
            assert error.retry
