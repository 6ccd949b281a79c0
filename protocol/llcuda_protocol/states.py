"""The states of a connection and of a stream, and the transitions of each frame, as data.

Both roles use the same tables: the sender checks them before it sends (LocalProtocolError), the
receiver when a frame arrives (RemoteProtocolError). `kinds.SENT_BY` defines who may send what.
`diagram()` makes SPEC.md's diagrams from these tables.
"""

from __future__ import annotations

from enum import StrEnum

from .kinds import Kind


class ConnectionState(StrEnum):
    """The state of a connection."""

    NEW = "new"
    GREETED = "greeted"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class StreamState(StrEnum):
    """The state of a stream. A stream begins with the request that names it."""

    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"
    EMBEDDING = "embedding"
    SEARCHING = "searching"
    LISTING = "listing"
    REPORTING = "reporting"
    DELETING = "deleting"
    UPLOADING = "uploading"
    CLOSED = "closed"


_C = ConnectionState
_S = StreamState

#: Frames on stream 0. A frame that is not in its state's row is unexpected.
CONNECTION_TABLE: dict[ConnectionState, dict[Kind, ConnectionState]] = {
    _C.NEW: {Kind.HELLO: _C.GREETED, Kind.ERROR: _C.CLOSED},
    _C.GREETED: {Kind.WELCOME: _C.OPEN, Kind.ERROR: _C.CLOSED},
    _C.OPEN: {
        Kind.PING: _C.OPEN,
        Kind.PONG: _C.OPEN,
        Kind.GO_AWAY: _C.DRAINING,
        Kind.ERROR: _C.CLOSED,
    },
    _C.DRAINING: {
        Kind.PING: _C.DRAINING,
        Kind.PONG: _C.DRAINING,
        Kind.GO_AWAY: _C.DRAINING,
        Kind.ERROR: _C.CLOSED,
    },
    _C.CLOSED: {},
}

#: Frames on streams from 1 up, allowed while the connection is open or draining.
STREAM_TABLE: dict[StreamState, dict[Kind, StreamState]] = {
    _S.IDLE: {
        Kind.GENERATE: _S.WAITING,
        Kind.ATTACH: _S.WAITING,
        Kind.EMBED: _S.EMBEDDING,
        Kind.SEARCH: _S.SEARCHING,
        Kind.LIST: _S.LISTING,
        Kind.STATUS: _S.REPORTING,
        Kind.DELETE: _S.DELETING,
        Kind.UPLOAD: _S.UPLOADING,
    },
    _S.WAITING: {
        Kind.ACCEPTED: _S.RUNNING,
        Kind.FACTS: _S.WAITING,
        Kind.CREDIT: _S.WAITING,
        Kind.CANCEL: _S.WAITING,
        Kind.ERROR: _S.CLOSED,
    },
    _S.RUNNING: {
        Kind.QUEUE: _S.RUNNING,
        Kind.TOKENS: _S.RUNNING,
        Kind.SPLICE: _S.RUNNING,
        Kind.CHANNEL: _S.RUNNING,
        Kind.DURABLE: _S.RUNNING,
        Kind.FACTS: _S.RUNNING,
        Kind.CREDIT: _S.RUNNING,
        Kind.CANCEL: _S.RUNNING,
        Kind.DONE: _S.CLOSED,
        Kind.ERROR: _S.CLOSED,
    },
    _S.EMBEDDING: {
        Kind.VECTORS: _S.EMBEDDING,
        Kind.CANCEL: _S.EMBEDDING,
        Kind.DONE: _S.CLOSED,
        Kind.ERROR: _S.CLOSED,
    },
    _S.SEARCHING: {
        Kind.HITS: _S.SEARCHING,
        Kind.CANCEL: _S.SEARCHING,
        Kind.DONE: _S.CLOSED,
        Kind.ERROR: _S.CLOSED,
    },
    _S.LISTING: {
        Kind.LISTING: _S.LISTING,
        Kind.CANCEL: _S.LISTING,
        Kind.DONE: _S.CLOSED,
        Kind.ERROR: _S.CLOSED,
    },
    _S.REPORTING: {
        Kind.REPORT: _S.CLOSED,
        Kind.CANCEL: _S.REPORTING,
        Kind.ERROR: _S.CLOSED,
    },
    _S.DELETING: {
        Kind.DELETED: _S.CLOSED,
        Kind.CANCEL: _S.DELETING,
        Kind.ERROR: _S.CLOSED,
    },
    _S.UPLOADING: {
        Kind.UPLOAD: _S.UPLOADING,
        Kind.CANCEL: _S.UPLOADING,
        Kind.DONE: _S.CLOSED,
        Kind.ERROR: _S.CLOSED,
    },
    _S.CLOSED: {},
}

#: States of the connection in which streams may carry frames.
STREAMS_LIVE = frozenset({_C.OPEN, _C.DRAINING})
#: Frames that open a stream.
OPENING = frozenset(STREAM_TABLE[_S.IDLE])
#: Frames that may cross a stream's end on the wire, and are then dropped.
MAY_ARRIVE_LATE = frozenset({Kind.CREDIT, Kind.CANCEL, Kind.UPLOAD})


def diagram(table: dict[ConnectionState, dict[Kind, ConnectionState]] | None = None) -> str:
    """One line per transition, `state --frame--> state`, of a table (default: the stream's)."""
    rows = STREAM_TABLE if table is None else table
    lines = []
    for state, moves in rows.items():
        by_target: dict[str, list[str]] = {}
        for kind, target in moves.items():
            by_target.setdefault(target, []).append(kind.name.lower())
        lines += [f"{state} --{', '.join(k)}--> {t}" for t, k in by_target.items()]
    return "\n".join(lines)
