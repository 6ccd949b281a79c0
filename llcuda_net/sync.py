"""The client without async, for scripts and notebooks.

    with llcuda_net.sync.connect("127.0.0.1:9000") as client:
        for piece in client.generate("Say hello.", n_predict=64):
            print(piece, end="", flush=True)

A background thread runs trio and the async client, through anyio's blocking portal; each call runs
there while its caller waits. So it also works where another event loop runs (notebooks), and from
several threads at once. Ctrl-C during a call cancels what the call was doing, on the server too.
"""

from __future__ import annotations

import ssl
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from llcuda_net.client import client as _async
from llcuda_net.client.events import (
    Channel,
    Durable,
    Event,
    Piece,
    Queued,
    Result,
    Spliced,
    ToolCall,
)
from llcuda_net.client.results import Entry, Hit
from llcuda_net.client.stream import Stream as _AsyncStream
from llcuda_net.errors import ConnectError
from llcuda_net.util.address import Address
from llcuda_net.util.background import BackgroundLoop

__all__ = [
    "Channel",
    "Client",
    "Durable",
    "Entry",
    "Hit",
    "Piece",
    "Queued",
    "Result",
    "Spliced",
    "Stream",
    "ToolCall",
    "connect",
]


def connect(
    server: str | Address | Sequence[str | Address] = "127.0.0.1:9000",
    *,
    tls: bool | ssl.SSLContext = False,
    tls_ca: str | Path | None = None,
    token: str | None = None,
    timeout: float = _async.CONNECT_TIMEOUT,
    keepalive: float = _async.KEEPALIVE,
    reconnect: float = _async.RECONNECT,
    on_note: Callable[[str], object] | None = None,
) -> Client:
    """Connect to an llcuda-server.

    Use it with `with`, or call `close()` at the end. Arguments and errors are those of
    `llcuda_net.connect`; `on_note` is called in the background thread.
    """
    return Client(
        partial(
            _async.connect,
            server,
            tls=tls,
            tls_ca=tls_ca,
            token=token,
            timeout=timeout,
            keepalive=keepalive,
            reconnect=reconnect,
            on_note=on_note,
        )
    )


