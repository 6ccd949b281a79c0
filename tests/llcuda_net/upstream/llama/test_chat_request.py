from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest
from llcuda_net.upstream.llama.chat_request import chat_body, one_call

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
NOW, LATER = ({"type": "function", "function": {"name": name}} for name in ("now", "later"))


def body(options: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return chat_body(HELLO, options or {}, params)


def call(arguments: str) -> dict[str, Any]:
    return {"id": "a", "type": "function", "function": {"name": "now", "arguments": arguments}}


def test_all_that_is_needed_is_asked_for() -> None:
    assert body(n_predict=5, seed=7, id_slot=1) == {
        "messages": HELLO,
        "n_predict": 5,
        "seed": 7,
        "id_slot": 1,
        "reasoning_format": "deepseek",
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
    }
    assert body(stop=["a"])["verbose"] is True


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        (None, [NOW, LATER], "auto"),
        ("none", [NOW, LATER], "none"),
        ("required", [NOW, LATER], "required"),
        (NOW, [NOW], "required"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [LATER]}}, [LATER], "auto"),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NOW, LATER]}},
            [NOW, LATER],
            "required",
        ),
    ],
)
def test_a_choice_by_name_is_one_of_fewer_tools(choice: Any, tools: Any, sent: str) -> None:
    found = body({"tools": [NOW, LATER], "tool_choice": choice})
    assert (found["tools"], found["tool_choice"]) == (tools, sent)
    assert "parallel_tool_calls" not in found


def test_counts_that_no_grammar_can_hold_stay_away_from_the_upstream() -> None:
    script = {"type": "string", "minLength": 1, "maxLength": 524_288}
    lists = {"type": "array", "maxItems": 2000, "minItems": 1999, "items": {"anyOf": [script]}}
    given = {
        "properties": {"script": script, "maxLength": lists},
        "const": {"maxLength": 5000},
        "$defs": {"const": script},
    }
    function = {"name": "run", "parameters": given}
    (sent,) = body({"tools": [{"type": "function", "function": function}]})["tools"]
    short = {"type": "string", "minLength": 1}
    assert sent["function"]["parameters"] == {
        "properties": {
            "script": short,
            "maxLength": {"type": "array", "minItems": 1999, "items": {"anyOf": [short]}},
        },
        "const": {"maxLength": 5000},
        "$defs": {"const": short},
    }
    assert given["$defs"] == {"const": {"type": "string", "minLength": 1, "maxLength": 524_288}}


def test_parallel_calls_are_asked_for_where_they_were() -> None:
    options = {"tools": [NOW], "parallel_tool_calls": False}
    assert body(options)["parallel_tool_calls"] is False
    assert one_call(options)
    assert not one_call({"parallel_tool_calls": True})
    assert not one_call({})
    assert "tools" not in body({"tools": [], "parallel_tool_calls": True})


def test_how_much_to_reason_is_said_in_every_way_that_is_understood() -> None:
    found = body({"reasoning_effort": "low"})
    assert found["reasoning_effort"] == "low"
    assert found["chat_template_kwargs"] == {"reasoning_effort": "low", "enable_thinking": True}
    kwargs = {"enable_thinking": True, "x": 1}
    found = body({"reasoning_effort": "none", "chat_template_kwargs": kwargs})
    assert found["chat_template_kwargs"] == {"reasoning_effort": "none", **kwargs}
    assert kwargs == {"enable_thinking": True, "x": 1}
    found = body({"reasoning_effort": "none"})
    assert found["chat_template_kwargs"]["enable_thinking"] is False


def test_the_arguments_of_earlier_calls_must_be_json() -> None:
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call(""), call("{}")]},
    ]
    sent = chat_body(messages, {}, {})["messages"]
    assert [one["function"]["arguments"] for one in sent[1]["tool_calls"]] == ["{}", "{}"]
    assert messages[1]["tool_calls"] == [call(""), call("{}")]
    for wrong in ("{", "{bad}", "[" * 3000):
        messages[1]["tool_calls"] = [call("{}"), call(wrong)]
        with pytest.raises(InvalidRequest, match=r"^messages\[1\].tool_calls\[1\]"):
            chat_body(messages, {}, {})
