"""How a result's parts become columns: small ones as they are, large ones as bodies, each once.

A content is bytes that begin with a tag: 0 for what follows as it is, 1 for a zstd frame. A request
is stored as a skeleton, in which every long prompt or message is replaced by the body that it is:
each turn of a conversation repeats all earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
import zstandard

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import (
    DECODE_ERRORS,
    HASH_SIZE,
    Level,
    Logprobs,
    Result,
    Splice,
    TokenLog,
    damaged,
    encode,
)

#: Bytes from which a content is compressed, and from which it becomes a body.
COMPRESS, BODY = 512, 1024
#: More than any content has; a larger size is damage.
_MAX_CONTENT = 1 << 30
_LEVEL = 3
#: The msgpack extension that stands for a body in a skeleton.
_REFERENCE = 1
#: Characters of a preview, and of the beginning of a text.
_PREVIEW, _BEGINNING = 120, 200

_T = TypeVar("_T")
#: Stores a body's raw bytes, and gives its number.
Keep = Callable[[bytes], int]
#: Gives a body's raw bytes.
Fetch = Callable[[int], bytes]


class Meta(msgspec.Struct, array_like=True):
    """What of a result is only shown: no query asks for it."""

    reason: str
    stop: str | None
    error: dict[str, Any] | None
    usage: dict[str, int]
    timings: dict[str, float]
    upstream: str
    seed: int | None
    splices: list[Splice]
    level: Level
    on_disconnect: str | float | None
    cached_from: str | None

    @classmethod
    def of(cls, result: Result) -> Meta:
        """A result's."""
        return cls(*(getattr(result, name) for name in cls.__struct_fields__))


_meta = msgspec.msgpack.Decoder(Meta)
_log = msgspec.msgpack.Decoder(tuple[list[str], list[int | None]])
_logprobs: msgspec.msgpack.Decoder[Logprobs] = msgspec.msgpack.Decoder(Logprobs)
_any = msgspec.msgpack.Decoder()


class Codec:
    """Packs and unpacks contents; for one thread at a time."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def pack(self, raw: bytes) -> bytes:
        """A content of these bytes."""
        if len(raw) >= COMPRESS:
            compressed = self._compress(raw)
            if len(compressed) < len(raw):
                return b"\x01" + compressed
        return b"\x00" + raw

    def unpack(self, content: bytes) -> bytes:
        """The bytes of a content.

        Raises:
            StorageError: it is damaged.
        """
        if content[:1] == b"\x00":
            return content[1:]
        try:
            if content[:1] != b"\x01" or zstandard.frame_content_size(content[1:]) > _MAX_CONTENT:
                raise ValueError("no such content")
            return self._decompress(content[1:])
        except (zstandard.ZstdError, ValueError, MemoryError) as error:
            raise damaged("a content", error) from error

    # -- writing ------------------------------------------------------------------------------

    def column(self, raw: bytes, keep: Keep) -> bytes | int:
        """What a column holds of these bytes."""
        return keep(raw) if len(raw) >= BODY else self.pack(raw)

    def pack_request(self, request: dict[str, Any], keep: Keep) -> bytes | int:
        """What the column holds of a request."""
        out = dict(request)
        for key in ("prompt", "messages"):
            if key in out:
                out[key] = _replace_long(out[key], keep)
        return self.column(encode(out), keep)

    def pack_log(self, log: TokenLog, keep: Keep) -> bytes | int:
        """What the column holds of a log, log-probabilities apart."""
        return self.column(encode((log.pieces, log.ids)), keep)

    # -- reading ------------------------------------------------------------------------------

    def raw(self, column: bytes | int, fetch: Fetch) -> bytes:
        """The bytes that a column stands for."""
        return fetch(column) if isinstance(column, int) else self.unpack(column)

    def unpack_request(self, column: bytes | int, fetch: Fetch) -> dict[str, Any]:
        """A request; raises StorageError where it is damaged, as all that follow."""
        found = _decoded(_any.decode, self.raw(column, fetch))
        if not isinstance(found, dict):
            raise StorageError("a request is no map", StorageError.DAMAGED)
        for key in ("prompt", "messages"):
            if key in found:
                found[key] = _put_back(found[key], fetch)
        return found

    def unpack_log(
        self, column: bytes | int, logprobs: bytes | int | None, fetch: Fetch
    ) -> TokenLog:
        """A log with its log-probabilities."""
        pieces, ids = _decoded(_log.decode, self.raw(column, fetch))
        found = None
        if logprobs is not None:
            found = self.unpack_logprobs(logprobs, fetch)
        return TokenLog(pieces, ids, found)

    def unpack_logprobs(self, column: bytes | int, fetch: Fetch) -> Logprobs:
        """The log-probabilities of a log, alone."""
        return _decoded(_logprobs.decode, self.raw(column, fetch))

    def references(self, request: bytes | int, fetch: Fetch) -> list[int]:
        """The bodies that a request's column needs: itself, and those within the skeleton."""
        out = [request] if isinstance(request, int) else []
        found = _decoded(_any.decode, self.raw(request, fetch))
        if isinstance(found, dict):

            def note(number: int) -> bytes:
                out.append(number)
                return b""

            _put_back([found.get("prompt"), found.get("messages")], note)
        return out