class Client:
    """A connection to an llcuda-server. Any thread may use it, several at once.

    Args:
        opener: makes the async client's context manager, in the background thread.
    """

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[_async.Client]]) -> None:
        self._background = BackgroundLoop(
            opener, lambda: ConnectError("the client is closed"), "llcuda-client"
        )
        self._client = self._background.value
        # Also closes a client that was forgotten, and all of them when Python exits.
        self._finalizer = weakref.finalize(self, self._background.stop)

    def __repr__(self) -> str:
        return f"<sync.Client over {self._client!r}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; generations started here that run are cancelled. Idempotent."""
        self._finalizer()

    @property
    def server(self) -> str:
        """HOST:PORT of the server that it is connected to; see `llcuda_net.Client.server`."""
        return self._client.server

    @property
    def features(self) -> frozenset[str]:
        """The requests that the server announced; see `llcuda_net.Client.features`."""
        return self._client.features

    def generate(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Stream:
        """Start a generation and return its stream once the server has accepted the request.

        Arguments and errors are those of `llcuda_net.Client.generate`. A stream that is left early
        is cancelled by `close()`, by the end of its `with` block, or when Python drops it.
        """
        return self._opened(self._client.generate(prompt, **arguments))

    def attach(self, generation: str, first: int = 0, **arguments: Any) -> Stream:
        """Read an existing generation, running or over, from one of its pieces on.

        Arguments and errors are those of `llcuda_net.Client.attach`. Leaving the stream early
        leaves the generation alone.
        """
        return self._opened(self._client.attach(generation, first, **arguments))

    def cancel(self, generation: str) -> str:
        """Stop a generation, whoever started it; see `llcuda_net.Client.cancel`."""
        return self._background.call(partial(self._client.cancel, generation))

    def delete(self, generation: str) -> None:
        """Delete what is stored of a generation; see `llcuda_net.Client.delete`."""
        self._background.call(partial(self._client.delete, generation))

    def complete(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Result:
        """The whole answer at once. Takes and raises what `generate` does."""
        return self._background.call(partial(self._client.complete, prompt, **arguments))

    def embed(self, texts: Sequence[str], *, model: str | None = None) -> list[list[float]]:
        """One vector per text; see `llcuda_net.Client.embed`."""
        return self._background.call(partial(self._client.embed, texts, model=model))

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """The stored results nearest in meaning to a text; see `llcuda_net.Client.search`."""
        return self._background.call(partial(self._client.search, text, k))

    def models(self) -> list[dict[str, Any]]:
        """The server's models; see `llcuda_net.Client.models`."""
        return self._background.call(self._client.models)

    def status(self) -> dict[str, Any]:
        """The status report; see `llcuda_net.Client.status`."""
        return self._background.call(self._client.status)

    def ping(self) -> float:
        """The time that the server takes to answer, in seconds."""
        return self._background.call(self._client.ping)

    def _opened(self, opening: AbstractAsyncContextManager[_AsyncStream]) -> Stream:
        stream = self._background.call(opening.__aenter__, undo=_AsyncStream.close)
        return Stream(self, self._background, stream)

    # Last, since below it the word means this method.
    def list(
        self, limit: int = 20, *, state: str | None = None, before: str | None = None
    ) -> list[Entry]:
        """The user's newest generations; see `llcuda_net.Client.list`."""
        return self._background.call(partial(self._client.list, limit, state=state, before=before))


class Stream:
    """An answer as it is made: iterate over its text, or over `events()`. One thread reads it."""

    def __init__(
        self, client: Client, background: BackgroundLoop[_async.Client], stream: _AsyncStream
    ) -> None:
        self._client = client  # a client that nothing refers to is closed
        self._background = background
        self._stream = stream
        self._events: deque[Event] = deque()
        self._received = stream.received
        self._closed = False

    def __repr__(self) -> str:
        closed = " closed" if self._closed else ""
        return f"<sync.Stream{closed} of {self._stream!r}, {self._received} pieces read>"

    @property
    def id(self) -> str:
        """The generation's id on the server."""
        return self._stream.id

    @property
    def level(self) -> str | None:
        """What the generation survives on the server: memory, process, disk or strict."""
        return self._stream.level

    @property
    def epoch(self) -> int:
        """How often the generation was continued after the server had stopped."""
        return self._stream.epoch

    @property
    def cached(self) -> bool:
        """Whether a stored result answers the request."""
        return self._stream.cached

    @property
    def durable(self) -> int:
        """How many pieces a power cut can no longer lose; see `llcuda_net.Stream.durable`."""
        return self._stream.durable

    @property
    def received(self) -> int:
        """How many pieces have been read, counted from the generation's very first.

        `client.attach(stream.id, stream.received, epoch=stream.epoch)` reads on from here.
        """
        return self._received

    @property
    def position(self) -> int:
        """Its latest known place in the queue: 1 is the next to run, 0 has a slot."""
        return self._stream.position

    @property
    def wait(self) -> float | None:
        """The latest estimate of the seconds until it runs; None without an estimate."""
        return self._stream.wait

    @property
    def reason(self) -> str | None:
        """What it waits for, as last reported, in words for a person."""
        return self._stream.reason

    @property
    def text(self) -> str:
        """The text that has been read so far, and what was read ahead."""
        return self._stream.text

    @property
    def reasoning(self) -> str:
        """What the model has thought so far, where it shows that, and what was read ahead."""
        return self._stream.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; before the end the arguments of the last may not be whole."""
        return self._stream.tool_calls

    @property
    def result(self) -> Result:
        """The whole answer, once the stream has been read to its end.

        Raises:
            RuntimeError: it has not.
        """
        return self._stream.result

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if isinstance(event, Piece) and event.channel.kind == "text":
                yield event.text

    def events(self) -> Iterator[Event]:
        """Pieces of all channels, and more; see `llcuda_net.Stream.events`."""
        while True:
            if not self._events:
                self._events.extend(self._background.call(self._stream.take))
            if not self._events:
                return
            event = self._events.popleft()
            if isinstance(event, Piece):
                self._received = event.sequence + 1
            yield event

    def cancel(self) -> None:
        """Ask the server to stop; what was generated until then can still be read."""
        self._background.call(self._stream.cancel)

    def detach(self) -> None:
        """Stop reading, and let the generation go on; see `llcuda_net.Stream.detach`."""
        self._background.call(self._stream.detach)

    def close(self) -> None:
        """Close the stream: what was started here and still runs is cancelled on the server."""
        if not self._closed:
            self._closed = True
            self._background.post(self._stream.close)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()
