"""The client without async, for scripts and notebooks.

    with llcuda_net.sync.connect("127.0.0.1:9000") as client:
        for piece in client.generate("Say hello.", n_predict=64):
            print(piece, end="", flush=True)

A background thread runs trio and the real client; calls hand it their work and wait. So it also
works where another event loop runs (notebooks), and from several threads at once. Ctrl-C during a
call cancels what the call was doing, on the server too.
"""

from __future__ import annotations

import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio

from llcuda_net.client import client as _async
from llcuda_net.client.events import Durable, Event, Piece, Queued, Result, Spliced
from llcuda_net.client.results import Entry, Hit
from llcuda_net.client.stream import Stream as _AsyncStream
from llcuda_net.errors import ConnectError
from llcuda_net.util.address import Address

__all__ = [
    "Client",
    "Durable",
    "Entry",
    "Hit",
    "Piece",
    "Queued",
    "Result",
    "Spliced",
    "Stream",
    "connect",
]

T = TypeVar("T")
R = TypeVar("R")
#: Seconds that an interrupted call waits for its cancellation.
_INTERRUPTED = 2.0
_STEP = 1.0


def connect(
    server: str | Address = "127.0.0.1:9000",
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
        self._portal = _Portal(opener)
        self._client = self._portal.start()
        # Also closes a client that was forgotten, and all of them when Python exits.
        self._finalizer = weakref.finalize(self, self._portal.stop)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; generations started here that run are cancelled. Does so once."""
        self._finalizer()

    @property
    def features(self) -> frozenset[str]:
        """The requests that the server said it serves; see `llcuda_net.Client.features`."""
        return self._client.features

    def generate(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Stream:
        """Start a generation and return its stream once the server has accepted the request.

        Arguments and errors are those of `llcuda_net.Client.generate`. A stream that is left early
        is cancelled by `close()`, by the end of its `with` block, or when Python drops it.
        """
        return self._opened(self._client.generate(prompt, **arguments))

    def attach(self, generation: str, first: int = 0, **arguments: Any) -> Stream:
        """Read a generation that there is, running or over, from one of its pieces on.

        Arguments and errors are those of `llcuda_net.Client.attach`. Leaving the stream early
        leaves the generation alone.
        """
        return self._opened(self._client.attach(generation, first, **arguments))

    def cancel(self, generation: str) -> str:
        """Stop a generation, whoever started it; see `llcuda_net.Client.cancel`."""
        return self._portal.call(partial(self._client.cancel, generation))

    def complete(self, prompt: str | Sequence[int] | None = None, **arguments: Any) -> Result:
        """The whole answer at once. Takes and raises what `generate` does."""
        return self._portal.call(partial(self._client.complete, prompt, **arguments))

    def embed(self, texts: Sequence[str], *, model: str | None = None) -> list[list[float]]:
        """One vector for each text; see `llcuda_net.Client.embed`."""
        return self._portal.call(partial(self._client.embed, texts, model=model))

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """The stored results nearest in meaning to a text; see `llcuda_net.Client.search`."""
        return self._portal.call(partial(self._client.search, text, k))

    def models(self) -> list[dict[str, Any]]:
        """The models that there are; see `llcuda_net.Client.models`."""
        return self._portal.call(self._client.models)

    def status(self) -> dict[str, Any]:
        """How the server is; see `llcuda_net.Client.status`."""
        return self._portal.call(self._client.status)

    def ping(self) -> float:
        """The time that the server takes to answer, in seconds."""
        return self._portal.call(self._client.ping)

    def _opened(self, opening: AbstractAsyncContextManager[_AsyncStream]) -> Stream:
        stream = self._portal.call(opening.__aenter__, undo=_AsyncStream.close)
        return Stream(self, self._portal, stream)

    # Last, since below it the word means this method.
    def list(
        self, limit: int = 20, *, state: str | None = None, before: str | None = None
    ) -> list[Entry]:
        """The user's newest generations; see `llcuda_net.Client.list`."""
        ask = partial(self._client.list, limit, state=state, before=before)
        return self._portal.call(ask)


class Stream:
    """An answer as it is made: iterate over its text, or over `events()`. One thread reads it."""

    def __init__(
        self, client: Client, portal: _Portal[_async.Client], stream: _AsyncStream
    ) -> None:
        self._client = client  # kept, since a client that nobody keeps is closed
        self._portal = portal
        self._stream = stream
        self._events: deque[Event] = deque()
        self._received = stream.received
        self._closed = False

    @property
    def id(self) -> str:
        """The generation's id on the server."""
        return self._stream.id

    @property
    def level(self) -> str | None:
        """How much the generation survives on the server: memory, process, disk or strict."""
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
        """How many pieces no power cut can take away; see `llcuda_net.Stream.durable`."""
        return self._stream.durable

    @property
    def received(self) -> int:
        """How many pieces have been read, counted from the generation's very first.

        `client.attach(stream.id, first=stream.received)` reads on from here.
        """
        return self._received

    @property
    def position(self) -> int:
        """Its place in the queue when last heard: 1 is the next to run, 0 has a slot."""
        return self._stream.position

    @property
    def wait(self) -> float | None:
        """About how many seconds it was, when last heard, until it runs; None: nobody knows."""
        return self._stream.wait

    @property
    def reason(self) -> str | None:
        """What it waited for when last heard, for a person."""
        return self._stream.reason

    @property
    def text(self) -> str:
        """The text that has been read so far, and what was read ahead."""
        return self._stream.text

    @property
    def result(self) -> Result:
        """The whole answer, once the stream has been read to its end.

        Raises:
            RuntimeError: it has not.
        """
        return self._stream.result

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if isinstance(event, Piece):
                yield event.text

    def events(self) -> Iterator[Event]:
        """Pieces with all that is known of them, and more; see `llcuda_net.Stream.events`."""
        while True:
            if not self._events:
                self._events.extend(self._portal.call(self._stream.take))
            if not self._events:
                return
            event = self._events.popleft()
            if isinstance(event, Piece):
                self._received = event.sequence + 1
            yield event

    def cancel(self) -> None:
        """Ask the server to stop; what was made until then can still be read."""
        self._portal.call(self._stream.cancel)

    def detach(self) -> None:
        """Stop reading, and let the generation go on; see `llcuda_net.Stream.detach`."""
        self._portal.call(self._stream.detach)

    def close(self) -> None:
        """Want nothing more: what was started here and still runs is cancelled on the server."""
        if not self._closed:
            self._closed = True
            self._portal.post(self._stream.close)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()


class _Portal(Generic[T]):
    """The background thread: it holds an async context open, and runs calls inside it."""

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._opener = opener
        self._scope = trio.CancelScope()
        self._token: Future[trio.lowlevel.TrioToken] = Future()
        self._opened: Future[T] = Future()
        self._nursery: trio.Nursery | None = None
        self._thread = threading.Thread(
            target=trio.run, args=(self._main,), name="llcuda-client", daemon=True
        )

    def start(self) -> T:
        """Start the thread and open the context; raises what opening it raises."""
        self._thread.start()
        try:
            return self._opened.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all calls, close the context, end the thread."""
        with suppress(trio.RunFinishedError):
            self._token.result().run_sync_soon(self._scope.cancel)
        # The garbage collector may call this in the thread itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def post(self, function: Callable[[], object]) -> None:
        """Have the thread call a function soon; nothing happens if the client is closed."""
        with suppress(trio.RunFinishedError):
            self._token.result().run_sync_soon(function)

    def call(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        undo: Callable[[R], object] | None = None,
    ) -> R:
        """Run an async function in the thread and wait for its outcome.

        Args:
            function: what to run; an interrupt while waiting cancels it.
            undo: called with the outcome, if there is one already when an interrupt comes.

        Raises:
            ConnectError: the client is closed.
            what the function raises.
        """
        outcome: Future[R] = Future()
        scope = trio.CancelScope()
        try:
            self._token.result().run_sync_soon(self._begin, function, scope, outcome)
            # In steps, since a signal that comes just before Python blocks is only seen after it.
            while not outcome.done():
                wait([outcome], _STEP)
        except trio.RunFinishedError:
            raise _closed() from None
        except BaseException:
            self.post(scope.cancel)
            wait([outcome], _INTERRUPTED)
            if undo is not None and outcome.done() and outcome.exception() is None:
                self.post(partial(undo, outcome.result()))
            raise
        return outcome.result()

    # -- in the thread --------------------------------------------------------------------------

    async def _main(self) -> None:
        self._token.set_result(trio.lowlevel.current_trio_token())
        with self._scope:
            try:
                async with self._opener() as value, trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._opened.set_result(value)
                    try:
                        await trio.sleep_forever()
                    finally:
                        self._nursery = None
            except Exception as error:
                if self._opened.done():
                    raise
                self._opened.set_exception(error)
        if not self._opened.done():
            self._opened.set_exception(_closed())

    def _begin(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        scope: trio.CancelScope,
        outcome: Future[R],
    ) -> None:
        if self._nursery is None:
            outcome.set_exception(_closed())
        else:
            self._nursery.start_soon(self._job, function, scope, outcome)

    async def _job(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        scope: trio.CancelScope,
        outcome: Future[R],
    ) -> None:
        try:
            with scope:
                outcome.set_result(await function())
        except Exception as error:
            outcome.set_exception(error)
        finally:
            if not outcome.done():
                outcome.set_exception(_closed())


def _closed() -> ConnectError:
    return ConnectError("the client is closed")
