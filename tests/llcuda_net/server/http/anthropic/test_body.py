"""The body of a message request, and what becomes of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.anthropic.body import CountBody, MessageRequest, MessagesBody, read
from llcuda_net.server.http.anthropic.errors import document
from llcuda_net.server.http.anthropic.fields import (
    IGNORED,
    INSTEAD,
    NEUTRAL,
    RULES,
    SAMPLING,
    SUPPORTED,
)
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.fields import Ignored

TOOL = {"name": "f", "input_schema": {"type": "object"}}
OTHER = {**TOOL, "name": "g", "description": "does it", "strict": True, "type": "custom"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def body(**fields: Any) -> dict[str, Any]:
    return {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}


def asked(**fields: Any) -> MessageRequest:
    return read(body(**fields), Ignored(rules=RULES))


def chat(**fields: Any) -> dict[str, Any]:
    """The options of the chat, without that nothing is to be thought."""
    options = dict(asked(**fields).chat or {})
    assert options.pop("reasoning_effort") == "none"
    return options


def refused(**fields: Any) -> HttpError:
    with pytest.raises(HttpError) as caught:
        asked(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_tables_hold_each_field_once() -> None:
    assert set(SUPPORTED) == set(MessagesBody.__struct_fields__)
    tables = [set(SUPPORTED), set(IGNORED), set(NEUTRAL), set(SAMPLING)]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert not set(INSTEAD) & (set(SUPPORTED) | set(IGNORED) | set(SAMPLING))


def test_a_short_request() -> None:
    found = asked(model="any", stream=True)
    assert found == MessageRequest(
        [{"role": "user", "content": "Hi"}],
        {"n_predict": 9},
        {"reasoning_effort": "none"},
        "any",
        9,
        stream=True,
    )


def test_sampling() -> None:
    found = asked(temperature=0.5, top_p=0.9, top_k=5.0, stop_sequences=["END"], seed=3, min_p=0.1)
    assert found.params == {
        "n_predict": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["END"],
        "seed": 3,
        "min_p": 0.1,
    }
    assert "stop" not in asked(stop_sequences=[]).params


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"max_tokens": None}, "max_tokens", "missing"),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"messages": None}, "messages", "missing"),
        ({"temperature": -1}, "temperature", ">= 0"),
        ({"top_k": -2}, "top_k", "-1"),
        ({"stop_sequences": [""]}, "stop_sequences", "none of them empty"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"stop": "x"}, "stop", "stop_sequences"),
        ({"tempratur": 1}, "tempratur", "temperature"),
        ({"n_probs": 1}, "n_probs", "chat/completions"),
        ({"container": "c"}, "container", "nothing is run"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers", "tools"),
        ({"thinking": {"type": "much"}}, "thinking.type", "much"),
        ({"thinking": {"type": "enabled", "more": 1}}, "thinking.more", "not supported"),
        ({"output_config": {"effort": "some"}}, "output_config.effort", "some"),
        ({"output_format": {"type": "xml"}}, "output_format.type", "xml"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema", "missing"),
        ({"system": [{"type": "image"}]}, "system[0].type", "image"),
        ({"stream": "yes"}, "stream", "bool"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str, words: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert words in error.message
    assert "\n" not in error.message


def test_what_changes_nothing_is_named() -> None:
    ignored = Ignored(rules=RULES)
    fields: dict[str, Any] = dict.fromkeys(IGNORED, "x")
    fields |= {"mcp_servers": [], "container": None}
    fields |= {"thinking": {"type": "adaptive", "display": "omitted"}}
    read(body(**fields), ignored)
    assert set(ignored.names) == {*IGNORED, "mcp_servers", "container", "thinking.display"}


def test_threads_are_refused_so_that_the_sdks_do_without() -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        with pytest.raises(HttpError) as caught:
            read(body(thread=thread), Ignored(lenient=True, rules=RULES))
        said = document(caught.value)["error"]
        assert said["type"] == "invalid_request_error"
        assert said["details"] == {
            "error_code": "thread_unsupported_request",
            "param": "thread",
            "unsupported": ["thread"],
        }
    assert asked(thread=None)


def test_tokens_can_be_counted_without_a_limit() -> None:
    fields = body()
    del fields["max_tokens"]
    assert read(fields, Ignored(rules=RULES), CountBody).messages
    assert read(body(), Ignored(rules=RULES), CountBody).max_tokens == 9


def test_what_is_refused_may_be_ignored() -> None:
    ignored = Ignored(lenient=True, rules=RULES)
    read(body(container="c", colour="red"), ignored)
    assert list(ignored.names) == ["container", "colour"]


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, "none"),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"output_config": {"effort": "high"}}, "none"),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "between_tools"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "xhigh"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4097}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "high"),
        ({"thinking": {"type": "enabled"}}, None),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 31_999},
                "output_config": {"effort": "medium"},
            },
            "medium",
        ),
    ],
)
def test_how_much_to_think(fields: dict[str, Any], effort: str | None) -> None:
    assert (asked(**fields).chat or {}).get("reasoning_effort") == effort


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_a_schema(field: str) -> None:
    wanted: dict[str, Any] = {"type": "json_schema", "schema": SCHEMA}
    found = asked(**{field: wanted if field == "output_format" else {"format": wanted}})
    assert found.params["json_schema"] == {**SCHEMA, "x-guidance": {"whitespace_flexible": False}}


def test_a_schema_has_nothing_beside_it_that_is_not_followed() -> None:
    ignored = Ignored(rules=RULES)
    wanted = {"type": "json_schema", "schema": SCHEMA, "name": "x", "strict": True}
    read(body(output_config={"format": wanted}), ignored)
    read(body(output_format=wanted), ignored)
    assert list(ignored.names) == [
        *("output_config.format.name", "output_config.format.strict"),
        *("output_format.name", "output_format.strict"),
    ]
    more = {"type": "json_schema", "schema": SCHEMA, "indent": 2}
    assert refused(output_format=more).param == "output_format.indent"
    assert refused(output_config={"format": more}).param == "output_config.format.indent"


def test_one_schema_only() -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    assert refused(output_format=wanted, output_config={"format": wanted}).param == "output_format"
    assert refused(output_format=wanted, grammar='root ::= "a"').param == "output_config.format"
    wrong = {"type": "json_schema", "schema": {"minLength": 10_001}}
    assert refused(output_format=wrong).param == "output_config.format"


def test_an_answer_that_has_begun_goes_on() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert chat(messages=messages) == {"continue_final_message": True}


def test_tools() -> None:
    assert chat(tools=[TOOL, OTHER]) == {
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
            {
                "type": "function",
                "function": {
                    "name": "g",
                    "parameters": {"type": "object"},
                    "description": "does it",
                    "strict": True,
                },
            },
        ]
    }
    assert chat(tools=[]) == {}


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "f"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
        (
            {"type": "any", "disable_parallel_tool_use": False},
            {"tool_choice": "required", "parallel_tool_calls": True},
        ),
    ],
)
def test_which_tool(choice: dict[str, Any], options: dict[str, Any]) -> None:
    found = chat(tools=[TOOL], tool_choice=choice)
    del found["tools"]
    assert found == options


def test_tools_of_anthropics_are_skipped_and_named() -> None:
    ignored = Ignored(rules=RULES)
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    cached = {**TOOL, "cache_control": {"type": "ephemeral"}, "defer_loading": True}
    found = read(body(tools=[search, cached]), ignored)
    assert found.chat is not None
    assert [tool["function"]["name"] for tool in found.chat["tools"]] == ["f"]
    assert list(ignored.names) == [
        "tools[0]",
        "tools[1].cache_control",
        "tools[1].defer_loading",
    ]
    assert "web_search_20250305" in refused(tools=[search]).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{**TOOL, "name": ""}]}, "tools[0].name"),
        ({"tools": [{**TOOL, "parameters": {"a": 1}}]}, "tools[0].parameters"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ],
)
def test_tools_that_are_none(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_parameters_of_llama_server_that_make_sense_here() -> None:
    left_out = set(PARAMETERS) - set(SAMPLING) - set(SUPPORTED)
    assert left_out == {
        "n_predict",
        "stop",
        "json_schema",
        "n_probs",
        "post_sampling_probs",
        "t_max_predict_ms",
        "input_suffix",
    }


#: A body with something of everything.
_RICH: dict[str, Any] = {
    "max_tokens": 9,
    "model": "any",
    "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "system", "content": "b"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "c", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": [1]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "is_error": True,
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                        },
                        {"type": "tool_reference", "tool_name": "f"},
                    ],
                },
                {
                    "type": "document",
                    "title": "e",
                    "source": {"type": "content", "content": [{"type": "text", "text": "f"}]},
                },
                {"type": "document", "source": {"type": "text", "data": "g"}},
                {
                    "type": "search_result",
                    "source": "h",
                    "title": "i",
                    "content": [{"type": "text", "text": "j"}],
                },
            ],
        },
    ],
    "tools": [TOOL, OTHER, {"type": "web_search_20250305", "name": "web_search"}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["END"],
    "temperature": 1.0,
    "stream": True,
    "seed": 5,
}
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each member of each object and list in a value: where it is, and its key."""
    items = value.items() if type(value) is dict else enumerate(value)
    found = []
    for key, inner in items:
        found.append((value, key))
        if type(inner) in (dict, list):
            found += _places(inner)
    return found


@given(st.data())
def test_any_body_is_a_request_or_refused(data: st.DataObject) -> None:
    changed = copy.deepcopy(_RICH)
    for _ in range(data.draw(st.integers(0, 2))):
        inside, key = data.draw(st.sampled_from(_places(changed)))
        kinds = st.sampled_from(["text", "image", "document", "tool_result", "enabled", "base64"])
        inside[key] = data.draw(_JSON | kinds)
    error: HttpError | None = None
    try:
        assert read(changed, Ignored(rules=RULES)).messages
    except HttpError as caught:
        error = caught
    assert error is None or (error.status == 400 and "\n" not in error.message)


def test_the_rich_body_is_a_request() -> None:
    roles = [one["role"] for one in read(copy.deepcopy(_RICH), Ignored(rules=RULES)).messages]
    assert roles == ["system", "user", "assistant", "tool", "user"]
