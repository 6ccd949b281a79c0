"""A small HTTP/1.1 responder, for programs that look at the server now and then.

Rules, which the tests hold it to:

- One request a connection, GET or HEAD; a body is not read, and nothing is kept between requests.
- Nothing a peer sends costs more than MAX_HEAD bytes and a place among MAX_CONNECTIONS, for
  CONVERSATION seconds, of which it may take HEAD for its request.
- A new connection always has a place, so that whoever asks for our health is answered: where all
  are taken, the oldest is closed. An answer takes milliseconds, so that one is idle, or reads
  nothing; such connections, however many, keep nobody out.
- Nothing a peer sends raises: it is answered with its status, or the connection is closed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11
import structlog
import trio

log = structlog.get_logger(__name__)

#: Bytes of a request's head, connections at once, and seconds for one of them and for its head.
MAX_HEAD = 16 << 10
MAX_CONNECTIONS = 64
CONVERSATION = 10.0
HEAD = 5.0
#: Seconds for the peer to close after its answer, and bytes that it may still send until then.
_FAREWELL = 1.0
_MAX_IGNORED = 256 << 10
_READ = 16 << 10
_METHODS = (b"GET", b"HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: a status, and a body with its type."""

    status: int
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def json(cls, code: int, /, **fields: str) -> Answer:
        """One line of JSON."""
        return cls(code, json.dumps(fields).encode() + b"\n")


#: Answers a path (no query), given the Accept header; None: there is nothing at this path.
Respond = Callable[[str, str], Awaitable[Answer | None]]


class Responder:
    """Serves connections; one `serve` each.

    Args:
        respond: makes the answers.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        #: What ends each conversation, oldest first.
        self._conversations: dict[trio.CancelScope, None] = {}

    def __repr__(self) -> str:
        return f"<Responder {len(self._conversations)} of {MAX_CONNECTIONS} connections>"

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer one request and close. Raises nothing but Cancelled."""
        if len(self._conversations) >= MAX_CONNECTIONS:
            oldest = next(iter(self._conversations))
            del self._conversations[oldest]  # now, not when its task runs: more may come before
            oldest.cancel()
        scope = trio.CancelScope(deadline=trio.current_time() + HEAD)
        self._conversations[scope] = None
        try:
            with scope:
                await self._converse(stream, scope)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("metrics_connection_lost")
        except Exception:
            log.exception("metrics_connection_crashed")
        finally:
            self._conversations.pop(scope, None)
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            request = await _request(connection, stream)
        except h11.RemoteProtocolError as error:
            # A head that is too large has a status of its own.
            status = error.error_status_hint or 400
            await _send(connection, stream, Answer.json(status, error=str(error)), body=True)
        else:
            if request is None:
                return
            scope.deadline += CONVERSATION - HEAD
            answer = await self._answer(request)
            await _send(connection, stream, answer, body=request.method != b"HEAD")
        # Closing with unread bytes would reset the connection and lose the answer.
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            ignored = 0
            with trio.move_on_after(_FAREWELL):
                while ignored < _MAX_IGNORED and (data := await stream.receive_some(_READ)):
                    ignored += len(data)

    async def _answer(self, request: h11.Request) -> Answer:
        if request.method not in _METHODS:
            return Answer.json(405, error="only GET and HEAD are answered here")
        path = request.target.partition(b"?")[0].decode("latin-1")
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        try:
            answer = await self._respond(path, accept.decode("latin-1"))
        except Exception:
            log.exception("metrics_request_crashed")
            return Answer.json(500, error="a bug; see the log")
        return answer or Answer.json(404, error="there is nothing here")


async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    """The head of a request; None if the peer closed without one."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(bytes(await stream.receive_some(_READ)))


async def _send(
    connection: h11.Connection, stream: trio.abc.Stream, answer: Answer, *, body: bool
) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    if answer.status == 405:
        headers.append(("Allow", "GET, HEAD"))
    head = h11.Response(
        status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase
    )
    parts = [connection.send(head)]
    if body:
        parts.append(connection.send(h11.Data(data=answer.body)))
        parts.append(connection.send(h11.EndOfMessage()))
    await stream.send_all(b"".join(part for part in parts if part))
