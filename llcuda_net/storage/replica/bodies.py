"""Records of a journal as one value: a batch in the database is a msgpack array of records."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llcuda_net.storage.records import DECODE_ERRORS, damaged

#: The beginning of a msgpack array; its length follows.
_ARRAY = b"\xdd"
_array: msgspec.msgpack.Decoder[list[msgspec.Raw]] = msgspec.msgpack.Decoder(list[msgspec.Raw])


class _Head(msgspec.Struct, array_like=True, gc=False):
    """What all records begin with."""

    kind: int
    slot: int = 0


_heads: msgspec.msgpack.Decoder[list[_Head]] = msgspec.msgpack.Decoder(list[_Head])


def joined(bodies: Sequence[bytes]) -> bytes:
    """Encoded records as one array."""
    return b"".join((_ARRAY, len(bodies).to_bytes(4, "big"), *bodies))


def parted(data: bytes) -> list[tuple[int, bytes]]:
    """The slot and the bytes of each record of an array.

    Raises:
        StorageError: it does not decode.
    """
    try:
        heads, bodies = _heads.decode(data), _array.decode(data)
    except DECODE_ERRORS as error:
        raise damaged("a batch of records", error) from error
    return [(head.slot, bytes(body)) for head, body in zip(heads, bodies, strict=True)]
