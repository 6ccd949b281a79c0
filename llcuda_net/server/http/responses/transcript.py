"""The input of a response as messages, and back.

Items become messages: calls of tools, and the reasoning and the text before them, are one message
of the assistant. Many chat templates take one system message only, and users' messages only in
turn; so those that follow each other are merged for the model, and how is noted, since a response
that goes on from here inherits them one by one, and the items of the input can be listed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
Item = dict[str, Any]

#: What merged messages are joined with.
_BETWEEN = "\n\n"
_MERGED = ("system", "user")
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


def add(messages: list[Message], message: Message, first: int) -> None:
    """Put a message behind others; into the last one, where both are one turn of the assistant.

    Args:
        first: the first message that may still grow.
    """
    if message["role"] == "assistant" and len(messages) > first:
        last = messages[-1]
        if last["role"] == "assistant" and _ends(last) <= _begins(message):
            if message.get("content") is not None:
                last["content"] = message["content"]
            if "tool_calls" in message:
                last["tool_calls"] = [*last.get("tool_calls", ()), *message["tool_calls"]]
            return
    messages.append(message)


def _begins(message: Message) -> int:
    """Where in a turn a message begins: with reasoning, text, or calls."""
    if "reasoning_content" in message:
        return 0
    return 2 if message.get("content") is not None else 4


def _ends(message: Message) -> int:
    """Where in a turn what comes behind a message may begin."""
    if "tool_calls" in message:
        return 4
    return 3 if message.get("content") is not None else 2


def merged(messages: Sequence[Message]) -> tuple[list[Message], list[tuple[int, list[int]]]]:
    """Messages for a model, and which of them are several in one.

    Returns:
        The messages; and for each that is merged its place, and the lengths of its parts.
    """
    found: list[Message] = []
    texts: list[list[str]] = []
    for message in messages:
        plain = message.keys() == {"role", "content"} and type(message["content"]) is str
        joins = plain and message["role"] in _MERGED
        if joins and texts and texts[-1] and found[-1]["role"] == message["role"]:
            texts[-1].append(message["content"])
        else:
            found.append(message)
            texts.append([message["content"]] if joins else [])
    merges = []
    for place, parts in enumerate(texts):
        if len(parts) > 1:
            found[place] = {"role": found[place]["role"], "content": _BETWEEN.join(parts)}
            merges.append((place, [len(part) for part in parts]))
    return found, merges


def unmerged(
    messages: Sequence[Message], merges: Sequence[tuple[int, Sequence[int]]]
) -> list[Message]:
    """The messages of which `merged` made these."""
    lengths = {place: parts for place, parts in merges}  # noqa: C416 -- pairs, as they are stored
    found: list[Message] = []
    for place, message in enumerate(messages):
        start = 0
        for length in lengths.get(place, ()):
            text = message["content"][start : start + length]
            found.append({"role": message["role"], "content": text})
            start += length + len(_BETWEEN)
        if place not in lengths:
            found.append(message)
    return found


def items_of(messages: Sequence[Message]) -> list[Item]:
    """The items of messages, without ids."""
    return [item for message in messages for item in _items(message)]


def _items(message: Message) -> list[Item]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = content if type(content) is str else _parts(content, "input_text")
        call = message["tool_call_id"]
        return [{"type": "function_call_output", "call_id": call, "output": output}]
    found: list[Item] = []
    if thought := message.get("reasoning_content"):
        found.append(reasoning(thought))
    if content is not None:
        text = "output_text" if role == "assistant" else "input_text"
        found.append({"type": "message", "role": role, "content": _parts(content, text)})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        found.append(
            {
                "type": "function_call",
                "call_id": call["id"],
                "name": function["name"],
                "arguments": function["arguments"],
            }
        )
    return found


def prefix_of(item: Item) -> str:
    """What the id of an item of an input begins with."""
    kind = item["type"]
    return _PREFIXES.get(kind, "fco" if kind.endswith("_output") else "item")


def text_of(item: Item) -> str:
    """The text of a message; empty: there is none."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if part.get("text"))


def shown(item: Item) -> Item:
    """An item of a list, with what clients expect of a model's text."""
    if item["type"] != "message" or item["role"] != "assistant":
        return item
    content = [
        {"annotations": [], **part} if part["type"] == "output_text" else part
        for part in item["content"]
    ]
    return {**item, "content": content}


def reasoning(text: str) -> Item:
    """Reasoning as an item."""
    return {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def _parts(content: Any, text: str) -> list[dict[str, Any]]:
    if type(content) is str:
        return [{"type": text, "text": content}]
    return [_part(part, text) for part in content]


def _part(part: dict[str, Any], text: str) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": text, "text": part["text"]}
    if part["type"] == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
    return part
