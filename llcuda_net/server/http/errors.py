"""Errors of the HTTP API, in the shape that OpenAI's clients read.

`{"error": {"message", "type", "param", "code"}}`, all four, always.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from llcuda_net.errors import RequestError

#: Most seconds that a Retry-After says: the SDKs ignore more.
MOST_WAIT = 60.0
_NONE: Mapping[str, str] = MappingProxyType({})


class HttpError(Exception):
    """What a request is answered with instead.

    Attributes:
        status: of the answer, from 400 on.
        message: one line: what is wrong, and what to do.
        type: OpenAI's class of errors: invalid_request_error, authentication_error, ...
        param: the field that is wrong, or None.
        code: a word for programs, or None.
        headers: more of the answer's.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the field's name
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = _NONE,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers)

    def __repr__(self) -> str:
        return f"<HttpError {self.status} {self.code or self.type}: {self.message}>"

    @property
    def fields(self) -> dict[str, dict[str, str | None]]:
        """The error as a JSON object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def body(self) -> bytes:
        """The error as JSON."""
        return msgspec.json.encode(self.fields)


#: Status and type by the protocol's code; all others are 500, server_error.
_BY_CODE = {
    "unauthorized": (401, "authentication_error"),
    "invalid_request": (400, "invalid_request_error"),
    "unknown_parameter": (400, "invalid_request_error"),
    "context_exceeded": (400, "invalid_request_error"),
    "frame_too_large": (413, "invalid_request_error"),
    "unknown_generation": (404, "not_found_error"),
    "unknown_model": (404, "invalid_request_error"),
    "key_conflict": (409, "invalid_request_error"),
    "ahead": (409, "invalid_request_error"),
    "unsupported": (400, "invalid_request_error"),
    "overloaded": (429, "rate_limit_error"),
    "timeout": (504, "server_error"),
    "upstream_unavailable": (503, "server_error"),
    "upstream_error": (502, "server_error"),
    "upstream_stalled": (504, "server_error"),
    "storage": (503, "server_error"),
    "shutting_down": (503, "server_error"),
}


def of_request_error(error: RequestError) -> HttpError:
    """What a request that failed is answered with."""
    code = str(error.code)
    status, type_ = _BY_CODE.get(code, (500, "server_error"))
    headers = {}
    if error.retry:
        wait = min(error.retry_after or 1.0, MOST_WAIT)
        headers["Retry-After"] = str(max(1, round(wait)))
        headers["retry-after-ms"] = str(max(1, round(wait * 1000)))
    if code == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    return HttpError(status, error.message, type=type_, code=code, headers=headers)
