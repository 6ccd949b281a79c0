"""The messages of a chat as they come on the wire, in the shape that they have everywhere inside.

Inside they are those of OpenAI's API for chat completions. On the wire images and audio are binary,
or in uploads; here they become data: URLs and base64. `developer` is another name for `system`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from llcuda_net.errors import InvalidRequest

Find = Callable[[int], bytes | bytearray]


def canonical(messages: list[dict[str, Any]], find: Find) -> list[dict[str, Any]]:
    """Messages that the protocol has checked, as the rest of the server takes them.

    Those of text alone, as most are, stay the same objects.

    Args:
        find: the data of an upload, by its number; or raises InvalidRequest.
    """
    return [_canonical(message, find) for message in messages]


def uploads_in(messages: list[dict[str, Any]]) -> list[int]:
    """The numbers of the uploads that messages name.

    Raises:
        InvalidRequest: one is named twice. It would be there twice, and so a few bytes of a request
            would become any number of bytes.
    """
    numbers = [
        part["upload"]
        for message in messages
        if type(message.get("content")) is list
        for part in message["content"]
        if "upload" in part
    ]
    if len(set(numbers)) != len(numbers):
        raise InvalidRequest("an upload may be in one place of the messages only")
    return numbers


def _canonical(message: dict[str, Any], find: Find) -> dict[str, Any]:
    content = message.get("content")
    role = message["role"]
    if len(message) == 2 and type(content) is str and role != "developer":
        return message
    found = {**message, "role": "system" if role == "developer" else role, "content": content}
    if type(content) is list:
        found["content"] = [_part(part, find) for part in content]
    if "tool_calls" in message:
        found["tool_calls"] = [{"type": "function", **call} for call in message["tool_calls"]]
    return found


def _part(part: dict[str, Any], find: Find) -> dict[str, Any]:
    kind = part["type"]
    if kind == "text":
        return part
    data = part["data"] if "data" in part else find(part["upload"])
    encoded = b64encode(data).decode()
    if kind == "image":
        return {
            "type": "image_url",
            "image_url": {"url": f"data:{part['media_type']};base64,{encoded}"},
        }
    return {"type": "input_audio", "input_audio": {"data": encoded, "format": part["format"]}}
