"""The way of one token through the server, counted: calls and files, not microseconds.

A whole server at the level disk runs over sockets on loopback. Its upstream is a script that sends
tokens when the test says so. `sys.setprofile` counts each call of a Python function of ours, from
the bytes of the upstream to the bytes at the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio

import llcuda_net
import llcuda_protocol
from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import UpstreamSpec
from llcuda_net.generation.persistence import Persistence
from llcuda_net.server.gateway import Gateway
from llcuda_net.storage.journal.threads import write_thread
from llcuda_net.storage.records import Level
from llcuda_net.storage.storage import Storage
from llcuda_net.upstream.backend import Backend
from llcuda_net.upstream.llama.client import LlamaServer
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.pool import Pool
from llcuda_protocol import Accepted, Connection, Generate, Hello, Limits, Role, Tokens, Welcome

#: Most calls of our functions for one token that comes alone, and most files that these are in.
MOST_CALLS, MOST_FILES = 25, 11
#: The same over HTTP.
MOST_HTTP_CALLS, MOST_HTTP_FILES = 25, 12
#: Most times that the event loop waits for a decode step, where all of its tokens come together.
MOST_WAKE_UPS = 1.3
PATIENCE = 300.0
_OURS = (*(str(Path(p.__file__ or "").parent) for p in (llcuda_net, llcuda_protocol)), "<string>")
_CHAT = json.dumps(
    {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 500, "stream": True}
).encode()
_ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_CHAT), _CHAT)
)
_PROPS = (
    b'{"default_generation_settings":{"n_ctx":4096},"total_slots":%d,'
    b'"model_alias":"script","chat_template":"","build_info":"b1"}'
)


Connect = Callable[[], Awaitable["Reader"]]


@pytest.fixture(autouse=True)
def _patient_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is over in its turn, however busy the machine is."""
    monkeypatch.setattr(write_thread, "PATIENCE", PATIENCE)


class Script:
    """An upstream that answers short requests at once, and completions when it is told to."""

    def __init__(self, slots: int = 16) -> None:
        self.props = _PROPS % slots
        self.completions: list[trio.SocketStream] = []
        self.more = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            if not chunk:
                return
            data += chunk
        path = data.split(b" ", 2)[1]
        if path == b"/completion":
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            self.completions.append(stream)
            self.more.set()
            await trio.sleep_forever()
        known = {b"/props": self.props, b"/slots": b"[]", b"/apply-template": b'{"prompt":"hello"}'}
        body = known.get(path, b"{}")
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await stream.aclose()


def event(text: str, number: int) -> bytes:
    data = b'data: {"content":"%b","tokens":[%d],"stop":false,"tokens_predicted":%d}\n\n' % (
        text.encode(),
        number,
        number,
    )
    return b"%x\r\n%b\r\n" % (len(data), data)


class Reader:
    """A client on a socket; what it reads is decoded outside of what is counted."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT, Limits())

    async def send(self, frame: Any) -> None:
        await self.stream.send_all(self.connection.send(frame))

    async def next(self) -> Any:
        while (event := self.connection.next_event()) is None:
            self.connection.receive_data(await self.stream.receive_some())
        return event


@contextlib.asynccontextmanager
async def running(
    folder: Path, level: Level = Level.DISK, *, slots: int = 16
) -> AsyncIterator[tuple[Script, Connect, Storage]]:
    script = Script(slots)
    poller = Poller()
    # What is not due per token is not counted.
    storage = Storage(folder, interval=3600, watch=3600)
    async with trio.open_nursery() as nursery:
        (upstream,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = upstream.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, script.serve, [upstream])
        await nursery.start(storage.run)
        url = f"http://127.0.0.1:{port}"
        client = LlamaServer(url, poller, timeouts=StreamTimeouts(PATIENCE, PATIENCE))
        pool = Pool([Backend(UpstreamSpec(url, "script"), client)])
        settings = Settings(analysis=False)
        gateway = Gateway(settings, pool, poller, None, Persistence(storage, level))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(gateway.run, listeners)
        await pool.prepare()

        readers: list[Reader] = []

        async def connect() -> Reader:
            address = listeners[0].socket.getsockname()
            reader = Reader(await trio.open_tcp_stream(*address[:2]))
            readers.append(reader)
            await reader.send(Hello([1], 1 << 20, 100, None))
            assert isinstance(await reader.next(), Welcome)
            return reader

        yield script, connect, storage
        for reader in readers:
            await reader.stream.aclose()
        nursery.cancel_scope.cancel()
    await client.aclose()


@contextlib.contextmanager
def counting(calls: Counter[tuple[str, str]]) -> Any:
    def profile(frame: FrameType, what: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if what == "call" and path.startswith(_OURS):  # what dataclasses make is in "<string>"
            calls[path, frame.f_code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def shown(calls: Counter[tuple[str, str]]) -> str:
    return "\n".join(f"{n} {Path(path).name}: {name}" for (path, name), n in calls.items())


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


async def test_one_token_is_few_calls_in_few_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        upstream = await begun(script, reader, 1)
        await storage.journal.sync()
        await trio.sleep(0.2)  # what the tokens before led to is over
        calls: Counter[tuple[str, str]] = Counter()
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


async def test_one_token_over_http_is_few_calls_in_few_files(tmp_path: Path) -> None:
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        address = reader.stream.socket.getpeername()
        async with await trio.open_tcp_stream(*address[:2]) as stream:
            upstream = await begun_chat(script, stream)
            await storage.journal.sync()
            await trio.sleep(0.2)  # what the tokens before led to is over
            calls: Counter[tuple[str, str]] = Counter()
            with counting(calls):
                os.write(upstream, event("word", 4))
                await until_readable(stream)
            found = bytes(await stream.receive_some())
        assert b":4\ndata: {" in found
        assert b'"delta":{"content":"word"}' in found
        assert found.count(b"\r\n") == 2  # one chunk
        assert sum(calls.values()) <= MOST_HTTP_CALLS, shown(calls)
        assert len({path for path, _ in calls} - {"<string>"}) <= MOST_HTTP_FILES, shown(calls)


async def test_what_is_read_together_is_handled_as_one_batch(tmp_path: Path) -> None:
    streams = 4
    async with running(tmp_path) as (script, connect, storage):
        reader = await connect()
        upstreams = [await begun(script, reader, n + 1) for n in range(streams)]
        await storage.journal.sync()
        await trio.sleep(0.2)
        calls: Counter[tuple[str, str]] = Counter()
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
async def test_a_decode_step_is_one_wake_up(tmp_path: Path, level: Level) -> None:
    streams, steps = 16, 40
    async with running(tmp_path, level, slots=streams) as (script, connect, storage):
        reader = await connect()
        upstreams = [await begun(script, reader, n + 1) for n in range(streams)]
        await storage.journal.sync()
        await trio.sleep(0.2)
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
