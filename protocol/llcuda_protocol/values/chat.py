"""The messages of a chat, and its options: what generate carries beside a prompt.

Both have the shapes of OpenAI's API for chat completions, with one difference: images and audio are
binary, or name an upload, where that API has base64. SPEC.md, section 9.3, has the tables.
"""

from __future__ import annotations

import re
from typing import Any

from llcuda_protocol.kinds import MAX_MAX_FRAME, MAX_STREAM
from llcuda_protocol.schema import (
    BODY,
    MAX_DEPTH,
    NAME,
    WORD,
    Check,
    Field,
    blob,
    boolean,
    check_json,
    integer,
    json_map,
    list_of,
    record,
    text,
)


def _word_of(pattern: str, says: str) -> Check:
    """A string that matches a pattern as a whole: it becomes part of a URL, unescaped."""
    compiled = re.compile(pattern)

    def check(value: Any, name: str) -> str:
        WORD.apply(value, name)
        if not compiled.fullmatch(value):
            raise ValueError(f"{name} must be {says}")
        return str(value)

    return Check(says, check)


def _one_of(*words: str) -> Check:
    says = " or ".join(f"`{word}`" for word in words)

    def check(value: Any, name: str) -> str:
        if type(value) is not str or value not in words:
            raise ValueError(f"{name} must be {' or '.join(map(repr, words))}")
        return value

    return Check(says, check)


def _not_empty(check: Check) -> Check:
    def apply(value: Any, name: str) -> Any:
        if not check.apply(value, name):
            raise ValueError(f"{name} must not be empty")
        return value

    return Check(f"{check.says}, not empty", apply)


_FUNCTION = _one_of("function")
_DATA = _not_empty(blob(MAX_MAX_FRAME))
_UPLOAD = integer(1, MAX_STREAM)

# -- messages ---------------------------------------------------------------------------------

#: The keys of each type of part.
PART_FIELDS: dict[str, dict[str, Field]] = {
    "text": {
        "type": Field(_one_of("text"), required=True),
        "text": Field(BODY, required=True),
    },
    "image": {
        "type": Field(_one_of("image"), required=True),
        "media_type": Field(
            _word_of(r"image/[a-z0-9][a-z0-9.+-]*", "`image/` and a subtype in lower case"),
            required=True,
        ),
        "data": Field(_DATA),
        "upload": Field(_UPLOAD),
    },
    "audio": {
        "type": Field(_one_of("audio"), required=True),
        "format": Field(
            _word_of(r"[a-z0-9]{1,16}", "1 to 16 letters in lower case or digits"), required=True
        ),
        "data": Field(_DATA),
        "upload": Field(_UPLOAD),
    },
}
_PARTS = {name: record(fields, closed=True) for name, fields in PART_FIELDS.items()}


def _check_part(value: Any, name: str) -> dict[str, Any]:
    kind = value.get("type") if type(value) is dict else None
    if type(kind) is not str or kind not in _PARTS:
        raise ValueError(f"{name} must be a map whose type is one of {', '.join(_PARTS)}")
    found: dict[str, Any] = _PARTS[kind].apply(value, name)
    if kind != "text" and ("data" in found) == ("upload" in found):
        raise ValueError(f"{name} of type {kind} needs data or upload, one of the two")
    return found


_PART_LIST = list_of(Check("part", _check_part), 1024, 1)


def _check_content(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return value
    if type(value) is list:
        return _PART_LIST.apply(value, name)
    raise ValueError(f"{name} must be a string or a list of parts, not {type(value).__name__}")


#: The keys of a call in a message.
TOOL_CALL_FIELDS = {
    "id": Field(NAME, required=True),
    "type": Field(_FUNCTION),
    "function": Field(
        record(
            {
                "name": Field(_not_empty(NAME), required=True),
                "arguments": Field(BODY, required=True),
            },
            closed=True,
        ),
        required=True,
    ),
}
#: The keys of a message.
MESSAGE_FIELDS = {
    "role": Field(WORD, required=True),
    "content": Field(Check(f"string, or {_PART_LIST.says}", _check_content)),
    "name": Field(NAME),
    "reasoning_content": Field(BODY),
    "tool_calls": Field(list_of(record(TOOL_CALL_FIELDS, closed=True), 128, 1)),
    "tool_call_id": Field(NAME),
}
#: Keys that belong to messages of one role.
_OF_ROLE = {
    "reasoning_content": "assistant",
    "tool_calls": "assistant",
    "tool_call_id": "tool",
}
_MESSAGE = record(MESSAGE_FIELDS, closed=True)


def _check_message(value: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = _MESSAGE.apply(value, name)
    if len(found) == 2 and "content" in found:  # as most are
        return found
    if "content" not in found and "tool_calls" not in found:
        raise ValueError(f"{name} lacks 'content'")
    for key, role in _OF_ROLE.items():
        if key in found and found["role"] != role:
            raise ValueError(f"{name}.{key} is for messages of the role {role}")
    return found


MESSAGE = Check("message", _check_message)

# -- options ----------------------------------------------------------------------------------

#: The keys of the function of a tool.
FUNCTION_FIELDS = {
    "name": Field(_not_empty(NAME), required=True),
    "description": Field(BODY),
    "parameters": Field(json_map(256)),
    "strict": Field(boolean),
}
_TOOL = record(
    {
        "type": Field(_FUNCTION, required=True),
        "function": Field(record(FUNCTION_FIELDS, closed=True), required=True),
    },
    closed=True,
)
_MODES = ("none", "auto", "required")
_CHOSEN = record(
    {
        "type": Field(_FUNCTION, required=True),
        "function": Field(
            record({"name": Field(_not_empty(NAME), required=True)}, closed=True), required=True
        ),
    },
    closed=True,
)


def _check_choice(value: Any, name: str) -> Any:
    if type(value) is dict:
        return _CHOSEN.apply(value, name)
    if type(value) is not str or value not in _MODES:
        raise ValueError(f"{name} must be {', '.join(_MODES)}, or a map that names a function")
    return value


#: The keys of `chat` in generate.
CHAT_FIELDS = {
    "tools": Field(list_of(Check("tool", _TOOL.apply), 128)),
    "tool_choice": Field(
        Check("none, auto or required; or map that names a function", _check_choice)
    ),
    "parallel_tool_calls": Field(boolean),
    "chat_template_kwargs": Field(json_map(64)),
    "reasoning_effort": Field(_not_empty(text(64))),
}
_OPTIONS = record(CHAT_FIELDS, closed=True)
#: Where the parameters of a function are, below the options.
_ABOVE_PARAMETERS = 4


def _check_chat(value: Any, name: str) -> dict[str, Any]:
    # Of all tools together, before each by itself: 128 times the most values would take minutes.
    check_json(value, name, MAX_DEPTH + _ABOVE_PARAMETERS)
    found: dict[str, Any] = _OPTIONS.apply(value, name)
    return found


CHAT = Check("options", _check_chat)
