"""Responses by OpenAI's SDK for Python, as it is: the built-in model, and a scripted upstream."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.support.processes import PATIENCE, RunningServer, running_server, wait_until
from tests.support.upstream.scripted_chat import (
    ScriptedChat,
    arguments,
    call,
    scripted_chat,
    text,
    thought,
)

#: Any name will do, where one model is served.
MODEL = "gpt-5"
TOOLS: Any = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
        "strict": False,
    },
    {"type": "web_search"},
]
PNG = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


def client_of(server: RunningServer) -> OpenAI:
    return OpenAI(
        base_url=f"http://{server.address}/v1", api_key="any", max_retries=0, timeout=PATIENCE
    )


@pytest.fixture(scope="module")
def client(demo_server: RunningServer) -> Iterator[OpenAI]:
    with client_of(demo_server) as client:
        yield client


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[OpenAI, ScriptedChat]]:
    with (
        scripted_chat() as script,
        running_server("--upstream", script.url) as server,
        client_of(server) as client,
    ):
        yield client, script


def test_a_response(client: OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        model=MODEL,
        input="Hello",
        instructions="Be brief.",
        max_output_tokens=6,
        temperature=0,
        metadata={"topic": "greeting"},
        user="me",
    )
    answer = raw.parse()
    assert raw.headers["x-llcuda-ignored"] == "user"
    assert answer.id == f"resp_{raw.headers['x-llcuda-generation']}"
    assert (answer.model, answer.instructions) == ("demo", "Be brief.")
    assert answer.output_text
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 6
    assert client.responses.retrieve(answer.id) == answer
    # It is what the SDK's own models say that it is, strictly.
    Response.model_validate(answer.to_dict(), strict=False)
    (item,) = client.responses.input_items.list(answer.id)
    assert item.type == "message"
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "Hello"}]


def test_a_stream_and_its_helper(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Hello", "temperature": 0}
    events = list(client.responses.create(**asked, stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    with client.responses.stream(**asked) as stream:
        text = "".join(one.delta for one in stream if one.type == "response.output_text.delta")
        final = stream.get_final_response()
    last = events[-1]
    assert last.type == "response.completed"
    assert text == final.output_text == last.response.output_text


def test_a_stream_is_taken_up_again(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="Hello", stream=True))
    first = events[0]
    assert first.type == "response.created"
    again = list(client.responses.retrieve(first.response.id, stream=True, starting_after=4))
    assert again == events[5:]
    # The SDK's own helper reads it from the beginning, and shows what comes behind.
    with client.responses.stream(response_id=first.response.id, starting_after=4) as stream:
        numbers = [one.sequence_number for one in stream]
        final = stream.get_final_response()
    assert numbers == [one.sequence_number for one in events[5:]]
    assert final.output_text


def test_in_the_background(client: OpenAI) -> None:
    begun = client.responses.create(model=MODEL, input="Hello", background=True)
    assert begun.status in ("queued", "in_progress", "completed")
    states: list[Any] = []

    def over() -> bool:
        states.append(client.responses.retrieve(begun.id))
        return states[-1].status not in ("queued", "in_progress")

    wait_until(over, "the response")
    assert (states[-1].status, states[-1].background) == ("completed", True)
    assert states[-1].output_text


def test_a_conversation(client: OpenAI) -> None:
    first = client.responses.create(
        model=MODEL, input="Hello", instructions="Be brief.", max_output_tokens=4
    )
    second = client.responses.create(
        model=MODEL, input="And?", previous_response_id=first.id, max_output_tokens=4
    )
    assert second.previous_response_id == first.id
    assert second.instructions is None
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > 0
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="And?", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"


def test_cancelled_and_deleted(both: tuple[OpenAI, ScriptedChat]) -> None:
    client, script = both
    script.answers = [([text("one"), text("two")], "stop")]
    script.gate.clear()
    try:
        begun = client.responses.create(model=MODEL, input="Hello", background=True, tools=TOOLS)
        with pytest.raises(openai.BadRequestError, match="still runs"):
            client.responses.delete(begun.id)
        ended = client.responses.cancel(begun.id)
    finally:
        script.gate.set()
    assert ended.status == "cancelled"
    client.responses.delete(begun.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(begun.id)


def test_tools(both: tuple[OpenAI, ScriptedChat]) -> None:
    client, script = both
    script.answers = [
        (
            [
                thought("A city."),
                call(0, "get_weather", "call_oslo"),
                arguments(0, '{"city":'),
                arguments(0, '"Oslo"}'),
            ],
            "tool_calls",
        ),
        ([text("It "), text("rains.")], "stop"),
    ]
    script.asked.clear()
    asked: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with client.responses.stream(model=MODEL, input=asked, tools=TOOLS) as stream:
        deltas = [one for one in stream if one.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert deltas[-1].snapshot == '{"city":"Oslo"}'
    reasoning, called = final.output
    assert reasoning.type == "reasoning"
    assert called.type == "function_call"
    assert (called.name, called.call_id) == ("get_weather", "call_oslo")
    asked += [one.to_dict() for one in final.output]
    asked.append({"type": "function_call_output", "call_id": "call_oslo", "output": "rain"})
    answer = client.responses.create(model=MODEL, input=asked, tools=TOOLS)
    assert answer.output_text == "It rains."
    function = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert script.asked[1]["messages"] == [
        asked[0],
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "A city.",
            "tool_calls": [{"id": "call_oslo", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_oslo"},
    ]


def test_an_image(both: tuple[OpenAI, ScriptedChat]) -> None:
    client, script = both
    script.answers = [([text("A dot.")], "stop")]
    script.asked.clear()
    content: Any = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": PNG, "detail": "auto"},
    ]
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
    assert answer.output_text == "A dot."
    assert script.asked[0]["messages"][0]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": PNG},
    }
    (item,) = client.responses.input_items.list(answer.id)
    assert item.to_dict()["content"] == content


class Weather(BaseModel):
    city: str
    rain: bool


def test_structured_output(both: tuple[OpenAI, ScriptedChat]) -> None:
    client, script = both
    script.answers = [([text('{"city":"Oslo",'), text('"rain":true}')], "stop")]
    script.asked.clear()
    answer = client.responses.parse(
        model=MODEL, input="Oslo?", text_format=Weather, reasoning={"effort": "low"}
    )
    assert answer.output_parsed == Weather(city="Oslo", rain=True)
    assert answer.text is not None
    assert answer.text.format is not None
    assert answer.text.format.type == "json_schema"


def test_what_is_not_stored_is_still_there_for_a_while(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Hello", max_output_tokens=4, store=False)
    time.sleep(0.1)
    assert client.responses.retrieve(answer.id) == answer
    assert answer.to_dict()["store"] is False
