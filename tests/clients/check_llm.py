"""Simon Willison's `llm`, with a model of extra-openai-models.yaml."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conftest import Client, Served, frees_its_slot
from tests.support.upstream.scripted_chat import arguments, call, text

QUESTION = "What is a slot?"
PLAIN = ("-o", "temperature", "0", "-o", "max_tokens", "12")
FUNCTION = """
def get_weather(city: str) -> str:
    "The weather of a city."
    return f"sunny in {city}"
"""


@pytest.fixture
def llm(client_of: Callable[..., Client], home: Path) -> Callable[[str], Client]:
    """`llm` with the server as its default model."""

    def make(url: str) -> Client:
        client = client_of("llm")
        client.environment["LLM_USER_PATH"] = str(home)
        (home / "extra-openai-models.yaml").write_text(
            f"- model_id: llcuda\n  model_name: demo\n  api_base: {url}\n  api_key_name: llcuda\n"
            "  can_stream: true\n  supports_tools: true\n  supports_schema: true\n",
            encoding="utf-8",
        )
        client.command("-m", "llm", "keys", "set", "llcuda", "--value", "any")
        client.command("-m", "llm", "models", "default", "llcuda")
        return client

    return make


def test_with_the_built_in_model(llm: Callable[[str], Client], served: Served) -> None:
    client = llm(served.url)
    whole = client.command("-m", "llm", "--no-stream", *PLAIN, QUESTION)
    assert whole.startswith("A slot is")
    assert client.command("-m", "llm", *PLAIN, QUESTION) == whole
    schema = {
        "type": "object",
        "properties": {"word": {"enum": ["slot"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    found = client.command("-m", "llm", "--schema", json.dumps(schema), QUESTION)
    assert json.loads(found) == {"word": "slot"}
    with pytest.raises(AssertionError, match=r"Error code: 400.*max_tokens"):
        client.command("-m", "llm", "-o", "max_tokens", "0", QUESTION)


def test_tools(llm: Callable[[str], Client], scripted: Served) -> None:
    scripted.script.answers = [
        ([call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')], "tool_calls"),
        ([text("It is sunny.")], "stop"),
    ]
    client = llm(scripted.url)
    found = client.command("-m", "llm", "--functions", FUNCTION, "The weather in Oslo?")
    assert found.strip() == "It is sunny."
    assert scripted.script.asked[-1]["messages"][-1]["content"] == "sunny in Oslo"


def test_leaving_frees_the_slot(llm: Callable[[str], Client], held: Served) -> None:
    client = llm(held.url)

    def leave() -> None:
        command = [str(client.interpreter), "-m", "llm", QUESTION]
        with subprocess.Popen(
            command, env=client.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        ) as running:
            assert running.stdout is not None
            assert running.stdout.read(3)
            running.send_signal(signal.SIGINT)

    frees_its_slot(held, leave)
