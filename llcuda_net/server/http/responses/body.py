"""The body of a response: its fields, and the request that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.generation.sampling import PARAMETERS
from llcuda_net.server.http.openai.bodies import (
    MAX_TOP_LOGPROBS,
    FunctionDefinition,
    Metadata,
    body_of,
    check_choice,
    constrain,
    logprobs_of,
    options_of,
    sampling_of,
    seeds_of,
    tools_of,
    wrong,
)
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.responses import items
from llcuda_net.server.http.responses.items import Input, InputItem

_Count = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
_Choice = Literal["none", "auto", "required"]
LOGPROBS, ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"


class FunctionTool(FunctionDefinition, tag_field="type", tag="function"):
    """A function that the model may call."""


class NamedFunction(msgspec.Struct, tag_field="type", tag="function"):
    """A function by its name."""

    name: str


class AllowedFunctions(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class PlainText(msgspec.Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObject(msgspec.Struct, tag_field="type", tag="json_object"):
    """A JSON object."""


class JsonSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema. It is always followed strictly."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct):
    """How the text of the answer is."""

    format: PlainText | JsonObject | JsonSchema | None = None


class ReasoningOptions(msgspec.Struct):
    """How the model is to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ConversationName(msgspec.Struct):
    """The conversation that a response is part of."""

    id: Annotated[str, Meta(max_length=256)]


class ResponseBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/responses; llama-server's sampling parameters come beside it.

    `instead_of` is no field of OpenAI's.
    """

    input: str | list[InputItem]
    instructions: str | None = None
    model: Annotated[str, Meta(max_length=1024)] | None = None
    previous_response_id: Annotated[str, Meta(max_length=256)] | None = None
    conversation: ConversationName | Annotated[str, Meta(max_length=256)] | None = None
    instead_of: Annotated[str, Meta(max_length=256)] | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_output_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=1024)] | None = None
    tool_choice: _Choice | NamedFunction | AllowedFunctions | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    metadata: Metadata | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


#: Sampling parameters by llama-server's names that are no fields of OpenAI's.
OWN = tuple(
    name for name in PARAMETERS if name not in (*ResponseBody.__struct_fields__, "input_suffix")
)
_KNOWN = (*ResponseBody.__struct_fields__, *OWN)
#: What else OpenAI's API can include: of tools that there are none of.
_INCLUDABLE = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_FORMATS = {
    "text": ("type",),
    "json_object": ("type",),
    "json_schema": ("type", "name", "schema", "description", "strict"),
}
_IGNORED_MEMBERS = {
    "text": ("verbosity",),
    "reasoning": ("summary", "generate_summary", "context", "mode"),
    "stream_options": ("include_obfuscation",),
}
_TIERS = {"flex": "low", "default": "normal", "priority": "high", "fast": "high"}


class Asked(msgspec.Struct):
    """A response, ready to be put behind those before it.

    Attributes:
        body: as it was sent, without what was ignored.
        input: what is new.
        params, chat: as of llcuda_protocol.Generate.
        priority: the class that the tier stands for; None: the user's own.
        logprobs: how many alternatives of each token are to be written; None: none, and no tokens.
        encrypted: reasoning comes in a form that clients that keep nothing send back.
    """

    body: ResponseBody
    input: Input
    params: dict[str, Any]
    chat: dict[str, Any] | None
    priority: str | None
    logprobs: int | None
    encrypted: bool


def read(data: dict[str, Any], ignored: Ignored) -> Asked:
    """The response that a body asks for.

    Args:
        ignored: takes the names of what is ignored.

    Raises:
        HttpError: the body is wrong.
    """
    kept = ignored.keep(data, _KNOWN)
    if "input" in kept:
        kept["input"] = items.cleaned(kept["input"], ignored)
    if type(kept.get("tools")) is list:
        kept["tools"] = _functions(kept["tools"], ignored)
    _clean_options(kept, ignored)
    body, own = body_of(kept, ResponseBody, OWN)
    _check_conversation(body)
    include = _included(body, ignored)
    params = _params(body, own)
    return Asked(
        body,
        items.read(body.input, ignored),
        params,
        _options(body),
        _TIERS.get(body.service_tier or ""),
        logprobs_of(
            params,
            body.top_logprobs,
            wanted=LOGPROBS in include,
            switch=f"{LOGPROBS} in include",
        ),
        ENCRYPTED in include,
    )


def conversation_of(body: ResponseBody) -> str | None:
    """The id of the conversation that a response is to be part of."""
    named = body.conversation
    return named.id if isinstance(named, ConversationName) else named


def _check_conversation(body: ResponseBody) -> None:
    if body.conversation is None:
        if body.instead_of is not None:
            raise wrong("instead_of", "instead_of names a response of a conversation: give both")
        return
    if body.previous_response_id is not None and body.instead_of is not None:
        raise wrong("instead_of", "give instead_of or previous_response_id: one of them")
    if body.store is False:
        raise wrong("store", "a conversation keeps its responses: store must not be false")


def _functions(tools: list[Any], ignored: Ignored) -> list[Any]:
    """Those tools that are functions; the others are named."""
    found = []
    for i, tool in enumerate(tools):
        kind = tool.get("type") if type(tool) is dict else None
        if type(kind) is str and kind != "function":
            ignored.names[f"tools[{i}].{kind}"] = None
        elif type(tool) is dict:
            members = ("type", *FunctionTool.__struct_fields__)
            found.append(ignored.keep(tool, members, "tools[].", also=tool))
        else:
            found.append(tool)
    return found


def _clean_options(kept: dict[str, Any], ignored: Ignored) -> None:
    """Take out of options what changes nothing."""
    members = {
        "text": TextOptions.__struct_fields__,
        "reasoning": ReasoningOptions.__struct_fields__,
        "stream_options": (),
    }
    for name, known in members.items():
        if type(kept.get(name)) is dict:
            also = _IGNORED_MEMBERS[name]
            kept[name] = ignored.keep(kept[name], known, f"{name}.", also)
    text = kept.get("text")
    if type(text) is dict and type(text.get("format")) is dict:
        kind = text["format"].get("type")
        if type(kind) is str and kind in _FORMATS:
            text["format"] = ignored.keep(text["format"], _FORMATS[kind], "text.format.")
    choice = kept.get("tool_choice")
    if type(choice) is dict and choice.get("type") not in ("function", "allowed_tools"):
        raise wrong(
            "tool_choice",
            f"tool_choice asks for a tool of the type {str(choice.get('type'))[:64]!r}: only "
            "functions are followed",
        )


def _included(body: ResponseBody, ignored: Ignored) -> set[str]:
    """What is to be included, of what there is."""
    found = set()
    for name in body.include or ():
        if name in (LOGPROBS, ENCRYPTED):
            found.add(name)
        elif name in _INCLUDABLE:
            ignored.names[f"include.{name}"] = None
        else:
            known = ", ".join((LOGPROBS, ENCRYPTED, *_INCLUDABLE))
            raise wrong("include", f"include has {name[:64]!r}, which is none of {known}")
    return found


# -- sampling ---------------------------------------------------------------------------------


def _params(body: ResponseBody, own: Mapping[str, Any]) -> dict[str, Any]:
    params = sampling_of(body, own, ("max_output_tokens",))
    (seed,) = seeds_of(params.pop("seed", None), 1)
    if seed is not None:
        params["seed"] = seed
    wanted = body.text.format if body.text is not None else None
    if isinstance(wanted, JsonSchema):
        constrain(params, "text.format", wanted.schema)
    elif isinstance(wanted, JsonObject):
        constrain(params, "text.format", {"type": "object"})
    return params


# -- the options of a chat --------------------------------------------------------------------


def _options(body: ResponseBody) -> dict[str, Any] | None:
    """As of llcuda_protocol.Generate.chat."""
    tools = tools_of(body.tools or (), "tools")
    choice = _choice(body.tool_choice, tools) if tools else body.tool_choice
    effort = body.reasoning.effort if body.reasoning is not None else None
    return options_of(body, tools, choice, effort)


def _choice(
    choice: str | NamedFunction | AllowedFunctions | None, tools: list[dict[str, Any]]
) -> Any:
    """The choice as a chat has it.

    Raises:
        HttpError: it names a tool that is not there.
    """
    if isinstance(choice, str | None):
        return choice
    if isinstance(choice, NamedFunction):
        wanted = [choice.name]
    else:
        wanted = [one["name"] for one in choice.tools if type(one.get("name")) is str]
    check_choice(wanted, tools)
    functions = [{"type": "function", "function": {"name": name}} for name in wanted]
    if isinstance(choice, NamedFunction):
        return functions[0]
    allowed = {"mode": choice.mode, "tools": functions}
    return {"type": "allowed_tools", "allowed_tools": allowed}
