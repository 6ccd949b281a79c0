"""The body of a request to /v1/chat/completions, as llama-server understands it.

Its own names and those of OpenAI's API may stand side by side there. What differs from OpenAI's:
a `tool_choice` that names a tool is passed over in silence, so such a tool is made the only one;
`logprobs` are refused where there are tools, and `n_probs` are not.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llcuda_net.errors import InvalidRequest
from llcuda_net.upstream.constraints.size import without_large_counts
from llcuda_net.upstream.llama.failures import NOT_JSON


def chat_body(
    messages: list[dict[str, Any]], options: dict[str, Any], params: dict[str, Any]
) -> dict[str, Any]:
    """All of the body; see Upstream.chat for the arguments.

    Raises:
        InvalidRequest: the arguments of an earlier tool call are no JSON.
    """
    body = {
        **params,
        "messages": [_message(number, one) for number, one in enumerate(messages)],
        **_tools(options),
        **_reasoning(options),
        **_continued(options),
        "stream": True,
        "stream_options": {"include_usage": True},
        # So that tokens are counted of which nothing is to be seen yet.
        "timings_per_token": True,
    }
    if params.get("stop"):
        body["verbose"] = True  # only then is it told which string stopped it
    return body


def _message(number: int, message: dict[str, Any]) -> dict[str, Any]:
    """A message in which the arguments of each tool call are JSON, as llama-server must have it."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    sent = []
    for place, call in enumerate(calls):
        function = call["function"]
        arguments = function["arguments"] or "{}"  # many clients: a tool without parameters
        try:
            msgspec.json.decode(arguments)
        except NOT_JSON:
            raise InvalidRequest(
                f"messages[{number}].tool_calls[{place}].function.arguments must be JSON: the "
                "model's chat template takes them apart"
            ) from None
        sent.append({**call, "function": {**function, "arguments": arguments}})
    return {**message, "tool_calls": sent}


def one_call(options: dict[str, Any]) -> bool:
    """Whether the answer may have one tool call only."""
    return options.get("parallel_tool_calls") is False


def _tools(options: dict[str, Any]) -> dict[str, Any]:
    tools = options.get("tools")
    if not tools:
        return {}
    choice = options.get("tool_choice") or "auto"
    names: set[str] | None = None
    if isinstance(choice, dict):
        names, choice = chosen(choice)
    if names is not None:
        tools = [tool for tool in tools if tool["function"]["name"] in names]
    found = {"tools": [_tool(tool) for tool in tools], "tool_choice": choice}
    if "parallel_tool_calls" in options:
        found["parallel_tool_calls"] = options["parallel_tool_calls"]
    return found


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool of whose parameters every llama-server can make a grammar.

    Some refuse the whole chat for one great maxLength, and agents have tools with such.
    """
    function = tool["function"]
    if "parameters" not in function:
        return tool
    parameters = without_large_counts(function["parameters"])
    return {**tool, "function": {**function, "parameters": parameters}}


def chosen(choice: dict[str, Any]) -> tuple[set[str], str]:
    """The names of the tools that a `tool_choice` allows, and how they are to be chosen.

    Either one tool, `{"type": "function", "function": {"name": …}}`, which must be called, or
    several, `{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}`.
    """
    if choice.get("type") == "allowed_tools":
        allowed = choice["allowed_tools"]
        return {tool["function"]["name"] for tool in allowed["tools"]}, allowed.get("mode", "auto")
    return {choice["function"]["name"]}, "required"


def _continued(options: dict[str, Any]) -> dict[str, Any]:
    """Where the last message is to be continued, no other one is begun."""
    if options.get("continue_final_message"):
        return {"continue_final_message": True, "add_generation_prompt": False}
    return {} if options.get("add_generation_prompt", True) else {"add_generation_prompt": False}


def _reasoning(options: dict[str, Any]) -> dict[str, Any]:
    """Reasoning comes apart from the text, however the upstream was started."""
    found: dict[str, Any] = {"reasoning_format": "deepseek"}
    kwargs = dict(options.get("chat_template_kwargs") or {})
    effort = options.get("reasoning_effort")
    if effort is not None:
        found["reasoning_effort"] = effort
        # Older ones know the template's own words only.
        kwargs.setdefault("reasoning_effort", effort)
        kwargs.setdefault("enable_thinking", effort != "none")
    if kwargs:
        found["chat_template_kwargs"] = kwargs
    return found
