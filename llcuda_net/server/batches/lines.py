"""The input of a batch: JSONL; each line is a request, and all are checked before one is asked.

{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {…}}
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.openai import strict_json
from llcuda_net.storage.objects.batches import Line

#: Most lines of a batch, errors that are told of it, and characters of a custom_id.
MOST_LINES, MOST_ERRORS, MOST_ID = 50_000, 100, 512
#: Lines of a file, blank ones too: others' files wait while one is checked.
MOST_IN_FILE = 2 * MOST_LINES
_KEYS = ("custom_id", "method", "url", "body")
_BOM = b"\xef\xbb\xbf"


class Splitter:
    """The lines of a file that comes in parts.

    Args:
        most: bytes of a line.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()
        self._start = 0  # of the rest, in the file
        self._long = False

    def __repr__(self) -> str:
        return f"<Splitter at byte {self._start}>"

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that end in these bytes: where each starts, and it; None: it is too long."""
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            yield self._line(data[at:end])
            self._start += 1  # the line feed
            at = end + 1
        self._keep(data[at:])

    def close(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where no line feed ends it."""
        if self._rest or self._long:
            yield self._line(b"")

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if self._long or len(self._rest) > self._most:
            self._long = True
            self._start += len(self._rest)
            self._rest.clear()

    def _line(self, end: bytes) -> tuple[int, bytes | None]:
        self._keep(end)
        found = self._start, None if self._long else bytes(self._rest)
        self._start += len(self._rest)
        self._rest.clear()
        self._long = False
        return found


class Checker:
    """Checks the lines of one batch.

    Args:
        endpoint: that all of them must be for.
        most: bytes of a line.

    Attributes:
        lines: those that were found right since this was emptied last.
        total: all that were found right.
        errors: what is wrong, as a batch has it.
        over: nothing more need be read: it is wrong, and no more is told.
    """

    def __init__(self, endpoint: str, most: int) -> None:
        self.lines: list[Line] = []
        self.total = 0
        self.errors: list[dict[str, Any]] = []
        self.over = False
        self._endpoint = endpoint
        self._most = most
        self._splitter = Splitter(most)
        self._number = 0  # of the line in the file
        self._known: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<Checker {self.total} lines, {len(self.errors)} errors>"

    def feed(self, data: bytes) -> None:
        """The next bytes of the file."""
        for start, line in self._splitter.feed(data):
            self._check(start, line)
            if self.over:
                return

    def close(self) -> None:
        """The file is over."""
        for start, line in self._splitter.close():
            self._check(start, line)
        if not self.total and not self.errors:
            self._number = 0  # it is about no line
            self._wrong("empty_file", "the file has no request; each line is one")

    def _check(self, start: int, line: bytes | None) -> None:
        self._number += 1
        if self.over:
            return
        if self._number > MOST_IN_FILE:
            many = f"a file has at most {MOST_IN_FILE:,} lines, blank ones among them"
            self._wrong("too_many_lines", many)
            self.over = True
            return
        if line is None:
            self._wrong("invalid_json_line", f"the line has more than {self._most:,} bytes")
            return
        if self._number == 1 and line.startswith(_BOM):
            line = line.removeprefix(_BOM)
            start += len(_BOM)
        if not line.strip():
            return
        try:
            custom_id = self._custom_id(line)
        except HttpError as error:
            message = error.message.replace("the body", "the line", 1)
            code = "invalid_json_line" if error.code == "invalid_json" else error.code
            self._wrong(code or "invalid_request", message, error.param)
            return
        if self.total == MOST_LINES:
            self._wrong("too_many_lines", f"a batch has at most {MOST_LINES:,} requests")
            self.over = True
            return
        self.lines.append(Line(self.total, start, len(line), custom_id))
        self.total += 1

    def _custom_id(self, line: bytes) -> str:
        """The name of a request that is right.

        Raises:
            HttpError: it is not.
        """
        found = strict_json.parse(line)
        for name in _KEYS:
            if name not in found:
                raise _missing(f"{name} is missing", name)
        unknown = next((name for name in found if name not in _KEYS), None)
        if unknown is not None:
            known = ", ".join(_KEYS)
            raise _bad(f"there is no field {unknown[:60]!r}; a line has {known}", unknown[:60])
        custom_id, body = found["custom_id"], found["body"]
        if type(custom_id) is not str or not 1 <= len(custom_id) <= MOST_ID:
            raise _bad(f"custom_id must be a text of 1 to {MOST_ID} characters", "custom_id")
        if found["method"] != "POST":
            raise _bad("method must be POST", "method")
        if found["url"] != self._endpoint:
            raise HttpError(
                400,
                f"url must be the endpoint of the batch, {self._endpoint}",
                param="url",
                code="mismatched_endpoint",
            )
        if type(body) is not dict:
            raise _bad("body must be an object", "body")
        for name in ("stream", "background"):
            if body.get(name) not in (None, False):
                raise _bad(f"{name} is not for batches: leave it out", f"body.{name}")
        hash_ = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if hash_ in self._known:
            raise HttpError(
                400,
                f"custom_id {custom_id[:60]!r} was there before",
                param="custom_id",
                code="duplicate_custom_id",
            )
        self._known.add(hash_)
        return custom_id

    def _wrong(self, code: str, message: str, param: str | None = None) -> None:
        line = self._number or None
        self.errors.append({"code": code, "message": message, "param": param, "line": line})
        self.over = self.over or len(self.errors) >= MOST_ERRORS


class Request(msgspec.Struct):
    """What is asked of a line that was checked."""

    body: msgspec.Raw


def body_of(line: bytes) -> bytes:
    """The body of a line that was checked, as it came."""
    return bytes(msgspec.json.decode(line, type=Request).body)


def _missing(message: str, param: str) -> HttpError:
    return HttpError(400, message, param=param, code="missing_required_parameter")


def _bad(message: str, param: str) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_request")
