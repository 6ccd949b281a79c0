"""Checks of values that came off the wire: type, range and length, with errors that name the field.

A check takes a decoded value and the field's name, and returns the value or raises ValueError.
Booleans are never numbers, and numbers are finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any, str], Any]

#: Deepest nesting of lists and maps in a parameter (a JSON schema is the deepest in practice).
MAX_DEPTH = 32


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

    return check


def number(low: float, high: float) -> Check:
    """A finite number from low to high."""

    def check(value: Any, name: str) -> float:
        if type(value) is not float and type(value) is not int:
            raise ValueError(f"{name} must be a number, not {type(value).__name__}")
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name} must be {low} to {high}, not {value}")
        return value

    return check


def text(longest: int) -> Check:
    """A string of at most `longest` characters."""

    def check(value: Any, name: str) -> str:
        if type(value) is not str:
            raise ValueError(f"{name} must be a string, not {type(value).__name__}")
        if len(value) > longest:
            raise ValueError(f"{name} is {len(value)} characters long; at most {longest} fit")
        return value

    return check


def blob(longest: int) -> Check:
    """Binary data of at most `longest` bytes."""

    def check(value: Any, name: str) -> bytes:
        if type(value) is not bytes:
            raise ValueError(f"{name} must be binary, not {type(value).__name__}")
        if len(value) > longest:
            raise ValueError(f"{name} is {len(value)} bytes long; at most {longest} fit")
        return value

    return check


def boolean(value: Any, name: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, not {type(value).__name__}")
    return value


def list_of(item: Check, most: int, least: int = 0) -> Check:
    """A list of `least` to `most` items."""

    def check(value: Any, name: str) -> list[Any]:
        if type(value) is not list:
            raise ValueError(f"{name} must be a list, not {type(value).__name__}")
        if not least <= len(value) <= most:
            raise ValueError(f"{name} must hold {least} to {most} items, not {len(value)}")
        return [item(entry, f"{name}[{i}]") for i, entry in enumerate(value)]

    return check


def record(fields: Mapping[str, Field]) -> Check:
    """A map with known keys; unknown keys are dropped, so that a frame can grow."""

    def check(value: Any, name: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError(f"{name} must be a map, not {type(value).__name__}")
        found = {}
        for key, spec in fields.items():
            entry = value.get(key)
            if entry is not None:
                found[key] = spec.check(entry, f"{name}.{key}" if name else key)
            elif spec.required:
                raise ValueError(f"{name} lacks {key!r}")
        return found

    return check


def map_of(item: Check, most: int) -> Check:
    """A map of at most `most` entries with string keys."""

    def check(value: Any, name: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError(f"{name} must be a map, not {type(value).__name__}")
        if len(value) > most:
            raise ValueError(f"{name} must hold at most {most} entries, not {len(value)}")
        for key in value:
            if type(key) is not str:
                raise ValueError(f"the keys of {name} must be strings")
        return {key: item(entry, f"{name}.{key}") for key, entry in value.items()}

    return check


def json_value(value: Any, name: str, depth: int = 0) -> Any:
    """Anything that JSON can say: nil, bool, finite number, string, list, map with string keys."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite")
        return value
    if depth >= MAX_DEPTH:
        raise ValueError(f"{name} is nested deeper than {MAX_DEPTH}")
    if type(value) is list:
        for entry in value:
            json_value(entry, name, depth + 1)
        return value
    if type(value) is dict:
        for key, entry in value.items():
            if type(key) is not str:
                raise ValueError(f"the keys of {name} must be strings")
            json_value(entry, name, depth + 1)
        return value
    raise ValueError(f"{name} holds {type(value).__name__}, which JSON cannot say")
