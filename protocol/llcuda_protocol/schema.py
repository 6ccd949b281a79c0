"""Checks of values that came off the wire: type, range and length, with errors that name the field.

A check takes a decoded value and the field's name, and returns the value or raises ValueError.
Booleans are never numbers, and numbers are finite. Each check describes in words what it allows:
SPEC.md's tables hold those words, and a test compares them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .kinds import MAX_HITS, MAX_SEQUENCE, MAX_TOKEN_ID

#: Deepest nesting of lists and maps in a parameter (a JSON schema is the deepest in practice).
MAX_DEPTH = 32
#: Most values, nested ones included, in a map of JSON values.
MAX_VALUES = 1 << 18


@dataclass(frozen=True, slots=True)
class Check:
    """A test of one value, and what it allows in words."""

    says: str
    apply: Callable[[Any, str], Any]

    def __call__(self, value: Any, name: str) -> Any:
        """The value, or ValueError naming the field."""
        return self.apply(value, name)


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a frame's map."""

    check: Check
    required: bool = False


def integer(low: int, high: int) -> Check:
    """A whole number from low to high."""

    def check(value: Any, name: str) -> int:
        if type(value) is not int:
            raise ValueError(f"{name} must be an integer, not {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, not {value}")
        return value

    return Check(f"integer {low} to {high}", check)


def integers(low: int, high: int) -> Check:
    """A list of whole numbers from low to high; fast, for long lists of token ids."""

    def check(value: Any, name: str) -> list[int]:
        if type(value) is not list:
            raise ValueError(f"{name} must be a list, not {type(value).__name__}")
        if value and (set(map(type, value)) != {int} or min(value) < low or max(value) > high):
            raise ValueError(f"{name} must hold integers from {low} to {high}")
        return value

    return Check(f"list of: integer {low} to {high}", check)


def number(low: float, high: float) -> Check:
    """A finite number from low to high."""

    def check(value: Any, name: str) -> float:
        if type(value) is not float and type(value) is not int:
            raise ValueError(f"{name} must be a number, not {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low:g} to {high:g}, not {value}")
        return value

    return Check(f"number {low:g} to {high:g}", check)


def text(longest: int | None = None) -> Check:
    """A string, of at most `longest` characters."""

    def check(value: Any, name: str) -> str:
        if not isinstance(value, str):  # an ErrorCode is one
            raise ValueError(f"{name} must be a string, not {type(value).__name__}")
        if longest is not None and len(value) > longest:
            raise ValueError(f"{name} is {len(value)} characters long; at most {longest} fit")
        return value

    return Check("string" if longest is None else f"string of at most {longest} characters", check)


def blob(longest: int) -> Check:
    """Binary data of at most `longest` bytes."""

    def check(value: Any, name: str) -> bytes:
        if type(value) is not bytes:
            raise ValueError(f"{name} must be binary, not {type(value).__name__}")
        if len(value) > longest:
            raise ValueError(f"{name} is {len(value)} bytes long; at most {longest} fit")
        return value

    return Check(f"binary of at most {longest} bytes", check)


