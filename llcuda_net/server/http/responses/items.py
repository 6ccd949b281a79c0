"""The input of a response: items as clients send them, and as messages.

Items are records of what was said. A member of one that we do not know changes nothing of that, so
it is dropped, and named; a kind of item or part that we cannot convey is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai import messages as chat
from llcuda_net.server.http.openai.bodies import convert, wrong
from llcuda_net.server.http.openai.fields import Ignored
from llcuda_net.server.http.openai.messages import Audio
from llcuda_net.server.http.responses.answers import OPEN_REASONING
from llcuda_net.server.http.responses.transcript import Item, Message, add, reasoning

#: Most items of an input.
MAX_ITEMS = 100_000

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A part: text."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A part: text that a model made."""

    text: str


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """A part: what a model said instead."""

    refusal: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image"):
    """A part: an image, as a data: URL."""

    image_url: str
    detail: str | None = None


class InputAudio(msgspec.Struct, tag_field="type", tag="input_audio"):
    """A part: a recording."""

    input_audio: Audio


Part = InputText | OutputText | Refusal | InputImage | InputAudio


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """What somebody said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]


class Call(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call of a function, by the model."""

    call_id: _Name
    name: _Name
    arguments: str


class CallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What a function answered."""

    call_id: _Name
    output: str | list[InputText | InputImage]


class CustomCall(msgspec.Struct, tag_field="type", tag="custom_tool_call"):
    """A call of a tool that takes text."""

    call_id: _Name
    name: _Name
    input: str


class CustomOutput(msgspec.Struct, tag_field="type", tag="custom_tool_call_output"):
    """What a tool that takes text answered."""

    call_id: _Name
    output: str | list[InputText | InputImage]


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """A part of reasoning."""

    text: str


class Reasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What a model thought before it said something."""

    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None


class Reference(msgspec.Struct, tag_field="type", tag="item_reference"):
    """An item of an earlier response."""

    id: _Name


class Skipped(msgspec.Struct, tag_field="type", tag="skipped"):
    """In the place of an item that no message has a place for."""


InputItem = (
    MessageItem | Call | CallOutput | CustomCall | CustomOutput | Reasoning | Reference | Skipped
)

_OF_ALL = ("type", "id", "status")
_MEMBERS = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "reasoning": ("summary", "content", "encrypted_content"),
    "item_reference": (),
}
_PARTS = {
    "input_text": ("text",),
    "output_text": ("text", "annotations", "logprobs"),
    "refusal": ("refusal",),
    "input_image": ("image_url", "detail", "file_id"),
    "input_audio": ("input_audio",),
    "reasoning_text": ("text",),
    "summary_text": ("text",),
}
#: Items that say what a service of OpenAI's did: no message has a place for them.
_SKIPPED = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "image_generation_call",
        "code_interpreter_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "tool_search_call",
        "tool_search_output",
        "compaction_trigger",
    }
)


class Input(NamedTuple):
    """The input of a response.

    Attributes:
        items: each as it is listed again, without its id; a reference only has its `id`.
        messages: of each item; none for a reference.
        transient: it has items of responses that are not stored.
    """

    items: list[Item]
    messages: list[Message | None]
    transient: bool = False


def cleaned(value: Any, ignored: Ignored) -> Any:
    """An input without the members of items that change nothing; not checked otherwise.

    Raises:
        HttpError: there is a kind of item or of part that cannot be conveyed.
    """
    if type(value) is not list:
        return value
    if len(value) > MAX_ITEMS:
        raise wrong("input", f"input must hold at most {MAX_ITEMS} items")
    return [_clean(item, f"input[{i}]", ignored) for i, item in enumerate(value)]


def _clean(item: Any, path: str, ignored: Ignored) -> Any:
    if type(item) is not dict:
        return item
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if "id" in item else None
        item = {**item, "type": kind}
    if type(kind) is not str:
        raise wrong(f"{path}.type", f"{path} has no type")
    if kind in _SKIPPED:
        ignored.names[f"{path}.{kind}"] = None
        return {"type": "skipped"}
    members = _MEMBERS.get(kind)
    if members is None:
        kinds = ", ".join(_MEMBERS)
        raise wrong(
            f"{path}.type",
            f"items of the type {kind[:64]!r} are not supported; there are {kinds}",
        )
    item = _known(item, (*_OF_ALL, *members), "input[].", ignored)
    for name in ("content", "output"):
        if type(item.get(name)) is list:
            parts = enumerate(item[name])
            item[name] = [_clean_part(one, f"{path}.{name}[{i}]", ignored) for i, one in parts]
    return item


