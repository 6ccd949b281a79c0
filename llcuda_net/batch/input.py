"""The input: one JSON value per line, each a request with a key of its own."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llcuda_net.errors import ConfigError
from llcuda_net.util.text_files import BOM, check_encoding

#: Bytes of an input that is copied, at a time.
_BLOCK = 1 << 20
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


class Input:
    """The lines of a JSONL file that are not blank, as often as they are wanted.

    A pipe, a FIFO or a device gives its bytes only once: they are copied into a temporary file,
    which has no name. So the length is known, and a large input needs no memory. Making one waits
    for whoever writes the pipe.

    A line is a string (a prompt), or an object with one of `prompt` (a string for the chat
    template, or token ids), `raw` and `messages`; optionally `system` and `id`; `params`, or
    sampling parameters beside the others, take precedence over those of the command.

    Args:
        path: the file; "-" for standard input.

    Attributes:
        name: for messages.
        count: how many lines are not blank.
        last: the number of the last of those; 0 without any.
        repeated: of the lines read, how many have the `id` of an earlier one.
        first_repeated: numbers of the first such line and of the earlier one.

    Raises:
        ConfigError: it cannot be read, or cannot be copied, or is UTF-16.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = "standard input" if str(path) == "-" else str(path)
        self.count = self.last = self.repeated = 0
        self.first_repeated: tuple[int, int] | None = None
        self._ids: dict[bytes, int] = {}  # first line of each id
        try:
            self._file = _opened(path)
        except OSError as error:
            raise ConfigError(f"cannot read {self.name}: {error.strerror or error}") from None
        try:
            check_encoding(self._file.read(len(BOM)), self.name)
            for number, _ in self._lines():
                self.count, self.last = self.count + 1, number
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "open"
        return f"<Input {self.name} {state}, {self.count} lines up to {self.last}>"

    def read(self, params: dict[str, Any], job: str) -> Iterator[Line]:
        """The lines in order; one that is wrong is a Line with a `problem`.

        Args:
            params: of the command, for all lines.
            job: makes the keys other than those of another job with the same input.

        Raises:
            ConfigError: it cannot be read.
        """
        for number, data in self._lines():
            line = _line(number, data, params, job)
            self._note_id(line)
            yield line

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            self._file.seek(0)
            for number, data in enumerate(self._file, 1):
                # Also of later lines: files that begin with it may have been put together.
                data = data.removeprefix(BOM).strip()
                if data:
                    yield number, data
        except OSError as error:
            raise ConfigError(f"cannot read {self.name}: {error.strerror or error}") from None

    def _note_id(self, line: Line) -> None:
        if line.id is None:
            return
        text = json.dumps(line.id, sort_keys=True).encode()
        first = self._ids.setdefault(hashlib.blake2b(text, digest_size=12).digest(), line.number)
        if first < line.number:
            self.repeated += 1
            self.first_repeated = self.first_repeated or (line.number, first)


def _opened(path: str | Path) -> IO[bytes]:
    """The file, or a copy of what cannot be read twice.

    Raises:
        OSError: the file cannot be read.
        ConfigError: there is no room for the copy.
    """
    if str(path) == "-":
        source: IO[bytes] = os.fdopen(os.dup(0), "rb")
    else:
        source = Path(path).open("rb")  # noqa: SIM115
        if stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            return source
    with source:
        copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            while data := source.read(_BLOCK):
                try:
                    copy.write(data)
                    copy.flush()
                except OSError as error:
                    raise ConfigError(
                        f"no room for a copy of the input in {tempfile.gettempdir()}"
                        f" ({error.strerror or error}): give the input as a file, or set TMPDIR"
                    ) from None
        except BaseException:
            with suppress(OSError):  # it writes what is left, and there is no room for it
                copy.close()
            raise
    return copy


def _line(number: int, data: bytes, params: dict[str, Any], job: str) -> Line:
    context = json.dumps([job, number, params], sort_keys=True).encode()
    key = hashlib.sha256(context + b"\0" + data).hexdigest()[:48]
    try:
        found = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Line(number, key, problem="not UTF-8")
    except json.JSONDecodeError as error:
        return Line(number, key, problem=f"not JSON: {error.msg} at character {error.pos + 1}")
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
