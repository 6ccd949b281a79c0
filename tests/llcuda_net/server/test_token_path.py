"""The way of one token through the server, counted: calls and files, not microseconds.

A whole server at the level disk runs over sockets on loopback. Its upstream is a script that sends
tokens when the test says so. `sys.setprofile` counts each call of a Python function of ours, from
the bytes of the upstream to the bytes at the client.
"""

from __future__ import annotations

import json
import os
import select
from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from llcuda_net.storage.records import Level
from llcuda_net.upstream.llama import gathering
from llcuda_protocol import Accepted, Generate, Tokens
from tests.support.server.counting import Calls, counting, shown
from tests.support.server.scripted_server import (
    PATIENCE,
    Reader,
    Script,
    event,
    running,
    settled,
)

#: Most calls of our functions for one token that comes alone, and most files that these are in.
MOST_CALLS, MOST_FILES = 25, 11
#: The same over HTTP.
MOST_HTTP_CALLS, MOST_HTTP_FILES = 25, 12
#: Most times that the event loop waits for a decode step, where all of its tokens come together.
MOST_WAKE_UPS = 1.3
_CHAT = json.dumps(
    {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 500, "stream": True}
).encode()
_ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_CHAT), _CHAT)
)


async def until_readable(stream: trio.SocketStream) -> None:
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(stream.socket)


async def begun(script: Script, reader: Reader, number: int) -> int:
    """Ask for a generation, and read its first tokens: what happens once is over then."""
    await reader.send(Generate(number, prompt="hello", credit=1 << 20, params={"n_predict": 500}))
    assert isinstance(await reader.next(), Accepted)
    await script.more.wait()
    script.more = trio.Event()
    upstream = script.completions[-1].socket
    for count in (1, 2, 3):
        await upstream.send(event(f"w{count} ", count))
        assert isinstance(found := await reader.next(), Tokens)
        assert found.pieces == [f"w{count} "]
    return upstream.fileno()


async def test_one_token_is_few_calls_in_few_files(tmp_path: Path, still_clock: MockClock) -> None:
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        upstream = await begun(script, reader, 1)
        await settled(storage)  # what the tokens before led to is over
        calls: Calls = Counter()
        with counting(calls):
            os.write(upstream, event("word", 4))
            await until_readable(reader.stream)
        found = await reader.next()
        assert (found.pieces, found.first) == (["word"], 3)
        assert sum(calls.values()) <= MOST_CALLS, shown(calls)
        assert len({path for path, _ in calls} - {"<string>"}) <= MOST_FILES, shown(calls)


async def begun_chat(script: Script, stream: trio.SocketStream) -> int:
    """Ask for a chat over HTTP, and read its first tokens."""
    await stream.send_all(_ASK)
    await script.more.wait()
    script.more = trio.Event()
    upstream = script.completions[-1].socket
    for count in (1, 2, 3):
        await upstream.send(event(f"w{count} ", count))
        read = b""
        while f'"content":"w{count} "'.encode() not in read:
            read += await stream.receive_some()
    return upstream.fileno()


async def test_one_token_over_http_is_few_calls_in_few_files(
    tmp_path: Path, still_clock: MockClock
) -> None:
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        address = reader.stream.socket.getpeername()
        async with await trio.open_tcp_stream(*address[:2]) as stream:
            upstream = await begun_chat(script, stream)
            await settled(storage)  # what the tokens before led to is over
            calls: Calls = Counter()
            with counting(calls):
                os.write(upstream, event("word", 4))
                await until_readable(stream)
            found = bytes(await stream.receive_some())
        assert b":4\ndata: {" in found
        assert b'"delta":{"content":"word"}' in found
        assert found.count(b"\r\n") == 2  # one chunk
        assert sum(calls.values()) <= MOST_HTTP_CALLS, shown(calls)
        assert len({path for path, _ in calls} - {"<string>"}) <= MOST_HTTP_FILES, shown(calls)


async def test_what_is_read_together_is_handled_as_one_batch(
    tmp_path: Path, still_clock: MockClock
) -> None:
    streams = 4
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        upstreams = [await begun(script, reader, n + 1) for n in range(streams)]
        await settled(storage)  # what the tokens before led to is over
        calls: Calls = Counter()
        writes = storage.journal.stats.writes
        with counting(calls):
            for upstream in upstreams:
                os.write(upstream, event("one ", 4) + event("two", 5))
            await until_readable(reader.stream)
        for _ in range(streams):
            found = await reader.next()
            assert (found.pieces, found.first) == (["one ", "two"], 3)  # encoded once per stream
        by_name: Counter[str] = Counter()
        for (_, name), count in calls.items():
            by_name[name] += count
        # Once per generation, however many tokens came for it.
        assert by_name["JournalEntry.append"] == streams
        assert by_name["Connection.send_pieces"] == streams
        # Once for all of them: one system call for the journal, one for the connection.
        assert storage.journal.stats.writes == writes + 1
        assert by_name["WriteBuffer.flush"] == 1
        assert sum(calls.values()) <= MOST_CALLS * streams, shown(calls)


class WakeUps(trio.abc.Instrument):
    """Counts the times that the event loop waits, and does not only look, until all has arrived."""

    def __init__(self, arrives: int) -> None:
        self.count = 0
        self._arrives = arrives

    def before_io_wait(self, timeout: float) -> None:
        self.count += timeout > 0 and not select.select([self._arrives], [], [], 0)[0]


@pytest.mark.parametrize("level", [Level.MEMORY, Level.DISK])
async def test_a_decode_step_is_one_wake_up(
    tmp_path: Path, level: Level, still_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams, steps = 16, 40
    monkeypatch.setattr(gathering, "FLOWING", 0.0)  # no pace, however quick this is
    async with running(tmp_path, level, slots=streams) as (script, connect, storage):
        reader = await connect()
        upstreams = [await begun(script, reader, n + 1) for n in range(streams)]
        await settled(storage)  # what the tokens before led to is over
        wake_ups = WakeUps(reader.stream.socket.fileno())
        writes = storage.journal.stats.writes
        for step in range(4, 4 + steps):
            for upstream in upstreams:
                os.write(upstream, event("word", step))
            trio.lowlevel.add_instrument(wake_ups)
            await until_readable(reader.stream)
            trio.lowlevel.remove_instrument(wake_ups)
            for _ in range(streams):
                assert (await reader.next()).pieces == ["word"]
        assert storage.journal.stats.writes == writes + (steps if level is Level.DISK else 0)
        # Where the disk's thread writes, that may be one more.
        most = MOST_WAKE_UPS + (level is Level.DISK)
        assert wake_ups.count <= most * steps
