"""How a request fails over HTTP: the status, and the error as OpenAI's API has it.

All errors look alike, in a body and in a stream: `{"error": {message, type, param, code}}`, with
all four keys. The SDKs of OpenAI decide by the status whether to send a request again; where they
would be wrong, `x-should-retry` says so. They obey `retry-after-ms` and Retry-After up to a minute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from llcuda_net.errors import RequestError

#: Most seconds of a Retry-After: clients ignore longer ones.
MAX_RETRY_AFTER = 60.0
#: Seconds after which to ask again, where nobody knows better.
_RETRY_AFTER = 1.0

INVALID, AUTHENTICATION, RATE_LIMIT, SERVER = (
    "invalid_request_error",
    "authentication_error",
    "rate_limit_error",
    "server_error",
)

#: Every code of our own protocol: the status, OpenAI's type, and the code that its clients know.
CODES: dict[str, tuple[int, str, str]] = {
    "bad_preface": (400, INVALID, "bad_preface"),
    "unsupported_version": (400, INVALID, "unsupported_version"),
    "unauthorized": (401, AUTHENTICATION, "invalid_api_key"),
    "handshake_timeout": (408, INVALID, "handshake_timeout"),
    "frame_too_large": (413, INVALID, "request_too_large"),
    "malformed_frame": (400, INVALID, "malformed_frame"),
    "truncated_frame": (400, INVALID, "truncated_frame"),
    "unknown_kind": (400, INVALID, "unknown_kind"),
    "unexpected_frame": (400, INVALID, "unexpected_frame"),
    "flow_control": (400, INVALID, "flow_control"),
    "too_many_streams": (429, RATE_LIMIT, "too_many_streams"),
    "too_many_connections": (429, RATE_LIMIT, "too_many_connections"),
    "invalid_request": (400, INVALID, "invalid_request"),
    "unknown_parameter": (400, INVALID, "unknown_parameter"),
    "unknown_generation": (404, INVALID, "generation_not_found"),
    "unknown_model": (404, INVALID, "model_not_found"),
    "key_conflict": (409, INVALID, "idempotency_key_in_use"),
    "ahead": (409, INVALID, "ahead"),
    "context_exceeded": (400, INVALID, "context_length_exceeded"),
    "unsupported": (400, INVALID, "unsupported"),
    "overloaded": (429, RATE_LIMIT, "rate_limit_exceeded"),
    "timeout": (504, SERVER, "timeout"),
    "upstream_unavailable": (503, SERVER, "upstream_unavailable"),
    "upstream_error": (502, SERVER, "upstream_error"),
    "upstream_stalled": (504, SERVER, "upstream_stalled"),
    "storage": (503, SERVER, "storage"),
    "damaged": (500, SERVER, "damaged"),
    "interrupted": (503, SERVER, "interrupted"),
    "shutting_down": (503, SERVER, "shutting_down"),
    "lease_lost": (503, SERVER, "lease_lost"),
    "internal": (500, SERVER, "internal_error"),
}


class HttpError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        message: one line, for people.
        type, param, code: as OpenAI's API has them; `param` is the path of the field at fault.
        headers: that the answer has beside its own.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 -- the name in the body
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"<HttpError {self.status} {self.code}: {self.message}>"

    def document(self) -> dict[str, Any]:
        """The body, and the event of a stream, as JSON values."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    @property
    def body(self) -> bytes:
        """The body of the answer, and the data of the event in a stream: JSON."""
        return msgspec.json.encode(self.document())


def of_request_error(error: RequestError, param: str | None = None) -> HttpError:
    """What a failed request is answered with.

    Args:
        param: the field at fault, where that is known.
    """
    status, type_, code = CODES.get(error.code, (500, SERVER, error.code))
    retry = error.retry or status == 429
    return HttpError(
        status,
        error.message,
        type=type_,
        param=param,
        code=code,
        headers=_retry_headers(status, error.retry_after, retry=retry),
    )


def _retry_headers(status: int, after: float | None, *, retry: bool) -> dict[str, str]:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if retry != _sdk_retries(status):
        headers["x-should-retry"] = "true" if retry else "false"
    if after is None and status == 429:
        after = _RETRY_AFTER
    if retry and after is not None:
        seconds = min(max(after, 0.001), MAX_RETRY_AFTER)
        headers["Retry-After"] = str(math.ceil(seconds))
        headers["retry-after-ms"] = str(math.ceil(seconds * 1e3))
    return headers


def _sdk_retries(status: int) -> bool:
    """Whether OpenAI's SDKs send a request again after this status, unless told otherwise."""
    return status in (408, 409, 429) or status >= 500
