"""Options of a chat: the tools that a model may call, and how it thinks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llcuda_net.errors import InvalidRequest

_MODES = ("none", "auto", "required")


def chat_options(
    *,
    tools: Iterable[Mapping[str, Any]] | None,
    tool_choice: str | Mapping[str, Any] | None,
    parallel_tool_calls: bool | None,
    chat_template_kwargs: Mapping[str, Any] | None,
    reasoning_effort: str | None,
    inherits: bool = False,
) -> dict[str, Any] | None:
    """The options as they are sent; None where there are none.

    Args:
        inherits: tools that are not given are those of the conversation that goes on.

    Raises:
        InvalidRequest: one of them is not of its shape.
    """
    if not isinstance(chat_template_kwargs, Mapping | None):
        raise InvalidRequest(f"chat_template_kwargs is a mapping, not {chat_template_kwargs!r:.40}")
    given: dict[str, Any] = {
        "tools": None if tools is None else tool_list(tools),
        "parallel_tool_calls": parallel_tool_calls,
        "chat_template_kwargs": None if chat_template_kwargs is None else {**chat_template_kwargs},
        "reasoning_effort": reasoning_effort,
    }
    unknown = inherits and tools is None
    given["tool_choice"] = _choice(tool_choice, None if unknown else given["tools"] or [])
    return {name: value for name, value in given.items() if value is not None} or None


def tool_list(tools: Any) -> list[dict[str, Any]]:
    """Tools in OpenAI's shape.

    Args:
        tools: a list of tools in that shape, `{"type": "function", "function": {…}}`, or of what
            is in `function` there: `name`, `description`, and `parameters`, a JSON schema.

    Raises:
        InvalidRequest: it is anything else.
    """
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise InvalidRequest("tools are a list of functions, each with a name and parameters")
    return [_tool(tool, place) for place, tool in enumerate(tools, 1)]


def _tool(tool: Any, place: int) -> dict[str, Any]:
    wrong = InvalidRequest(f"tool {place} is not a function with a name and parameters")
    if not isinstance(tool, Mapping):
        raise wrong
    kind = tool.get("type", "function")
    if kind != "function":
        raise InvalidRequest(f"tool {place} is of type {kind!r:.40}: only functions are known")
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise wrong
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"tool {place} is not a function with a name")
    if not isinstance(parameters, Mapping | None):
        raise InvalidRequest(f"the parameters of tool {name!r} are not a JSON schema, an object")
    kept = {key: value for key, value in function.items() if value is not None and key != "type"}
    return {"type": "function", "function": kept}


def _choice(choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]] | None) -> Any:
    if choice is None or (isinstance(choice, str) and choice in _MODES):
        return choice
    if isinstance(choice, Mapping):
        return {**choice}
    names = [tool["function"]["name"] for tool in tools or []]
    if not isinstance(choice, str) or (tools is not None and choice not in names):
        known = ", ".join((*_MODES, *names))
        raise InvalidRequest(f"tool_choice is one of {known}, not {choice!r:.40}")
    return {"type": "function", "function": {"name": choice}}
