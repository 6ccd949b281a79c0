"""The tools of a message request, and which of them may be called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openai.bodies import convert, wrong
from llcuda_net.server.http.openai.fields import Ignored


class CustomTool(msgspec.Struct):
    """A tool that the client has; `input_schema` is a JSON schema."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    type: Literal["custom"] = "custom"


class ToolChoice(msgspec.Struct):
    """Which tool may be called, and whether one must be."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


#: Members of tools that change nothing.
_IDLE = (
    "cache_control",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
    "allowed_callers",
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def tool_options(
    tools: list[dict[str, Any]] | None, choice: ToolChoice | None, ignored: Ignored
) -> dict[str, Any]:
    """The options of the chat, as of llcuda_protocol.Generate.

    Tools that Anthropic defines are skipped, and named: the model was not made for them, and what
    runs at Anthropic is not here.

    Raises:
        HttpError: a tool is wrong, all are of Anthropic's, or the choice is none that there is.
    """
    found = []
    names: set[str] = set()
    skipped: list[str] = []
    for number, given in enumerate(tools or ()):
        path = f"tools[{number}]"
        kind = given.get("type")
        if type(kind) is str and kind != "custom":
            ignored.names[path] = None
            skipped.append(kind[:64])
            continue
        tool = _tool(given, path, ignored)
        if tool.name in names:
            raise wrong(f"{path}.name", f"{path}.name: there are two tools {tool.name!r}")
        names.add(tool.name)
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.strict is not None:
            function["strict"] = tool.strict
        found.append({"type": "function", "function": function})
    if skipped and not found:
        raise wrong(
            "tools",
            f"tools of the type {skipped[0]!r} are not supported, and there are no others: give "
            "the model a tool of your own, with an input_schema",
        )
    wanted = _choice(choice, names)
    if not found:
        return {}
    options: dict[str, Any] = {"tools": found}
    if wanted is not None:
        options["tool_choice"] = wanted
    if choice is not None and choice.disable_parallel_tool_use is not None:
        options["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return options


def _tool(given: dict[str, Any], path: str, ignored: Ignored) -> CustomTool:
    kept = ignored.keep(given, CustomTool.__struct_fields__, f"{path}.", _IDLE)
    return convert(kept, CustomTool, path)


def _choice(choice: ToolChoice | None, names: set[str]) -> Any:
    """The choice as OpenAI's API has it; None: as it is by itself."""
    if choice is None:
        return None
    if choice.type != "tool":
        if choice.type == "any" and not names:
            raise wrong("tool_choice", "tool_choice asks for a tool, and there are no tools")
        return _CHOICES[choice.type]
    if choice.name is None:
        raise wrong("tool_choice.name", "tool_choice.name: it is missing")
    if choice.name not in names:
        raise wrong("tool_choice", f"tool_choice names {choice.name[:64]!r}, which is no tool here")
    return {"type": "function", "function": {"name": choice.name}}
