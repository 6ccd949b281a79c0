"""The prompt of a chat, in which what people wrote cannot end their turn.

A chat template joins roles and messages into one text, in which special tokens are spelled out; a
message that holds `<|im_end|>` would end its turn there. So such a message is tokenised apart from
the template, as plain text, and the prompt is sent as token ids. All others, which is nearly all,
are sent as text: they cost nothing more.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Protocol

from llcuda_net.errors import Unsupported
from llcuda_net.upstream.interface import Properties
from llcuda_net.upstream.prompts.messages import check_roles

Messages = list[dict[str, str]]

#: Without these no text spells a special token of any known vocabulary.
_MAY_BE_SPECIAL = re.compile(r"<[^<]*>|\[[^\[]*\]|>>|\uff5c")
#: What templates do to a message before they write it.
_CHANGES: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)


class _Renders(Protocol):
    """What is asked of an upstream; see there."""

    async def ask(self) -> Properties: ...

    async def render(self, messages: Messages) -> str: ...

    async def tokenize(self, text: str, *, special: bool, literal: bool = False) -> list[int]: ...


async def prompt_of(messages: Messages, upstream: _Renders) -> str | list[int]:
    """The prompt that the model's chat template makes of messages: text, or token ids.

    Raises:
        RequestError: the model has no template, or refuses them; or a message spells special
            tokens, and the template does not allow to take them as text.
    """
    check_roles(messages)
    contents = [message["content"] for message in messages]
    special = [place for place, text in enumerate(contents) if await _is_special(text, upstream)]
    properties = await upstream.ask()
    if not properties.has_template:
        if len(messages) != 1 or messages[0]["role"] != "user":
            raise Unsupported(
                f"the model {properties.model} has no chat template; send one message, or a raw "
                "prompt",
            )
        if special:
            return await upstream.tokenize(contents[0], special=True, literal=True)
        return contents[0]
    rendered = await upstream.render(messages)
    if not special:
        return rendered
    # Words that nobody wrote stand for the messages, and show where the template puts these.
    words = [f"{secrets.token_hex(12)}x{place}x" for place in special]
    stand_ins = [dict(message) for message in messages]
    for place, word in zip(special, words, strict=True):
        stand_ins[place]["content"] = word
    text = await upstream.render(stand_ins)
    places = dict(zip(words, special, strict=True))
    parts = re.split("(" + "|".join(words) + ")", text)
    if sorted(parts[1::2]) == sorted(words):
        whole = _as_rendered(parts, {word: contents[at] for word, at in places.items()}, rendered)
        if whole is not None:
            return await _tokenised(whole, upstream)
    raise Unsupported(
        "a message spells a special token of the model, such as <|im_end|>, and its chat template "
        "does not allow to take it as text; leave it out, or send a raw prompt",
    )


async def _is_special(text: str, upstream: _Renders) -> bool:
    """Whether a text would become other tokens than its letters say."""
    if not _MAY_BE_SPECIAL.search(text):
        return False
    plain = await upstream.tokenize(text, special=False, literal=True)
    return plain != await upstream.tokenize(text, special=False)


def _as_rendered(parts: list[str], contents: dict[str, str], rendered: str) -> list[str] | None:
    """The parts with the messages in their places, as the template wrote them; None: it did else.

    Args:
        parts: of the template and of words that stand for messages, in turn.
        contents: the message of each word.
    """
    out, at = [], 0
    for number, part in enumerate(parts):
        found = part
        if number % 2:
            after = parts[number + 1]
            fits = [
                changed
                for change in _CHANGES
                if rendered.startswith((changed := change(contents[part])) + after, at)
            ]
            if not fits:
                return None
            found = max(fits, key=len)
        elif not rendered.startswith(part, at):
            return None
        out.append(found)
        at += len(found)
    return out if at == len(rendered) else None


async def _tokenised(parts: list[str], upstream: _Renders) -> list[int]:
    """The ids of a template's parts and, between them, of messages."""
    ids: list[int] = []
    for number, part in enumerate(parts):
        if part or not number:
            is_message = number % 2 == 1
            ids += await upstream.tokenize(part, special=not number, literal=is_message)
    return ids
