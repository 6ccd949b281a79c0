"""OpenAI's SDK for Python against a scripted upstream: tools, images, recordings, reasoning."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

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
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
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
PNG = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[OpenAI, ScriptedChat]]:
    with scripted_chat() as script, running_server("--upstream", script.url) as server:
        url = f"http://{server.address}/v1"
        with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=60) as client:
            yield client, script


@pytest.fixture
def client(both: tuple[OpenAI, ScriptedChat]) -> OpenAI:
    return both[0]


@pytest.fixture
def script(both: tuple[OpenAI, ScriptedChat]) -> ScriptedChat:
    both[1].asked.clear()
    both[1].answers = [([text("Sunny"), text(" in both.")], "stop")]
    return both[1]


def test_tool_calls(client: OpenAI, script: ScriptedChat) -> None:
    script.answers = [(CALLS, "tool_calls"), ([text("Sunny in both.")], "stop")]
    answer = client.chat.completions.create(model="any", messages=ASK, tools=TOOLS)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    message = choice.message
    assert message.content == "I look."
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == "Two cities, two calls."
    assert message.tool_calls is not None
    called = [one for one in message.tool_calls if one.type == "function"]
    assert [(one.id, json.loads(one.function.arguments)) for one in called] == [
        ("call_oslo", {"city": "Oslo"}),
        ("call_rome", {"city": "Rome"}),
    ]
    results: list[Any] = [
        {"role": "tool", "tool_call_id": one.id, "content": "sunny"} for one in called
    ]
    sent_back: Any = message  # as the SDK's users do: as it came
    again = client.chat.completions.create(
        model="any", messages=[*ASK, sent_back, *results], tools=TOOLS
    )
    assert again.choices[0].message.content == "Sunny in both."
    sent = script.asked[1]["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "tool", "tool"]
    assert sent[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert script.asked[0]["tools"][0]["function"]["name"] == "get_weather"


def test_tool_calls_in_a_stream(client: OpenAI, script: ScriptedChat) -> None:
    script.answers = [(CALLS, "tool_calls")]
    deltas = [
        chunk.choices[0].delta
        for chunk in client.chat.completions.create(
            model="any", messages=ASK, tools=TOOLS, stream=True
        )
    ]
    thoughts = [(delta.model_extra or {}).get("reasoning_content", "") for delta in deltas]
    assert "".join(thoughts) == "Two cities, two calls."
    begun = [c for d in deltas for c in d.tool_calls or [] if c.id]
    assert [(c.index, c.id) for c in begun] == [(0, "call_oslo"), (1, "call_rome")]
    with client.chat.completions.stream(model="any", messages=ASK, tools=TOOLS) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [event.arguments for event in done] == ['{"city":"Oslo"}', '{"city":"Rome"}']
    assert final.choices[0].finish_reason == "tool_calls"
    assert len(final.choices[0].message.tool_calls or []) == 2


def test_parsed_tool_calls(client: OpenAI, script: ScriptedChat) -> None:
    class GetWeather(BaseModel):
        city: str

    script.answers = [
        ([call(0, "GetWeather", "call_1"), arguments(0, '{"city":"Oslo"}')], "tool_calls")
    ]
    answer = client.chat.completions.parse(
        model="any", messages=ASK, tools=[openai.pydantic_function_tool(GetWeather)]
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == GetWeather(city="Oslo")


def test_a_strict_tool_gets_what_it_takes(client: OpenAI, script: ScriptedChat) -> None:
    strict: Any = {"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}
    good, bad = [call(0, "get_weather", "c"), arguments(0, '{"city":"Oslo"}')], '{"city":5}'
    script.answers = [(good, "tool_calls")]
    client.chat.completions.create(model="any", messages=ASK, tools=[strict])
    assert script.asked[0]["tools"][0]["function"]["strict"] is True
    script.answers = [([*good[:1], arguments(0, bad)], "tool_calls")]
    client.chat.completions.create(model="any", messages=ASK, tools=TOOLS)
    with pytest.raises(openai.APIStatusError, match="'get_weather' does not keep its schema"):
        client.chat.completions.create(model="any", messages=ASK, tools=[strict])


def test_a_call_that_was_wanted_and_does_not_come(client: OpenAI, script: ScriptedChat) -> None:
    asked: Any = {"model": "any", "messages": ASK, "tools": TOOLS, "tool_choice": "required"}
    with pytest.raises(openai.APIStatusError, match="calls no tool") as caught:
        client.chat.completions.create(**asked)
    assert caught.value.status_code == 502
    with pytest.raises(openai.APIError, match="calls no tool"):
        for _ in client.chat.completions.create(**asked, stream=True):
            pass


def test_one_tool_by_name(client: OpenAI, script: ScriptedChat) -> None:
    script.answers = [([call(0, "get_weather", "c"), arguments(0, '{"city":"A"}')], "tool_calls")]
    other: Any = {"type": "function", "function": {"name": "get_time"}}
    answer = client.chat.completions.create(
        model="any",
        messages=ASK,
        tools=[*TOOLS, other],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
    )
    assert answer.choices[0].message.tool_calls
    (asked,) = script.asked
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["get_weather"]
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("required", False)


def test_an_image_and_a_recording(client: OpenAI, script: ScriptedChat) -> None:
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "c291bmQ=", "format": "wav"}},
    ]
    answer = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": parts}]
    )
    assert answer.choices[0].message.content == "Sunny in both."
    (asked,) = script.asked
    kinds = [part["type"] for part in asked["messages"][0]["content"]]
    assert kinds == ["text", "image_url", "input_audio"]
    assert asked["messages"][0]["content"][1]["image_url"]["url"] == PNG


def test_models_say_what_they_can(client: OpenAI, script: ScriptedChat) -> None:
    (model,) = client.models.list()
    assert (model.model_extra or {})["modalities"] == ["text", "image", "audio"]


def test_an_image_elsewhere_is_refused(client: OpenAI, script: ScriptedChat) -> None:
    parts: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
    with pytest.raises(openai.BadRequestError, match="data: URLs") as caught:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": parts}])
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_reasoning(client: OpenAI, script: ScriptedChat) -> None:
    script.answers = [([thought("Hm."), text("Yes.")], "stop")]
    answer = client.chat.completions.create(model="any", messages=ASK, reasoning_effort="low")
    message = answer.choices[0].message
    assert message.content == "Yes."
    assert (message.model_extra or {})["reasoning_content"] == "Hm."
    assert script.asked[0]["reasoning_effort"] == "low"
    assert answer.usage is not None
    details = answer.usage.completion_tokens_details
    assert details is not None
    assert details.reasoning_tokens == 1
    client.chat.completions.create(
        model="any",
        messages=[{"role": "developer", "content": "Be brief."}, *ASK],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )
    assert script.asked[1]["messages"][0]["role"] == "system"
    assert script.asked[1]["chat_template_kwargs"]["enable_thinking"] is False
