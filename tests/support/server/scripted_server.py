"""A whole server over sockets on loopback, for tests that count what it does.

Its upstream is a script that sends tokens when the test says so. Time hardly passes, so that what
is due by time alone (a look at the memory, at an idle connection, at the health of an upstream)
is never counted: on a busy machine it would come at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

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
from llcuda_protocol import (
    Accepted,
    Cancel,
    Connection,
    Done,
    Generate,
    Hello,
    Limits,
    Role,
    Tokens,
    Welcome,
)

#: Trio's seconds per second.
RATE = 1e-6
#: Seconds, and trio's seconds, that a test waits at most: a bound for hangs, not a measurement.
REAL_PATIENCE = 300.0
PATIENCE = REAL_PATIENCE * RATE
_PROPS = (
    b'{"default_generation_settings":{"n_ctx":4096},"total_slots":%d,'
    b'"model_alias":"script","chat_template":"","build_info":"b1"}'
)

Connect = Callable[[], Awaitable["Reader"]]


def still_clock() -> MockClock:
    """A clock by which hardly any time passes."""
    return MockClock(rate=RATE)


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


async def begin(reader: Reader, script: Script, number: int, **what: Any) -> int:
    """Ask for a generation, and read its first token; the descriptor of the upstream's socket."""
    script.more = trio.Event()
    asked = what or {"prompt": "hello"}
    await reader.send(Generate(number, credit=1 << 20, params={"n_predict": 500}, **asked))
    with trio.fail_after(PATIENCE):
        await script.more.wait()
        assert isinstance(await reader.next(), Accepted)
        stream = script.completions[-1]
        await stream.send_all(event("w ", 1))
        while not isinstance(await reader.next(), Tokens):
            pass
    return stream.socket.fileno()


async def ended(reader: Reader, script: Script, number: int, **what: Any) -> None:
    """Ask for a generation, read its first token, cancel it, and read its end."""
    await begin(reader, script, number, **what)
    await reader.send(Cancel(number))
    with trio.fail_after(PATIENCE):
        while not isinstance(await reader.next(), Done):
            pass


async def settled(storage: Storage) -> None:
    """Return when all that has been asked for so far is done, what threads say of it included."""
    await storage.journal.sync()
    # Its thread says so once more if we are slow, unless it sees now that we know.
    await storage.journal._syncing.call(lambda: None)
    await wait_all_tasks_blocked()


@contextlib.asynccontextmanager
async def running(
    folder: Path, level: Level = Level.DISK, *, slots: int = 16
) -> AsyncIterator[tuple[Script, Connect, Storage]]:
    """A server, its upstream, what opens a connection to it, and its storage.

    Each write to the journal is over in its turn, however busy the machine is.
    """
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(write_thread, "PATIENCE", REAL_PATIENCE)
        async with _running(Script(slots), folder, level) as found:
            yield found


@contextlib.asynccontextmanager
async def _running(
    script: Script, folder: Path, level: Level
) -> AsyncIterator[tuple[Script, Connect, Storage]]:
    poller = Poller()
    # What is not due per token is not counted.
    storage = Storage(folder, interval=3600, watch=3600)
    async with trio.open_nursery() as nursery:
        (upstream,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = upstream.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, script.serve, [upstream])
        await nursery.start(storage.run)
        url = f"http://127.0.0.1:{port}"
        client = LlamaServer(url, poller, timeouts=StreamTimeouts(REAL_PATIENCE, REAL_PATIENCE))
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

        try:
            yield script, connect, storage
        finally:
            for reader in readers:
                reader.stream.socket.close()
            with trio.CancelScope(shield=True):
                await client.aclose()
        nursery.cancel_scope.cancel()
