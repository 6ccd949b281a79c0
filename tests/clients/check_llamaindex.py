"""LlamaIndex with `llama-index-llms-openai-like`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    return client_of("llamaindex")


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    wanted = ("chat", "stream", "complete", "error", "embeddings", "structured")
    found = client.run(served.url, *wanted)
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert whole["tokens"] == 12
    assert found["stream"] == found["complete"] == whole["text"]
    name, message = found["error"]
    assert name == "BadRequestError"
    assert "temprature" in message
    one, other = found["embeddings"]
    assert one == other > 0
    assert found["structured"].keys() == {"word", "sure"}


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        ([call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')], "tool_calls")
    ]
    assert client.run(scripted.url, "tools") == {"tools": "sunny in Oslo"}


def test_leaving_frees_the_slot(client: Client, held: Served) -> None:
    def leave() -> None:
        assert client.run(held.url, "abort") == {"abort": 3}

    frees_its_slot(held, leave)
