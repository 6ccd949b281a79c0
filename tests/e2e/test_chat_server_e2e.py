"""Tool calls and reasoning of the built-in engine, through the whole server, with OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.support.processes import running_server
from tests.support.upstream.chat_model import CALL_AT_ONCE, tool, write_chat_model

WEATHER = tool("weather", city=["Rome"], days=[1, 2])
WEATHER["function"]["strict"] = True
TOOLS: Any = [WEATHER]
ASK: Any = [{"role": "user", "content": "Hello"}]
#: One call, at once.
CALL: Any = {
    "tools": TOOLS,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "reasoning_effort": "none",
    "extra_body": {"logit_bias": CALL_AT_ONCE},
    "max_tokens": 200,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    model = write_chat_model(tmp_path_factory.mktemp("models") / "chat.gguf")
    with running_server("--model", str(model), "--ctx", "512", "--slots", "2") as server:
        url = f"http://{server.address}/v1"
        with OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as found:
            yield found


def test_a_tool_is_called_and_has_its_result(client: OpenAI) -> None:
    whole: Any = client.chat.completions.create(model="chat", messages=ASK, **CALL)
    choice = whole.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] == "Rome"
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = client.chat.completions.create(
        model="chat",
        messages=[*ASK, choice.message, result],
        tools=TOOLS,
        reasoning_effort="none",
        max_tokens=5,
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 5


def test_a_tool_call_streams(client: OpenAI) -> None:
    arguments = ""
    names: list[str] = []
    reasons: list[str] = []
    stream: Any = client.chat.completions.create(model="chat", messages=ASK, stream=True, **CALL)
    with stream:
        for chunk in stream:
            choice = chunk.choices[0]
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                assert call.function is not None
                names += [call.function.name] if call.function.name else []
                arguments += call.function.arguments or ""
    assert (names, reasons) == (["weather"], ["tool_calls"])
    assert json.loads(arguments)["days"] in (1, 2)


def test_reasoning_is_apart(client: OpenAI) -> None:
    # Without the mark that ends it, all that it says is reasoning.
    body = {"logit_bias": [["</think>", False]], "ignore_eos": True}
    answer = client.chat.completions.create(
        model="chat", messages=ASK, max_tokens=8, extra_body=body
    )
    message: Any = answer.choices[0].message
    assert message.reasoning_content
    assert not message.content


def test_what_the_model_cannot_do_is_refused(client: OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen: Any = [{"role": "user", "content": [image]}]
    with pytest.raises(openai.BadRequestError, match="takes no images"):
        client.chat.completions.create(model="chat", messages=seen)
    with pytest.raises(openai.BadRequestError, match="not both"):
        client.chat.completions.create(
            model="chat",
            messages=ASK,
            tools=TOOLS,
            response_format={"type": "json_object"},
        )
