from __future__ import annotations

from typing import Any

import pytest

from llcuda_net.errors import InvalidRequest, UpstreamError
from llcuda_net.upstream.constraints.checks import Checks
from llcuda_net.upstream.constraints.tools import MOST_TOOLS, check_options
from tests.support.server.constraint_checks import checks_here

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}},
    "required": ["city"],
}
#: What no engine that takes a bounded time knows, and many authors of tools do.
LOOKS_AROUND = {"type": "object", "properties": {"path": {"type": "string", "pattern": "^(?!/)"}}}


def tool(name: str = "weather", parameters: Any = CITY, **more: Any) -> dict[str, Any]:
    function = {"name": name, "parameters": parameters, **more}
    return {"type": "function", "function": function}


def choice(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    tools = [choice(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize(
    "chat",
    [
        {},
        {"tools": []},
        {"tools": [tool()]},
        {"tools": [tool(), tool("now", LOOKS_AROUND)]},
        {"tools": [{"type": "function", "function": {"name": "now"}}]},
        {"tools": [tool("any", {})]},
        {"tools": [tool(strict=True)], "tool_choice": "required"},
        {"tools": [tool()], "tool_choice": choice("weather")},
        {"tools": [tool()], "tool_choice": allowed("weather", mode="required")},
    ],
)
async def test_tools_that_can_be_used(chat: dict[str, Any]) -> None:
    await checks_here().check({"n_predict": 5}, chat)


@pytest.mark.parametrize(
    ("chat", "why"),
    [
        ({"tools": [{"type": "function"}]}, r"tools\[0\] is no function with a name"),
        ({"tools": [tool(), tool("")]}, r"tools\[1\] is no function with a name"),
        ({"tools": ["now"]}, r"tools\[0\] is no function"),
        ({"tools": [tool()], "tool_choice": choice("now")}, "'now', and there is no such tool"),
        ({"tool_choice": choice("now")}, "'now', and there is no such tool$"),
        ({"tool_choice": "required"}, "wants a tool to be called, and there are no tools"),
        ({"tools": [tool()], "tool_choice": allowed("weather", "now")}, "'now', and there is no"),
        ({"tools": [tool()], "tool_choice": allowed("weather", mode="never")}, "must be auto"),
        ({"tools": [tool()], "tool_choice": "weather"}, "must be auto, none, required"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "must be auto, none, required"),
        ({"tools": [tool(parameters=[])]}, "'weather' must be a JSON object"),
        ({"tools": [tool(parameters={"type": "strin"})]}, "'weather' is wrong"),
        ({"tools": [tool(parameters={"$ref": "#/nowhere"})]}, "'weather' is wrong"),
        ({"tools": [tool(parameters={"$ref": "http://127.0.0.1:1/"})]}, "'weather' is wrong"),
        ({"tools": [tool("w", {"maxLength": 1 << 30}, strict=True)]}, "maxLength of at most"),
        ({"tools": [tool("path", LOOKS_AROUND, strict=True)]}, "'path' is wrong.*look-around"),
        ({"tools": [tool()] * (MOST_TOOLS + 1)}, f"at most {MOST_TOOLS} tools"),
    ],
)
async def test_what_is_refused_of_tools(chat: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        await checks_here().check({}, chat)


async def test_a_great_length_is_no_fault_of_a_tool_that_is_not_strict() -> None:
    await checks_here().check({}, {"tools": [tool(parameters={"maxLength": 1 << 30})]})


def test_tools_and_another_constraint_exclude_each_other() -> None:
    chat: dict[str, Any] = {"tools": [tool()]}
    with pytest.raises(InvalidRequest, match="tools or json_schema, not both"):
        check_options({"json_schema": {}}, chat)
    with pytest.raises(InvalidRequest, match="tools or grammar, not both"):
        check_options({"grammar": 'root ::= "a"'}, chat)
    assert check_options({"json_schema": {}}, chat | {"tool_choice": "none"})


async def test_tools_are_checked_in_the_other_process_all_at_once() -> None:
    checks = Checks()
    with pytest.raises(InvalidRequest, match="'path' is wrong"):
        await checks.check({}, {"tools": [tool(), tool("path", LOOKS_AROUND, strict=True)]})
    asked = []

    async def run(question: Any, *arguments: Any) -> None:
        asked.append(question)

    await Checks(run).check({}, {"tools": [tool(), tool("now")]})
    assert len(asked) == 1


async def test_only_calls_of_strict_tools_are_verified() -> None:
    chat = {"tools": [tool(strict=True), tool("lax"), tool("open", None, strict=True)]}
    checks = checks_here()
    good = [("weather", '{"city": "Rome"}'), ("lax", "{"), ("open", "")]
    await checks.verify_calls(chat, good, cut=False)
    await checks.verify_calls({}, [("gone", "{")], cut=False)
    for arguments, why in (
        ('{"city": "rome"}', r"at \['city'\]"),
        ("{}", "required"),
        ('{"city": "Rome"', "not JSON"),
        ("", "not JSON"),
    ):
        with pytest.raises(UpstreamError, match=f"tool 'weather' does not keep its schema.*{why}"):
            calls = [("lax", "{}"), ("weather", arguments)]
            await checks.verify_calls(chat, calls, cut=False)


@pytest.mark.parametrize(
    ("wanted", "must"),
    [
        (None, False),
        ("auto", False),
        ("none", False),
        ("required", True),
        ({"type": "function", "function": {"name": "weather"}}, True),
        (allowed("weather"), False),
        (allowed("weather", mode="required"), True),
    ],
)
async def test_a_call_that_was_wanted_is_there(wanted: Any, must: bool) -> None:
    checks = checks_here()
    chat = {"tools": [tool()], "tool_choice": wanted}
    await checks.verify_calls(chat, [("weather", "{}")], cut=False)
    await checks.verify_calls(chat, [], cut=True)  # a limit may come before the call
    if must:
        with pytest.raises(UpstreamError, match="calls no tool"):
            await checks.verify_calls(chat, [], cut=False)
    else:
        await checks.verify_calls(chat, [], cut=False)
