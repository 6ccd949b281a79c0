"""One class a frame kind: what is sent with `Connection.send` and comes out of `next_event`.

Cold frames carry a map on the wire: `FIELDS` names its keys, their checks, and which must be there.
Ping, pong, credit, tokens and vectors are positional; `frames.py` knows their shapes. Those of one
side are in `requests.py` and `replies.py`; here are those of both, and all by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .kinds import Kind
from .replies import (
    Accepted,
    Done,
    Durable,
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
    Embed,
    Generate,
    Hello,
    ListGenerations,
    Search,
    Status,
)
from .schema import Field, boolean, text
from .values import COUNT, SECONDS, WORD


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a pong with the same payload."""

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
        retry_after: seconds to wait before that, where known.
        durable: with the code `ahead`: how many pieces of the client's are the server's, too.
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


Frame = (
    Hello
    | Welcome
    | Generate
    | Attach
    | Embed
    | Search
    | ListGenerations
    | Status
    | Cancel
    | Credit
    | Ping
    | Pong
    | Accepted
    | Queue
    | Splice
    | Tokens
    | Durable
    | Vectors
    | Hits
    | Listing
    | Done
    | Error
    | GoAway
    | Report
)
Event = Frame | ConnectionClosed

__all__ = [
    "Accepted",
    "Attach",
    "Cancel",
    "ConnectionClosed",
    "Credit",
    "Done",
    "Durable",
    "Embed",
    "Error",
    "Event",
    "Frame",
    "Generate",
    "GoAway",
    "Hello",
    "Hits",
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
    "Vectors",
    "Welcome",
]
