"""The body of a message request: its fields, and the chat that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.server.http.anthropic import blocks
from llcuda_net.server.http.anthropic.blocks import TextBlock, Turn
from llcuda_net.server.http.anthropic.errors import NO_THREADS
from llcuda_net.server.http.anthropic.fields import SAMPLING
from llcuda_net.server.http.anthropic.messages import canonical
from llcuda_net.server.http.anthropic.tools import ToolChoice, tool_options
from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai.bodies import body_of, checked, constrain, sampling_of, wrong
from llcuda_net.server.http.openai.fields import Ignored

#: Tokens to think with, up to which an effort is low, or medium.
LOW_BUDGET, MEDIUM_BUDGET = 4096, 16_384


class Thinking(msgspec.Struct):
    """Whether the model thinks before it answers, and how much."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None


class JsonFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    """How much effort to put into the answer, and its format."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class MessagesBody(msgspec.Struct, kw_only=True):
    """The body of POST /v1/messages; llama-server's sampling parameters come beside it."""

    messages: list[Turn]
    max_tokens: Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
    model: Annotated[str, Meta(max_length=1024)] | None = None
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=1024)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    stream: bool | None = None


class CountBody(MessagesBody, kw_only=True):
    """The body of POST /v1/messages/count_tokens: that of a message, which needs no limit."""

    max_tokens: Annotated[int, Meta(ge=1, le=(1 << 31) - 1)] | None = None  # type: ignore[assignment]


_KNOWN = (*MessagesBody.__struct_fields__, *SAMPLING)
_MEMBERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "thinking": (Thinking.__struct_fields__, ("display",)),
    "output_config": (OutputConfig.__struct_fields__, ("task_budget",)),
    "tool_choice": (("type", "name", "disable_parallel_tool_use"), ()),
}


class MessageRequest(msgspec.Struct):
    """A message request, ready for the gateway.

    Attributes:
        messages, params, chat: as of llcuda_protocol.Generate.
        max_tokens: as the client has it; the context may hold fewer.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any]
    chat: dict[str, Any] | None
    model: str | None
    max_tokens: int
    stream: bool


def read(
    data: dict[str, Any], ignored: Ignored, type_: type[MessagesBody] = MessagesBody
) -> MessageRequest:
    """The request that a body is.

    Args:
        ignored: takes the names of what is ignored.
        type_: of the body.

    Raises:
        HttpError: the body is wrong.
    """
    if data.get("thread") is not None:
        # By this code the SDKs know that they must send all of a conversation themselves.
        raise HttpError(
            400,
            "threads are not kept: send all messages, without thread",
            param="thread",
            code=NO_THREADS,
        )
    kept = ignored.keep(data, _KNOWN)
    if "messages" in kept:
        kept["messages"] = blocks.cleaned(kept["messages"], ignored)
    if "system" in kept:
        kept["system"] = blocks.cleaned_blocks(kept["system"], "system", ignored)
    for name, (members, idle) in _MEMBERS.items():
        if type(kept.get(name)) is dict:
            kept[name] = ignored.keep(kept[name], members, f"{name}.", idle)
    for of, path in ((kept, ""), (kept.get("output_config"), "output_config.")):
        _clean_format(of, path, ignored)
    body, own = body_of(kept, type_, SAMPLING)
    chat = tool_options(body.tools, body.tool_choice, ignored)
    effort = _effort(body.thinking, body.output_config)
    if effort is not None:
        chat["reasoning_effort"] = effort
    messages = canonical(body.messages, body.system)
    if messages[-1]["role"] == "assistant":
        _check_goes_on(messages[-1])
        chat["continue_final_message"] = True
    return MessageRequest(
        messages,
        _params(body, own),
        chat or None,
        body.model,
        body.max_tokens,
        bool(body.stream),
    )


def _clean_format(of: Any, path: str, ignored: Ignored) -> None:
    """Drop what changes nothing from a format in an object."""
    name = "format" if path else "output_format"
    if type(of) is dict and type(of.get(name)) is dict:
        members = ("type", "schema")
        idle = ("name", "description", "strict")
        of[name] = ignored.keep(of[name], members, f"{path}{name}.", idle)


def _check_goes_on(message: dict[str, Any]) -> None:
    """Return if an answer can go on behind this message, which is its beginning."""
    if message.get("tool_calls"):
        raise wrong("messages", "messages ends with a tool_use: send its tool_result behind it")
    if not message["content"]:
        raise wrong("messages", "messages ends with an assistant's message that has no text")


def _params(body: MessagesBody, own: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters."""
    params = sampling_of(body, own, ("max_tokens",))
    if body.top_k is not None:
        params["top_k"] = checked("top_k", "top_k", body.top_k)
    if body.stop_sequences:
        params["stop"] = checked("stop_sequences", "stop", body.stop_sequences)
    config = body.output_config
    wanted = body.output_format
    if config is not None and config.format is not None:
        if wanted is not None:
            raise wrong("output_format", "give output_format or output_config.format: one of them")
        wanted = config.format
    if wanted is not None:
        field = "output_config.format"
        if "grammar" in params:
            raise wrong(field, f"give {field} or grammar: one of them")
        constrain(params, field, wanted.schema)
    return params


def _effort(thinking: Thinking | None, config: OutputConfig | None) -> str | None:
    """How much the model is to think, as a template knows it; None: as it does by itself."""
    if thinking is None or thinking.type == "disabled":
        return "none"
    if config is not None and config.effort is not None:
        return "xhigh" if config.effort == "max" else config.effort
    budget = thinking.budget_tokens
    if thinking.type != "enabled" or budget is None:
        return None
    if budget <= LOW_BUDGET:
        return "low"
    return "medium" if budget <= MEDIUM_BUDGET else "high"
