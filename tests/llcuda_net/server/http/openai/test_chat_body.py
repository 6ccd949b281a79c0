"""What each field of a chat becomes, and which are ignored or refused."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai import fields
from llcuda_net.server.http.openai.chat_body import MAX_CHOICES, Chat, ChatBody, read
from llcuda_net.server.http.openai.fields import IGNORED, INSTEAD, NEUTRAL, SUPPORTED, Ignored

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}
OTHER = {"type": "function", "function": {"name": "g"}}
STRICT = {"type": "function", "function": {"name": "f", "strict": True}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat_of(**fields_: Any) -> Chat:
    """The chat of a body with these fields."""
    ignored = Ignored()
    found = read({"model": "tiny", "messages": HELLO, **fields_}, ignored)
    assert not ignored.names
    return found


def refusal(**fields_: Any) -> HttpError:
    """The error of a body with these fields."""
    with pytest.raises(HttpError) as caught:
        read({"model": "tiny", "messages": HELLO, **fields_}, Ignored())
    assert caught.value.status == 400
    assert caught.value.code
    return caught.value


COMPACT = {"x-guidance": {"whitespace_flexible": False}}

#: Each supported field with what it becomes: a parameter, or a member of Chat.
SAMPLING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 5}, {"n_predict": 5}),
    ({"max_tokens": 5.0}, {"n_predict": 5}),
    ({"max_tokens": -1}, {}),
    ({"max_completion_tokens": 6}, {"n_predict": 6}),
    ({"max_tokens": 5, "max_completion_tokens": 6, "n_predict": 7}, {"n_predict": 6}),
    ({"n_predict": 7}, {"n_predict": 7}),
    ({"n_predict": -1}, {}),
    ({"max_tokens": None}, {}),
    ({"stop": "END"}, {"stop": "END"}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"stop": []}, {}),
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 1.5}, {"temperature": 1.5}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"presence_penalty": 1}, {"presence_penalty": 1}),
    ({"frequency_penalty": -2}, {"frequency_penalty": -2}),
    ({"logit_bias": {"7": -100, "8": 1.5}}, {"logit_bias": [[7, -100], [8, 1.5]]}),
    ({"logit_bias": [[7, False], ["x", 2]]}, {"logit_bias": [[7, False], ["x", 2]]}),
    ({"logit_bias": {"word": 2}}, {"logit_bias": {"word": 2}}),
    ({"logit_bias": {}}, {}),
    ({"logprobs": True}, {"n_probs": 1}),
    ({"logprobs": True, "top_logprobs": 0}, {"n_probs": 1}),
    ({"logprobs": True, "top_logprobs": 20}, {"n_probs": 20}),
    ({"logprobs": False}, {}),
    ({"n_probs": 30}, {"n_probs": 30}),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": {"type": "json_object"}},
        {"json_schema": {"type": "object", **COMPACT}},
    ),
    (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": {**SCHEMA, **COMPACT}},
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"json_schema": {}},
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
            }
        },
        {"json_schema": {**SCHEMA, **COMPACT}},
    ),
    ({"json_schema": SCHEMA}, {"json_schema": SCHEMA}),
    ({"grammar": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
    ({"top_k": 40, "min_p": 0.1}, {"top_k": 40, "min_p": 0.1}),
    ({"repeat_penalty": 1.1, "cache_prompt": True}, {"repeat_penalty": 1.1, "cache_prompt": True}),
    ({"top_k": None}, {}),
]


@pytest.mark.parametrize(("given", "params"), SAMPLING)
def test_sampling(given: dict[str, Any], params: dict[str, Any]) -> None:
    assert chat_of(**given).params == params


CHATS: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "model", "tiny"),
    ({"model": None}, "model", None),
    ({}, "stream", False),
    ({"stream": True}, "stream", True),
    ({"stream_options": {"include_usage": True}}, "usage", True),
    ({"stream_options": {"include_usage": False, "include_obfuscation": False}}, "usage", False),
    ({"logprobs": True}, "logprobs", 0),
    ({"logprobs": True, "top_logprobs": 3}, "logprobs", 3),
    ({"n_probs": 30}, "logprobs", 30),
    ({"n_probs": 0}, "logprobs", None),
    ({"service_tier": "auto"}, "priority", None),
    ({"service_tier": "flex"}, "priority", "low"),
    ({"service_tier": "default"}, "priority", "normal"),
    ({"service_tier": "priority"}, "priority", "high"),
    ({}, "seeds", [None]),
    ({"n": 3}, "seeds", [None, None, None]),
    ({"n": 3, "seed": 5}, "seeds", [5, 6, 7]),
    ({"seed": -1}, "seeds", [None]),
    ({"seed": -2}, "seeds", [(1 << 32) - 3]),
    ({"seed": (1 << 32) - 2, "n": 2}, "seeds", [(1 << 32) - 2, 0]),
    ({"seed": 1 << 40}, "seeds", [(1 << 40) % ((1 << 32) - 1)]),
    ({}, "chat", None),
    ({"tools": []}, "chat", None),
    ({"tool_choice": "auto", "parallel_tool_calls": True}, "chat", None),
    ({"tools": [TOOL]}, "chat", {"tools": [TOOL]}),
    (
        {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
        "chat",
        {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False},
    ),
    (
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        "chat",
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
    ),
    (
        {
            "tools": [STRICT, OTHER],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [OTHER]},
            },
        },
        "chat",
        {
            "tools": [STRICT, OTHER],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [OTHER]},
            },
        },
    ),
    ({"reasoning_effort": "low"}, "chat", {"reasoning_effort": "low"}),
    (
        {"chat_template_kwargs": {"enable_thinking": False}},
        "chat",
        {"chat_template_kwargs": {"enable_thinking": False}},
    ),
]


@pytest.mark.parametrize(("given", "member", "value"), CHATS)
def test_what_is_not_sampling(given: dict[str, Any], member: str, value: object) -> None:
    assert getattr(chat_of(**given), member) == value


def test_each_supported_field_has_a_case_here() -> None:
    cases: list[dict[str, Any]] = [given for given, _ in SAMPLING]
    cases += [given for given, _, _ in CHATS]
    tried = {"messages", "model"} | {name for given in cases for name in given}
    assert set(ChatBody.__struct_fields__) <= tried
    assert list(SUPPORTED) == list(ChatBody.__struct_fields__)


def test_every_parameter_of_llama_server_is_a_field() -> None:
    for name in PARAMETERS:
        with pytest.raises(HttpError) as caught:
            read({"messages": HELLO, name: object()}, Ignored())
        assert caught.value.param == name


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": None}, "messages", "missing"),
    ({"messages": []}, "messages", "empty"),
    ({"messages": "Hi"}, "messages", "Expected `array`"),
    ({"messages": ["Hi"]}, "messages[0]", "Expected `object`"),
    ({"model": 5}, "model", "Expected `str"),
    ({"max_tokens": "5"}, "max_tokens", "Expected `int"),
    ({"max_tokens": 0}, "max_tokens", "must be 1"),
    ({"max_tokens": -2}, "max_tokens", ">= -1"),
    ({"max_tokens": 1.5}, "max_tokens", "Expected `int"),
    ({"max_completion_tokens": True}, "max_completion_tokens", "Expected `int"),
    ({"n": 0}, "n", ">= 1"),
    ({"n": MAX_CHOICES + 1}, "n", f"<= {MAX_CHOICES}"),
    ({"temperature": -1}, "temperature", ">= 0"),
    ({"temperature": "hot"}, "temperature", "Expected `float"),
    ({"top_p": 1.1}, "top_p", "<= 1"),
    ({"presence_penalty": 3}, "presence_penalty", "<= 2"),
    ({"stop": ""}, "stop", "empty"),
    ({"stop": ["a", 1]}, "stop[1]", "Expected `str`"),
    ({"stop": ["a"] * 65}, "stop", "64"),
    ({"seed": "1"}, "seed", "Expected `int"),
    ({"logit_bias": {"7": 101}}, "logit_bias.7", "-100 to 100"),
    ({"logit_bias": {"7": "a"}}, "logit_bias.7", "-100 to 100"),
    ({"logit_bias": [7]}, "logit_bias", "pairs"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "<= 20"),
    ({"logprobs": True, "n_probs": 3}, "n_probs", "logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "xml"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
    ({"response_format": {"type": "text", "x": 1}}, "response_format.x", "not supported"),
    (
        {"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'},
        "response_format",
        "one of them",
    ),
    (
        {"response_format": {"type": "json_object", "schema": {"minItems": 10**9}}},
        "response_format",
        "minItems",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "two tools"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "any"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice",
        "no tool here",
    ),
    ({"tools": [TOOL], "tool_choice": {"function": {"name": "f"}}}, "tool_choice.type", "missing"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "no tools"),
    (
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": []},
            },
        },
        "tool_choice",
        "allows no tool",
    ),
    ({"stream": "yes"}, "stream", "Expected `bool"),
    ({"stream_options": {"continuous_usage_stats": True}}, None, "continuous_usage_stats"),
    ({"service_tier": "scale"}, "service_tier", "scale"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "huge"),
    ({"top_k": 1.5}, "top_k", "whole number"),
    ({"grammar": 5}, "grammar", "string"),
    ({"temprature": 1}, "temprature", "did you mean temperature?"),
    ({"max_token": 1}, "max_token", "did you mean max_tokens?"),
    ({"xyzzy": 1}, "xyzzy", "not supported"),
    ({"functions": [{"name": "f"}]}, "functions", "use tools"),
    ({"x" * 1000: 1}, None, "not supported"),
]


@pytest.mark.parametrize(("given", "param", "message"), REFUSED)
def test_what_is_refused(given: dict[str, Any], param: str | None, message: str) -> None:
    error = refusal(**given)
    assert message in error.message
    assert len(error.message) < 300
    if param is not None:
        assert error.param == param


@pytest.mark.parametrize("name", [*IGNORED, "anything"])
def test_a_field_that_is_null_is_not_given(name: str) -> None:
    ignored = Ignored()
    read({"messages": HELLO, name: None}, ignored)
    assert list(ignored.names) == [name]


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_ignored_is_named(name: str) -> None:
    ignored = Ignored()
    read({"messages": HELLO, name: {"a": 1}}, ignored)
    assert ignored.headers() == {"x-llcuda-ignored": name}


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_asks_for_nothing_is_ignored_and_else_refused(name: str) -> None:
    for value in NEUTRAL[name]:
        ignored = Ignored()
        read({"messages": HELLO, name: value}, ignored)
        assert list(ignored.names) == [name]
    error = refusal(**{name: "something else"})
    assert (error.param, error.code) == (name, "unknown_parameter")


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_refused_says_what_to_use(name: str) -> None:
    assert INSTEAD[name] in refusal(**{name: "something else"}).message


def test_lenient_ignores_what_would_be_refused() -> None:
    ignored = Ignored(lenient=True)
    found = read(
        {
            "messages": [{"role": "user", "content": "Hello", "mood": "good"}],
            "xyzzy": 1,
            "stream_options": {"more": True},
            "temperature": 1,
        },
        ignored,
    )
    assert found.messages == HELLO
    assert ignored.headers() == {"x-llcuda-ignored": "xyzzy, messages[0].mood, stream_options.more"}


def test_a_wrong_value_is_refused_when_lenient_too() -> None:
    with pytest.raises(HttpError):
        read({"messages": HELLO, "temperature": "hot"}, Ignored(lenient=True))


def test_the_header_holds_no_line_break_and_few_names() -> None:
    ignored = Ignored(lenient=True)
    ignored.keep({"a\r\nb: c,d": 1, **{f"n{i}": 1 for i in range(100)}}, ())
    header = ignored.headers()["x-llcuda-ignored"]
    assert header.startswith("a??b:?c?d, n0")
    assert header.endswith("and 69 more")


def test_no_field_is_in_two_tables() -> None:
    tables = [set(SUPPORTED), set(IGNORED), set(NEUTRAL), set(PARAMETERS) - set(SUPPORTED)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert fields.IGNORED_HEADER == "x-llcuda-ignored"
