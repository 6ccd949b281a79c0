"""GET /openapi.json: OpenAPI 3.1 of all routes, made of the routes and of the structs of bodies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, get_args

import msgspec

from llcuda_net.generation.sampling import schema_of
from llcuda_net.server.http.anthropic import fields as messages
from llcuda_net.server.http.anthropic.errors import OVERLOADED
from llcuda_net.server.http.completions import body as completions
from llcuda_net.server.http.exchange import Exchange
from llcuda_net.server.http.llama import template
from llcuda_net.server.http.openai.chat_body import SAMPLING
from llcuda_net.server.http.openai.fields import CHAT, SUPPORTED, FieldRules
from llcuda_net.server.http.openapi import anthropic as of_messages
from llcuda_net.server.http.openapi import conversations, events, llama, page
from llcuda_net.server.http.openapi import responses as of_responses
from llcuda_net.server.http.openapi import status as of_status
from llcuda_net.server.http.openapi.answers import Error, StateName
from llcuda_net.server.http.openapi.operations import EVENTS, JSON, Operation
from llcuda_net.server.http.openapi.operations import OPERATIONS as _OPERATIONS
from llcuda_net.server.http.responses import body as responses
from llcuda_net.server.http.responses import fields as response_fields
from llcuda_net.server.http.route import Route
from llcuda_net.util.version import package_version

#: By method and pattern.
OPERATIONS = {
    **_OPERATIONS,
    **of_responses.OPERATIONS,
    **of_messages.OPERATIONS,
    **llama.OPERATIONS,
    **conversations.OPERATIONS,
    **of_status.OPERATIONS,
    **events.OPERATIONS,
    **page.OPERATIONS,
}

_REF = "#/components/schemas/{name}"
_RESPONSE = "#/components/responses/{name}"
_GENERATION = "/v1/generations/{id}"
_TEXT: dict[str, Any] = {"type": "string"}
#: Of a stream, the schema is that of each event; OpenAPI 3.1 has no better way to say it.
_CONTENTS: dict[str, dict[str, Any]] = {
    EVENTS: {
        "type": "object",
        "properties": {"id": _TEXT, "event": _TEXT, "data": _TEXT},
        "required": ["data"],
    }
}
#: Without a token file there is no need for a key.
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}, {}]


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
    used = [OPERATIONS[route.method, route.pattern] for route in routes]
    bodies = [
        body
        for one in used
        for body in (one.answer, one.list_of, one.other, one.other_error, one.body, one.unready)
    ]
    errors = [one.error for one in used]
    structs = dict.fromkeys([*errors, *(one for one in bodies if one not in (None, dict))])
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    schemas["StateName"] = {"type": "string", "enum": list(get_args(StateName))}
    _complete(schemas["ChatBody"], SUPPORTED, SAMPLING)
    _complete(schemas["CompletionBody"], completions.SUPPORTED, completions.OWN)
    for name, rules in (
        ("ResponseBody", response_fields.RULES),
        ("CountedResponse", response_fields.COUNT_RULES),
    ):
        _complete(schemas[name], response_fields.SUPPORTED, responses.OWN, rules)
    for name in ("MessagesBody", "CountBody"):
        _complete(schemas[name], messages.SUPPORTED, messages.SAMPLING, messages.RULES)
    _complete(schemas["TemplateBody"], {**SUPPORTED, **template.SUPPORTED}, SAMPLING)
    # What is null in a body is not given.
    schemas["ToolCall"]["properties"]["type"] = {"enum": ["function", None], "default": "function"}
    for name, only in (("JsonFormat", "json_schema"), ("FunctionTool", "function")):
        schemas[name]["required"].remove("type")
        schemas[name]["properties"]["type"] = {"enum": [only, None], "default": only}
    for name in ("ChatBody", "TemplateBody"):
        schemas[name]["properties"]["messages"]["minItems"] = 1
    for name in (
        *("EmbeddingsBody", "TokenizeBody", "DetokenizeBody", "RerankBody", "LoadBody"),
        *("ConversationBody", "ConversationChange", "ItemsBody"),
    ):
        schemas[name]["additionalProperties"] = False
    paths: dict[str, dict[str, Any]] = {}
    for route, one in zip(routes, used, strict=True):
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route, one)
    links = [
        inner["operationId"]
        for pattern, methods in paths.items()
        if pattern.startswith(_GENERATION)
        for inner in methods.values()
    ]
    for route, one in zip(routes, used, strict=True):
        if one.names is not None:
            paths[_path(route)][route.method.lower()]["responses"]["200"]["links"] = {
                name: {"operationId": name, "parameters": {"id": one.names}} for name in links
            }
    failures = {
        _error_name(one, status): _error(status, one) for one in used for status in one.statuses
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llcuda-server",
            "version": package_version(),
            "description": "The APIs of OpenAI and Anthropic for llama.cpp's models, with streams "
            "that survive.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": dict(sorted(failures.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": _SECURITY,
    }


def _complete(
    schema: dict[str, Any],
    supported: Mapping[str, str],
    own: Iterable[str],
    rules: FieldRules = CHAT,
) -> None:
    """Fields of a body that are in no struct, and what each does."""
    properties = schema["properties"]
    for name, note in supported.items():
        properties[name]["description"] = note
    for name in own:
        note = f"as of llama-server's /completion: {name}"
        properties[name] = {"description": note, **schema_of(name)}
    for name, note in rules.ignored.items():
        properties[name] = {"description": f"ignored: {note}"}
    for name, values in rules.neutral.items():
        if name not in supported:
            properties[name] = {"description": "ignored", "enum": [*values, None]}
    schema["additionalProperties"] = False


def _path(route: Route) -> str:
    """OpenAPI knows no parameter of several segments."""
    return route.pattern.replace("*}", "}")


def _operation(route: Route, one: Operation) -> dict[str, Any]:
    summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
    where = re.sub(r"\W+", "_", route.pattern).strip("_") or "root"
    responses = {"200": _answer(one)}
    if one.unready is not None:
        responses["503"] = {"description": "not now", "content": _json(one.unready)}
    for status in one.statuses:
        responses[str(status)] = {"$ref": _RESPONSE.format(name=_error_name(one, status))}
    found: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{where}",
        "tags": [one.tag],
        "summary": summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", _path(route))
            ),
            *one.parameters,
        ],
        "responses": responses,
    }
    if one.body is not None:
        content = _json(one.body)
        content[JSON]["examples"] = {"short": {"value": one.example}}
        found["requestBody"] = {"required": not one.optional, "content": content}
    if one.form is not None:
        content = {"multipart/form-data": {"schema": one.form}}
        found["requestBody"] = {"required": True, "content": content}
    if route.public:
        found["security"] = []
    return found


def _answer(one: Operation) -> dict[str, Any]:
    content = {} if one.answer is None else _json(one.answer)
    if one.list_of is not None:
        items = {"$ref": _REF.format(name=one.list_of.__name__)}
        schema = content[JSON]["schema"]
        content[JSON]["schema"] = {"anyOf": [schema, {"type": "array", "items": items}]}
    if one.other is not None:
        content[JSON]["schema"] = {"anyOf": [content[JSON]["schema"], _schema(one.other)]}
    for kind, note in one.contents.items():
        content[kind] = {"schema": {"description": note, **_CONTENTS.get(kind, _TEXT)}}
    headers = {
        name: {"description": note, "schema": {"type": "string"}}
        for name, note in one.headers.items()
    }
    return {"description": "the answer", "content": content, "headers": headers}


def _error_name(one: Operation, status: int) -> str:
    if one.other_error is not None:
        return f"{one.error.__name__}_or_{one.other_error.__name__}_{status}"
    return f"error_{status}" if one.error is Error else f"{one.error.__name__}_{status}"


def _error(status: int, one: Operation) -> dict[str, Any]:
    content = _json(one.error)
    if one.other_error is not None:
        content[JSON]["schema"] = {"anyOf": [content[JSON]["schema"], _schema(one.other_error)]}
    headers = {"x-request-id": {"description": "names the request", "schema": {"type": "string"}}}
    if status in (429, 503, OVERLOADED):
        headers["Retry-After"] = {"description": "seconds", "schema": {"type": "integer"}}
        headers["retry-after-ms"] = {"description": "milliseconds", "schema": {"type": "integer"}}
    return {
        "description": "Overloaded" if status == OVERLOADED else HTTPStatus(status).phrase,
        "headers": headers,
        "content": content,
    }


def _json(body: type) -> dict[str, Any]:
    return {JSON: {"schema": _schema(body)}}


def _schema(body: type) -> dict[str, Any]:
    return {"type": "object"} if body is dict else {"$ref": _REF.format(name=body.__name__)}
