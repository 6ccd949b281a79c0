"""One request and its answer.

The answer is written by hand into the write buffer that both protocols use: a head once, and of a
stream one chunk per write (RFC 9112, section 7.1). All chunks of one batch leave with one system
call, when the publisher flushes the buffer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.token_file import Users
from llcuda_net.config.users import User
from llcuda_net.errors import RequestError
from llcuda_net.generation.generation import Generation
from llcuda_net.generation.publisher import Flushable
from llcuda_net.models.serving.manager import Manager
from llcuda_net.server.changes import Changes
from llcuda_net.server.generations.intake import Intake
from llcuda_net.server.http.access import Access
from llcuda_net.server.http.conversations.cache import NodeCache
from llcuda_net.server.http.delivery.leaving import Orphans
from llcuda_net.server.http.delivery.runs import Runs
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.page.sessions import Sessions
from llcuda_net.server.http.request import HttpRequest
from llcuda_net.server.http.responder import Respond
from llcuda_net.server.objects import KeptObjects
from llcuda_net.server.tcp.queries import QueryHost
from llcuda_net.server.tcp.room import Incoming, Unsent
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.telemetry.observers import Watches
from llcuda_net.upstream.pool import Pool

if TYPE_CHECKING:
    from llcuda_net.cluster.owners.loads import ModelLoad

_T = TypeVar("_T")
_NONE: Mapping[str, str] = MappingProxyType({})
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HttpHost(QueryHost, Protocol):
    """The gateway, as HTTP needs it; every request comes with the user whose it is."""

    settings: Settings
    users: Users
    agent: str
    unflushed: set[Flushable]
    unsent: Unsent
    incoming: Incoming
    watch: Watches
    #: Files, batches and conversations.
    objects: KeptObjects
    #: Followers of conversations.
    changes: Changes
    #: Entries of conversations, as they were shown last.
    shown: NodeCache
    #: Followers of what runs.
    runs: Runs
    #: Begins generations.
    intake: Intake
    #: Who may come in, and the browsers that are signed in.
    access: Access
    sessions: Sessions
    #: The paths whose requests may be in a batch.
    batch_endpoints: tuple[str, ...]
    #: Answers /healthz, /readyz and /metrics.
    monitor: Respond | None
    #: Loads and unloads the models that this server runs; None: others run all that there are.
    models: Manager | None

    @property
    def pool(self) -> Pool:
        """The upstreams."""

    @property
    def orphans(self) -> Orphans:
        """Answers that their readers left."""

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""

    @property
    def draining(self) -> bool:
        """Whether the server stops: it takes nothing new."""

    @property
    def starting(self) -> bool:
        """Whether requests must wait for `started`."""

    @property
    def elsewhere_models(self) -> Mapping[str, ModelLoad]:
        """The models that other servers of the cluster have, by each of their names."""

    @property
    def startup_reason(self) -> str | None:
        """What the server does before it serves; None: it has started."""

    async def started(self, user: User, size: int) -> None:
        """Return when the server has started, for a request that takes so much memory meanwhile,
        or raise RequestError.
        """

    def check_users(self) -> None:
        """The users, or the sessions of browsers, have changed: what is open by them may end."""

    def wake_batches(self) -> None:
        """A batch was made, or is to be cancelled."""

    async def status(self, user: User, *, history: bool = False) -> dict[str, Any]:
        """How the server stands, as a user may see it, with the last two minutes where asked."""

    def left(self, generation: Generation) -> None:
        """A stream reads a generation no longer."""

    def recall(self, generation: Generation) -> None:
        """A stream needs the log of a generation that was dropped from memory."""


class Receive(Protocol):
    """Gives a body to `take`, part by part; see RequestReader.parts."""

    async def __call__(
        self, take: Callable[[bytes], Awaitable[None]], most: int, too_many: HttpError
    ) -> None:
        """Until its end."""


class Exchange:
    """A request, and what is written of its answer.

    Args:
        request: the whole request.
        host: answers it.
        buffer: of the connection.
        headers: of every answer on this connection, x-request-id among them.
        keep_alive: whether the connection may go on after this answer.
        http10: the client speaks HTTP/1.0: a stream has no chunks, and ends with the connection.
        on_dropped: called once, when the body is needed no more.
        receive: reads the body, for a route that takes it part by part.

    Attributes:
        scope: the handler runs in it.
        keep_alive: whether the connection goes on after this answer.
        started: the head was written.
        finished: so was the end.
        is_gone: the client has closed, or the connection is lost.
        status: of the answer; 0 before it has started.
        on_room: called when a full buffer has emptied; see WriteBuffer.wait_for_room.
        on_stop: called where the server stops before the end, with the error to end a stream with.
    """

    def __init__(
        self,
        request: HttpRequest,
        host: HttpHost,
        buffer: WriteBuffer,
        *,
        headers: Mapping[str, str] = _NONE,
        keep_alive: bool = True,
        http10: bool = False,
        on_dropped: Callable[[], None] | None = None,
        receive: Receive | None = None,
    ) -> None:
        self.request = request
        self.host = host
        self.buffer = buffer
        self.started = False
        self.finished = False
        self.status = 0
        self.keep_alive = keep_alive
        self.on_room: Callable[[], None] | None = None
        self.on_stop: Callable[[RequestError], None] | None = None
        self._headers = headers
        self._on_dropped = on_dropped
        self._receive = receive
        self._bodiless = request.method == "HEAD"
        self._http10 = http10
        self.is_gone = False
        self._stopped: RequestError | None = None
        self.scope = trio.CancelScope()

    def __repr__(self) -> str:
        state = "finished" if self.finished else "started" if self.started else "waiting"
        return f"<Exchange {self.request.id} {self.request.method} {state} {self.status or ''}>"

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Header fields for the answer, whatever it will be."""
        self._headers = {**self._headers, **headers}

    def drop_body(self) -> None:
        """The body is parsed: its memory is free for others. Done by itself with the head."""
        self.request.body = b""
        if self._on_dropped is not None:
            self._on_dropped()
            self._on_dropped = None

    async def receive(
        self, take: Callable[[bytes], Awaitable[None]], most: int, too_many: HttpError
    ) -> None:
        """Give the body to `take`, part by part; where the route says that it comes so.

        Args:
            most: bytes that are taken.
            too_many: raised where there are more.

        Raises:
            HttpError: it is too large, too slow, or not what its head says.
            trio.BrokenResourceError: the client has gone before its end.
        """
        if self._receive is not None:
            await self._receive(take, most, too_many)

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: Mapping[str, str] = _NONE,
    ) -> None:
        """The whole answer; it is sent at once. One without a body has the status 204 or 304."""
        lines = {}
        if status not in (204, 304):
            lines = {"Content-Type": content_type, "Content-Length": str(len(body))}
        self._begin(status, lines, headers)
        if body and not self._bodiless:
            self.buffer.add(body)
        self.finished = True
        self.buffer.flush()

    def begin_stream(
        self, headers: Mapping[str, str] = _NONE, content_type: str = "text/event-stream"
    ) -> None:
        """The head of an answer that comes in parts."""
        lines = {"Content-Type": content_type, "Cache-Control": "no-cache"}
        if self._http10:
            self.keep_alive = False
        else:
            lines["Transfer-Encoding"] = "chunked"
        self._begin(200, lines, headers)
        if self._bodiless:
            self.finished = True
            self.scope.cancel()  # nobody reads what would be written

    def write(self, data: bytes) -> None:
        """One part of a stream; the buffer is flushed with the batch, or by `flush`."""
        if not data or self._bodiless:  # an empty chunk would be the last one
            return
        self.buffer.add(data if self._http10 else b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """The end of a stream."""
        if self.finished:
            return
        if not self._http10:
            self.buffer.add(b"0\r\n\r\n")
        self.finished = True

    def flush(self) -> None:
        """Send what was written."""
        self.buffer.flush()

    # -- what the connection calls ------------------------------------------------------------

    def gone(self) -> None:
        """The client has gone: the handler is cancelled."""
        self.is_gone = True
        self.scope.cancel()

    def stop(self, error: RequestError) -> None:
        """The server stops, or the user may not go on: end with an error."""
        if self.on_stop is not None:
            self.on_stop(error)
        else:
            self._stopped = error
            self.scope.cancel()

    @property
    def stopped(self) -> RequestError | None:
        """Why the handler was cancelled by `stop`."""
        return self._stopped

    def _begin(self, status: int, lines: Mapping[str, str], headers: Mapping[str, str]) -> None:
        assert not self.started, "an exchange has one answer"
        self.started = True
        self.status = status
        self.drop_body()
        fields = {**lines, **self._headers, **headers}
        self.keep_alive = self.keep_alive and not self.host.draining
        if not self.keep_alive:
            fields["Connection"] = "close"
        self.buffer.add(head(status, fields))


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and header fields of an answer."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}", f"Date: {_date()}"]
    lines.append("Server: llcuda-server")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header field holds a line break")  # it would begin another field
    return f"{text}\r\n\r\n".encode("latin-1", "replace")


_last_date = (0, "")


def _date() -> str:
    global _last_date
    now = int(time.time())
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True))
    return _last_date[1]


#: Answers a request, or raises HttpError or RequestError before the head is written.
Handler = Callable[[Exchange], Awaitable[None]]
