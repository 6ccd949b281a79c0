"""Packs the parts of a result into columns: small ones inline, large ones as shared bodies.

A content is a tag byte and data: tag 0 for plain bytes, 1 for a zstd frame. A body is a large
content that is stored once, however many results hold it. A request is stored as a skeleton in
which references to bodies replace long prompts and messages, because each turn of a conversation
repeats all earlier ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import (
    DECODE_ERRORS,
    HASH_SIZE,
    Level,
    Logprobs,
    Result,
    Splice,
    Switch,
    TokenLog,
    damaged,
    encode,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Sizes in bytes from which a content is compressed, and from which it becomes a body.
COMPRESS, BODY = 512, 1024
#: No content is larger than this; a larger size means damage.
_MAX_CONTENT = 1 << 30
_LEVEL = 3
#: Bytes of a seal.
_SEAL = 16
#: The msgpack extension type of a reference to a body.
_REFERENCE = 1
#: The members of a request in which references replace long texts: images and tools are there, too.
_LONG = ("prompt", "messages", "chat")
#: Characters of a preview and of the beginning of a text.
_PREVIEW, _BEGINNING = 120, 200

_T = TypeVar("_T")
#: Stores the raw bytes of a body and returns its number, which has up to 128 bits.
StoreBody = Callable[[bytes], int]
#: Returns the raw bytes of a body.
FetchBody = Callable[[int], bytes]


class Meta(msgspec.Struct, array_like=True):
    """The fields of a result that no query uses."""

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
    switches: list[Switch] = []

    @classmethod
    def of(cls, result: Result) -> Meta:
        """The fields of a result."""
        return cls(*(getattr(result, name) for name in cls.__struct_fields__))


_meta = msgspec.msgpack.Decoder(Meta)
_log = msgspec.msgpack.Decoder(tuple[list[str], list[int | None]])
_logprobs: msgspec.msgpack.Decoder[Logprobs] = msgspec.msgpack.Decoder(Logprobs)
_any = msgspec.msgpack.Decoder()


class Codec:
    """Packs and unpacks contents; used by one thread at a time."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=_LEVEL)

    def pack(self, raw: bytes) -> bytes:
        """The content that holds these bytes."""
        if len(raw) >= COMPRESS:
            # So that the frame says its size, as `_decompressed` needs it.
            self._compressor.set_pledged_input_size(len(raw))
            compressed = self._compressor.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)
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
            if content[:1] != b"\x01":
                raise ValueError("no such content")
            return _decompressed(content[1:])
        except (zstd.ZstdError, ValueError, MemoryError) as error:
            raise damaged("a content", error) from error

    # -- writing ------------------------------------------------------------------------------

    def column(self, raw: bytes, store_body: StoreBody) -> bytes | int:
        """The column for these bytes: a content, or the number of a body."""
        return store_body(raw) if len(raw) >= BODY else self.pack(raw)

    def pack_request(self, request: dict[str, Any], store_body: StoreBody) -> bytes | int:
        """The column for a request."""
        out = dict(request)
        for key in _LONG:
            if key in out:
                out[key] = _replace_long(out[key], store_body)
        return self.column(encode(out), store_body)

    def pack_log(self, log: TokenLog, store_body: StoreBody) -> bytes | int:
        """The column for a log without its log-probabilities."""
        return self.column(encode((log.pieces, log.ids)), store_body)

    # -- reading ------------------------------------------------------------------------------

    def raw(self, column: bytes | int, fetch: FetchBody) -> bytes:
        """The bytes of a column."""
        return fetch(column) if isinstance(column, int) else self.unpack(column)

    def unpack_request(self, column: bytes | int, fetch: FetchBody) -> dict[str, Any]:
        """The request of a column; like the methods below, raises StorageError on damage."""
        found = _decoded(_any.decode, self.raw(column, fetch))
        if not isinstance(found, dict):
            raise StorageError("a request is no map", StorageError.DAMAGED)
        for key in _LONG:
            if key in found:
                found[key] = _put_back(found[key], fetch)
        return found

    def unpack_log(
        self, column: bytes | int, logprobs: bytes | int | None, fetch: FetchBody
    ) -> TokenLog:
        """The log of two columns, with its log-probabilities."""
        pieces, ids = _decoded(_log.decode, self.raw(column, fetch))
        found = None
        if logprobs is not None:
            found = self.unpack_logprobs(logprobs, fetch)
        return TokenLog(pieces, ids, found)

    def unpack_logprobs(self, column: bytes | int, fetch: FetchBody) -> Logprobs:
        """The log-probabilities alone."""
        return _decoded(_logprobs.decode, self.raw(column, fetch))

    def references(self, request: bytes | int, fetch: FetchBody) -> list[int]:
        """The bodies of a request's column: the skeleton itself, and those it refers to."""
        out = [request] if isinstance(request, int) else []
        found = _decoded(_any.decode, self.raw(request, fetch))
        if isinstance(found, dict):

            def note(number: int) -> bytes:
                out.append(number)
                return b""

            _put_back([found.get(key) for key in _LONG], note)
        return out


