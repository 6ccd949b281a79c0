"""What the no-op server answers by HTTP: as a llama-server, and by OpenAI's API.

Every token is a chunk of its own, of bytes that are the same for all: nothing is computed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import repeat
from typing import Any

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)
_LAST = b"0\r\n\r\n"
#: What llama-server and OpenAI-compatible servers say of themselves.
_ABOUT: dict[bytes, Any] = {
    b"/props": {
        "total_slots": 4096,
        "default_generation_settings": {"n_ctx": 1 << 20},
        "model_path": "none",
        "chat_template": "none",
        "build_info": "noop",
    },
    b"/health": {"status": "ok"},
    b"/apply-template": {"prompt": "nothing"},
    b"/v1/models": {"object": "list", "data": [{"id": "none", "object": "model"}]},
}


def _chunk(event: Any) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _delta(delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    kind = {"object": "chat.completion.chunk", "id": "noop", "created": 0, "model": "none"}
    return _chunk({"choices": [choice], **kind, **more})


_TOKEN = _chunk(
    {"index": 0, "content": " word", "tokens": [1], "stop": False, "id_slot": 0}
    | {"tokens_predicted": 1, "tokens_evaluated": 1}
)
_CHAT_TOKEN = _delta({"content": " word"})


class HttpSide:
    """One connection; `feed` gives the answers that what has come asks for.

    Attributes:
        closing: the connection ends with the answer that was given last.
    """

    def __init__(self) -> None:
        self.closing = False
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Iterator[bytes]]:
        """Take what came; each answer gives the bytes of one write after the other."""
        self._data += data
        found = []
        while (answer := self._next()) is not None:
            found.append(answer)
        return found

    def _next(self) -> Iterator[bytes] | None:
        """The answer to the next whole request; None where there is none."""
        end = self._data.find(_END)
        if end < 0:
            return None
        length = _LENGTH.search(self._data, 0, end)
        whole = end + len(_END) + (int(length[1]) if length else 0)
        if len(self._data) < whole:
            return None
        path = bytes(self._data[:end].split(b" ", 2)[1]).partition(b"?")[0]
        body = bytes(self._data[end + len(_END) : whole])
        del self._data[:whole]
        if path == b"/completion":
            self.closing = True
            return _completion(int(json.loads(body).get("n_predict", 16)))
        if path == b"/v1/chat/completions":
            self.closing = True
            asked = json.loads(body)
            return _chat(int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16))
        return iter([_short(path)])


def _completion(count: int) -> Iterator[bytes]:
    yield _STREAM
    yield from repeat(_TOKEN, count)
    last = {"index": 0, "content": "", "tokens": [], "stop": True, "stop_type": "limit"}
    counts = {"tokens_predicted": count, "tokens_evaluated": 1, "model": "none"}
    yield _chunk(last | counts) + _LAST


def _chat(count: int) -> Iterator[bytes]:
    yield _STREAM
    yield from repeat(_CHAT_TOKEN, count)
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    yield _delta({}, "length", usage=usage) + _chunk("[DONE]") + _LAST


def _short(path: bytes) -> bytes:
    status = "200 OK" if path in _ABOUT else "404 Not Found"
    body = json.dumps(_ABOUT.get(path, {"error": {"message": "no such path"}}))
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()
