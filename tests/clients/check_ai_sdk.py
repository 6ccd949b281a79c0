"""Vercel's AI SDK with `@ai-sdk/openai-compatible`."""

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


def test_chat_and_stream(client: Client, served: Served) -> None:
    whole = client.run("chat", served.url)
    assert whole["text"].startswith("A slot is")
    assert whole["tokens"] == 12
    assert whole["reason"] == "length"
    assert client.run("stream", served.url) == whole


def test_errors(client: Client, served: Served) -> None:
    name, status, message, retryable = client.run("error", served.url)
    assert (name, status, retryable) == ("AI_APICallError", 400, False)
    assert "temprature" in message


def test_embeddings(client: Client, served: Served) -> None:
    one, other = client.run("embeddings", served.url)
    assert one == other > 0


def test_an_object(client: Client, served: Served) -> None:
    found = client.run("object", served.url)
    assert found["word"] in ("slot", "port")
    assert isinstance(found["sure"], bool)


def test_tools(client: Client, scripted: Served) -> None:
    answers = [(CALL, "tool_calls"), ([text("It is sunny.")], "stop")]
    scripted.script.answers = list(answers)
    found = client.run("tools", scripted.url)
    assert found == {"text": "It is sunny.", "results": ["sunny in Oslo"]}
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"
    scripted.script.answers = list(answers)
    found = client.run("tools_stream", scripted.url)
    assert found["text"] == "It is sunny."
    assert found["reasoning"] == "It wants the weather."
    assert {"reasoning-delta", "tool-input-delta", "tool-call", "tool-result"} <= set(found["kinds"])


def test_leaving_frees_the_slot(client: Client, held: Served) -> None:
    def leave() -> None:
        assert client.run("abort", held.url) == 3

    frees_its_slot(held, leave)
