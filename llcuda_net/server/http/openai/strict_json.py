"""A body as JSON: what two programs could read differently is refused.

That is: no UTF-8, a key twice in an object, NaN and numbers beyond the range of doubles, half of a
surrogate pair, and values so many or so deep that reading them is an attack (RFC 8259, sections 4,
6, 8 and 9). Integers of more than 64 bits are refused as well: they cannot be stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import trio

from llcuda_net.server.http.errors import HttpError

#: Levels of arrays and objects.
MAX_DEPTH = 128
#: Values in a body: as Python's objects they take many times their bytes.
MAX_VALUES = 1 << 19
#: Bytes of a body that are read at once. A larger one is read in a thread, where others' tokens
#: wait for single steps of it only; and one at a time, since it takes many times its bytes.
AT_ONCE = 128 << 10

#: So many digits an integer has at least that has more than 64 bits.
_LONG = 19
_READERS = trio.CapacityLimiter(1)
_T = TypeVar("_T")
#: An escape that begins a surrogate pair, or is the second half of one.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


async def read(body: bytes, make: Callable[[dict[str, Any]], _T]) -> _T:
    """What `make` makes of the object that a body is; it may run in a thread.

    Raises:
        HttpError: as `parse`, and as `make`.
    """
    if len(body) <= AT_ONCE:
        return make(parse(body))
    return await trio.to_thread.run_sync(lambda: make(parse(body)), limiter=_READERS)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is.

    Raises:
        HttpError: it is none, or not one that everybody reads alike.
    """
    if not body.strip():
        raise _refused("the body is empty; it must be a JSON object")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8 (byte {error.start})") from None
    _check_values(body)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        why = str(error).removeprefix("JSON is malformed: ").partition(" - at `$")[0]
        if "surrogate" in why or ("truncated" in why and _SURROGATE.search(body)):
            why = "it escapes half of a surrogate pair, which is no text"
        raise _refused(f"the body is not valid JSON: {why}") from None
    except RecursionError:
        raise _too_deep() from None
    if type(value) is not dict:
        raise _refused("the body must be a JSON object")
    _check_depth(value)
    # Numbers were read: to do it again can take long.
    json.loads(body, object_pairs_hook=_object, parse_int=_check_integer, parse_float=bool)
    return value


def _refused(message: str) -> HttpError:
    return HttpError(400, message, code="invalid_json")


def _too_deep() -> HttpError:
    return _refused(f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_values(body: bytes) -> None:
    """Refuse JSON of too many values, before they are made. What looks like many may be text."""
    if _markers(body, 0, len(body)) <= MAX_VALUES:
        return
    # Without escaped quotes a string ends with the next quote. A regular expression that knows of
    # escapes takes seconds for a large text full of them.
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    found = strings = at = 0
    while at < len(body):
        begin = body.find(b'"', at)
        if begin < 0:
            begin = len(body)
        found += _markers(body, at, begin)
        strings += 1
        if max(found, strings // 2 - 1) > MAX_VALUES:  # each value has at most a key
            raise _refused(f"the body holds more than {MAX_VALUES} values")
        at = body.find(b'"', begin + 1) + 1 or len(body)


def _markers(text: bytes, start: int, end: int) -> int:
    """How many values stand there at most, but for one."""
    return sum(text.count(mark, start, end) for mark in (b",", b"[", b"{"))


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in (dict, list)
        ]
        if not level:
            return
    raise _too_deep()


def _check_integer(digits: str) -> None:
    """Refuse an integer that cannot be stored; nothing is made of it."""
    if len(digits) >= _LONG and not -(1 << 63) <= int(digits) < 1 << 64:
        raise _refused(f"the body has the integer {digits[:24]}…: integers have at most 64 bits")


def _object(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object with a key twice; nothing is made of it."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _refused(f"the body has the key {key[:64]!r} twice in one object")
        seen.add(key)
