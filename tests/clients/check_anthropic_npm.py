"""Anthropic's SDK for JavaScript."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text, thought

#: What a scripted model calls.
CALL = [
    thought("It wants "),
    thought("the weather."),
    call(0, "get_weather", "call_1"),
    arguments(0, '{"city":'),
    arguments(0, '"Oslo"}'),
]


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of("anthropic-npm", "node")


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    wanted = ("chat", "stream", "count", "models", "error")
    found = client.run(served.url, *wanted)
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert (whole["tokens"], whole["reason"]) == (12, "max_tokens")
    assert whole["id"].startswith("msg_")
    assert whole["request"]
    streamed = found["stream"]
    assert streamed["same"]
    assert streamed | {"same": True} == {
        "text": whole["text"],
        "same": True,
        "tokens": 12,
        "reason": "max_tokens",
    }
    counted, used = found["count"]
    assert counted == used > 0
    assert found["models"] == ["demo"]
    bad = ["BadRequestError", 400, "invalid_request_error"]
    assert found["error"] == [bad, bad, bad]


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        (CALL, "tool_calls"),
        ([text("It is sunny.")], "stop"),
    ]
    found = client.run(scripted.url, "tool_calls", "tools")
    thinking, called = found["tool_calls"]["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "It wants the weather.")
    assert (called["type"], called["name"]) == ("tool_use", "get_weather")
    assert called["input"] == {"city": "Oslo"}
    assert found["tool_calls"]["reason"] == "tool_use"
    assert {"thinking_delta", "input_json_delta"} <= set(found["tool_calls"]["kinds"])
    assert found["tools"] == "It is sunny."
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"


@pytest.mark.parametrize(
    ("scenario", "seen"),
    [("abort", [True, "APIUserAbortError"]), ("abort_whole", "APIConnectionTimeoutError")],
)
def test_leaving_frees_the_slot(client: Client, held: Served, scenario: str, seen: object) -> None:
    def leave() -> None:
        assert client.run(held.url, scenario) == {scenario: seen}

    frees_its_slot(held, leave)
