"""Channels of an answer: who asked for them sees them all, everybody else sees the text alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.generation.generation import Generation
from llcuda_net.generation.state import State
from llcuda_net.server.tcp.room import Unsent
from llcuda_net.server.tcp.stream import GenerationStream
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.storage.channels import Switch, text_pieces
from llcuda_net.storage.records import TokenLog
from llcuda_net.upstream.interface import Channel as Kind
from llcuda_net.upstream.interface import CompletionEvent, OnEvents
from llcuda_protocol import (
    Accepted,
    Attach,
    Channel,
    Connection,
    Credit,
    Done,
    Hello,
    Limits,
    Role,
    Tokens,
    Welcome,
)
from tests.support.server.memory_server import CREDIT, FakeUpstream, Peer, ask, ready, serving
from tests.support.storage.journals import packed

REASONING, CALL = Kind("reasoning"), Kind("tool_call", 0, "call-1", "weather")
LOGPROB = msgspec.Raw(msgpack.packb([[1, b"a", -0.5, []]]))
#: Thinks, says something, and calls a tool: first with no arguments.
ANSWER = [
    ("I ", REASONING),
    ("think", REASONING),
    ("Let me", None),
    (" see", None),
    ("", CALL),
    ('{"a"', CALL),
    (": 1}", CALL),
]
SWITCHES = [
    Channel(1, 0, "reasoning"),
    Channel(1, 2, "text"),
    Channel(1, 4, "tool_call", 0, "call-1", "weather"),
]
VISIBLE = ["", "", "Let me", " see", "", "", ""]


class Thinker(FakeUpstream):
    """Answers with several channels, all at once."""

    async def complete(
        self,
        prompt: str | list[int],
        params: dict[str, Any],
        on_events: OnEvents,
        on_sent: Callable[[], None],
    ) -> None:
        await trio.lowlevel.checkpoint()
        on_sent()
        for number, (text, channel) in enumerate(ANSWER):
            on_events([CompletionEvent(text, [number], channel=channel)])
        on_events([CompletionEvent(stop=True, stop_type="tool_calls", tokens_predicted=7)])
        self.poller.end_batch()


async def read(peer: Peer) -> tuple[list[Channel], list[str], list[int | None], Done]:
    """Everything on stream 1: the channels, each before its pieces; the pieces; their ids."""
    channels: list[Channel] = []
    pieces: list[str] = []
    ids: list[int | None] = []
    while True:
        event = await peer.next()
        if isinstance(event, Channel):
            assert event.position <= len(pieces)
            channels.append(event)
        elif isinstance(event, Tokens):
            assert event.first == len(pieces)
            pieces += event.pieces
            ids += event.ids or []
        elif isinstance(event, Done):
            return channels, pieces, ids, event


async def test_who_asked_gets_every_channel(autojump_clock: object) -> None:
    async with serving(Thinker()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(channels=True, tokens=True))
        channels, pieces, ids, done = await read(peer)
        assert channels == SWITCHES
        assert pieces == [text for text, _ in ANSWER]
        assert ids == list(range(7))
        assert done.reason == "tool_calls"


async def test_who_did_not_gets_the_text_under_the_same_numbers(autojump_clock: object) -> None:
    async with serving(Thinker()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(tokens=True))
        channels, pieces, ids, done = await read(peer)
        assert channels == []
        assert pieces == VISIBLE
        assert ids == [None, None, 2, 3, None, None, None]
        assert done.reason == "stop"


@pytest.mark.parametrize(("first", "told"), [(0, 3), (1, 3), (2, 2), (3, 2), (6, 1), (7, 0)])
async def test_who_begins_in_the_middle_is_told_where_it_is(
    first: int, told: int, autojump_clock: object
) -> None:
    async with serving(Thinker()) as (_, listener):
        peer = await ready(listener)
        await peer.send(ask(credit=0))
        accepted = await peer.next()
        assert isinstance(accepted, Accepted)
        for number, channels in ((2, True), (3, False)):
            await peer.send(Attach(number, accepted.id, CREDIT, first, channels=channels))
            seen: list[Channel] = []
            pieces: list[str] = []
            while not isinstance(event := await peer.next(), Done):
                if isinstance(event, Channel):
                    seen.append(event)
                elif isinstance(event, Tokens):
                    pieces += event.pieces
            expected = SWITCHES[len(SWITCHES) - told :] if channels else []
            assert [c.position for c in seen] == [c.position for c in expected]
            whole = [text for text, _ in ANSWER] if channels else VISIBLE
            assert pieces == whole[first:]


# -- any log, any credit --------------------------------------------------------------------------

KINDS = st.sampled_from(
    [Switch(0, "text"), Switch(0, "reasoning"), Switch(0, "tool_call", 1, "c", "f")]
)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[str], list[Switch]]:
    pieces = draw(st.lists(st.text("abc", max_size=3), min_size=1, max_size=30))
    places = draw(st.sets(st.integers(0, len(pieces) - 1), max_size=8))
    return pieces, [draw(KINDS)._replace(position=place) for place in sorted(places)]


class Nowhere(trio.abc.SendStream):
    """Takes nothing: what was added stays in the buffer."""

    async def send_all(self, data: object) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


@given(
    logs(),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 120), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_any_log_with_any_credit(
    log: tuple[list[str], list[Switch]],
    first: int,
    channels: bool,
    probable: bool,
    credits_: list[int],
) -> None:
    pieces, switches = log
    first = min(first, len(pieces))
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    seen: list[Any] = []

    def carry(data: bytes, to: Connection) -> None:
        to.receive_data(data)
        while (event := to.next_event()) is not None:
            seen.append(event)

    limits = Limits()
    carry(client.send(Hello([1], limits.max_frame, 1)), server)
    carry(server.send(Welcome(1, limits.max_frame, 1)), client)
    carry(client.send(Attach(1, "g", 0, first, tokens=True, channels=channels)), server)
    seen.clear()

    async def main() -> None:
        generation = Generation("x", None, {"n_probs": 1} if probable else {}, 60.0)
        size = len(pieces)
        probs = [LOGPROB] * size if probable else None
        generation.restore(packed(TokenLog(pieces, list(range(size)), probs)), [], switches)
        generation.move(State.RUNNING)
        generation.move(State.DONE)
        buffer = WriteBuffer(Nowhere(), lambda: None, 1.0, set(), Unsent(1 << 20))
        stream = GenerationStream(
            1,
            generation,
            server,
            buffer,
            first=first,
            with_ids=True,
            with_channels=channels,
            on_end=lambda _: None,
            on_left=lambda _: None,
            on_shelved=lambda _: None,
            on_crash=lambda: pytest.fail("it crashed"),
        )
        stream.pump()
        for add in [*credits_, 1 << 20]:
            carry(client.send(Credit(1, add)), server)
            stream.pump()
            if not server.is_open(1):
                break
        carry(bytes(buffer._waiting), client)

    trio.run(main)
    assert isinstance(seen[-1], Done)
    found: list[str] = []
    at: list[tuple[int, str]] = []
    for event in seen:
        if isinstance(event, Channel):
            assert event.position <= first + len(found)
            at.append((event.position, event.channel))
        elif isinstance(event, Tokens):
            assert event.first == first + len(found)
            found += event.pieces
            for place, piece in enumerate(event.pieces, event.first):
                assert event.ids is not None
                number = event.ids[place - event.first]
                hidden = not channels and generation_kind(switches, place) != "text"
                assert number == (None if hidden else place)
                assert piece == ("" if hidden else pieces[place])
                if probable:
                    assert event.logprobs is not None
                    assert bool(event.logprobs[place - event.first]) is not hidden
    assert len(found) == len(pieces) - first
    if channels:
        before = [s for s in switches if s.position <= first]
        rest = [s for s in switches if s.position > first]
        in_force = before[-1:] if first < len(pieces) else []
        assert at == [(s.position, s.kind) for s in [*in_force, *rest]]
    else:
        assert at == []
        text = list(text_pieces(pieces, switches))
        if first == 0:
            assert "".join(found) == "".join(text)


def generation_kind(switches: list[Switch], place: int) -> str:
    kind = "text"
    for switch in switches:
        if switch.position <= place:
            kind = switch.kind
    return kind