def unpack_meta(data: bytes) -> Meta:
    """Decode a Meta."""
    return _decoded(_meta.decode, data)


def digest(raw: bytes) -> bytes:
    """The hash that a body is known by."""
    return blake2b(raw, digest_size=HASH_SIZE).digest()


def prompt_text(request: dict[str, Any]) -> str:
    """All text of a prompt or of messages."""
    prompt = request.get("prompt")
    if isinstance(prompt, str):
        return prompt
    messages = request.get("messages")
    if not isinstance(messages, list):
        return ""
    texts = [message.get("content") for message in messages if isinstance(message, dict)]
    return "\n\n".join(text for text in texts if isinstance(text, str))


def question(request: dict[str, Any]) -> str:
    """What is asked: the prompt, or the last message; empty where that is no text."""
    messages = request.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        return text if isinstance(text := messages[-1].get("content"), str) else ""
    return prompt if isinstance(prompt := request.get("prompt"), str) else ""


def preview(request: dict[str, Any]) -> str:
    """The first words of the prompt, or of the last message, on one line."""
    prompt = request.get("prompt")
    messages = request.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        prompt = messages[-1].get("content")
    if isinstance(prompt, list):
        return f"[{len(prompt)} token ids]"
    if not isinstance(prompt, str):
        return ""
    return _on_one_line(prompt, _PREVIEW)


def beginning(pieces: Iterable[str]) -> str:
    """The first words of a text in pieces, on one line."""
    text, left = [], 4 * _BEGINNING
    for piece in pieces:
        text.append(piece)
        left -= len(piece)
        if left <= 0:
            break
    return _on_one_line("".join(text), _BEGINNING)


def _on_one_line(text: str, longest: int) -> str:
    return " ".join(text[: 4 * longest].split())[:longest]


def _replace_long(value: Any, keep: Keep) -> Any:
    if isinstance(value, str):
        if len(value) * 4 >= BODY and len(raw := value.encode()) >= BODY:
            return msgspec.msgpack.Ext(_REFERENCE, keep(raw).to_bytes(8, "big"))
    elif isinstance(value, dict):
        return {key: _replace_long(inner, keep) for key, inner in value.items()}
    elif isinstance(value, list) and not (value and isinstance(value[0], int)):
        return [_replace_long(inner, keep) for inner in value]
    return value


def _put_back(value: Any, fetch: Fetch) -> Any:
    if isinstance(value, msgspec.msgpack.Ext):
        try:
            return fetch(int.from_bytes(value.data, "big")).decode()
        except UnicodeDecodeError as error:
            raise damaged("a text", error) from error
    if isinstance(value, dict):
        return {key: _put_back(inner, fetch) for key, inner in value.items()}
    if isinstance(value, list) and not (value and isinstance(value[0], int)):
        return [_put_back(inner, fetch) for inner in value]
    return value


def _decoded(decode: Callable[[bytes], _T], raw: bytes) -> _T:
    try:
        return decode(raw)
    except DECODE_ERRORS as error:
        raise damaged("a content", error) from error