def _clean_part(part: Any, path: str, ignored: Ignored) -> Any:
    if type(part) is not dict:
        return part
    kind = part.get("type")
    if kind == "text":  # as in chats
        kind = "input_text"
        part = {**part, "type": kind}
    members = _PARTS.get(kind) if type(kind) is str else None
    if kind == "input_file":
        raise wrong(f"{path}.type", "files are not supported as input: send their text")
    if members is None:
        kinds = ", ".join(_PARTS)
        raise wrong(
            f"{path}.type", f"parts of the type {str(kind)[:64]!r} are not supported; use {kinds}"
        )
    if kind == "input_image" and part.get("image_url") is None and part.get("file_id"):
        raise wrong(f"{path}.file_id", "images must be in the request: send a data: URL")
    return _known(part, ("type", *members), "input[].content[].", ignored)


def _known(
    value: dict[str, Any], known: Sequence[str], path: str, ignored: Ignored
) -> dict[str, Any]:
    """The members that are known; the names of others are noted, once for all items."""
    return ignored.keep(value, known, path, also=value)


def parse(value: list[Any], ignored: Ignored) -> Input:
    """What items say that come from elsewhere than a body.

    Raises:
        HttpError: as `cleaned` and `read`.
    """
    found: list[InputItem] = convert(cleaned(value, ignored), list[InputItem])
    return read(found, ignored)


def read(value: str | list[InputItem], ignored: Ignored) -> Input:
    """What an input says.

    Args:
        ignored: takes the names of reasoning that cannot be read.

    Raises:
        HttpError: it is empty, or an image or a recording is not in the request itself.
    """
    if isinstance(value, str):
        value = [MessageItem("user", value)]
    items: list[Item] = []
    messages: list[Message | None] = []
    for i, one in enumerate(value):
        if isinstance(one, Reference):
            items.append({"type": "item_reference", "id": one.id})
            messages.append(None)
            continue
        if isinstance(one, Skipped):
            continue
        found = _reasoning(one) if isinstance(one, Reasoning) else _canonical(one, f"input[{i}]")
        if found is None:
            ignored.names[f"input[{i}].reasoning"] = None
            continue
        items.append(_listed(one))
        messages.append(found)
    if not items:
        raise wrong("input", "input is empty: give a text, or at least one item")
    return Input(items, messages)


def together(before: Sequence[Message], own: Sequence[Message]) -> list[Message]:
    """All messages: those of earlier responses, and behind them those of the items of this one."""
    found = list(before)
    for message in own:
        add(found, dict(message), len(before))
    for message in found[len(before) :]:
        if message["role"] == "assistant" and "tool_calls" not in message:
            message["content"] = message["content"] or ""  # it only thought
    return found


def _listed(item: InputItem) -> Item:
    """An item as it is listed: contents are lists of parts."""
    if isinstance(item, Reasoning):
        text = _thought(item)
        assert text is not None
        return reasoning(text)
    found: Item = msgspec.to_builtins(item)
    if isinstance(item, MessageItem):
        kind = "output_text" if item.role == "assistant" else "input_text"
        if isinstance(item.content, str):
            found["content"] = [{"type": kind, "text": item.content}]
    for name in ("content", "output"):
        parts = found.get(name)
        for part in parts if isinstance(parts, list) else ():
            if part["type"] == "input_image":
                part["detail"] = part["detail"] or "auto"
    return found


def _canonical(item: InputItem, path: str) -> Message:
    """The message of an item."""
    try:
        message: type[Any] = chat.Message  # type: ignore[assignment]
        made: chat.Message = convert(_as_chat(item), message)
    except HttpError as error:
        raise wrong(f"{path}.{error.param}", f"{path}.{error.message}") from None
    try:
        (found,) = chat.canonical([made])
    except HttpError as error:
        param = (error.param or path).replace("messages[0]", path)
        raise wrong(param, error.message.replace("messages[0]", path)) from None
    return found


def _as_chat(item: InputItem) -> dict[str, Any]:
    """An item as a chat has it."""
    if isinstance(item, MessageItem):
        return {"role": item.role, "content": _content(item.content)}
    if isinstance(item, CallOutput | CustomOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)}
    assert isinstance(item, Call | CustomCall)
    if isinstance(item, Call):
        arguments = item.arguments
    else:
        arguments = msgspec.json.encode({"input": item.input}).decode()
    function = {"name": item.name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": item.call_id, "function": function}]}


def _content(content: str | Sequence[Part]) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, InputText | OutputText):
        return {"type": "text", "text": part.text}
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.refusal}
    if isinstance(part, InputImage):
        return {"type": "image_url", "image_url": {"url": part.image_url}}
    audio = {"data": part.input_audio.data, "format": part.input_audio.format}
    return {"type": "input_audio", "input_audio": audio}


def _reasoning(item: Reasoning) -> Message | None:
    text = _thought(item)
    if text is None:
        return None
    return {"role": "assistant", "content": None, "reasoning_content": text}


def _thought(item: Reasoning) -> str | None:
    """The text of reasoning; None: it has none that can be read."""
    if item.content:
        return "".join(part.text for part in item.content) or None
    hidden = item.encrypted_content or ""
    if not hidden.startswith(OPEN_REASONING):
        return None
    try:
        text = base64.b64decode(hidden.removeprefix(OPEN_REASONING), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text or None
