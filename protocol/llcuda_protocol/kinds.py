"""The constants of the wire: preface, versions, frame kinds and limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

#: First bytes of either side. The first byte is not ASCII, so no text protocol starts like this.
PREFACE = b"\x89LLCUDA\n"
#: Versions that this package speaks, best first.
VERSIONS = (1,)
#: Bytes of the length field before each frame.
HEADER = 4
#: Largest frame before the handshake is over, in bytes: an unknown peer gets little memory.
HANDSHAKE_MAX_FRAME = 8192
#: Bounds for the `max_frame` that a side may announce, in bytes.
MIN_MAX_FRAME = 16_384
MAX_MAX_FRAME = 1 << 30
#: Largest credit that a stream may hold, in bytes.
MAX_CREDIT = (1 << 31) - 1
#: Largest stream number and sequence number.
MAX_STREAM = (1 << 32) - 1
MAX_SEQUENCE = (1 << 53) - 1
#: Greatest `on_disconnect`, in seconds; this value means forever.
MAX_LINGER = 10**9
#: Largest token id.
MAX_TOKEN_ID = (1 << 31) - 1
#: Largest ping payload, in bytes.
MAX_PING = 64
#: Largest piece of an upload, in bytes: none holds up the other streams.
MAX_UPLOAD_PIECE = 65_536
#: Largest piece of facts, in bytes.
MAX_FACTS = 65_536
#: Kinds that a receiver ignores, both included: hints of later versions.
FIRST_IGNORED = 64
LAST_IGNORED = 95
#: Most hits that a search may request.
MAX_HITS = 1000
#: Most generations that a list may request.
MAX_LISTED = 1000


class Role(StrEnum):
    """Which end of the connection this is."""

    CLIENT = "client"
    SERVER = "server"


class Kind(IntEnum):
    """First element of each frame."""

    HELLO = 1
    GENERATE = 2
    ATTACH = 3
    CANCEL = 4
    EMBED = 5
    SEARCH = 6
    STATUS = 7
    PING = 8
    CREDIT = 9
    LIST = 10
    UPLOAD = 11
    DELETE = 12
    WELCOME = 16
    ACCEPTED = 17
    QUEUE = 18
    TOKENS = 19
    DONE = 20
    ERROR = 21
    GO_AWAY = 22
    VECTORS = 23
    REPORT = 24
    PONG = 25
    DURABLE = 26
    HITS = 27
    SPLICE = 28
    LISTING = 29
    CHANNEL = 30
    DELETED = 31
    FACTS = 32


#: What each role may send. A client sends error on stream 0 only: it ends a stream with cancel.
SENT_BY: dict[Role, frozenset[Kind]] = {
    Role.CLIENT: frozenset(
        {
            Kind.HELLO,
            Kind.GENERATE,
            Kind.ATTACH,
            Kind.CANCEL,
            Kind.EMBED,
            Kind.SEARCH,
            Kind.STATUS,
            Kind.CREDIT,
            Kind.LIST,
            Kind.UPLOAD,
            Kind.DELETE,
            Kind.PING,
            Kind.PONG,
            Kind.ERROR,
        }
    ),
    Role.SERVER: frozenset(
        {
            Kind.WELCOME,
            Kind.ACCEPTED,
            Kind.QUEUE,
            Kind.TOKENS,
            Kind.DONE,
            Kind.GO_AWAY,
            Kind.VECTORS,
            Kind.REPORT,
            Kind.DURABLE,
            Kind.HITS,
            Kind.SPLICE,
            Kind.LISTING,
            Kind.CHANNEL,
            Kind.DELETED,
            Kind.FACTS,
            Kind.PING,
            Kind.PONG,
            Kind.ERROR,
        }
    ),
}


def may_send(role: Role, kind: Kind, stream: int) -> bool:
    """Whether a role may send a kind on a stream: a client sends error on stream 0 only."""
    return kind in SENT_BY[role] and not (
        kind is Kind.ERROR and stream != 0 and role is Role.CLIENT
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side is ready to receive.

    Attributes:
        max_frame: largest frame after its length field, in bytes.
        max_streams: most streams open at once on the connection.
    """

    max_frame: int = 4 << 20
    max_streams: int = 256

    def __post_init__(self) -> None:
        if not MIN_MAX_FRAME <= self.max_frame <= MAX_MAX_FRAME:
            raise ValueError(f"max_frame must be {MIN_MAX_FRAME} to {MAX_MAX_FRAME} bytes")
        if not 1 <= self.max_streams <= MAX_STREAM:
            raise ValueError("max_streams must be at least 1")
