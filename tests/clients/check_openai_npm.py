"""OpenAI's SDK for JavaScript."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text, thought

#: What a scripted model calls.
CALL = [call(0, "get_weather", "call_1"), arguments(0, '{"city":'), arguments(0, '"Oslo"}')]


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of("openai-npm", "node")


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    wanted = ("chat", "stream", "models", "error", "embeddings", "retries")
    found = client.run(served.url, *wanted)
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert whole["id"] == f"chatcmpl-{whole['generation']}"
    assert found["stream"] == {"text": whole["text"], "tokens": whole["tokens"]}
    assert found["models"] == ["demo"]
    bad = ["BadRequestError", 400]
    kind = "invalid_request_error"
    assert found["error"] == [
        [*bad, "unknown_parameter", "temprature", kind],
        [*bad, "invalid_request", "n", kind],
        [*bad, "invalid_request", "messages", kind],
        ["NotFoundError", 404, "model_not_found", "model", kind],
    ]
    assert found["embeddings"]["count"] == 2
    assert found["embeddings"]["apart"] < 1e-6
    assert found["retries"] == {"counts": ["0", "1", "2"], "text": whole["text"]}


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        (CALL, "tool_calls"),
        ([text("It is sunny.")], "stop"),
    ]
    found = client.run(scripted.url, "tool_calls", "tools")
    (called,) = found["tool_calls"]["calls"]
    assert called["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    roles = ["user", "assistant", "tool", "assistant"]
    assert found["tools"] == {"text": "It is sunny.", "roles": roles}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"


def test_responses(client: Client, served: Served) -> None:
    found = client.run(served.url, "chat", "responses", "response_in_background")
    told = found["responses"]
    assert told["text"] == told["streamed"] == found["chat"]["text"]
    assert told | {"text": "", "streamed": ""} == {
        "text": "",
        "streamed": "",
        "gapless": True,
        "status": "incomplete",
        "tokens": 12,
        "kept": True,
        "previous": True,
        "items": ["message"],
        "gone": 404,
    }
    assert found["response_in_background"] == {
        "status": "incomplete",
        "same": True,
        "last": "response.incomplete",
    }


def test_a_response_with_a_tool(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        ([thought("It wants the weather."), *CALL], "tool_calls"),
        ([text("It is sunny.")], "stop"),
    ]
    found = client.run(scripted.url, "response_tools")["response_tools"]
    assert found == {"kinds": ["reasoning", "function_call"], "text": "It is sunny."}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"


@pytest.mark.parametrize(
    ("scenario", "seen"),
    [("abort", 3), ("response_abort", 3), ("abort_whole", "APIConnectionTimeoutError")],
)
def test_leaving_frees_the_slot(client: Client, held: Served, scenario: str, seen: object) -> None:
    def leave() -> None:
        assert client.run(held.url, scenario) == {scenario: seen}

    frees_its_slot(held, leave)
