"""What the routes of the Responses API take and give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llcuda_net.server.http.openapi.answers import Count, DetailedUsage, Page
from llcuda_net.server.http.openapi.operations import (
    EVENTS,
    IGNORED,
    LAST,
    LEAVING,
    NAMED,
    RUN,
    RUNS,
    Operation,
    pages,
    query,
)
from llcuda_net.server.http.responses.body import ResponseBody
from llcuda_net.server.http.responses.items import InputItem
from llcuda_net.server.http.responses.routes import DEFAULT_PAGE, LARGEST_PAGE

_Status = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]


class ResponseFailure(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class Response(msgspec.Struct):
    """A response; streamed, it comes as numbered events, the last of which has all of it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: _Status
    completed_at: int | None
    background: bool
    error: ResponseFailure | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: dict[str, str] | None
    reasoning: dict[str, Any]
    service_tier: Literal["flex", "default", "priority"]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: Count
    top_p: float | None
    truncation: str
    usage: DetailedUsage | None
    metadata: dict[str, str]
    llcuda: dict[str, Any]


class ResponseDeleted(msgspec.Struct):
    """A response is forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(msgspec.Struct):
    """How many tokens the model would read."""

    object: Literal["response.input_tokens"]
    input_tokens: Count


class ItemList(Page):
    """A page of items; the next one is that after `last_id`."""

    data: list[dict[str, Any]]


class CountedResponse(ResponseBody, kw_only=True):
    """The body of POST /v1/responses/input_tokens: that of a response, perhaps without input."""

    input: str | list[InputItem] | None = None  # type: ignore[assignment]


_EVENTS = {
    EVENTS: "server-sent events (HTML standard); data is an object in JSON with its `type`, and "
    "with its `sequence_number`, which counts from 0, and leaves out more than a million where a "
    "server goes on with it after a restart, or another server does"
}
_FLAG = {"type": "string", "enum": ["true", "false", "1", "0"]}
#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/responses"): Operation(
        "OpenAI",
        Response,
        ResponseBody,
        example={"input": "Hello", "max_output_tokens": 16},
        contents=_EVENTS,
        errors=RUNS,
        parameters=RUN,
        headers={**NAMED, **IGNORED},
        names="$response.body#/llcuda/generation",
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        "OpenAI",
        InputTokens,
        CountedResponse,
        example={"input": "Hello"},
        errors=RUNS,
        headers=IGNORED,
    ),
    ("GET", "/v1/responses/{id}"): Operation(
        "OpenAI",
        Response,
        contents=_EVENTS,
        errors=RUNS,
        parameters=(
            query("stream", "its events, from the first one or from `starting_after` on", _FLAG),
            query(
                "starting_after",
                "the sequence number of the last event that the client has",
                {"type": "integer", "minimum": 0},
            ),
            query(
                "include",
                "the log-probabilities that there are, whatever API they were asked for by",
                {"const": "message.output_text.logprobs"},
            ),
            LAST,
            LEAVING,
        ),
        headers={**NAMED, **IGNORED},
    ),
    ("DELETE", "/v1/responses/{id}"): Operation(
        "OpenAI", ResponseDeleted, errors=(404, 409), headers=NAMED
    ),
    ("POST", "/v1/responses/{id}/cancel"): Operation(
        "OpenAI", Response, errors=RUNS, headers=NAMED
    ),
    ("GET", "/v1/responses/{id}/input_items"): Operation(
        "OpenAI",
        ItemList,
        errors=RUNS,
        parameters=pages(DEFAULT_PAGE, LARGEST_PAGE),
        headers={**NAMED, **IGNORED},
    ),
}
