"""Tools and the other options of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.client.chat.options import chat_options, tool_list
from llcuda_net.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}


def options(**given: Any) -> Any:
    names = ["tools", "tool_choice", "parallel_tool_calls"]
    names += ["chat_template_kwargs", "reasoning_effort"]
    values: dict[str, Any] = {name: given.get(name) for name in names}
    return chat_options(**values)


def test_no_options_are_none() -> None:
    assert options() is None


def test_all_options() -> None:
    given = {
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "low",
    }
    assert options(**given) == given


def test_a_function_alone_is_a_tool() -> None:
    assert tool_list([FUNCTION, {"name": "time", "parameters": None}]) == [
        TOOL,
        {"type": "function", "function": {"name": "time"}},
    ]
    assert tool_list([{"type": "function", **FUNCTION}]) == [TOOL]


def test_a_choice_may_be_the_name_of_a_tool() -> None:
    chosen = {"type": "function", "function": {"name": "weather"}}
    for choice in ("weather", chosen):
        assert options(tools=[TOOL], tool_choice=choice)["tool_choice"] == chosen
    with pytest.raises(InvalidRequest, match="one of none, auto, required, weather, not 'wether'"):
        options(tools=[TOOL], tool_choice="wether")


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ({"name": "f"}, "tools are a list of functions"),
        ("f", "tools are a list of functions"),
        (7, "tools are a list of functions"),
        (["f"], "tool 1 is not a function"),
        ([FUNCTION, {}], "tool 2 is not a function with a name"),
        ([{"type": "web_search"}], "tool 1 is of type 'web_search': only functions"),
        ([{"type": "function", "function": "f"}], "tool 1 is not a function"),
        ([{"name": "f", "parameters": "city"}], "parameters of tool 'f' are not a JSON schema"),
    ],
)
def test_what_is_no_tool_is_told_by_its_place(tools: Any, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        tool_list(tools)