def _decompressed(frame: bytes) -> bytes:
    """The bytes of one frame, which says how many they are.

    Raises:
        zstd.ZstdError, ValueError, MemoryError: it is damaged.
    """
    size = zstd.get_frame_info(frame).decompressed_size
    if size is None or size > _MAX_CONTENT:
        raise ValueError("no such content")
    decompressor = zstd.ZstdDecompressor()
    raw = decompressor.decompress(frame, max_length=size + 1)
    if len(raw) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError("the frame is not whole")
    return raw


def unpack_meta(data: bytes) -> Meta:
    """Decode a Meta."""
    return _decoded(_meta.decode, data)


def digest(raw: bytes) -> bytes:
    """The hash that identifies a body."""
    return blake2b(raw, digest_size=HASH_SIZE).digest()


def seal(columns: Sequence[Any]) -> bytes:
    """The hash of what lists show of a result: the columns of a Summary, and the text's beginning.

    Raises:
        StorageError: the columns cannot be hashed.
    """
    return blake2b(encode(list(columns)), digest_size=_SEAL).digest()


def prompt_text(request: dict[str, Any]) -> str:
    """The text of a prompt, or of all messages."""
    prompt = request.get("prompt")
    if isinstance(prompt, str):
        return prompt
    messages = request.get("messages")
    if not isinstance(messages, list):
        return ""
    texts = [content_text(message.get("content")) for message in messages if _is_map(message)]
    return "\n\n".join(text for text in texts if text)


def question(request: dict[str, Any]) -> str:
    """The prompt or the last message; empty if that is not text."""
    messages = request.get("messages")
    if isinstance(messages, list) and messages and _is_map(messages[-1]):
        return content_text(messages[-1].get("content"))
    return prompt if isinstance(prompt := request.get("prompt"), str) else ""


def preview(request: dict[str, Any]) -> str:
    """The first words of the prompt, or of the last message, on one line."""
    prompt = request.get("prompt")
    messages = request.get("messages")
    if isinstance(messages, list) and messages and _is_map(messages[-1]):
        prompt = content_text(messages[-1].get("content"))
    if isinstance(prompt, list):
        return f"[{len(prompt)} token ids]"
    if not isinstance(prompt, str):
        return ""
    return _on_one_line(prompt, _PREVIEW)


def content_text(content: Any) -> str:
    """The text of a message's content, which may consist of parts; empty where it has none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if _is_map(part)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


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


def _replace_long(value: Any, store_body: StoreBody) -> Any:
    if isinstance(value, str):
        if len(value) * 4 >= BODY and len(raw := value.encode()) >= BODY:
            number = store_body(raw)
            size = 8 if number < 1 << 64 else 16  # a row's number, or a part of a hash
            return msgspec.msgpack.Ext(_REFERENCE, number.to_bytes(size, "big"))
    elif isinstance(value, dict):
        return {key: _replace_long(inner, store_body) for key, inner in value.items()}
    elif isinstance(value, list) and not (value and isinstance(value[0], int)):
        return [_replace_long(inner, store_body) for inner in value]
    return value


def _put_back(value: Any, fetch: FetchBody) -> Any:
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
