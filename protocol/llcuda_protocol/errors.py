"""The two kinds of protocol error, and the closed list of codes that error frames carry."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a request or a connection failed. SPEC.md defines each, and what a client does."""

    # The connection: sent on stream 0, after which the sender closes.
    BAD_PREFACE = "bad_preface"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNAUTHORIZED = "unauthorized"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    FRAME_TOO_LARGE = "frame_too_large"
    MALFORMED_FRAME = "malformed_frame"
    TRUNCATED_FRAME = "truncated_frame"
    UNKNOWN_KIND = "unknown_kind"
    UNEXPECTED_FRAME = "unexpected_frame"
    FLOW_CONTROL = "flow_control"
    TOO_MANY_STREAMS = "too_many_streams"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    # A request: sent on its stream, which ends; the connection stays open.
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_PARAMETER = "unknown_parameter"
    UNKNOWN_GENERATION = "unknown_generation"
    UNKNOWN_MODEL = "unknown_model"
    KEY_CONFLICT = "key_conflict"
    AHEAD = "ahead"
    CONTEXT_EXCEEDED = "context_exceeded"
    UNSUPPORTED = "unsupported"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_STALLED = "upstream_stalled"
    STORAGE = "storage"
    DAMAGED = "damaged"
    INTERRUPTED = "interrupted"
    SHUTTING_DOWN = "shutting_down"
    LEASE_LOST = "lease_lost"
    INTERNAL = "internal"


class ProtocolError(Exception):
    """Base of both kinds."""


class LocalProtocolError(ProtocolError):
    """This side tried to break the protocol: a bug in the caller. Nothing was sent."""


class FrameTooLargeError(LocalProtocolError):
    """The frame is larger than the other side takes. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol. Send `reply`, then close.

    Attributes:
        code: what went wrong.
        message: one line, for people.
        reply: bytes to send before closing; may be empty.
    """

    def __init__(self, code: ErrorCode, message: str, reply: bytes = b"") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reply = reply
