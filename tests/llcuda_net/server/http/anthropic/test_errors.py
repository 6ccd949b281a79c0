"""How requests fail in Anthropic's API, on a connection in memory."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest

from llcuda_net.config.token_file import Users
from llcuda_net.config.users import ANONYMOUS
from llcuda_net.errors import (
    ContextExceeded,
    Overloaded,
    RequestError,
    RequestTimeout,
    UnknownModel,
)
from llcuda_net.server.http.anthropic.errors import (
    TYPES,
    anthropic_error,
    document,
    error_by_version,
)
from llcuda_net.server.http.errors import HttpError, of_request_error
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.request import Headers, HttpRequest
from llcuda_net.server.http.route import Route
from tests.support.server.http_client import Answer, echo, http_rig

VERSION = "anthropic-version: 2023-06-01"


def request(*headers: tuple[bytes, bytes]) -> HttpRequest:
    return HttpRequest("POST", "/v1/messages", {}, Headers(headers), b"", ANONYMOUS, "req_1")


def said(answer: Answer) -> dict[str, Any]:
    """The error of an answer in Anthropic's shape, whose request is named alike everywhere."""
    body: dict[str, Any] = json.loads(answer.body)
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
    ],
)
def test_types_by_status(status: int, type_: str) -> None:
    error = HttpError(status, "why", code="c", param="p")
    answer = anthropic_error(error, request())
    assert answer.status == status
    assert answer.headers == {"request-id": "req_1"}
    assert json.loads(answer.body) == {
        "type": "error",
        "error": {
            "type": type_,
            "message": "why",
            "details": {"error_code": "c", "param": "p"},
        },
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("error", "class_"),
    [
        (Overloaded("full"), anthropic.OverloadedError),
        (UnknownModel("none"), anthropic.NotFoundError),
        (ContextExceeded("long"), anthropic.BadRequestError),
        (RequestTimeout("slow"), anthropic.GatewayTimeoutError),
    ],
)
def test_the_sdk_has_a_class_for_it(error: RequestError, class_: type[Exception]) -> None:
    status, body, headers = anthropic_error(of_request_error(error), request())
    response = httpx2.Response(
        status, headers=dict(headers), content=body, request=httpx2.Request("POST", "http://x")
    )
    with anthropic.Anthropic(api_key="any") as client:
        caught = client._make_status_error("", body=json.loads(body), response=response)
    assert type(caught) is class_
    assert caught.type == TYPES[status]
    assert caught.request_id == "req_1"


def test_an_overloaded_server_says_when_to_come_back() -> None:
    answer = anthropic_error(of_request_error(Overloaded("full", retry_after=2)), request())
    assert answer.status == 529
    assert answer.headers["Retry-After"] == "2"
    limited = HttpError(429, "too many", code="too_many_users")
    assert anthropic_error(limited, request()).status == 429


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    text = "the prompt is too long: request (5000 tokens) exceeds the available context size "
    error = of_request_error(ContextExceeded(f"{text}(2048 tokens), try increasing it"))
    assert document(error)["error"]["message"] == "prompt is too long: 5000 tokens > 2048 maximum"
    unknown = of_request_error(ContextExceeded("no room for 5 tokens"))
    assert document(unknown)["error"]["message"] == "no room for 5 tokens"


def test_a_path_of_both_apis() -> None:
    error = HttpError(404, "none")
    ours = json.loads(error_by_version(error, request((b"anthropic-version", b"x"))).body)
    theirs = json.loads(error_by_version(error, request()).body)
    assert ours["type"] == "error"
    assert theirs.keys() == {"error"}


async def _fails(exchange: Exchange) -> None:
    raise Overloaded("full")


async def _crashes(exchange: Exchange) -> None:
    raise ZeroDivisionError


