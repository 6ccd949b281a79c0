"""Messages of Anthropic's API, brought into the one shape that everything behind here has.

That is OpenAI's, as openai/messages.py makes it. What differs:

- `system` becomes a first message. A system message on the way, which most chat templates refuse,
  becomes a part of the user's turn.
- Results of tools, which are blocks of a user's message here, become messages before it.
- Neighbours of one role are one turn, as Anthropic's API has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from llcuda_net.server.http.anthropic import blocks
from llcuda_net.server.http.anthropic.blocks import (
    AssistantTurn,
    DocumentBlock,
    ImageBlock,
    PlainTextSource,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
    UserTurn,
)
from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.messages import MAX_MESSAGES, check_base64

#: What the texts of one turn are joined with.
_BETWEEN = "\n"
#: What is around a system message on the way; Claude Code tells its model of these tags.
_REMINDER = "<system-reminder>\n{}\n</system-reminder>"
#: What a result begins with that is an error.
_ERROR = "Error: "
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")

_Part = str | dict[str, Any]


def canonical(
    turns: Sequence[Turn], system: str | Sequence[TextBlock] | None
) -> list[dict[str, Any]]:
    """Messages as everything behind here has them.

    Raises:
        HttpError: there are none, or an image is no image.
    """
    if not turns:
        raise wrong("messages", "messages is empty: give at least one")
    if len(turns) > MAX_MESSAGES:
        raise wrong("messages", f"messages must hold at most {MAX_MESSAGES}")
    before = [_text(system)] if system else []
    found: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        path = f"messages[{number}].content"
        if isinstance(turn, AssistantTurn):
            _add_answer(found, turn)
        elif isinstance(turn, UserTurn):
            _add_user(found, turn, path)
        elif found:
            _add_parts(found, [_REMINDER.format(_text(turn.content))])
        else:
            before.append(_text(turn.content))
    if not found:
        raise wrong("messages", "messages holds no message of the user")
    for message in found:
        if message["role"] == "user":
            message["content"] = _joined(message["content"])
    if before:
        found.insert(0, {"role": "system", "content": _BETWEEN.join(before)})
    return found


def _text(content: str | Iterable[TextBlock]) -> str:
    return content if isinstance(content, str) else _BETWEEN.join(one.text for one in content)


def _add_user(found: list[dict[str, Any]], turn: UserTurn, path: str) -> None:
    """What tools answered, and then what the user says."""
    if isinstance(turn.content, str):
        _add_parts(found, [turn.content])
        return
    said: list[_Part] = []
    for number, block in enumerate(turn.content):
        where = f"{path}[{number}]"
        if isinstance(block, ToolResultBlock):
            found.append(
                {
                    "role": "tool",
                    "content": _joined(_result(block, where)),
                    "tool_call_id": block.tool_use_id,
                }
            )
        else:
            said += _parts(block, where)
    if said or not turn.content:
        _add_parts(found, said)


def _add_parts(found: list[dict[str, Any]], parts: list[_Part]) -> None:
    """Add to the user's turn, or begin one; its content is a list until all is there."""
    if found and found[-1]["role"] == "user":
        found[-1]["content"] += parts
    else:
        found.append({"role": "user", "content": parts})


def _add_answer(found: list[dict[str, Any]], turn: AssistantTurn) -> None:
    """What the model answered."""
    content = turn.content
    given = [TextBlock(content)] if isinstance(content, str) else content
    thought = _BETWEEN.join(one.thinking for one in given if isinstance(one, ThinkingBlock))
    calls = [
        {
            "id": one.id,
            "type": "function",
            "function": {"name": one.name, "arguments": msgspec.json.encode(one.input).decode()},
        }
        for one in given
        if isinstance(one, ToolUseBlock)
    ]
    texts = [one.text for one in given if isinstance(one, TextBlock)]
    message: dict[str, Any] = {"role": "assistant", "content": _BETWEEN.join(texts)}
    if found and found[-1]["role"] == "assistant":
        message = found.pop()
        texts = [*filter(None, [message["content"]]), *texts]
        message["content"] = _BETWEEN.join(texts)
        thought = _BETWEEN.join(filter(None, [message.get("reasoning_content"), thought]))
        calls = [*message.get("tool_calls", []), *calls]
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    found.append(message)


def _result(block: ToolResultBlock, path: str) -> list[_Part]:
    """The parts of what a tool answered."""
    content = block.content or ""
    parts: list[_Part] = []
    if isinstance(content, str):
        parts.append(content)
    else:
        for number, one in enumerate(content):
            parts += _parts(one, f"{path}.content[{number}]")
    if block.is_error:
        first = parts[0] if parts else ""
        if isinstance(first, str):
            parts[:1] = [_ERROR + first]
        else:
            parts.insert(0, _ERROR)
    return parts


def _parts(block: blocks.UserBlock | blocks.ResultBlock, path: str) -> list[_Part]:
    """The parts that a block is: texts, and images as OpenAI's API has them."""
    if isinstance(block, TextBlock):
        return [block.text]
    if isinstance(block, ImageBlock):
        return [_image(block, f"{path}.source")]
    if isinstance(block, DocumentBlock):
        return _document(block, path)
    if isinstance(block, SearchResultBlock):
        return [_BETWEEN.join([block.title, block.source, _text(block.content)])]
    assert isinstance(block, ToolReferenceBlock)
    return [f"There is a tool {block.tool_name}."]


def _document(block: DocumentBlock, path: str) -> list[_Part]:
    """The text of a document, with its title and what is to know of it before it."""
    parts: list[_Part] = [one for one in (block.title, block.context) if one]
    source = block.source
    if isinstance(source, PlainTextSource):
        return [*parts, source.data]
    if isinstance(source.content, str):
        return [*parts, source.content]
    for number, one in enumerate(source.content):
        parts += _parts(one, f"{path}.source.content[{number}]")
    return parts


def _image(block: ImageBlock, path: str) -> dict[str, Any]:
    source = block.source
    if source.media_type not in _IMAGES:
        kinds = ", ".join(_IMAGES)
        raise wrong(f"{path}.media_type", f"{path}.media_type must be one of {kinds}")
    check_base64(source.data, f"{path}.data")
    url = f"data:{source.media_type};base64,{source.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _joined(parts: Sequence[_Part]) -> Any:
    """Parts that are all text, as one text, so that plain chats are plain."""
    if all(isinstance(part, str) for part in parts):
        return _BETWEEN.join(part for part in parts if isinstance(part, str))
    return [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