def _boolean(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, not {type(value).__name__}")
    return value


#: True or false.
boolean = Check("boolean", _boolean)


def list_of(item: Check, most: int, least: int = 0) -> Check:
    """A list of `least` to `most` items."""

    def check(value: Any, name: str) -> list[Any]:
        if type(value) is not list:
            raise ValueError(f"{name} must be a list, not {type(value).__name__}")
        if not least <= len(value) <= most:
            raise ValueError(f"{name} must hold {least} to {most} items, not {len(value)}")
        entry_name = f"an item of {name}"
        return [item.apply(entry, entry_name) for entry in value]

    return Check(f"list of {least} to {most} of: {item.says}", check)


def record(fields: Mapping[str, Field], *, closed: bool = False) -> Check:
    """A map with known keys; nil is absent.

    Args:
        closed: refuse unknown keys, by name: to drop one would change what is asked for. Otherwise
            they are dropped, so that what is told can grow.
    """

    def check(value: Any, name: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError(f"{name} must be a map, not {type(value).__name__}")
        found = {}
        for key, spec in fields.items():
            entry = value.get(key)
            if entry is not None:
                found[key] = spec.check.apply(entry, f"{name}.{key}")
            elif spec.required:
                raise ValueError(f"{name} lacks {key!r}")
        if closed and len(value) != len(found):
            for key, entry in value.items():
                if entry is not None and key not in fields:
                    raise ValueError(unknown_key(key, name, fields))
        return found

    keys = "; ".join(
        f"`{key}`: {spec.check.says}" + (", required" if spec.required else "")
        for key, spec in fields.items()
    )
    return Check(f"map with {keys}", check)


def unknown_key(key: Any, name: str, known: Iterable[str]) -> str:
    """The message that there is no such key, with the nearest one that there is."""
    if type(key) is not str:
        return f"the keys of {name} must be strings"
    known = list(known)
    near: list[str] = []
    if len(key) <= 64:  # of a long one the nearest is not worth the time
        near = difflib.get_close_matches(key, known, n=1)
    short = key if len(key) <= 64 else key[:61] + "..."
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif 0 < len(known) <= 8:
        hint = f"it may have {', '.join(known)}"
    else:
        hint = "there is nothing like it" if known else "it has none"
    return f"unknown key {short!r} in {name}: {hint}"


def map_of(item: Check, most: int) -> Check:
    """A map of at most `most` entries with string keys."""

    def check(value: Any, name: str) -> dict[str, Any]:
        _check_map(value, name, most)
        return {key: item.apply(entry, f"{name}[{key!r}]") for key, entry in value.items()}

    return Check(f"map of at most {most} entries of: {item.says}", check)


def json_map(most: int) -> Check:
    """A map of at most `most` entries of JSON values: nil, boolean, finite number, string, list,
    map with string keys."""

    def check(value: Any, name: str) -> dict[str, Any]:
        _check_map(value, name, most)
        check_json(value, name)
        return value  # type: ignore[no-any-return]

    return Check(f"map of at most {most} entries of: any JSON value", check)


def check_json(value: Any, name: str, deepest: int = MAX_DEPTH) -> None:
    """Refuse what is no JSON value, deeper than `deepest` below the value, or too much."""
    count = 0
    pending: list[tuple[Any, int]] = [(value, -1)]
    while pending:
        entry, depth = pending.pop()
        if entry is None or type(entry) in (bool, int, str):
            continue
        if type(entry) is float:
            if not math.isfinite(entry):
                raise ValueError(f"{name} must hold finite numbers")
            continue
        if type(entry) is not list and type(entry) is not dict:
            raise ValueError(f"{name} holds {type(entry).__name__}, which is no JSON value")
        if depth >= deepest:
            raise ValueError(f"{name} is nested deeper than {deepest}")
        count += len(entry)
        if count > MAX_VALUES:
            raise ValueError(f"{name} holds more than {MAX_VALUES} values")
        if type(entry) is dict and not all(type(key) is str for key in entry):
            raise ValueError(f"the keys of {name} must be strings")
        inner = entry.values() if type(entry) is dict else entry
        pending += [(child, depth + 1) for child in inner]


def _check_map(value: Any, name: str, most: int) -> None:
    if type(value) is not dict:
        raise ValueError(f"{name} must be a map, not {type(value).__name__}")
    if len(value) > most:
        raise ValueError(f"{name} must hold at most {most} entries, not {len(value)}")
    if not all(type(key) is str for key in value):
        raise ValueError(f"the keys of {name} must be strings")


# -- values that several frames carry, by their meaning ---------------------------------------

WORD = text(64)
NAME = text(256)
LINE = text(1024)
BODY = text()
COUNT = integer(0, MAX_SEQUENCE)
SECONDS = number(0.0, 1e9)
#: A moment, in seconds since 1970.
WHEN = number(0.0, 1e12)
PARAMS = json_map(256)
TOKEN_IDS = integers(0, MAX_TOKEN_ID)
#: What proves that one knows the secret of a cluster: an HMAC with SHA-256.
PROOF = blob(32)
#: The greeting of a server to another one of its cluster.
PEER = record(
    {
        "server": Field(COUNT, required=True),
        "to": Field(COUNT, required=True),
        "user": Field(NAME),
        "nonce": Field(blob(64), required=True),
    }
)
#: What a server of a cluster asks another one to find for a search.
PART = record(
    {
        "space": Field(COUNT, required=True),
        "vector": Field(blob(1 << 19), required=True),
        "buckets": Field(blob(128), required=True),
        "owner": Field(NAME),
        "gone": Field(list_of(COUNT, 65_536)),
    },
    closed=True,
)
#: What that one has found.
FOUND = record(
    {
        "buckets": Field(blob(128), required=True),
        "numbers": Field(blob(8 * MAX_HITS), required=True),
        "scores": Field(blob(4 * MAX_HITS), required=True),
    }
)
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
