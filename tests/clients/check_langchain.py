"""LangChain with `langchain-openai`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of("langchain")


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    found = client.run(served.url, "chat", "stream", "error", "embeddings", "structured")
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert whole["tokens"] == 12
    assert found["stream"] == whole
    name, message = found["error"]
    assert name == "OpenAIInvalidRequestError"
    assert "temprature is not supported" in message
    one, other = found["embeddings"]
    assert one == other > 0
    assert found["structured"].keys() == {"word", "sure"}


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        ([call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')], "tool_calls"),
        ([text("It is sunny.")], "stop"),
        ([call(0, "Word", "c"), arguments(0, '{"word":"slot","sure":true}')], "tool_calls"),
    ]
    found = client.run(scripted.url, "tools", "structured_by_a_tool")
    assert found["tools"] == {"calls": [{"city": "Oslo"}], "text": "It is sunny."}
    assert found["structured_by_a_tool"] == {"word": "slot", "sure": True}
    assert scripted.script.asked[1]["messages"][-1]["content"] == "sunny in Oslo"


def test_leaving_frees_the_slot(client: Client, held: Served) -> None:
    def leave() -> None:
        assert client.run(held.url, "abort") == {"abort": 3}

    frees_its_slot(held, leave)
