"""The body of a chat: its fields, and the requests that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.openai import messages
from llcuda_net.server.http.openai.bodies import (
    MAX_TOP_LOGPROBS,
    FunctionDefinition,
    body_of,
    check_choice,
    constrain,
    logprobs_of,
    options_of,
    sampling_of,
    seeds_of,
    tools_of,
)
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.messages import Message

#: Most choices of one answer.
MAX_CHOICES = 32

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Count = Annotated[int, Meta(ge=-1, le=(1 << 31) - 1)]


class StreamOptions(msgspec.Struct):
    """How an answer is streamed.

    Attributes:
        include_usage: end with a chunk of what was used.
    """

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Tool(msgspec.Struct):
    """A tool of a chat."""

    function: FunctionDefinition
    type: Literal["function"] = "function"


class FunctionName(msgspec.Struct):
    """The name of a function among the tools."""

    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function"):
    """The one tool that must be called."""

    function: FunctionName


class Allowed(msgspec.Struct):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedTools(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    """The tools that may be called."""

    allowed_tools: Allowed


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """Any text."""


class ObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """A JSON object; of this schema, as llama-server has it."""

    schema: dict[str, Any] | None = None


class Schema(msgspec.Struct):
    """A JSON schema with a name. It is always followed strictly."""

    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    json_schema: Schema


class ChatBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/chat/completions; llama-server's sampling parameters come beside it."""

    messages: list[Message]
    model: Annotated[str, Meta(max_length=1024)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Any] | list[Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: TextFormat | ObjectFormat | SchemaFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


#: Sampling parameters by llama-server's names that are no fields of OpenAI's.
SAMPLING = tuple(
    name for name in PARAMETERS if name not in (*ChatBody.__struct_fields__, "input_suffix")
)
_KNOWN = (*ChatBody.__struct_fields__, *SAMPLING)
_MEMBERS = {
    "stream_options": StreamOptions.__struct_fields__,
    "tool_choice": ("type", "function", "allowed_tools"),
}
_FORMATS = {
    "text": ("type",),
    "json_object": ("type", "schema"),
    "json_schema": ("type", "json_schema"),
}


class Chat(msgspec.Struct):
    """A chat, ready for the gateway.

    Attributes:
        messages, params, chat: as of llcuda_protocol.Generate.
        seeds: of each choice; None: the server's own.
        priority: the class that the tier stands for; None: the user's own.
        logprobs: how many alternatives of each token are to be written; None: none, and no tokens.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any]
    chat: dict[str, Any] | None
    seeds: list[int | None]
    model: str | None
    priority: str | None
    stream: bool
    usage: bool
    logprobs: int | None


def read(data: dict[str, Any], ignored: Ignored) -> Chat:
    """The chat that a body asks for.

    Args:
        ignored: takes the names of what is ignored.

    Raises:
        HttpError: the body is wrong.
    """
    kept = ignored.keep(data, _KNOWN)
    kept["messages"] = messages.cleaned(kept.get("messages"), ignored)
    if kept["messages"] is None:
        del kept["messages"]  # so that it is missed
    for name, members in _MEMBERS.items():
        if type(kept.get(name)) is dict:
            kept[name] = ignored.keep(kept[name], members, f"{name}.")
    _clean_format(kept, ignored)
    body, own = body_of(kept, ChatBody, SAMPLING)
    params, logprobs = _params(body, own)
    return Chat(
        messages.canonical(body.messages),
        params,
        _options(body),
        seeds_of(body.seed, body.n or 1),
        body.model,
        {"flex": "low", "default": "normal", "priority": "high"}.get(body.service_tier or ""),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
        logprobs,
    )


def _clean_format(kept: dict[str, Any], ignored: Ignored) -> None:
    wanted = kept.get("response_format")
    if type(wanted) is not dict:
        return
    kind = wanted.get("type")
    if type(kind) is str and kind in _FORMATS:
        wanted = ignored.keep(wanted, _FORMATS[kind], "response_format.")
        schema = wanted.get("json_schema")
        if type(schema) is dict:
            members = Schema.__struct_fields__
            wanted["json_schema"] = ignored.keep(schema, members, "response_format.json_schema.")
    kept["response_format"] = wanted


# -- sampling ---------------------------------------------------------------------------------


def _params(body: ChatBody, own: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """The sampling parameters, and how many alternatives of each token are to be written."""
    params = sampling_of(body, own, ("max_tokens", "max_completion_tokens"))
    _constrain(params, body)
    wanted = bool(body.logprobs)
    return params, logprobs_of(params, body.top_logprobs, wanted=wanted, switch="logprobs: true")


def _constrain(params: dict[str, Any], body: ChatBody) -> None:
    wanted = body.response_format
    schema: dict[str, Any] | None = None
    if isinstance(wanted, ObjectFormat):
        schema = wanted.schema or {"type": "object"}
    elif isinstance(wanted, SchemaFormat):
        schema = wanted.json_schema.schema or {}
    if schema is not None:
        constrain(params, "response_format", schema)


# -- the options of a chat --------------------------------------------------------------------


def _options(body: ChatBody) -> dict[str, Any] | None:
    """As of llcuda_protocol.Generate.chat."""
    tools = tools_of([one.function for one in body.tools or ()], "tools[{}].function.name")
    choice = _choice(body.tool_choice, tools) if tools else body.tool_choice
    return options_of(body, tools, choice, body.reasoning_effort)


def _choice(choice: str | NamedTool | AllowedTools | None, tools: list[dict[str, Any]]) -> Any:
    """The choice as a JSON value.

    Raises:
        HttpError: it names a tool that is not there.
    """
    if isinstance(choice, str | None):
        return choice
    named = choice.allowed_tools.tools if isinstance(choice, AllowedTools) else [choice]
    check_choice([one.function.name for one in named], tools)
    return msgspec.to_builtins(choice)
