"""Token streams of one upstream: sent, read to their end, closed however they end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import trio

from llcuda_net.errors import RequestError
from llcuda_net.upstream.llama.gathering import Cadence
from llcuda_net.upstream.llama.poller import Poller, TokenStream
from llcuda_net.upstream.llama.token_stream import StreamTimeouts, send_now
from llcuda_net.upstream.llama.transport.connections import Connection
from llcuda_net.upstream.llama.transport.origin import (
    STALE,
    Origin,
    not_there,
    reason_of,
    unreachable,
)

_READ = 64 << 10


class Streams:
    """Asks one upstream for token streams, and reads them.

    Args:
        origin: where it is.
        poller: reads those that are not encrypted.
        timeouts: how long the upstream may be silent.
    """

    def __init__(self, origin: Origin, poller: Poller, timeouts: StreamTimeouts) -> None:
        self._origin = origin
        self._poller = poller
        self._timeouts = timeouts
        self._cadence = Cadence()

    async def run(
        self,
        request: bytes,
        make_sink: Callable[[], TokenStream],
        first: float,
        on_sent: Callable[[], None],
    ) -> TokenStream:
        """Stream one answer into a sink; returns it after its end.

        Args:
            request: all of it, head and body.
            make_sink: makes a sink for one attempt.
            first: seconds until the first token.
            on_sent: called when the request is with the upstream.

        Raises:
            RequestError: the upstream cannot be reached, refuses, fails, stalls, or is nonsense.
        """
        connections = self._origin.connections
        with connections.streaming():
            stream = await connections.idle()
            if stream is not None:
                sink = make_sink()
                sent = trio.current_time()
                with contextlib.suppress(OSError, trio.BrokenResourceError):
                    await self._attempt(stream, request, sink, first, on_sent)
                    if sink.parser.begun or trio.current_time() > sent + STALE:
                        return _checked(sink)
            sink = make_sink()
            with unreachable():
                stream = await connections.open()
                await self._attempt(stream, request, sink, first, on_sent)
            return _checked(sink)

    async def _attempt(
        self,
        stream: Connection,
        request: bytes,
        sink: TokenStream,
        first: float,
        on_sent: Callable[[], None],
    ) -> None:
        """Send a request on a connection, and read what comes until its end.

        Raises:
            OSError, trio.BrokenResourceError: it could not be sent.
            RequestError: nothing came for too long.
        """
        try:
            try:
                await send_now(stream, request, on_sent)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            if isinstance(stream, trio.SSLStream):
                await self._read_tls(stream, sink, first)
            else:
                await self._read_plain(stream, sink, first)
        finally:
            sink.parser.close()

    async def _read_plain(self, stream: trio.SocketStream, sink: TokenStream, first: float) -> None:
        """Have the poller read it, together with all others."""
        sock = socket.socket(fileno=stream.socket.detach())
        try:
            sock.setblocking(False)
            self._poller.add(sock, sink, self._cadence)
            await sink.watch(self._timeouts, first)
        finally:
            self._poller.remove(sock)
            sock.close()

    async def _read_tls(
        self, stream: trio.SSLStream[trio.SocketStream], sink: TokenStream, first: float
    ) -> None:
        """Read it in a task of its own, into the same sink."""

        async def read() -> None:
            try:
                while data := await stream.receive_some(_READ):
                    sink.data_received(bytes(data))
                    self._poller.end_batch()
                sink.connection_lost("it closed the connection")
            except (trio.BrokenResourceError, OSError) as error:
                sink.connection_lost(reason_of(error))
            self._poller.end_batch()

        failure: RequestError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                try:
                    await sink.watch(self._timeouts, first)
                except RequestError as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)
        if failure is not None:
            raise failure


def _checked(sink: TokenStream) -> TokenStream:
    """A sink that has ended.

    Raises:
        RequestError: before its time.
    """
    if sink.failure is not None:
        raise sink.failure
    if not (sink.parser.finished or sink.limit.exceeded):
        raise not_there(f"the upstream was lost in the middle of the answer: {sink.lost}")
    return sink
