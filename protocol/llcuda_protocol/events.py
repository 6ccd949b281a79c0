"""One class per frame kind: `Connection.send` takes them, and `next_event` returns them.

Cold frames carry a map on the wire: `FIELDS` has its keys, their checks, and which are required.
Ping, pong, credit, upload, tokens, durable and vectors are positional; `frames.py` defines their
shapes. The frames of a client are in `requests.py`, those of a server in `replies.py`, and those of
both sides here. This module exports all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .kinds import Kind
from .replies import (
    Accepted,
    Channel,
    Deleted,
    Done,
    Durable,
    Facts,
    GoAway,
    Hits,
    Listing,
    Queue,
    Report,
    Splice,
    TokenLogprob,
    Tokens,
    TopToken,
    Vectors,
    Welcome,
)
from .requests import (
    Attach,
    Cancel,
    Credit,
    Delete,
    Embed,
    Generate,
    Hello,
    ListGenerations,
    Search,
    Status,
    Upload,
)
from .schema import COUNT, SECONDS, WORD, Field, boolean, text


@dataclass(frozen=True, slots=True)
class Ping:
    """Requests a pong with the same payload, of at most 64 bytes."""

    payload: bytes = b""

    KIND: ClassVar[Kind] = Kind.PING


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a ping."""

    payload: bytes = b""

    KIND: ClassVar[Kind] = Kind.PONG


@dataclass(frozen=True, slots=True)
class Error:
    """A failure: of the request on its stream, or of the connection (stream 0, the last frame).

    Attributes:
        code: an ErrorCode, or one that a later version added.
        retry: whether the same request may succeed later.
        retry_after: seconds to wait before a retry, where known.
        durable: with the code `ahead`: how many of the client's pieces are the same on the server.
    """

    stream: int
    code: str
    message: str
    retry: bool = False
    retry_after: float | None = None
    durable: int | None = None

    KIND: ClassVar[Kind] = Kind.ERROR
    FIELDS: ClassVar[dict[str, Field]] = {
        "code": Field(WORD, required=True),
        "message": Field(text(4096), required=True),
        "retry": Field(boolean),
        "retry_after": Field(SECONDS),
        "durable": Field(COUNT),
    }


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The other side closed the connection between two frames. Not a frame."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A client's frame on a stream has a value that the protocol does not allow. Not a frame.

    The stream is open, or has been opened by it. The server ends it with an error of the code
    `invalid_request`; the connection continues.

    Attributes:
        request: the kind of the frame.
        message: what is wrong, for people.
    """

    stream: int
    request: Kind
    message: str


Frame = (
    Hello
    | Welcome
    | Generate
    | Attach
    | Embed
    | Search
    | ListGenerations
    | Delete
    | Upload
    | Status
    | Cancel
    | Credit
    | Ping
    | Pong
    | Accepted
    | Queue
    | Splice
    | Channel
    | Tokens
    | Durable
    | Facts
    | Vectors
    | Hits
    | Listing
    | Deleted
    | Done
    | Error
    | GoAway
    | Report
)
Event = Frame | Invalid | ConnectionClosed

__all__ = [
    "Accepted",
    "Attach",
    "Cancel",
    "Channel",
    "ConnectionClosed",
    "Credit",
    "Delete",
    "Deleted",
    "Done",
    "Durable",
    "Embed",
    "Error",
    "Event",
    "Facts",
    "Frame",
    "Generate",
    "GoAway",
    "Hello",
    "Hits",
    "Invalid",
    "ListGenerations",
    "Listing",
    "Ping",
    "Pong",
    "Queue",
    "Report",
    "Search",
    "Splice",
    "Status",
    "TokenLogprob",
    "Tokens",
    "TopToken",
    "Upload",
    "Vectors",
    "Welcome",
]
