"""/openapi.json names every route and every field, and is what OpenAPI 3.1 says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.anthropic import fields as messages
from llcuda_net.server.http.anthropic.errors import OVERLOADED
from llcuda_net.server.http.completions.body import CompletionBody
from llcuda_net.server.http.openai.chat import OPTIONS
from llcuda_net.server.http.openai.chat_body import ChatBody
from llcuda_net.server.http.openai.fields import IGNORED, NEUTRAL
from llcuda_net.server.http.openapi.document import document
from llcuda_net.server.http.route import Route
from llcuda_net.server.http.routes import ROUTES
from tests.support.server.memory_server import FakeUpstream, serving
from tests.support.server.sse_client import send

DOCUMENT = document(ROUTES)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def operation_of(route: Route) -> dict[str, Any]:
    """Of a route. OpenAPI knows no parameter of several segments."""
    path = route.pattern.replace("*}", "}")
    found = DOCUMENT["paths"][path][route.method.lower()]
    assert isinstance(found, dict)
    return found


async def test_it_is_served(autojump_clock: object) -> None:
    async with serving(FakeUpstream()) as (_, listener):
        reply = await send(listener, "GET", "/openapi.json")
        assert await reply.json() == json.loads(json.dumps(DOCUMENT))


def test_every_route_is_in_it() -> None:
    for route in ROUTES:
        operation = operation_of(route)
        assert operation["summary"], f"{route.handler} has no docstring"
        names = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        pattern = route.pattern.replace("*}", "}")
        assert all(f"{{{name}}}" in pattern for name in names)
    operations = [one for path in DOCUMENT["paths"].values() for one in path.values()]
    ids = [one["operationId"] for one in operations]
    assert len(set(ids)) == len(ids)


def test_every_field_is_in_it() -> None:
    schema = DOCUMENT["components"]["schemas"]["ChatBody"]
    names = {*ChatBody.__struct_fields__, *PARAMETERS, *IGNORED, *NEUTRAL} - {"input_suffix"}
    assert set(schema["properties"]) == names
    assert schema["required"] == ["messages"]
    schema = DOCUMENT["components"]["schemas"]["CompletionBody"]
    names = {*CompletionBody.__struct_fields__, *PARAMETERS, *IGNORED, *NEUTRAL} - {"input_suffix"}
    assert set(schema["properties"]) == names
    assert schema["required"] == ["prompt"]
    tables = (messages.SUPPORTED, messages.IGNORED, messages.NEUTRAL, messages.SAMPLING)
    for body, required in (
        ("MessagesBody", ["messages", "max_tokens"]),
        ("CountBody", ["messages"]),
    ):
        schema = DOCUMENT["components"]["schemas"][body]
        assert set(schema["properties"]) == {name for table in tables for name in table}
        assert schema["required"] == required


def test_every_reference_leads_somewhere() -> None:
    for reference in _references(DOCUMENT):
        found = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found


def test_every_operation_says_how_it_can_fail() -> None:
    for route in ROUTES:
        responses = operation_of(route)["responses"]
        assert {"200", "400", "401", "403", "429", "500", "503"} <= set(responses)
        assert all(HTTPStatus(int(status)) for status in responses if status != str(OVERLOADED))


def test_errors_are_those_of_the_api() -> None:
    components = DOCUMENT["components"]["responses"]
    for path, schema in (("/v1/messages", "AnthropicError"), ("/v1/chat/completions", "Error")):
        responses = DOCUMENT["paths"][path]["post"]["responses"]
        for response in [one for status, one in responses.items() if status != "200"]:
            found = components[response["$ref"].split("/")[-1]]
            reference = found["content"]["application/json"]["schema"]["$ref"]
            assert reference.split("/")[-1] == schema


def test_every_option_of_a_chat_is_in_it() -> None:
    operation = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
    names = {one["name"].lower() for one in operation["parameters"]}
    assert {*OPTIONS, "idempotency-key", "last-event-id", "x-llcuda-on-disconnect"} == names
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "text/event-stream",
    }
