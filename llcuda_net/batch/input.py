"""The input: one JSON value per line, each a request with a key of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llcuda_net.errors import ConfigError

#: What a line may hold besides sampling parameters.
_OWN = ("prompt", "raw", "messages", "system", "id", "params")


@dataclass(frozen=True, slots=True)
class Line:
    """The request of one line of the input.

    Attributes:
        number: the line's, from 1.
        key: by number, content and parameters: the same for the same line of the same job, always.
        raw: text or token ids, to be continued as they are; or None, and
        messages: a chat.
        params: sampling parameters by llama-server's names.
        id: the line's own, copied to its result.
        problem: why it is no request; nothing is asked then.
    """

    number: int
    key: str
    raw: str | list[int] | None = None
    messages: list[dict[str, str]] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    id: Any = None
    problem: str = ""


def read(path: Path, params: dict[str, Any], job: str) -> Iterator[Line]:
    """The lines of a JSONL file that are not blank, in order.

    A line is a string (a prompt), or an object with one of `prompt` (a string for the chat
    template, or token ids), `raw` and `messages`; optionally `system` and `id`; `params`, or
    sampling parameters beside the others, take precedence over those of the command.

    Args:
        params: of the command, for all lines.
        job: makes the keys other than those of another job with the same input.

    Raises:
        ConfigError: the file cannot be read. A line that is wrong is a Line with a `problem`.
    """
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if data.strip():
                    yield _line(number, data.strip(), params, job)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None


def count(path: Path) -> int:
    """How many lines that are not blank the file has.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None


def _line(number: int, data: bytes, params: dict[str, Any], job: str) -> Line:
    context = json.dumps([job, number, params], sort_keys=True).encode()
    key = hashlib.sha256(context + b"\0" + data).hexdigest()[:48]
    try:
        found = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Line(number, key, problem="not UTF-8")
    except (ValueError, RecursionError):
        return Line(number, key, problem="not JSON")
    if isinstance(found, str):
        found = {"prompt": found}
    if not isinstance(found, dict):
        return Line(number, key, problem="neither a string nor an object")
    own = {name: found[name] for name in _OWN if found.get(name) is not None}
    more = own.get("params", {})
    if not isinstance(more, dict):
        return Line(number, key, problem="`params` must be an object", id=own.get("id"))
    merged = {**params, **{k: v for k, v in found.items() if k not in _OWN}, **more}
    try:
        raw, messages = _what(own)
    except ValueError as error:
        return Line(number, key, problem=str(error), id=own.get("id"))
    return Line(number, key, raw, messages, merged, own.get("id"))


def _what(own: dict[str, Any]) -> tuple[str | list[int] | None, list[dict[str, str]] | None]:
    """What to continue, or what to answer."""
    given = [name for name in ("prompt", "raw", "messages") if name in own]
    if len(given) != 1:
        raise ValueError("it must have exactly one of `prompt`, `raw` and `messages`")
    value = own[given[0]]
    if given[0] == "messages":
        good = isinstance(value, list) and all(
            isinstance(m, dict)
            and isinstance(m.get("role"), str)
            and isinstance(m.get("content"), str)
            for m in value
        )
        if not good or not value:
            raise ValueError("`messages` must be a list of objects with `role` and `content`")
        chat = [{"role": m["role"], "content": m["content"]} for m in value]
    elif isinstance(value, str) and value:
        if given[0] == "raw":
            return value, None
        chat = [{"role": "user", "content": value}]
    elif isinstance(value, list) and value and all(type(i) is int and i >= 0 for i in value):
        return value, None
    else:
        raise ValueError(f"`{given[0]}` must be text, or a list of token ids")
    system = own.get("system")
    if system is not None:
        if not isinstance(system, str):
            raise ValueError("`system` must be text")
        chat.insert(0, {"role": "system", "content": system})
    return None, chat
