"""Asks a line of a batch: the handler that answers such a request over HTTP, without HTTP.

A line has an idempotency key, so one that was asked before a server ended is not asked again: it
joins its generation, or gets the stored answer. What did not come to its end is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import structlog
import trio

from llcuda_net.config.users import User
from llcuda_net.errors import RequestError
from llcuda_net.server.http.errors import SERVER, HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange, Handler, HttpHost
from llcuda_net.server.http.request import Headers, HttpRequest
from llcuda_net.server.tcp.room import Unsent
from llcuda_net.server.tcp.write_buffer import WriteBuffer
from llcuda_net.util.time_ids import uuid7
from llcuda_protocol import Attach

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request was answered.

    Attributes:
        status: of HTTP.
        body: JSON.
        request_id: names the request in the log.
        headers: of the answer, beside its own; names as they were given.
    """

    status: int
    body: bytes
    request_id: str
    headers: Mapping[str, str]

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the same may be answered otherwise; None: it will not."""
        told = self.headers.get("x-should-retry")
        retry = self.status in (408, 429) or self.status >= 500 if told is None else told == "true"
        return float(self.headers.get("retry-after-ms", 1000)) / 1e3 if retry else None


async def was_asked(host: HttpHost, answer: Answer, user: User) -> bool:
    """Whether an upstream had the request that failed so: then it may be the cause."""
    if answer.status not in (429, 503):
        return True
    named = answer.headers.get("x-llcuda-generation")
    if named is None:  # it did not even begin
        return False
    try:
        found = await host.generations.find(Attach(0, named.partition(",")[0], 0), user)
    except RequestError:
        return True
    return found.times.sent is not None


class _Nowhere(trio.abc.SendStream):
    """For a buffer into which nothing is written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> NoReturn:
        raise trio.ClosedResourceError

    async def wait_send_all_might_not_block(self) -> NoReturn:
        raise trio.ClosedResourceError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class LineExchange(Exchange):
    """A request whose answer is kept, and sent nowhere.

    Attributes:
        answer: what was answered; None: nothing yet.
    """

    def __init__(self, request: HttpRequest, host: HttpHost) -> None:
        buffer = WriteBuffer(_Nowhere(), _nothing, 0.0, set(), Unsent(0))
        super().__init__(request, host, buffer)
        self.answer: Answer | None = None

    def respond(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep the whole answer."""
        self.drop_body()
        self.started = self.finished = True
        self.status = status
        self.answer = Answer(status, body, self.request.id, headers or {})

    def begin_stream(
        self, headers: Mapping[str, str] | None = None, content_type: str = "text/event-stream"
    ) -> None:
        """Refuse it: an answer in parts is nothing for a file."""
        raise HttpError(400, "an answer in parts is not for batches", code="unsupported")


async def ask(
    host: HttpHost, handler: Handler, path: str, body: bytes, user: User, headers: Mapping[str, str]
) -> Answer:
    """The answer to a request, whatever it is; when cancelled, its reader leaves.

    Args:
        path: of the handler's route.
        headers: of the request; names in lower case.
    """
    fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    id_ = f"req_{uuid7().replace('-', '')}"
    request = HttpRequest("POST", path, {}, Headers(fields), body, user, id_)
    exchange = LineExchange(request, host)
    try:
        with exchange.scope:
            await handler(exchange)
        if exchange.answer is not None:
            return exchange.answer
        error = HttpError(500, "a bug in the server: it gave no answer", type=SERVER)
    except HttpError as found:
        error = found
    except RequestError as found:
        error = of_request_error(found)
    except Exception:
        log.exception("batch_line_crashed", id=id_)
        error = HttpError(500, "a bug in the server; its log has more", type=SERVER)
    return Answer(error.status, error.body, id_, error.headers)


def _nothing() -> None:
    pass
