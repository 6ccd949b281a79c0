"""A body that a handler takes part by part: its bounds, its pace, and what follows it."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llcuda_net.errors import ShuttingDown
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.limits import BODY_GRACE
from llcuda_net.server.http.route import Route
from tests.support.server.http_client import http_rig

POST = b"POST /parts HTTP/1.1\r\nHost: localhost\r\n"
MOST = 200_000


class Taker:
    """Takes bodies, each part when `room` lets it.

    Attributes:
        taken: what came of the last one.
        refuse: answered instead of taking it.
        ended: how the last one ended.
    """

    def __init__(self) -> None:
        self.room = trio.Event()
        self.room.set()
        self.taken = b""
        self.refuse: HttpError | None = None
        self.ended = ""

    async def __call__(self, exchange: Exchange) -> None:
        self.taken, self.ended = b"", ""
        if self.refuse is not None:
            raise self.refuse

        async def take(data: bytes) -> None:
            await self.room.wait()
            self.taken += data

        try:
            await exchange.receive(take, MOST, HttpError(413, "too many"))
        except BaseException as error:
            self.ended = type(error).__name__
            raise
        self.ended = "whole"
        exchange.respond(200, json.dumps({"taken": len(self.taken)}).encode())


def routes(taker: Taker) -> list[Route]:
    return [Route("POST", "/parts", taker, json=False, parts=True)]


@pytest.mark.parametrize("size", [0, 1, 70_000, MOST])
async def test_one_after_the_other_on_a_connection(
    size: int, autojump_clock: trio.abc.Clock
) -> None:
    taker = Taker()
    async with http_rig(*routes(taker), max_body=1024) as rig:
        peer = rig.connect()
        for _ in range(2):
            answer = await peer.ask("POST", "/parts", body=b"x" * size)
            assert (answer.status, taker.taken) == (200, b"x" * size)
            assert "connection" not in answer.headers
            assert rig.host.incoming.waiting == 0


async def test_chunks_without_a_length(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        await peer.send(
            POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert (await peer.answer("POST")).status == 200
        assert taker.taken == b"abcde"
        await peer.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"%x\r\n%b\r\n" % (MOST // 2, b"x" * (MOST // 2))
        await peer.send(part + part + b"1\r\nx\r\n0\r\n\r\n")
        answer = await peer.answer("POST")
        assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_too_much_is_refused_before_it_comes(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(*routes(Taker())) as rig:
        peer = rig.connect()
        head = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MOST + 1)
        await peer.send(POST + head)
        assert [one.status for one in await peer.answers()] == [413]


async def test_a_handler_may_refuse_without_reading(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    taker.refuse = HttpError(429, "not now")
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        answer = await peer.ask("POST", "/parts", body=b"x" * 70_000)
        assert (answer.status, answer.headers["connection"]) == (429, "close")


async def test_a_client_that_waits_hears_that_it_may_send(autojump_clock: trio.abc.Clock) -> None:
    async with http_rig(*routes(Taker())) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await wait_all_tasks_blocked()
        await peer.send(b"ab")
        assert [one.status for one in await peer.answers()] == [100, 200]


async def test_no_more_is_read_than_was_taken(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    taker.room = trio.Event()
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: 150000\r\n\r\n" + b"x" * 100_000)
        await wait_all_tasks_blocked()
        assert taker.taken == b""
        taker.room.set()
        await wait_all_tasks_blocked()
        assert len(taker.taken) == 100_000
        await peer.send(b"x" * 50_000)
        assert (await peer.answer("POST")).status == 200


async def test_a_client_that_goes_away_ends_it(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: 150000\r\n\r\nabc")
        await wait_all_tasks_blocked()
        await peer.stream.aclose()
        await wait_all_tasks_blocked()
        assert taker.ended == "BrokenResourceError"


async def test_a_body_that_does_not_come_in_time(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        begun = trio.current_time()
        await peer.send(POST + b"Content-Length: 150000\r\n\r\nabc")
        answer = await peer.answer("POST")
        assert (answer.status, taker.ended) == (408, "HttpError")
        assert BODY_GRACE <= trio.current_time() - begun < BODY_GRACE + 1


async def test_a_server_that_stops_ends_it(autojump_clock: trio.abc.Clock) -> None:
    taker = Taker()
    async with http_rig(*routes(taker)) as rig:
        peer = rig.connect()
        await peer.send(POST + b"Content-Length: 150000\r\n\r\nabc")
        await wait_all_tasks_blocked()
        rig.connections[0].hand_back(ShuttingDown("stopping", retry=True))
        answer = await peer.answer("POST")
        assert (answer.status, taker.ended) == (503, "Cancelled")
