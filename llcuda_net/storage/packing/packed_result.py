"""A result as columns, the same in every store; what lists show of it; and the hashes of both.

A whole result is checked by decoding, encoding and hashing it again: so its id, owner, model and
times are checked as its text is. What lists show has a hash of its own, the `seal`, so that a list
does not read what it does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.channels import text_pieces
from llcuda_net.storage.packing.codec import (
    Codec,
    FetchBody,
    Meta,
    StoreBody,
    beginning,
    digest,
    preview,
    seal,
    unpack_meta,
)
from llcuda_net.storage.records import DECODE_ERRORS, Result, encode
from llcuda_net.storage.results.interface import Summary

#: Bytes that a result takes besides its contents: columns, and entries in indices.
_ROW = 300
#: The types of a summary's columns.
_TYPES = (str, int, int, str, str, str, int, int, int, str)
#: Codes of errors that mean damage: what decodes may not encode.
_UNREADABLE = (StorageError.DAMAGED, StorageError.INVALID)
_fingerprint = msgspec.msgpack.Decoder(dict[str, Any])


@dataclass(frozen=True)
class PackedResult:
    """What a store keeps of a result, besides the columns that it has of its own.

    Attributes:
        shown: what lists show; its size is that of all columns, bodies included.
        text: the beginning of the text.
        meta, request, log, logprobs: packed; an integer is the body that is it.
    """

    shown: Summary
    text: str
    hash: bytes
    seal: bytes
    meta: bytes
    request: bytes | int
    log: bytes | int
    logprobs: bytes | int | None


def pack(
    result: Result, codec: Codec, store_body: StoreBody, size_of: Callable[[int], int]
) -> PackedResult:
    """The columns of a result.

    Args:
        store_body: keeps a body; called once per use.
        size_of: how many bytes a body takes that was given to `store_body`.

    Raises:
        StorageError: the result holds what cannot be stored.
    """
    size = _ROW

    def counted(raw: bytes) -> int:
        nonlocal size
        number = store_body(raw)
        size += size_of(number)
        return number

    meta = encode(Meta.of(result))
    request = codec.pack_request(result.request, counted)
    log = codec.pack_log(result.log, counted)
    logprobs = None
    if result.log.logprobs is not None:
        logprobs = codec.column(encode(result.log.logprobs), counted)
    size += len(meta)
    for column in (request, log, logprobs):
        if isinstance(column, bytes):
            size += len(column)
    shown, text = summary_of(result, size)
    whole, listed = digest(encode(result)), seal([*vars(shown).values(), text])
    return PackedResult(shown, text, whole, listed, meta, request, log, logprobs)


def unpack(row: Sequence[Any], name: str, codec: Codec, fetch: FetchBody) -> Result:
    """The result of its columns.

    Args:
        row: id, created, finished, state, owner, key, request_hash, cacheable, meta, request, log,
            logprobs, the model's fingerprint, hash.
        name: what the error calls it.

    Raises:
        ResultDamaged: it is not what was stored.
        StorageError: what `fetch` raises, other than damage.
    """
    try:
        found = _unpacked(row[:-1], codec, fetch)
        intact = digest(encode(found)) == row[-1]
    except (StorageError, *DECODE_ERRORS) as error:
        if isinstance(error, StorageError) and error.code not in _UNREADABLE:
            raise
        raise ResultDamaged(name, str(error.__cause__ or error)) from error
    if not intact:
        raise ResultDamaged(name, "its hash differs")
    return found


def _unpacked(row: Sequence[Any], codec: Codec, fetch: FetchBody) -> Result:
    (name, created, finished, state, owner, key, request_hash, cacheable) = row[:8]
    (meta_data, request, tokens, logprobs, fingerprint) = row[8:]
    meta = unpack_meta(meta_data)
    return Result(
        id=name,
        state=state,
        created=created,
        finished=finished,
        request=codec.unpack_request(request, fetch),
        log=codec.unpack_log(tokens, logprobs, fetch),
        model=_fingerprint.decode(fingerprint),
        key=key,
        request_hash=request_hash,
        owner=owner,
        cacheable=bool(cacheable),
        **{name: getattr(meta, name) for name in Meta.__struct_fields__},
    )


def sealed(row: Sequence[Any]) -> tuple[Summary, str] | None:
    """What a list shows, of the columns of a Summary, the text's beginning and the seal.

    None: they are not what was stored.
    """
    types = zip(row[:10], _TYPES, strict=True)
    if not isinstance(row[10], str) or not all(isinstance(one, kind) for one, kind in types):
        return None
    try:
        if seal(row[:11]) != row[11]:
            return None
    except StorageError:
        return None
    return Summary(*row[:10]), row[10]


def summary_of(found: Result, size: int) -> tuple[Summary, str]:
    """A result for a list, and the beginning of its text."""
    return Summary(
        found.id,
        found.created,
        found.finished,
        found.state,
        str(found.model.get("name", "")),
        found.owner,
        found.usage.get("completion_tokens", len(found.log.pieces)),
        found.usage.get("prompt_tokens", 0),
        size,
        preview(found.request),
    ), beginning(text_pieces(found.log.pieces, found.switches))
