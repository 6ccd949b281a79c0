"""Bodies of responses: what is followed, ignored and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses.body import OWN, Asked, ResponseBody, read
from llcuda_net.server.http.responses.fields import IGNORED, INSTEAD, NEUTRAL, RULES, SUPPORTED

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None}
AS_CHAT = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def ask(**fields: Any) -> tuple[Asked, list[str]]:
    ignored = Ignored(rules=RULES)
    asked = read({"input": "Hello", **fields}, ignored)
    return asked, list(ignored.names)


def refused(**fields: Any) -> HttpError:
    with pytest.raises(HttpError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_body() -> None:
    asked, names = ask()
    assert asked.input.messages == [{"role": "user", "content": "Hello"}]
    assert (asked.params, asked.chat, asked.priority, asked.logprobs) == ({}, None, None, None)
    assert names == []


def test_the_tables_have_every_field_once() -> None:
    assert set(SUPPORTED) == set(ResponseBody.__struct_fields__)
    tables = [set(SUPPORTED), set(OWN), set(IGNORED), set(NEUTRAL)]
    assert len(set.union(*tables)) == sum(map(len, tables))
    assert not set(INSTEAD) & (set(SUPPORTED) | set(IGNORED) | set(OWN))


def test_parameters() -> None:
    asked, _ = ask(
        temperature=0.5,
        top_p=1,
        max_output_tokens=20,
        seed=-1,
        top_k=3,
        stop=["x"],
        logit_bias={"5": -1},
    )
    assert asked.params == {
        "temperature": 0.5,
        "top_p": 1,
        "n_predict": 20,
        "top_k": 3,
        "stop": ["x"],
        "logit_bias": [[5, -1]],
    }


@pytest.mark.parametrize(
    ("format_", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}, SCHEMA),
    ],
)
def test_formats(format_: dict[str, Any], schema: dict[str, Any] | None) -> None:
    asked, names = ask(text={"format": format_, "verbosity": "low"})
    found = asked.params.get("json_schema")
    if found is not None:
        found = {name: one for name, one in found.items() if name != "x-guidance"}
    assert found == schema
    assert names == ["text.verbosity"]


def test_functions_are_taken_and_other_tools_are_named() -> None:
    tools = [{"type": "web_search"}, TOOL, {"type": "namespace", "name": "n", "tools": [TOOL]}]
    asked, names = ask(tools=tools, tool_choice="auto", parallel_tool_calls=False)
    assert asked.chat == {
        "tools": [AS_CHAT],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }
    assert names == ["tools[0].web_search", "tools[2].namespace"]


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
    ],
)
def test_tool_choices(choice: Any, found: Any) -> None:
    asked, _ = ask(tools=[TOOL], tool_choice=choice)
    assert asked.chat is not None
    assert asked.chat["tool_choice"] == found


def test_reasoning() -> None:
    asked, names = ask(reasoning={"effort": "low", "summary": "auto"})
    assert asked.chat == {"reasoning_effort": "low"}
    assert names == ["reasoning.summary"]


def test_what_is_included() -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    asked, names = ask(include=include, top_logprobs=3)
    assert (asked.logprobs, asked.encrypted, asked.params) == (3, True, {"n_probs": 3})
    assert names == []
    asked, names = ask(include=["message.output_text.logprobs"])
    assert (asked.logprobs, asked.params) == (0, {"n_probs": 1})
    asked, names = ask(include=["web_search_call.action.sources"])
    assert names == ["include.web_search_call.action.sources"]


def test_classes_of_requests() -> None:
    found = {tier: ask(service_tier=tier)[0].priority for tier in ("auto", "flex", "fast")}
    assert found == {"auto": None, "flex": "low", "fast": "high"}


@pytest.mark.parametrize("name", IGNORED)
def test_what_changes_nothing_is_ignored(name: str) -> None:
    assert ask(**{name: "x"})[1] == [name]


@pytest.mark.parametrize("name", INSTEAD)
def test_what_could_change_it_is_refused_with_what_to_do(name: str) -> None:
    error = refused(**{name: ["x"]})
    assert (error.code, error.param) == ("unknown_parameter", name)
    assert INSTEAD[name] in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["odd"]}, "include"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata[...]"),
        ({"truncation": "odd"}, "truncation"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "s"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "odd"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_object"}}, "grammar": "x"}, "text.format"),
        ({"reasoning": {"effort": "odd"}}, "reasoning.effort"),
        ({"top_k": "x"}, "top_k"),
        ({"inputs": "x"}, "inputs"),
        ({"background": "x"}, "background"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert "\n" not in error.message


def test_what_codex_sends_is_taken() -> None:
    body = json.loads(
        """{"model": "local", "stream": true, "store": false, "tool_choice": "auto",
        "parallel_tool_calls": true, "reasoning": {"summary": "auto"},
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
        "client_metadata": {"turn_id": "t"},
        "input": [
          {"type": "message", "id": "msg_a", "role": "developer",
           "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
          {"type": "message", "id": "msg_b", "role": "user",
           "content": [{"type": "input_text", "text": "Say hello"}]},
          {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null,
           "content": [{"type": "reasoning_text", "text": "hm"}]},
          {"type": "function_call", "status": "completed", "id": "fc_1", "name": "exec_command",
           "arguments": "{}", "call_id": "call_1"},
          {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "4711"}],
        "tools": [
          {"type": "function", "name": "exec_command", "description": "d", "strict": false,
           "parameters": {"type": "object", "properties": {}}},
          {"type": "namespace", "name": "n", "description": "d", "tools": []},
          {"type": "web_search", "external_web_access": true}]}"""
    )
    ignored = Ignored(rules=RULES)
    asked = read(body, ignored)
    assert len(asked.input.items) == 5
    assert asked.encrypted
    assert list(ignored.names) == [
        "prompt_cache_key",
        "client_metadata",
        "tools[1].namespace",
        "tools[2].web_search",
        "reasoning.summary",
    ]
