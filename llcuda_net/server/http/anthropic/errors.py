"""How a request fails in Anthropic's API: `{"type": "error", "error": {type, message, details}}`.

Its SDKs choose the class of their exception by the status, and obey `x-should-retry`,
`retry-after-ms` and Retry-After, as OpenAI's do. What is in both APIs has the same status in both,
but for a server that takes no more now: that is 529 here, which clients know from Anthropic.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.request import HttpRequest
from llcuda_net.server.http.route import ErrorAnswer, openai_error

#: The header that a client of this API sends with each request.
VERSION = "anthropic-version"
#: The header of each answer that names the request; beside our own x-request-id.
REQUEST_ID = "request-id"
#: The status of a server that takes no more now, and the code of that, as OpenAI's API has it.
OVERLOADED, _OVERLOADED_CODE = 529, "rate_limit_exceeded"
#: The code by which the SDKs know that a server keeps no threads, and send them whole.
NO_THREADS = "thread_unsupported_request"
_TOO_LONG, _TOKENS = "context_length_exceeded", re.compile(r"([0-9]+) tokens")

#: Anthropic's types of errors, by status.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


def status_of(error: HttpError) -> int:
    """The status with which Anthropic's API answers it."""
    return OVERLOADED if error.code == _OVERLOADED_CODE else error.status


def type_of(status: int) -> str:
    """Anthropic's type of an error with this status."""
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def document(error: HttpError, request_id: str | None = None) -> dict[str, Any]:
    """The body of the answer, and the data of the event in a stream, as JSON values.

    Args:
        request_id: names the request; None: an event, which is the same for all its readers.
    """
    said: dict[str, Any] = {"type": type_of(status_of(error)), "message": _message(error)}
    details = {
        "error_code": error.code,
        "param": error.param,
        "unsupported": [error.param] if error.code == NO_THREADS else None,
    }
    if known := {name: value for name, value in details.items() if value is not None}:
        said["details"] = known
    found: dict[str, Any] = {"type": "error", "error": said}
    return found if request_id is None else {**found, "request_id": request_id}


def _message(error: HttpError) -> str:
    """What it says; of a prompt that is too long as Anthropic says it: clients look for that."""
    tokens = _TOKENS.findall(error.message) if error.code == _TOO_LONG else []
    if len(tokens) != 2:
        return error.message
    return "prompt is too long: {} tokens > {} maximum".format(*tokens)


def anthropic_error(error: HttpError, request: HttpRequest) -> ErrorAnswer:
    """An error as it is sent."""
    body = msgspec.json.encode(document(error, request.id))
    return ErrorAnswer(status_of(error), body, {**error.headers, REQUEST_ID: request.id})


def error_by_version(error: HttpError, request: HttpRequest) -> ErrorAnswer:
    """An error of a path that both APIs have: as the API of the client that asks."""
    write = anthropic_error if VERSION in request.headers else openai_error
    return write(error, request)
