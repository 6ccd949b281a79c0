"""Clients that make a server hold as much as they can.

They speak the protocol themselves: the client of llcuda reads, and gives credit as it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import trio

import llcuda_protocol as wire

#: Credit that no answer uses up.
ALL = 1 << 30
_GIVEN_UP = (OSError, trio.BrokenResourceError, trio.TooSlowError, wire.ProtocolError)
#: Seconds for the greeting.
_PATIENCE = 60.0


class RefusedError(OSError):
    """The server did not let a client in."""


class Client:
    """One connection, greeted; it reads only when it is told to."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = wire.Connection(wire.Role.CLIENT, wire.Limits())
        self.numbers: Iterator[int] = count(1)
        self._sending = trio.Lock()

    async def send(self, frame: Any) -> None:
        """Send one frame."""
        async with self._sending:
            await self.stream.send_all(self.connection.send(frame))

    async def next(self) -> Any:
        """The next frame."""
        while (event := self.connection.next_event()) is None:
            self.connection.receive_data(await self.stream.receive_some(65_536))
        return event

    async def ask(self, credit: int, **params: Any) -> int:
        """Ask for a generation; the number of its stream."""
        async with self._sending:
            number = next(self.numbers)
            frame = wire.Generate(number, credit, prompt=f"{id(self)} {number}", params=params)
            await self.stream.send_all(self.connection.send(frame))
        return number


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A client of a server of this machine."""
    with trio.fail_after(_PATIENCE):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        client = Client(stream)
        with trio.fail_after(_PATIENCE):
            await client.send(wire.Hello([1], 4 << 20, 256, None))
            welcome = await client.next()
        if not isinstance(welcome, wire.Welcome):
            raise RefusedError(f"the greeting was answered with {welcome}")
        yield client


async def probabilities(port: int, counts: Counter[str]) -> None:
    """One client: 24 requests, 1,024 probabilities a token, and no credit for any of them."""
    async with connected(port) as client, trio.open_nursery() as nursery:
        asked = {"n_probs": 1024, "n_predict": 600}

        async def again(seconds: float) -> None:
            await trio.sleep(seconds)
            counts["requests"] += 1
            await client.ask(0, **asked)

        for _ in range(24):
            await again(0)
        while True:
            event = await client.next()
            if isinstance(event, wire.ConnectionClosed):
                return
            if isinstance(event, wire.Accepted):
                counts["accepted"] += 1
            elif isinstance(event, wire.Error):
                counts[str(event.code)] += 1
                if event.retry:
                    nursery.start_soon(again, event.retry_after or 1.0)


async def unread(port: int, counts: Counter[str]) -> None:
    """60 clients that never read, 20 probabilities a token; half of them give credit."""

    async def client(number: int) -> None:
        async with connected(port) as one:
            counts["requests"] += 1
            await one.ask(ALL * (number % 2), n_probs=20, n_predict=1000)
            await trio.sleep_forever()

    await together(60, client)


async def streams(port: int, counts: Counter[str]) -> None:
    """1,000 clients that read all of it, and ask again."""

    async def client(number: int) -> None:
        async with connected(port) as one:
            while True:
                counts["requests"] += 1
                await one.ask(ALL, n_predict=100 + number % 100)
                while not isinstance(event := await one.next(), wire.Done | wire.Error):
                    counts["pieces"] += len(getattr(event, "pieces", ()))
                code = getattr(event, "code", "done")
                counts[str(code)] += 1
                await trio.sleep(getattr(event, "retry_after", 0) or 0)

    await together(1000, client)


async def prompts(port: int, counts: Counter[str]) -> None:
    """400 connections: half send half a large frame, the others long prompts, again and again."""
    text = "x" * (3 << 20)

    async def client(number: int) -> None:
        async with connected(port) as one:
            if number % 2:
                counts["half frames"] += 1
                data = one.connection.send(wire.Generate(1, 0, prompt=text))
                await one.stream.send_all(data[: len(data) // 2])
                while await one.stream.receive_some(65_536):
                    pass
                counts["closed"] += 1
                return
            while True:
                number = next(one.numbers)
                counts["requests"] += 1
                await one.send(wire.Generate(number, 0, prompt=text, params={"n_predict": 9}))
                while not isinstance(event := await one.next(), wire.Accepted | wire.Error):
                    pass
                counts[str(getattr(event, "code", "accepted"))] += 1
                await trio.sleep(getattr(event, "retry_after", 1) or 1)

    await together(400, client)


async def replies(port: int, counts: Counter[str]) -> None:
    """100 clients with 200 lists and reports each that they never read."""

    async def client(_: int) -> None:
        async with connected(port) as one:
            for _ in range(100):
                counts["requests"] += 2
                await one.send(wire.ListGenerations(next(one.numbers), limit=1000))
                await one.send(wire.Status(next(one.numbers)))
            await trio.sleep_forever()

    await together(100, client)


async def together(clients: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Be so many clients at once; each has a number."""

    async def one(number: int) -> None:
        # A server may refuse, or give up, a client; that is what these are for.
        with suppress(*_GIVEN_UP):
            await work(number)

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(one, number)
