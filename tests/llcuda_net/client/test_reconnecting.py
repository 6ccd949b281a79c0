"""The client whose connection is lost: it connects again, and goes on where it stopped.

No sockets and no real time: every pause is the autojump clock's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import llcuda_protocol as wire
from llcuda_net.client import Client
from llcuda_net.client.requests import TAKES, WINDOW
from tests.support.client.attach_server import Lasting

WORDS = "one two three four five six seven eight nine"

Clock = trio.testing.MockClock


@pytest.fixture
def server() -> Lasting:
    return Lasting()


async def quiet() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -- not one piece missing or doubled -------------------------------------------------------------


async def conversation(server: Lasting, **options: Any) -> tuple[Any, ...]:
    """What somebody sees who asks for a generation, vectors and a status."""
    async with server.client(**options) as client:
        events = []
        async with client.generate(raw=WORDS, tokens=True, durable=True) as stream:
            async for event in stream.events():
                if hasattr(event, "sequence"):
                    events.append(event)
        others = (
            await client.embed(["a", "b", "c"]),
            await client.search("a", 2),
            await client.list(2),
        )
        return events, stream.text, stream.result, stream.durable, others, await client.status()


@pytest.mark.parametrize("direction", ["received", "sent"])
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_cut_at_any_byte_changes_nothing(
    direction: str, step: int, autojump_clock: Clock
) -> None:
    uncut = Lasting()
    seen = await conversation(uncut)
    assert seen[1] == WORDS
    greeting = 8 if direction == "sent" else _welcome_size()
    total = getattr(uncut.transports[0], direction)
    assert total > greeting + 100
    for at in [*range(greeting, total, step), total]:
        server = Lasting()
        server.cuts = [(at, None) if direction == "received" else (None, at)]
        if direction == "sent" and at < _hello_size():
            continue  # nobody would be greeted, and connect() fails as it should
        assert await conversation(server) == seen, at
        assert len(server.logs) == 1, at  # the key started it once
        expected = 1 if at == total and direction == "received" else 2
        assert server.dials <= expected, at


def _hello_size() -> int:
    client = wire.Connection(wire.Role.CLIENT)
    limits = client.limits
    hello = wire.Hello(
        [1], limits.max_frame, limits.max_streams, agent="llcuda-net", features=[*TAKES]
    )
    return len(client.send(hello)) + 1


def _welcome_size() -> int:
    client, server = wire.Connection(wire.Role.CLIENT), wire.Connection(wire.Role.SERVER)
    limits = client.limits
    server.receive_data(client.send(wire.Hello([1], limits.max_frame, limits.max_streams)))
    server.next_event()
    welcome = wire.Welcome(
        1, limits.max_frame, limits.max_streams, features=list(Lasting().features)
    )
    return len(server.send(welcome))


_AFTER_WELCOME = st.integers(_welcome_size(), _welcome_size() + 900)
_ANYWHERE = st.one_of(st.none(), st.integers(0, 700))


@given(
    first=_AFTER_WELCOME,
    later=st.lists(st.tuples(_ANYWHERE, _ANYWHERE), max_size=6),
    max_streams=st.sampled_from([2, 256]),
    step=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_cuts_one_after_the_other_change_nothing_of_many_streams(
    first: int, later: list[tuple[int | None, int | None]], max_streams: int, step: int
) -> None:
    """Cuts anywhere, greetings included; two streams at once fit where the server allows two."""

    async def main() -> None:
        server = Lasting(max_streams=max_streams, step=step)
        server.cuts = [(first, None), *later]
        found: dict[str, str] = {}

        async def ask(client: Client, text: str) -> None:
            found[text] = (await client.complete(raw=text)).text

        async with server.client() as client, trio.open_nursery() as nursery:
            for i in range(5):
                nursery.start_soon(ask, client, f"{i} {WORDS}")
        assert found == {text: text for text in (f"{i} {WORDS}" for i in range(5))}
        assert len(server.logs) == 5

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_every_stream_goes_on_over_one_new_connection(
    server: Lasting, autojump_clock: Clock
) -> None:
    async with server.client() as client, trio.open_nursery() as nursery:
        texts: list[str] = []

        async def ask() -> None:
            texts.append((await client.complete(raw="hold on")).text)

        for _ in range(20):
            nursery.start_soon(ask)
        await quiet()
        await server.lose()
        await quiet()
        assert server.dials == 2
        assert len(server.of(wire.Attach)) == 20
        server.go_on(" now", reason="stop")
    assert texts == ["hold on now"] * 20


async def test_what_a_resumed_stream_requests_and_learns(
    server: Lasting, autojump_clock: Clock
) -> None:
    server.splices = [2]
    async with (
        server.client() as client,
        client.generate(raw="hold on", tokens=True, durable=True) as stream,
    ):
        assert (stream.id, stream.level, stream.epoch) == ("generation-0", "disk", 0)
        assert not stream.cached
        assert [await anext(stream), await anext(stream)] == ["hold", " on"]
        assert stream.received == 2
        server.epoch = 1
        for _ in range(2):
            await server.lose()
            await quiet()
        server.go_on(" more", reason="length")
        assert [piece async for piece in stream] == [" more"]
        assert (stream.epoch, stream.received, stream.durable) == (1, 3, 3)
        assert (stream.result.text, stream.result.splices) == ("hold on more", [2])
        asked = server.of(wire.Attach)
        again = wire.Attach(1, stream.id, WINDOW, 2, epoch=0, tokens=True, durable=True)
        assert asked == [again, replace(again, epoch=1)]


async def test_an_unread_stream_never_holds_more_than_one_window(
    server: Lasting, autojump_clock: Clock
) -> None:
    server._step = 1
    async with server.client() as client, client.generate(raw="hold on") as stream:
        await quiet()
        for _ in range(3):
            await server.lose()
            await quiet()
            server.go_on(" " + "x" * WINDOW)
            await quiet()
        # What was there waits for its reader, and no more was asked for.
        assert [attach.credit for attach in server.of(wire.Attach)] == [0, 0, 0]
        assert [(await anext(stream)).strip() for _ in range(2)] == ["hold", "on"]
        assert server.of(wire.Credit) == []
        assert [len(await anext(stream)) for _ in range(3)] == [WINDOW + 1] * 3
        assert server.of(wire.Credit)[0].add == WINDOW
