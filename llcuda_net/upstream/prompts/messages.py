"""Messages of a chat, in the shapes of OpenAI's API: what is in them, and as plain text.

Who takes them in has checked their shapes. What an upstream would fetch from elsewhere is refused
here all the same: a URL in a message must bring its data along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llcuda_net.errors import InvalidRequest, Unsupported
from llcuda_net.upstream.interface import Properties

Messages = list[dict[str, Any]]

_SENSES = {"image_url": "images", "input_audio": "audio"}
_ROLE = re.compile(r"[A-Za-z0-9 _.-]{1,64}")
#: Between the texts of one message, as llama-server joins them.
_BETWEEN = "\n"


def are_plain(messages: Messages) -> bool:
    """Whether they are nothing but text: no images, sounds, tool calls or results of tools."""
    return not any(
        one["role"] == "tool" or one.get("tool_calls") or next(_others(one), None) is not None
        for one in messages
    )


def senses_of(messages: Messages | None) -> frozenset[str]:
    """What a model must take beside text to answer them; see Requirement."""
    return frozenset(
        _SENSES[kind]
        for one in messages or ()
        for part in _others(one)
        if (kind := part.get("type")) in _SENSES
    )


def flat(messages: Messages) -> list[dict[str, str]]:
    """Plain messages, with the text of each in one piece."""
    return [
        one
        if isinstance(content := one.get("content"), str)
        else {**one, "content": _BETWEEN.join(part["text"] for part in content or ())}
        for one in messages
    ]


def check_roles(messages: Messages) -> None:
    """Return if the roles of messages are words: a template writes them as they are.

    Raises:
        InvalidRequest: one is none.
    """
    if not all(_ROLE.fullmatch(one["role"]) for one in messages):
        raise InvalidRequest("a role must be a word such as user or assistant")


def check_parts(messages: Messages, properties: Properties) -> None:
    """Return if a model can take what is in messages.

    Raises:
        Unsupported: it has no eyes, or no ears.
        InvalidRequest: a part is none that an upstream knows, or would have it fetch something.
    """
    for message in messages:
        for part in _others(message):
            kind = part.get("type")
            if kind not in _SENSES:
                raise InvalidRequest(f"there is no part of a message of type {kind!r:.60}")
            if kind == "image_url" and not part["image_url"]["url"].startswith("data:"):
                raise InvalidRequest("an image must be in the message itself, as a data: URL")
            if _SENSES[kind] not in properties.abilities:
                raise Unsupported(f"the model {properties.model} takes no {_SENSES[kind]}")


def _others(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a message that are no text."""
    content = message.get("content")
    if isinstance(content, list):
        yield from (part for part in content if part.get("type") != "text")
