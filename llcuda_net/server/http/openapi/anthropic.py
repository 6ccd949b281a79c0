"""What operations of Anthropic's API take and give."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llcuda_net.server.http.anthropic.blocks import TextBlock, ThinkingBlock, ToolUseBlock
from llcuda_net.server.http.anthropic.body import CountBody, MessagesBody
from llcuda_net.server.http.anthropic.errors import OVERLOADED
from llcuda_net.server.http.openapi import answers
from llcuda_net.server.http.openapi.answers import Count
from llcuda_net.server.http.openapi.operations import (
    IGNORED,
    NAMED,
    RUN,
    RUNS,
    STREAM,
    VERSION,
    Operation,
)


class MessageUsage(msgspec.Struct):
    """Tokens that were read and made; those of the prompt that a slot held already apart."""

    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count
    output_tokens_details: dict[str, Any] | None = None


class MessageAnswer(msgspec.Struct):
    """The answer to a message; streamed, it comes as events that its SDKs make it of."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
    ]
    stop_sequence: str | None
    usage: MessageUsage
    llcuda: dict[str, Any]


class TokenCount(msgspec.Struct):
    """How many tokens the model would read."""

    input_tokens: Count


class AnthropicModel(msgspec.Struct):
    """A model."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: str
    max_input_tokens: int | None
    max_tokens: int | None


class AnthropicModelList(msgspec.Struct):
    """All models."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class AnthropicErrorMembers(msgspec.Struct):
    """What went wrong."""

    type: str
    message: str
    details: dict[str, Any] | None = None


class AnthropicError(msgspec.Struct):
    """The body of an answer of Anthropic's API that is an error."""

    type: Literal["error"]
    error: AnthropicErrorMembers
    request_id: str


_REQUEST_ID = {"request-id": "names the request, as x-request-id does"}
#: By method and pattern.
OPERATIONS = {
    ("GET", "/v1/models"): Operation(
        "OpenAI",
        answers.ModelList,
        other=AnthropicModelList,
        other_error=AnthropicError,
        parameters=(VERSION,),
    ),
    ("GET", "/v1/models/{id}"): Operation(
        "OpenAI",
        answers.Model,
        other=AnthropicModel,
        other_error=AnthropicError,
        errors=(404,),
        parameters=(VERSION,),
    ),
    ("POST", "/v1/messages"): Operation(
        "Anthropic",
        MessageAnswer,
        MessagesBody,
        example={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16},
        contents=STREAM,
        errors=(*RUNS, OVERLOADED),
        parameters=RUN,
        headers={**NAMED, **IGNORED, **_REQUEST_ID},
        names="$response.body#/llcuda/generation",
        error=AnthropicError,
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "Anthropic",
        TokenCount,
        CountBody,
        example={"messages": [{"role": "user", "content": "Hello"}]},
        errors=(*RUNS, OVERLOADED),
        headers={**IGNORED, **_REQUEST_ID},
        error=AnthropicError,
    ),
}
