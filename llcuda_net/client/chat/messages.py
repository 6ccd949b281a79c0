"""Messages of a chat: as a user gives them, in the shapes of OpenAI's API, and as they are sent.

On the wire images and recordings are bytes, where that API has base64.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llcuda_net.client.chat.parts import Source, audio, decoded, image, part
from llcuda_net.errors import InvalidRequest

#: Bytes of images and recordings that a request may have in its own frame. What is beyond is
#: uploaded in pieces, so that no frame holds up the other streams.
INLINE = 64 * 1024

Message = dict[str, Any]
_LATER_KEYS = {"name", "reasoning_content", "tool_calls", "tool_call_id"}


def chat_messages(
    prompt: str | None,
    messages: Iterable[Mapping[str, Any]] | None,
    system: str | None,
    images: Sequence[Source],
    sounds: Sequence[Source],
) -> list[Message]:
    """The messages of a request as they are sent.

    Args:
        prompt, images, sounds: what one user message has, where there are no `messages`.
        system: a message to put before them.

    Raises:
        ConfigError: an image or a recording is none, or cannot be read.
        InvalidRequest: a message is not of its shape, or there is none.
    """
    if messages is not None:
        found = [_message(message) for message in messages]
    else:
        parts = [*map(image, images), *map(audio, sounds)]
        text: list[Any] = [prompt] if prompt else []
        content: Any = [*parts, *text] if parts else prompt
        found = [_message({"role": "user", "content": content})] if content else []
    if not found:
        raise InvalidRequest("the prompt is empty")
    return found if system is None else [{"role": "system", "content": system}, *found]


def is_plain(messages: Iterable[Message]) -> bool:
    """Whether no message has more than earlier servers take: a role and a text."""
    return all(
        message.keys().isdisjoint(_LATER_KEYS) and not isinstance(message.get("content"), list)
        for message in messages
    )


def media_of(messages: Iterable[Message]) -> list[Message]:
    """The parts with images and recordings, in their order."""
    return [
        each
        for message in messages
        if isinstance(content := message.get("content"), list)
        for each in content
        if "data" in each
    ]


def to_upload(messages: Iterable[Message]) -> list[bytes]:
    """What does not fit into the request's own frame, in the order of the parts."""
    found, inline = [], 0
    for each in media_of(messages):
        data: bytes = each["data"]
        if inline + len(data) <= INLINE:
            inline += len(data)
        else:
            found.append(data)
    return found


def with_uploads(messages: list[Message], uploads: Mapping[int, int]) -> list[Message]:
    """The messages, with the numbers of uploads in place of what was uploaded.

    Args:
        uploads: the number of each upload, by the identity of its data.
    """

    def replaced(each: Message) -> Message:
        number = uploads.get(id(each.get("data")))
        if number is None:
            return each
        return {key: value for key, value in each.items() if key != "data"} | {"upload": number}

    return [
        {**message, "content": [replaced(each) for each in content]}
        if isinstance(content := message.get("content"), list)
        else message
        for message in messages
    ]


def _message(message: Mapping[str, Any]) -> Message:
    if not isinstance(message, Mapping):
        raise InvalidRequest(f"a message is a mapping with role and content, not {message!r:.40}")
    # Answers of other libraries name everything, most of it None.
    found = {key: value for key, value in message.items() if value is not None}
    content = found.get("content")
    if content is not None and not isinstance(content, str):
        found["content"] = [decoded(part(each)) for each in _parts(content)]
    if isinstance(calls := found.get("tool_calls"), list | tuple):
        found["tool_calls"] = [_call(call) for call in calls]
    return found


def _parts(content: Any) -> list[Any]:
    if isinstance(content, Sequence) and not isinstance(content, bytes | bytearray | memoryview):
        return [*content]
    return [content]  # a part alone


def _call(call: Any) -> Any:
    """A tool call of an earlier answer; its arguments may be JSON's values."""
    if not isinstance(call, Mapping):
        return call
    function = call.get("function")
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), Mapping):
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        return {**call, "function": {**function, "arguments": arguments}}
    return {key: value for key, value in call.items() if value is not None}
