"""How requests fail over HTTP: one table, and headers that SDKs obey."""

from __future__ import annotations

import json

import pytest

from llcuda_net.errors import (
    REQUEST_ERRORS,
    KeyConflict,
    Overloaded,
    RequestTimeout,
    ShuttingDown,
    Unauthorized,
    UpstreamError,
    UpstreamUnavailable,
    request_error,
)
from llcuda_net.server.http.errors import CODES, HttpError, of_request_error
from llcuda_protocol import ErrorCode


def test_every_code_has_a_status() -> None:
    assert set(CODES) == {str(code) for code in ErrorCode} == set(REQUEST_ERRORS)


@pytest.mark.parametrize("code", CODES)
def test_an_error_has_all_four_members(code: str) -> None:
    error = of_request_error(request_error(code, "so it is"))
    body = json.loads(error.body)
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == "so it is"
    assert 400 <= error.status < 600
    assert (error.status >= 500) == (error.type == "server_error")


def test_a_code_of_a_newer_server_is_ours() -> None:
    error = of_request_error(request_error("brand_new", "so it is"))
    assert (error.status, error.code) == (500, "brand_new")


def test_retry_after_is_at_most_a_minute() -> None:
    headers = of_request_error(Overloaded("full", retry=True, retry_after=500.0)).headers
    assert headers == {"Retry-After": "60", "retry-after-ms": "60000"}
    headers = of_request_error(Overloaded("full", retry=True, retry_after=0.25)).headers
    assert headers == {"Retry-After": "1", "retry-after-ms": "250"}


def test_a_full_queue_always_says_when_to_come_back() -> None:
    assert of_request_error(Overloaded("full")).headers["retry-after-ms"] == "1000"


@pytest.mark.parametrize(
    ("error", "status", "should"),
    [
        (ShuttingDown("", retry=True), 503, None),
        (UpstreamUnavailable("", retry=True), 503, None),
        (UpstreamError("", retry=False), 502, "false"),
        (RequestTimeout("", retry=False), 504, "false"),
        (KeyConflict(""), 409, "false"),
        (request_error("invalid_request", "", retry=True), 400, "true"),
    ],
)
def test_sdks_are_told_where_they_would_be_wrong(
    error: Exception, status: int, should: str | None
) -> None:
    found = of_request_error(error)  # type: ignore[arg-type]
    assert found.status == status
    assert found.headers.get("x-should-retry") == should


def test_who_is_not_let_in_is_told_how() -> None:
    assert of_request_error(Unauthorized("who?")).headers["WWW-Authenticate"] == "Bearer"


def test_an_error_names_the_field() -> None:
    error = HttpError(400, "wrong", param="n", code="invalid_request")
    assert json.loads(error.body)["error"]["param"] == "n"
    assert of_request_error(KeyConflict("x"), "key").param == "key"
    assert "400" in repr(error)
