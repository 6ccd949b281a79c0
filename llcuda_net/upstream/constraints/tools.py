"""The tools of a chat: what is refused of them, and whether a call keeps its tool's schema.

An upstream takes tools in its own way: older llama-servers sample freely where a schema cannot be
compiled, all of them pass over a choice of a tool that there is not, and use no tool at all where
the answer has a schema of its own. So these are refused. Schemas of tools come from everywhere, and
upstreams follow them as far as they can: one that can be read is accepted. That of a `strict` tool
must be one that can be kept, and the arguments of each call are checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llcuda_net.errors import InvalidRequest
from llcuda_net.upstream.constraints.size import schema_fault

#: Most tools of a chat: each becomes rules of a grammar.
MOST_TOOLS = 256


class Schema(NamedTuple):
    """The schema of a tool's arguments."""

    tool: str
    schema: dict[str, Any]
    strict: bool


def check_options(params: Mapping[str, Any], chat: Mapping[str, Any]) -> list[Schema]:
    """The schemas of the tools of a chat, of which all else is as it must be.

    Raises:
        InvalidRequest: it is not.
    """
    tools = chat.get("tools") or []
    names = []
    found = []
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"there may be at most {MOST_TOOLS} tools, not {len(tools)}")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if function is None or not isinstance(name, str) or not name:
            raise InvalidRequest(f"tools[{number}] is no function with a name")
        names.append(name)
        schema = function.get("parameters")
        if schema is None:
            continue
        strict = function.get("strict") is True
        if (why := schema_fault(schema, counts=strict)) is not None:
            raise InvalidRequest(f"the parameters of the tool {name!r:.80} {why}")
        found.append(Schema(name, schema, strict))
    unknown = next((one for one in _chosen(chat.get("tool_choice")) if one not in names), None)
    if unknown is not None:
        raise InvalidRequest(
            f"tool_choice names {unknown!r:.80}, and there is no such tool"
            + (f" among {', '.join(names)}"[:200] if names else "")
        )
    if not tools and must_call(chat):
        raise InvalidRequest("tool_choice wants a tool to be called, and there are no tools")
    if may_call(chat):
        constraint = next((one for one in ("grammar", "json_schema") if one in params), None)
        if constraint is not None:
            raise InvalidRequest(
                f"give tools or {constraint}, not both: upstreams would call no tool. Ask "
                "with tools first, then with tool_choice none for an answer that follows it"
            )
    return found


def strict_schemas(chat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas that calls must keep, by the names of their tools."""
    functions: Iterator[dict[str, Any]] = (one["function"] for one in chat.get("tools") or ())
    return {
        one["name"]: one["parameters"]
        for one in functions
        if one.get("strict") is True and one.get("parameters")
    }


def may_call(chat: Mapping[str, Any]) -> bool:
    """Whether the answer to a chat with these options may call a tool."""
    return bool(chat.get("tools")) and chat.get("tool_choice") != "none"


def must_call(chat: Mapping[str, Any]) -> bool:
    """Whether the answer must call one; of options that were checked."""
    choice = chat.get("tool_choice")
    if not isinstance(choice, dict):
        return choice == "required"
    allowed = choice.get("allowed_tools")
    return allowed is None or allowed.get("mode") == "required"


def _chosen(choice: Any) -> list[Any]:
    """The names in a tool_choice.

    Raises:
        InvalidRequest: it is none.
    """
    if choice in (None, "auto", "none", "required"):
        return []
    try:
        if choice["type"] == "allowed_tools":
            allowed = choice["allowed_tools"]
            if allowed.get("mode", "auto") not in ("auto", "required"):
                raise KeyError
            return [tool["function"]["name"] for tool in allowed["tools"]]
        return [choice["function"]["name"]]
    except (KeyError, TypeError, AttributeError):
        raise InvalidRequest(
            'tool_choice must be auto, none, required, or such as {"type": "function", '
            '"function": {"name": "now"}}'
        ) from None