ROUTES = [
    Route("POST", "/v1/messages", echo, errors=anthropic_error),
    Route("POST", "/fails", _fails, errors=anthropic_error),
    Route("POST", "/crashes", _crashes, errors=anthropic_error),
    Route("GET", "/v1/models", echo, errors=error_by_version),
    Route("GET", "/other", echo),
]


async def test_what_the_connection_refuses_itself() -> None:
    async with http_rig(*ROUTES, max_body=100) as rig:
        client = rig.connect()
        refused = await client.ask("GET", "/v1/messages")
        assert (refused.status, refused.headers["allow"]) == (405, "OPTIONS, POST")
        assert said(refused)["type"] == "invalid_request_error"
        wrong = await client.ask("POST", "/v1/messages", "Content-Type: text/plain", body=b"a")
        assert (wrong.status, said(wrong)["type"]) == (415, "invalid_request_error")
        large = await rig.connect().ask("POST", "/v1/messages", body=b"a" * 101)
        assert (large.status, said(large)["type"]) == (413, "request_too_large")
        foreign = await rig.connect().ask("POST", "/v1/messages", host=b"Host: evil.example\r\n")
        assert (foreign.status, said(foreign)["type"]) == (403, "permission_error")
        full = await rig.connect().ask("POST", "/fails")
        assert (full.status, said(full)["type"]) == (529, "overloaded_error")
        rig.places.free = 0
        none = await rig.connect().ask("POST", "/v1/messages")
        assert (none.status, said(none)["type"]) == (529, "overloaded_error")


async def test_a_bug_and_a_server_that_stops() -> None:
    async with http_rig(*ROUTES) as rig:
        crashed = await rig.connect().ask("POST", "/crashes")
        assert (crashed.status, said(crashed)["type"]) == (500, "api_error")
        rig.host.draining = True
        stopping = await rig.connect().ask("POST", "/v1/messages")
        assert (stopping.status, said(stopping)["type"]) == (503, "api_error")
        assert stopping.headers["retry-after-ms"] == "1000"


async def test_keys() -> None:
    users = Users.parse("secret name=me")
    async with http_rig(*ROUTES, users=users) as rig:
        for line in ("x-api-key: secret", "Authorization: Bearer secret"):
            assert (await rig.connect().ask("POST", "/v1/messages", line)).status == 200
        refused = await rig.connect().ask("POST", "/v1/messages", "x-api-key: other")
        assert (refused.status, said(refused)["type"]) == (401, "authentication_error")


async def test_other_paths_are_not_anthropics() -> None:
    async with http_rig(*ROUTES) as rig:
        for method, path in (("GET", "/nothing"), ("GET", "/v1/messages/x"), ("POST", "/other")):
            answer = await rig.connect().ask(method, path, VERSION)
            assert answer.error
            assert "request-id" not in answer.headers
        # And the connection forgets what the last request was.
        client = rig.connect()
        assert said(await client.ask("GET", "/v1/messages"))
        assert (await client.ask("GET", "/nothing")).error
        assert said(await client.ask("POST", "/v1/models", VERSION))
        assert (await client.ask("POST", "/v1/models")).error
        assert said(await client.ask("GET", "/v1/messages"))
        assert (await client.ask("GET", "/v1/messages", "Host: another")).error


async def test_a_page_may_send_the_headers_of_anthropics_sdk_and_read_the_requests_name() -> None:
    names = (
        "anthropic-beta, anthropic-dangerous-direct-browser-access, anthropic-version, x-api-key"
    )
    origin = "Origin: https://chat.example"
    async with http_rig(*ROUTES, cors_origin=("https://chat.example",)) as rig:
        allowed = await rig.connect().ask(
            "OPTIONS",
            "/v1/messages",
            origin,
            "Access-Control-Request-Method: POST",
            f"Access-Control-Request-Headers: {names}",
        )
        assert allowed.headers["access-control-allow-headers"] == names
        answer = await rig.connect().ask("POST", "/v1/messages", origin)
        assert " request-id," in answer.headers["access-control-expose-headers"]
