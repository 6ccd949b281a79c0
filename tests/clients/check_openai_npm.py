"""OpenAI's SDK for JavaScript."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text

#: What a scripted model calls.
CALL = [call(0, "get_weather", "call_1"), arguments(0, '{"city":'), arguments(0, '"Oslo"}')]


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of("openai-npm", "node")


def test_chat_and_stream(client: Client, served: Served) -> None:
    whole = client.run("chat", served.url)
    assert whole["text"].startswith("A slot is")
    assert whole["id"] == f"chatcmpl-{whole['generation']}"
    assert client.run("stream", served.url) == {"text": whole["text"], "tokens": whole["tokens"]}


def test_models(client: Client, served: Served) -> None:
    assert client.run("models", served.url) == ["demo"]


def test_errors(client: Client, served: Served) -> None:
    bad = ["BadRequestError", 400]
    kind = "invalid_request_error"
    assert client.run("error", served.url) == [
        [*bad, "unknown_parameter", "temprature", kind],
        [*bad, "invalid_request", "n", kind],
        [*bad, "invalid_request", "messages", kind],
        ["NotFoundError", 404, "model_not_found", "model", kind],
    ]


def test_embeddings(client: Client, served: Served) -> None:
    found = client.run("embeddings", served.url)
    assert found["count"] == 2
    assert found["apart"] < 1e-6


def test_retries(client: Client, served: Served) -> None:
    found = client.run("retries", served.url)
    assert found["counts"] == ["0", "1", "2"]
    assert found["text"].startswith("A slot is")


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [(CALL, "tool_calls")]
    (called,) = client.run("tool_calls", scripted.url)["calls"]
    assert called["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    scripted.script.answers = [(CALL, "tool_calls"), ([text("It is sunny.")], "stop")]
    found = client.run("tools", scripted.url)
    assert found == {"text": "It is sunny.", "roles": ["user", "assistant", "tool", "assistant"]}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"


@pytest.mark.parametrize(("scenario", "prints"), [("abort", 3), ("abort_whole", "APIConnectionTimeoutError")])
def test_leaving_frees_the_slot(client: Client, held: Served, scenario: str, prints: object) -> None:
    def leave() -> None:
        assert client.run(scenario, held.url) == prints

    frees_its_slot(held, leave)
