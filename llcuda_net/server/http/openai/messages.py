"""The messages of a chat: as clients send them, and as everything behind here has them.

They stay in OpenAI's shape. What differs: `developer` becomes `system`; parts that are all text
become one text, so that plain chats are plain; images and audio must be in the request itself.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.fields import Ignored

#: Most messages of a chat.
MAX_MESSAGES = 100_000
#: What parts of one text are joined with, as llama-server does.
_BETWEEN = "\n"

_BASE64 = (string.ascii_letters + string.digits + "+/").encode()

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A part of a message: text."""

    text: str


class ImageUrl(msgspec.Struct):
    """Where an image is: in the URL itself."""

    url: str
    detail: str | None = None


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    """A part of a message: an image."""

    image_url: ImageUrl


class Audio(msgspec.Struct):
    """A recording, in base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio"):
    """A part of a message: a recording."""

    input_audio: Audio


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """A part of an answer: what the model said instead."""

    refusal: str


class FunctionCall(msgspec.Struct):
    """Which function to call, and its arguments as JSON."""

    name: _Name
    arguments: str


class ToolCall(msgspec.Struct):
    """A call of a tool, in an answer of the model."""

    id: _Name
    function: FunctionCall
    type: Literal["function"] = "function"


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    """What the model is to do."""

    content: str | list[TextPart]
    name: _Name | None = None


class DeveloperMessage(msgspec.Struct, tag_field="role", tag="developer"):
    """The same by its newer name."""

    content: str | list[TextPart]
    name: _Name | None = None


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    """What the user says."""

    content: str | list[TextPart | ImagePart | AudioPart]
    name: _Name | None = None


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """What the model answered."""

    content: str | list[TextPart | RefusalPart] | None = None
    name: _Name | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    """What a tool answered."""

    content: str | list[TextPart | ImagePart]
    tool_call_id: _Name
    name: _Name | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage

_MEMBERS = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "name", "refusal", "reasoning_content", "tool_calls"),
    "tool": ("role", "content", "name", "tool_call_id"),
}
#: Members of messages and parts that clients send back as they got them, and that change nothing.
_SENT_BACK = ("annotations", "provider_specific_fields", "cache_control", "id", "index")
_PARTS = {
    "text": ("type", "text"),
    "image_url": ("type", "image_url"),
    "input_audio": ("type", "input_audio"),
    "refusal": ("type", "refusal"),
}


def cleaned(messages: Any, ignored: Ignored) -> Any:
    """Messages without the members that change nothing; not checked otherwise.

    Raises:
        HttpError: there is a member, a role or a kind of part that is not supported.
    """
    if type(messages) is not list:
        return messages
    return [_clean(one, f"messages[{i}]", ignored) for i, one in enumerate(messages)]


def _clean(message: Any, path: str, ignored: Ignored) -> Any:
    if type(message) is not dict:
        return message
    role = message.get("role")
    members = _MEMBERS.get(role) if type(role) is str else None
    if members is None:
        if role == "function":
            raise wrong(f"{path}.role", "the role function is not supported: use tool")
        return message
    if role == "assistant" and "reasoning" in message:  # the same by another name
        message = dict(message)
        thought = message.pop("reasoning")
        if type(thought) is str:
            message.setdefault("reasoning_content", thought)
    message = ignored.keep(message, members, f"{path}.", _SENT_BACK)
    content = message.get("content")
    if type(content) is list:
        message["content"] = [
            _clean_part(part, f"{path}.content[{i}]", ignored) for i, part in enumerate(content)
        ]
    calls = message.get("tool_calls")
    if type(calls) is list:
        message["tool_calls"] = [
            ignored.keep(call, ("id", "type", "function"), f"{path}.tool_calls[{i}].", _SENT_BACK)
            if type(call) is dict
            else call
            for i, call in enumerate(calls)
        ]
    return message


def _clean_part(part: Any, path: str, ignored: Ignored) -> Any:
    if type(part) is not dict:
        return part
    kind = part.get("type")
    if kind is None:
        raise wrong(f"{path}.type", f"{path}.type: it is missing")
    members = _PARTS.get(kind) if type(kind) is str else None
    if members is None:
        if type(kind) is str:
            kinds = ", ".join(_PARTS)
            raise wrong(
                f"{path}.type",
                f"parts of the type {kind[:64]!r} are not supported; there are {kinds}",
            )
        return part
    return ignored.keep(part, members, f"{path}.", _SENT_BACK)


def canonical(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as everything behind here has them.

    Raises:
        HttpError: there are none, or an image or a recording is not in the request itself.
    """
    if not messages:
        raise wrong("messages", "messages is empty: give at least one")
    if len(messages) > MAX_MESSAGES:
        raise wrong("messages", f"messages must hold at most {MAX_MESSAGES}")
    return [_canonical(one, f"messages[{i}]") for i, one in enumerate(messages)]


def _canonical(message: Message, path: str) -> dict[str, Any]:
    content = _content(message.content, f"{path}.content")
    if isinstance(message, SystemMessage | DeveloperMessage):
        found: dict[str, Any] = {"role": "system", "content": content}
    elif isinstance(message, UserMessage):
        found = {"role": "user", "content": content}
    elif isinstance(message, ToolMessage):
        found = {"role": "tool", "content": content, "tool_call_id": message.tool_call_id}
    else:
        if content is None and message.refusal:
            content = message.refusal
        found = {"role": "assistant", "content": content}
        if message.reasoning_content:
            found["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            found["tool_calls"] = msgspec.to_builtins(message.tool_calls)
            for call in found["tool_calls"]:
                call["type"] = "function"
        elif content is None:
            raise wrong(f"{path}.content", f"{path} has neither content nor tool_calls")
    if message.name is not None:
        found["name"] = message.name
    return found


def _content(content: Any, path: str) -> Any:
    if type(content) is not list:
        return content
    parts = [_part(part, f"{path}[{i}]") for i, part in enumerate(content)]
    if all(type(part) is str for part in parts):
        return _BETWEEN.join(parts)
    return [{"type": "text", "text": p} if type(p) is str else p for p in parts]


def _part(part: Any, path: str) -> Any:
    """A part; one that is text, as a text."""
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, RefusalPart):
        return part.refusal
    if isinstance(part, ImagePart):
        url = part.image_url.url
        head, comma, data = url.partition(",")
        if not head.startswith("data:"):
            raise wrong(
                f"{path}.image_url.url",
                "only data: URLs are supported: the server fetches no images. "
                "Send data:image/png;base64,...",
            )
        if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
            raise wrong(f"{path}.image_url.url", "the URL must begin with data:image/TYPE;base64,")
        check_base64(data, f"{path}.image_url.url")
        return {"type": "image_url", "image_url": {"url": url}}
    audio = part.input_audio
    check_base64(audio.data, f"{path}.input_audio.data")
    return {"type": "input_audio", "input_audio": {"data": audio.data, "format": audio.format}}


def check_base64(data: str, path: str) -> None:
    """Return if it is base64, and not empty.

    Raises:
        HttpError: it is not.
    """
    digits = data.rstrip("=")
    padding = len(data) - len(digits)
    if not digits:
        raise wrong(path, f"{path} is empty")
    # Many megabytes, while everybody waits: much faster than to decode it.
    known = digits.isascii() and not digits.encode().translate(None, _BASE64)
    if not known or padding > 2 or len(data) % 4:
        raise wrong(path, f"{path} is not valid base64 (RFC 4648, section 4, with padding)")
