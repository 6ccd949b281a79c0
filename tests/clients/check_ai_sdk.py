"""Vercel's AI SDK with `@ai-sdk/openai-compatible`, `@ai-sdk/openai` and `@ai-sdk/anthropic`."""

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
    return client_of("ai-sdk", "node")


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    found = client.run(served.url, "chat", "stream", "error", "embeddings", "object")
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert (whole["tokens"], whole["reason"]) == (12, "length")
    assert found["stream"] == whole
    name, status, message, retryable = found["error"]
    assert (name, status, retryable) == ("AI_APICallError", 400, False)
    assert "temprature" in message
    one, other = found["embeddings"]
    assert one == other > 0
    assert found["object"].keys() == {"sure", "word"}


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        ([text("It is sunny.")], "stop"),
        (CALL, "tool_calls"),
        ([text("It is still sunny.")], "stop"),
    ]
    found = client.run(scripted.url, "tools", "tools_stream")
    assert found["tools"] == {"text": "It is sunny.", "results": ["sunny in Oslo"]}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"
    streamed = found["tools_stream"]
    assert streamed["text"] == "It is still sunny."
    assert streamed["reasoning"] == "It wants the weather."
    kinds = {"reasoning-delta", "tool-input-delta", "tool-call", "tool-result"}
    assert kinds <= set(streamed["kinds"])


@pytest.mark.parametrize("by", ["openai", "anthropic"])
def test_by_another_api(client: Client, served: Served, by: str) -> None:
    found = client.run(served.url, "chat", f"chat:{by}", f"stream:{by}", f"object:{by}")
    assert found[f"chat:{by}"] == found[f"stream:{by}"] == found["chat"]
    assert found[f"object:{by}"].keys() == {"sure", "word"}


@pytest.mark.parametrize("by", ["openai", "anthropic"])
def test_tools_by_another_api(client: Client, scripted: Served, by: str) -> None:
    scripted.script.answers = [
        (CALL, "tool_calls"),
        ([text("It is sunny.")], "stop"),
        (CALL, "tool_calls"),
        ([text("It is still sunny.")], "stop"),
    ]
    found = client.run(scripted.url, f"tools:{by}", f"tools_stream:{by}")
    assert found[f"tools:{by}"] == {"text": "It is sunny.", "results": ["sunny in Oslo"]}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"
    assert found[f"tools_stream:{by}"]["text"] == "It is still sunny."
    assert {"text-delta", "tool-call", "tool-result"} <= set(found[f"tools_stream:{by}"]["kinds"])


def test_leaving_frees_the_slot(client: Client, held: Served) -> None:
    def leave() -> None:
        assert client.run(held.url, "abort") == {"abort": 3}

    frees_its_slot(held, leave)
