"""Anthropic's SDK for Python against a scripted upstream: tools, thinking, images, documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, beta_tool

from tests.support.processes import running_server
from tests.support.upstream.scripted_chat import (
    ScriptedChat,
    arguments,
    call,
    scripted_chat,
    text,
    thought,
)

ASK: Any = [{"role": "user", "content": "What is the weather in Oslo and Rome?"}]
TOOLS: Any = [
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
        "cache_control": {"type": "ephemeral"},
    }
]
CALLS = [
    thought("Two cities, "),
    thought("two calls."),
    text("I look."),
    call(0, "get_weather", "call_oslo"),
    arguments(0, '{"city":'),
    arguments(0, '"Oslo"}'),
    call(1, "get_weather", "call_rome"),
    arguments(1, '{"city":"Rome"}'),
]
PIXELS = base64.b64encode(b"pixels").decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}}


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Anthropic, ScriptedChat]]:
    with scripted_chat() as script, running_server("--upstream", script.url) as server:
        url = f"http://{server.address}"
        with Anthropic(base_url=url, api_key="any", max_retries=0, timeout=60) as client:
            yield client, script


@pytest.fixture
def client(both: tuple[Anthropic, ScriptedChat]) -> Anthropic:
    return both[0]


@pytest.fixture
def script(both: tuple[Anthropic, ScriptedChat]) -> ScriptedChat:
    both[1].asked.clear()
    both[1].answers = [([text("Sunny"), text(" in both.")], "stop")]
    return both[1]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_and_thinking(client: Anthropic, script: ScriptedChat, stream: bool) -> None:
    script.answers = [(CALLS, "tool_calls"), ([text("Sunny in both.")], "stop")]
    asked: dict[str, Any] = {
        "model": "any",
        "max_tokens": 500,
        "tools": TOOLS,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    if stream:
        with client.messages.stream(messages=ASK, **asked) as answering:
            kinds = {event.type for event in answering}
            message: Any = answering.get_final_message()
        assert {"text", "thinking", "signature", "input_json"} <= kinds
    else:
        message = client.messages.create(messages=ASK, **asked)
    assert message.stop_reason == "tool_use"
    thinking, said, *calls = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "Two cities, two calls.")
    assert thinking.signature
    assert (said.type, said.text) == ("text", "I look.")
    assert [(one.id, one.name, one.input) for one in calls] == [
        ("call_oslo", "get_weather", {"city": "Oslo"}),
        ("call_rome", "get_weather", {"city": "Rome"}),
    ]
    results = [{"type": "tool_result", "tool_use_id": one.id, "content": "sunny"} for one in calls]
    results[1] |= {"content": [{"type": "text", "text": "no such city"}], "is_error": True}
    turns: Any = [
        *ASK,
        message.to_param(),  # as the SDK's users do: as it came
        {"role": "user", "content": [*results, {"type": "text", "text": "Well?"}]},
    ]
    again: Any = client.messages.create(messages=turns, **asked)
    assert again.content[0].text == "Sunny in both."
    sent = script.asked[1]["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[1]["reasoning_content"] == "Two cities, two calls."
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    assert [one["content"] for one in sent[2:]] == ["sunny", "Error: no such city", "Well?"]
    assert script.asked[0]["tools"][0]["function"]["parameters"] == TOOLS[0]["input_schema"]
    assert script.asked[0]["reasoning_effort"] == "low"


def test_the_sdk_runs_tools_itself(client: Anthropic, script: ScriptedChat) -> None:
    """It asks for a thread first, and does without where it is told that there are none."""
    cities = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name.
        """
        cities.append(city)
        return "sunny"

    script.answers = [(CALLS, "tool_calls"), ([text("Sunny in both.")], "stop")]
    runner = client.beta.messages.tool_runner(
        model="any", max_tokens=500, messages=ASK, tools=[get_weather]
    )
    final: Any = runner.until_done()
    assert cities == ["Oslo", "Rome"]
    assert final.content[0].text == "Sunny in both."
    assert [one["role"] for one in script.asked[1]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


def test_a_tool_that_must_be_called(client: Anthropic, script: ScriptedChat) -> None:
    parts = [call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')]
    script.answers = [(parts, "tool_calls")]
    message: Any = client.messages.create(
        model="any",
        max_tokens=500,
        messages=ASK,
        tools=TOOLS,
        tool_choice={
            "type": "tool",
            "name": "get_weather",
            "disable_parallel_tool_use": True,
        },
    )
    assert message.content[0].input == {"city": "Oslo"}
    assert script.asked[0]["tool_choice"] == "required"
    assert script.asked[0]["parallel_tool_calls"] is False


def test_images_and_documents(client: Anthropic, script: ScriptedChat) -> None:
    document: Any = {
        "type": "document",
        "title": "Notes",
        "source": {"type": "text", "media_type": "text/plain", "data": "It rained."},
    }
    seen: Any = [{"role": "user", "content": [document, IMAGE, {"type": "text", "text": "Well?"}]}]
    message: Any = client.messages.create(model="any", max_tokens=500, messages=seen)
    assert message.content[0].text == "Sunny in both."
    (sent,) = script.asked[0]["messages"]
    assert [part["type"] for part in sent["content"]] == ["text", "text", "image_url", "text"]
    assert sent["content"][2]["image_url"]["url"] == f"data:image/png;base64,{PIXELS}"


def test_an_upstream_that_breaks_in_the_midst(client: Anthropic, script: ScriptedChat) -> None:
    script.answers = [([call(0, "get_weather", "c"), arguments(0, '{"city": 5}')], "tool_calls")]
    strict: Any = [{**TOOLS[0], "strict": True}]
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="any", max_tokens=500, messages=ASK, tools=strict)
    assert caught.value.type in ("api_error", "invalid_request_error")
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(model="any", max_tokens=500, messages=ASK, tools=strict) as stream,
    ):
        stream.get_final_message()
    assert caught.value.type in ("api_error", "invalid_request_error")
