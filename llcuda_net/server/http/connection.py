"""One HTTP connection on the server: requests in, answers out, one at a time.

A request that comes before the answer to the one before it has ended (pipelining) is refused: the
connection ends after that answer. So nothing that follows a request, whatever it looks like, is
taken for a request of its own. A client that closes its side while it is answered has gone, and
the handler is cancelled.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import structlog
import trio

from llcuda_net.config.users import ANONYMOUS, User
from llcuda_net.errors import Overloaded, RequestError, ShuttingDown, Unauthorized
from llcuda_net.server.http.access import PRIVATE, Access
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange, HttpHost
from llcuda_net.server.http.limits import (
    FAREWELL,
    KEEP_ALIVE,
    MAX_EARLY,
    MAX_IGNORED,
    MAX_REQUEST_ID,
    READ,
)
from llcuda_net.server.http.reader import Head, RequestReader, too_large
from llcuda_net.server.http.request import Headers, HttpRequest, locate
from llcuda_net.server.http.route import ErrorFormat, Route, Routes, openai_error
from llcuda_net.server.tcp.write_buffer import WriteBuffer

log = structlog.get_logger(__name__)

#: The route of requests that found none, in the log and in metrics.
NOWHERE = "other"


class Places(Protocol):
    """The places that connections of both protocols share."""

    def rest(self, connection: HttpConnection) -> None:
        """It has no request: it is ended where another needs its place."""

    def take(self, connection: HttpConnection) -> bool:
        """It has a request; False: every place is taken."""


class HttpConnection:
    """Serves one connection until either side ends it.

    Args:
        host: the gateway.
        stream: the connection, TLS included where there is TLS.
        number: names it in the log.
        first: what was read of it already.
        head_by: when the head of the first request must have come.
        routes: who answers what.
        access: who may come in.
        places: bounds the number of connections.
        scope: it runs in this; ends it, from outside.
    """

    def __init__(
        self,
        host: HttpHost,
        stream: trio.abc.Stream,
        number: int,
        *,
        first: bytes,
        head_by: float,
        routes: Routes,
        access: Access,
        places: Places,
        scope: trio.CancelScope,
    ) -> None:
        self.scope = scope
        self._host = host
        self._stream = stream
        self._head_by = head_by
        self._routes = routes
        self._access = access
        self._places = places
        self._reader = RequestReader(stream, first)
        self._exchange: Exchange | None = None
        self._buffer: WriteBuffer | None = None
        self._route: Route | None = None
        self._errors: ErrorFormat = openai_error
        self._handed_back = False
        self._held = 0  # bytes of a body, as counted
        self._body_read = trio.Event()
        self._owner = ""
        self._local = ""
        self._tls = isinstance(stream, trio.SSLStream)
        transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        if isinstance(transport, trio.SocketStream):
            # A socket for IPv6 and IPv4 shows addresses of the latter in those of the former.
            self._local = str(transport.socket.getsockname()[0]).removeprefix("::ffff:")
        self._log = log.bind(session=number)

    def __repr__(self) -> str:
        return f"<HttpConnection {self._exchange or 'idle'}>"

    @property
    def busy(self) -> bool:
        """Whether a request is open whose answer a server that stops waits for."""
        awaited = self._handed_back or self._route is None or self._route.awaited
        return self._exchange is not None and awaited

    @property
    def open_streams(self) -> int:
        """Requests that are open."""
        return int(self._exchange is not None)

    async def run(self) -> None:
        """Serve; returns when the connection is over, whatever ended it."""
        try:
            while await self._turn():
                pass
            await self._farewell()
        except* trio.TooSlowError:
            self._log.warning("session_stalled", seconds=self._host.settings.write_timeout)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self._log.debug("session_lost")
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _farewell(self) -> None:
        """Closing with unread bytes would reset the connection and lose our last words."""
        stream = self._stream
        transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        with trio.move_on_after(FAREWELL):
            if isinstance(transport, trio.abc.HalfCloseableStream):
                await transport.send_eof()
                ignored = 0
                while ignored < MAX_IGNORED and (data := await transport.receive_some(READ)):
                    ignored += len(data)

    async def _turn(self) -> bool:
        """One request and its answer; whether another may follow."""
        head: Head | HttpError | None
        try:
            head = await self._head()
        except HttpError as error:
            head = error
        if head is None:
            return False
        settings = self._host.settings
        async with trio.open_nursery() as nursery:
            buffer = self._buffer = WriteBuffer(
                self._stream,
                self._on_room,
                settings.write_timeout,
                self._host.unflushed,
                self._host.unsent,
            )
            nursery.start_soon(buffer.run)
            try:
                keep_alive = await self._answer(head, buffer)
                buffer.flush()
                await buffer.drained()
            finally:
                self._exchange = self._buffer = None
                buffer.close()
                self._places.rest(self)
            nursery.cancel_scope.cancel()
        return keep_alive

    def _on_room(self) -> None:
        if self._exchange is not None and self._exchange.on_room is not None:
            self._exchange.on_room()

    async def _head(self) -> Head | None:
        """The next head; None where the client has closed, or sent nothing for long.

        Raises:
            HttpError: it is wrong, or too slow.
        """
        if self._reader.empty:
            with trio.move_on_after(KEEP_ALIVE):
                if await self._reader.wait():
                    self._head_by = trio.current_time() + self._host.settings.handshake_timeout
            if self._reader.empty:
                return None
        with trio.move_on_at(self._head_by):
            return await self._reader.head()
        raise HttpError(408, "the request did not come in time")

    async def _answer(self, head: Head | HttpError, buffer: WriteBuffer) -> bool:
        """Answer one request; whether another may follow."""
        begun = trio.current_time()
        self._route, self._errors = None, openai_error
        self._body_read = trio.Event()
        exchange = self._exchange = self._exchange_of(head, buffer)
        try:
            if isinstance(head, HttpError):
                raise head
            if await self._admit(head, exchange):
                await self._handle(exchange)
        except HttpError as error:
            self._refuse(exchange, error)
        except RequestError as error:
            self._refuse(exchange, of_request_error(error))
        finally:
            self._hold(0)
            self._told(exchange, begun)
        return exchange.keep_alive and exchange.finished

    def _refuse(self, exchange: Exchange, error: HttpError) -> None:
        if exchange.is_gone or exchange.started:
            return
        status, body, headers = self._errors(error, exchange.request)
        exchange.respond(status, body, headers=headers)

    def _exchange_of(self, head: Head | HttpError, buffer: WriteBuffer) -> Exchange:
        if isinstance(head, HttpError):  # of a request that nobody can read, the end is not known
            request = HttpRequest("", "", {}, Headers(), b"", ANONYMOUS, _new_id())
            headers_ = {"x-request-id": request.id}
            return Exchange(request, self._host, buffer, headers=headers_, keep_alive=False)
        headers = Headers(head.headers)
        given = headers.get("x-request-id") or ""
        sane = 0 < len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable()
        id_ = given if sane else _new_id()
        request = HttpRequest(
            head.method, "", {}, headers, b"", ANONYMOUS, id_, local=self._local, tls=self._tls
        )
        return Exchange(
            request,
            self._host,
            buffer,
            headers={"x-request-id": id_, **self._access.cors(headers)},
            # Of a body that is not read, nobody knows where it ends.
            keep_alive=head.keep_alive and not head.has_body and self._reader.empty,
            http10=head.http10,
            on_dropped=lambda: self._hold(0),
            receive=partial(self._receive, head),
        )

    # -- what comes before the handler --------------------------------------------------------

    async def _admit(self, head: Head, exchange: Exchange) -> bool:
        """Find the route, let the user in, and read the body; False if nothing is left to do.

        Raises:
            HttpError, RequestError: the request is refused.
        """
        request = exchange.request
        path = locate(head.target, request)
        found = self._routes.find(path)
        methods = {} if found is None else found[0]
        route = methods.get("GET" if head.method == "HEAD" else head.method)
        self._route = route
        self._errors = next((one.errors for one in methods.values()), openai_error)
        if route is None or not route.public:
            if head.method == "OPTIONS":  # a browser asks without the key
                return self._options(exchange, methods)
            await self._access.ready(request)
            try:
                caller = self._access.check(request)
            except HttpError as error:
                if error.status == 401:
                    given = "authorization" in request.headers or "x-api-key" in request.headers
                    self._log.warning("unauthorized", token_given=given)
                raise
            request.user = caller.user
            if caller.session is not None or "sec-fetch-site" in request.headers:
                exchange.add_headers(PRIVATE)
        if found is None:
            message = f"there is nothing at {request.path!r:.200}{self._instead(path)}"
            raise HttpError(404, message, code="not_found")
        if route is None:
            allow = {"Allow": _allowed(methods)}
            raise HttpError(405, f"{request.method:.20} is not answered here", headers=allow)
        request.parameters = found[1]
        if not route.always:
            if self._host.draining:
                raise ShuttingDown(
                    "the server is shutting down; try again later", retry=True, retry_after=1.0
                )
            if not self._places.take(self):
                exchange.keep_alive = False
                raise Overloaded("too many connections; try again later", retry=True)
            if self._host.starting:
                await self._host.started(request.user, READ)
        if not head.has_body:
            self._body_read.set()
            return True
        if route.public and not route.parts:
            return True  # nobody whom we do not know fills our memory: the body is not read
        route.check_type(request.headers)
        if not route.parts:
            await self._read_body(head, exchange)
            self._body_read.set()
        return True

    def _instead(self, path: str) -> str:
        """What to add for a path of a wrong base URL (no /v1, or two), or of others."""
        for other in (f"/v1{path}", path.removeprefix("/v1"), f"{path}z"):  # llama-server: /health
            if self._routes.find(other) is not None:
                return f"; did you mean {other!r:.200}?"
        if path.startswith("/api/"):
            return "; Ollama's own API is not answered here: use OpenAI's, at /v1"
        return ""

    def _options(self, exchange: Exchange, methods: dict[str, Route]) -> bool:
        if not methods and exchange.request.path != "*":
            raise HttpError(404, "there is nothing here", code="not_found")
        allowed = _allowed(methods) if methods else "GET, HEAD, POST, DELETE, OPTIONS"
        preflight = self._access.preflight(exchange.request.headers, allowed)
        exchange.respond(204, b"", headers={"Allow": allowed, **preflight})
        return False

    async def _receive(
        self,
        head: Head,
        take: Callable[[bytes], Awaitable[None]],
        most: int,
        too_many: HttpError,
    ) -> None:
        """See Exchange.receive."""
        if self._body_read.is_set():
            return
        if head.length > most:
            raise too_many
        proceed = None if head.http10 else self._send_now
        exchange = self._exchange
        assert exchange is not None
        try:
            if not await self._reader.parts(take, most, too_many, proceed):
                raise trio.BrokenResourceError
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            exchange.gone()
            raise
        self._body_read.set()
        exchange.keep_alive = head.keep_alive and self._reader.empty

    async def _read_body(self, head: Head, exchange: Exchange) -> None:
        request = exchange.request
        # No more than there is room for.
        most = min(self._host.settings.max_body, self._host.incoming.share)
        if head.length > most:
            raise too_large(most)
        self._owner = request.user.name
        body = await self._reader.body(most, self._hold, None if head.http10 else self._send_now)
        if body is None:
            raise trio.BrokenResourceError
        request.body = body
        exchange.keep_alive = head.keep_alive and self._reader.empty

    def _send_now(self, data: bytes) -> None:
        assert self._buffer is not None
        self._buffer.add(data)
        self._buffer.flush()

    def _hold(self, now: int) -> None:
        """So many bytes of a body are in memory."""
        self._host.incoming.change(self._owner, self._held, now)
        self._held = now

    # -- the handler --------------------------------------------------------------------------

    async def _handle(self, exchange: Exchange) -> None:
        """Run the handler, and cancel it when the client goes away.

        Raises:
            HttpError, RequestError: to be answered with, if the head was not written.
        """
        assert self._route is not None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, exchange)
            with exchange.scope:
                try:
                    await self._route.handler(exchange)
                except Exception as error:
                    failure = error
            nursery.cancel_scope.cancel()
        if failure is None:
            failure = exchange.stopped
        if exchange.finished or exchange.is_gone:
            return
        if isinstance(failure, HttpError | RequestError) and not exchange.started:
            raise failure
        if isinstance(failure, HttpError | RequestError):  # no bug: its head was sent before
            self._log.warning("http_answer_cut", id=exchange.request.id, reason=failure.message)
        elif failure is not None:
            self._log.error("http_request_crashed", id=exchange.request.id, exc_info=failure)
        if exchange.started:
            exchange.keep_alive = False  # the client sees that the end is missing
        else:
            raise HttpError(500, "a bug in the server; its log has more", type="server_error")

    async def _watch(self, exchange: Exchange) -> None:
        """See the client go away; refuse what it sends before its answer has ended."""
        await self._body_read.wait()
        early = 0
        while True:
            try:
                data = await self._stream.receive_some(READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if data and exchange.finished and exchange.keep_alive:
                self._reader.keep(bytes(data))
                return
            early += len(data)
            exchange.keep_alive = False
            if not data or early > MAX_EARLY:
                exchange.gone()
                return

    # -- what the listener calls --------------------------------------------------------------

    def hand_back(self, error: RequestError) -> None:
        """The request that is open, if there is one, ends now with this error."""
        self._handed_back = True  # its last words are waited for
        if self._exchange is not None:
            self._exchange.keep_alive = False
            self._exchange.stop(error)

    def check_user(self) -> None:
        """The users may have changed: end the request if its token is no longer this user's."""
        exchange = self._exchange
        if exchange is None or exchange.finished or self._route is None or self._route.public:
            return
        request = exchange.request
        user: User | None
        try:
            user = self._access.check(request).user
        except HttpError:
            user = None
        if user is not None and (user.name, user.admin) == (request.user.name, request.user.admin):
            request.user = user
            return
        self._log.warning("unauthorized", user=request.user.name)
        self.hand_back(Unauthorized("the token is not valid any more"))

    def _told(self, exchange: Exchange, begun: float) -> None:
        route = NOWHERE if self._route is None else self._route.pattern
        seconds = round(trio.current_time() - begun, 3)
        self._host.watch.http_answered(route, exchange.status)
        write = self._log.info if exchange.status >= 500 else self._log.debug
        write(
            "http_request",
            id=exchange.request.id,
            route=route,
            status=exchange.status,
            seconds=seconds,
        )


def _allowed(methods: dict[str, Route]) -> str:
    names = {*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}
    return ", ".join(sorted(names))


def _new_id() -> str:
    return f"req_{secrets.token_hex(16)}"
