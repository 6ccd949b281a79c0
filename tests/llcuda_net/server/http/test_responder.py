"""The responder over memory streams: what it answers, and what it does not let a peer do."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import lockstep_stream_pair, memory_stream_pair

from llcuda_net.server.http.responder import (
    CONVERSATION,
    HEAD,
    MAX_CONNECTIONS,
    MAX_HEAD,
    Answer,
    Responder,
)

GET = b"GET /here?x=1 HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\nAccept: a/b\r\n\r\n"


async def _respond(path: str, accept: str) -> Answer | None:
    if path == "/crash":
        raise RuntimeError("a bug")
    if path == "/here":
        return Answer(200, f"accepts {accept}".encode(), "text/plain")
    return None


async def _ask(*parts: bytes, eof: bool = False) -> bytes:
    """All that comes back to a peer that sends this."""
    ours, theirs = memory_stream_pair()
    answer = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Responder(_respond).serve, theirs)
        for part in parts:
            await ours.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        if eof:
            await ours.send_eof()
        while data := await ours.receive_some(1 << 16):
            answer += data
        await ours.aclose()
    return answer


def _split(answer: bytes) -> tuple[bytes, bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return status, headers, body


async def test_a_get_is_answered_whole_and_byte_by_byte(autojump_clock: trio.abc.Clock) -> None:
    whole = await _ask(GET)
    status, headers, body = _split(whole)
    assert status == b"HTTP/1.1 200 OK"
    assert body == b"accepts text/plain,a/b"
    assert b"Content-Length: 22" in headers
    assert b"Connection: close" in headers
    assert await _ask(*(GET[i : i + 1] for i in range(len(GET)))) == whole
    assert await _ask(GET + GET) == whole  # no second request on a connection


async def test_head_is_told_the_length_and_nothing_more(autojump_clock: trio.abc.Clock) -> None:
    status, headers, body = _split(await _ask(GET.replace(b"GET", b"HEAD")))
    assert (status, body) == (b"HTTP/1.1 200 OK", b"")
    assert b"Content-Length: 22" in headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404 Not Found"),
        (b"POST /here HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"405 Method"),
        (b"GET /here HTTP/1.1\r\n\r\n", b"400 Bad Request"),  # no Host
        (b"\x16\x03\x01\x02\x00 a TLS greeting\r\n\r\n", b"400 Bad Request"),
        (b"GET /crash HTTP/1.1\r\nHost: x\r\n\r\n", b"500 Internal"),
        (b"GET /here HTTP/1.0\r\n\r\n", b"200 OK"),
    ],
)
async def test_statuses(request_: bytes, status: bytes, autojump_clock: trio.abc.Clock) -> None:
    answer = await _ask(request_)
    assert answer.startswith(b"HTTP/1.1 " + status), answer
    assert (b"Allow: GET, HEAD" in answer) == (status[:3] == b"405")


async def test_a_head_without_end_is_refused(autojump_clock: trio.abc.Clock) -> None:
    long = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (MAX_HEAD + 1)
    assert (await _ask(long)).startswith(b"HTTP/1.1 431 ")


async def test_silence_ends_in_time(autojump_clock: trio.abc.Clock) -> None:
    started = trio.current_time()
    assert await _ask(GET[:9]) == b""
    assert trio.current_time() - started == pytest.approx(HEAD)


async def test_a_request_that_comes_byte_by_byte_ends_in_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    ours, theirs = memory_stream_pair()

    async def drip() -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await ours.send_all(b"x")
                await trio.sleep(0.1)

    await ours.send_all(b"GET /here HTTP/1.1\r\nHost: x\r\nX: ")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with trio.fail_after(HEAD + 1):
            await Responder(_respond).serve(theirs)


async def test_an_answer_that_nobody_reads_ends_in_time(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, GET)
        with trio.fail_after(CONVERSATION + 1):
            await Responder(_respond).serve(theirs)


async def test_a_peer_that_never_closes_is_closed(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(GET)
    with trio.fail_after(CONVERSATION):
        await Responder(_respond).serve(theirs)


async def test_a_peer_that_goes_hurts_nobody(autojump_clock: trio.abc.Clock) -> None:
    assert await _ask(eof=True) == b""
    ours, theirs = memory_stream_pair()
    await ours.send_all(GET)
    await ours.aclose()
    await Responder(_respond).serve(theirs)


async def test_idle_connections_keep_nobody_out(autojump_clock: trio.abc.Clock) -> None:
    """However many there are: the oldest goes, and whoever asks is answered."""
    responder = Responder(_respond)
    crowd = [memory_stream_pair() for _ in range(5 * MAX_CONNECTIONS)]
    async with trio.open_nursery() as nursery:
        for number, (ours, theirs) in enumerate(crowd):
            if number % 2:
                await ours.send_all(GET[:-1])
            nursery.start_soon(responder.serve, theirs)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            assert (
                repr(responder) == f"<Responder {MAX_CONNECTIONS} of {MAX_CONNECTIONS} connections>"
            )
            ours, theirs = memory_stream_pair()
            await ours.send_all(GET)
            nursery.start_soon(responder.serve, theirs)
            with trio.fail_after(60):
                assert (await ours.receive_some()).startswith(b"HTTP/1.1 200")
        gone = crowd[: 4 * MAX_CONNECTIONS + 1]
        with trio.fail_after(60):
            assert [await ours.receive_some() for ours, _ in gone] == [b""] * len(gone)
        nursery.cancel_scope.cancel()


async def _ask_only(stream: trio.abc.Stream) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(GET)


async def test_those_who_read_nothing_keep_nobody_out(autojump_clock: trio.abc.Clock) -> None:
    responder = Responder(_respond)
    async with trio.open_nursery() as nursery:
        for _ in range(2 * MAX_CONNECTIONS):
            ours, theirs = lockstep_stream_pair()
            nursery.start_soon(_ask_only, ours)
            nursery.start_soon(responder.serve, theirs)
        await trio.testing.wait_all_tasks_blocked()
        mine, server = memory_stream_pair()
        await mine.send_all(GET)
        nursery.start_soon(responder.serve, server)
        with trio.fail_after(60):
            assert (await mine.receive_some()).startswith(b"HTTP/1.1 200")
        nursery.cancel_scope.cancel()


_LINES = st.sampled_from(
    [b"GET ", b"/here", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"Content-Length: 9\r\n", b"\0"]
)


@given(st.lists(_LINES | st.binary(max_size=20), max_size=8))
def test_whatever_comes_is_answered_or_closed(parts: list[bytes]) -> None:
    async def main() -> bytes:
        return await _ask(b"".join(parts), eof=True)

    answer = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
