"""GET /openapi.json: OpenAPI 3.1 of all routes, made of the routes and of the structs of bodies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import msgspec

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.exchange import Exchange, Handler
from llcuda_net.server.http.openai.chat import OPTIONS, chat_completions
from llcuda_net.server.http.openai.chat_body import SAMPLING, ChatBody
from llcuda_net.server.http.openai.embeddings import EmbeddingsBody, embeddings
from llcuda_net.server.http.openai.fields import IGNORED, NEUTRAL, SUPPORTED
from llcuda_net.server.http.openai.messages import ToolCall
from llcuda_net.server.http.openai.models import get_model, list_models
from llcuda_net.server.http.route import Route
from llcuda_net.util.version import package_version

_REF = "#/components/schemas/{name}"


class ErrorMembers(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(msgspec.Struct):
    """The body of every answer that is an error."""

    error: ErrorMembers


class Usage(msgspec.Struct):
    """Tokens that were read and made."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class AnswerMessage(msgspec.Struct):
    """The answer of one choice."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = []


class Choice(msgspec.Struct):
    """One choice of an answer."""

    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(msgspec.Struct):
    """The answer to a chat; streamed, it comes as events of `chat.completion.chunk`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: str
    system_fingerprint: str | None
    choices: list[Choice]
    usage: Usage
    llcuda: dict[str, Any]


class Model(msgspec.Struct):
    """A model, and what serves it now."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None
    slots: int
    free_slots: int
    state: Literal["loaded", "busy", "loading", "down"]
    capabilities: list[str]
    modalities: list[str]
    fingerprint: dict[str, Any] | None


class ModelList(msgspec.Struct):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Embedding(msgspec.Struct):
    """The vector of one text: numbers, or float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(msgspec.Struct):
    """The vectors of all texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


#: What the handlers of this API take and give.
_BODIES: dict[Handler, tuple[type | None, type]] = {
    chat_completions: (ChatBody, ChatCompletion),
    embeddings: (EmbeddingsBody, EmbeddingList),
    list_models: (None, ModelList),
    get_model: (None, Model),
}


def document_route(routes: Sequence[Route]) -> Route:
    """The route of the document.

    Args:
        routes: all that there are when it is first asked for.
    """

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(document(routes))

    async def openapi(exchange: Exchange) -> None:
        """This document."""
        exchange.respond(200, encoded())

    return Route("GET", "/openapi.json", openapi)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes, as JSON values."""
    structs = [Error] + [one for pair in _BODIES.values() for one in pair if one is not None]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    _complete(schemas["ChatBody"])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llcuda-server",
            "version": package_version(),
            "description": "OpenAI's API for llama.cpp's models, with streams that survive.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _complete(schema: dict[str, Any]) -> None:
    """Fields of a chat that are in no struct, and what each does."""
    properties = schema["properties"]
    for name, note in SUPPORTED.items():
        properties[name]["description"] = note
    for name in SAMPLING:
        properties[name] = {"description": f"as of llama-server's /completion: {name}"}
    for name, note in IGNORED.items():
        properties[name] = {"description": f"ignored: {note}"}
    for name, values in NEUTRAL.items():
        properties[name] = {"description": "ignored", "enum": [*values, None]}
    schema["additionalProperties"] = False
    assert set(PARAMETERS) <= set(properties)


def _operation(route: Route) -> dict[str, Any]:
    body, answer = _BODIES.get(route.handler, (None, None))
    summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
    names = re.findall(r"{(\w+)}", route.pattern)
    where = re.sub(r"\W+", "_", route.pattern).strip("_")
    found: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{where}",
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
        "responses": {
            "200": _response("the answer", answer),
            "default": _response("an error", Error),
        },
    }
    if body is not None:
        found["requestBody"] = {"required": True, "content": _json(body)}
    if body is ChatBody:
        found["parameters"] += [
            {"name": name, "in": "header", "description": note, "schema": {"type": "string"}}
            for name, note in OPTIONS.items()
        ]
        events = {"schema": {"type": "string", "description": "server-sent events"}}
        found["responses"]["200"]["content"]["text/event-stream"] = events
    return found


def _response(description: str, body: type | None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": description}
    return found if body is None else {**found, "content": _json(body)}


def _json(body: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(name=body.__name__)}}}
