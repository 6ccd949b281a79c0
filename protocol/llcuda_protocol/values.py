"""Checks of values that several frames carry, by their meaning."""

from __future__ import annotations

from typing import Any

from .kinds import MAX_SEQUENCE, MAX_TOKEN_ID
from .schema import Check, Field, integer, integers, json_map, number, record, text

WORD = text(64)
NAME = text(256)
LINE = text(1024)
BODY = text()
COUNT = integer(0, MAX_SEQUENCE)
SECONDS = number(0.0, 1e9)
#: A moment, in seconds since 1970.
WHEN = number(0.0, 1e12)
PARAMS = json_map(256)
MESSAGE = record({"role": Field(WORD, required=True), "content": Field(BODY, required=True)})
TOKEN_IDS = integers(0, MAX_TOKEN_ID)
#: A result that a search found.
HIT = record(
    {
        "id": Field(WORD, required=True),
        "score": Field(number(-1.0, 1.0), required=True),
        "created": Field(WHEN, required=True),
        "state": Field(WORD),
        "owner": Field(NAME),
        "model": Field(LINE),
        "tokens": Field(COUNT),
        "preview": Field(LINE),
        "text": Field(LINE),
    }
)
#: A generation in a listing.
ENTRY = record(
    {
        "id": Field(WORD, required=True),
        "state": Field(WORD, required=True),
        "created": Field(WHEN, required=True),
        "owner": Field(NAME),
        "model": Field(LINE),
        "tokens": Field(COUNT),
        "position": Field(COUNT),
        "preview": Field(LINE),
        "text": Field(LINE),
    }
)


def _check_prompt(value: Any, name: str) -> str | list[int]:
    if type(value) is list:
        ids: list[int] = TOKEN_IDS(value, name)
        return ids
    if type(value) is str:
        return value
    raise ValueError(f"{name} must be a string or a list of token ids, not {type(value).__name__}")


PROMPT = Check(f"string, or {TOKEN_IDS.says}", _check_prompt)
