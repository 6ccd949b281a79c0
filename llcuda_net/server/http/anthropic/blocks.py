"""The messages of Anthropic's API as clients send them: roles and content blocks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llcuda_net.server.http.openai.bodies import wrong
from llcuda_net.server.http.openai.fields import Ignored

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class Base64Source(msgspec.Struct, tag_field="type", tag="base64"):
    """An image, in the request itself."""

    data: str
    media_type: str


class ImageBlock(msgspec.Struct, tag_field="type", tag="image"):
    """An image."""

    source: Base64Source


class PlainTextSource(msgspec.Struct, tag_field="type", tag="text"):
    """The text of a document."""

    data: str
    media_type: str = "text/plain"


class ContentSource(msgspec.Struct, tag_field="type", tag="content"):
    """A document in blocks."""

    content: str | list[TextBlock | ImageBlock]


class DocumentBlock(msgspec.Struct, tag_field="type", tag="document"):
    """A document that is text."""

    source: PlainTextSource | ContentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(msgspec.Struct, tag_field="type", tag="search_result"):
    """Something that was found, and where."""

    source: str
    title: str
    content: list[TextBlock]


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """What the model thought; any signature will do."""

    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """What another model thought, which nobody here can read."""

    data: str | None = None


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call of a tool, in an answer of the model."""

    id: _Name
    name: _Name
    input: dict[str, Any]


class ToolReferenceBlock(msgspec.Struct, tag_field="type", tag="tool_reference"):
    """The name of a tool that a search for tools has found."""

    tool_name: _Name


ResultBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What a tool answered."""

    tool_use_id: _Name
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


UserBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolResultBlock
AssistantBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock


class UserTurn(msgspec.Struct, tag_field="role", tag="user"):
    """What the user says, and what tools answered."""

    content: str | list[UserBlock]


class AssistantTurn(msgspec.Struct, tag_field="role", tag="assistant"):
    """What the model answered."""

    content: str | list[AssistantBlock]


class SystemTurn(msgspec.Struct, tag_field="role", tag="system"):
    """What the model is to do from here on."""

    content: str | list[TextBlock]


Turn = UserTurn | AssistantTurn | SystemTurn

#: The members of each kind of block.
MEMBERS: dict[str, tuple[str, ...]] = {
    "text": ("type", "text"),
    "image": ("type", "source"),
    "document": ("type", "source", "title", "context"),
    "search_result": ("type", "source", "title", "content"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
    "tool_result": ("type", "tool_use_id", "content", "is_error"),
    "tool_reference": ("type", "tool_name"),
}
#: Those of any that change nothing.
_IDLE = ("cache_control", "citations", "caller", "toolset_name", "id", "parsed_output")
#: What to do instead of sources that are refused, by their types.
_SOURCES = {
    "url": "only data in the request itself is taken, as the server fetches nothing: send base64",
    "file": "only data in the request itself is taken: there are no files",
}


def cleaned(turns: Any, ignored: Ignored) -> Any:
    """Messages without the members that change nothing; not checked otherwise.

    Raises:
        HttpError: there is a member or a kind of block that is not supported.
    """
    if type(turns) is not list:
        return turns
    return [_turn(one, f"messages[{i}]", ignored) for i, one in enumerate(turns)]


def cleaned_blocks(content: Any, path: str, ignored: Ignored) -> Any:
    """The same of content: a text, or blocks.

    Raises:
        HttpError: as `cleaned`.
    """
    if type(content) is not list:
        return content
    return [_block(one, f"{path}[{i}]", ignored) for i, one in enumerate(content)]


def _turn(turn: Any, path: str, ignored: Ignored) -> Any:
    if type(turn) is not dict:
        return turn
    turn = ignored.keep(turn, ("role", "content"), f"{path}.", ("id", "cache_control"))
    turn["content"] = cleaned_blocks(turn.get("content"), f"{path}.content", ignored)
    return turn


def _block(block: Any, path: str, ignored: Ignored) -> Any:
    if type(block) is not dict:
        return block
    kind = block.get("type")
    members = MEMBERS.get(kind) if type(kind) is str else None
    if members is None:
        if type(kind) is not str:
            return block
        kinds = ", ".join(MEMBERS)
        raise wrong(
            f"{path}.type", f"blocks of the type {kind[:64]!r} are not supported; there are {kinds}"
        )
    block = ignored.keep(block, members, f"{path}.", [one for one in _IDLE if one not in members])
    if kind == "redacted_thinking":
        ignored.names[path] = None
    if "source" in block and kind != "search_result":
        block["source"] = _source(block["source"], kind, f"{path}.source", ignored)
    if "content" in block:
        block["content"] = cleaned_blocks(block["content"], f"{path}.content", ignored)
    return block


def _source(source: Any, kind: Any, path: str, ignored: Ignored) -> Any:
    """The source of an image or a document."""
    if type(source) is not dict:
        return source
    of = source.get("type")
    if type(of) is str and of in _SOURCES:
        raise wrong(f"{path}.type", f"{path}: {_SOURCES[of]}")
    if kind == "document" and of == "base64":
        raise wrong(f"{path}.type", f"{path}: documents must be text, such as {{type: text, data}}")
    if of == "content":
        content = cleaned_blocks(source.get("content"), f"{path}.content", ignored)
        return ignored.keep({**source, "content": content}, ("type", "content"), f"{path}.")
    return ignored.keep(source, ("type", "data", "media_type"), f"{path}.")
