"""LiteLLM as a client."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text, thought


@pytest.fixture
def client(client_of: Callable[..., Client]) -> Client:
    client = client_of("litellm")
    # Otherwise it fetches the prices of all models at its start.
    client.environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    return client


def test_with_the_built_in_model(client: Client, served: Served) -> None:
    found = client.run(served.url, "chat", "stream", "error", "embeddings", "schema")
    whole = found["chat"]
    assert whole["text"].startswith("A slot is")
    assert whole["tokens"] == 12
    assert whole["generation"]
    assert found["stream"] == whole["text"]
    name, status, message = found["error"]
    assert (name, status) == ("BadRequestError", 400)
    assert "temprature" in message
    one, other = found["embeddings"]
    assert one == other > 0
    assert found["schema"]["word"] in ("slot", "port")


def test_tools(client: Client, scripted: Served) -> None:
    scripted.script.answers = [
        (
            [thought("Weather."), call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')],
            "tool_calls",
        ),
        ([text("It is sunny.")], "stop"),
    ]
    assert client.run(scripted.url, "tools")["tools"] == {
        "arguments": '{"city":"Oslo"}',
        "thought": "Weather.",
        "text": "It is sunny.",
    }


def test_leaving_frees_the_slot(client: Client, held: Served) -> None:
    def leave() -> None:
        assert client.run(held.url, "abort") == {"abort": 3}

    frees_its_slot(held, leave)
