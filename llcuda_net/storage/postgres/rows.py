"""Reads results from PostgreSQL, and checks each one against the hash that was stored with it.

One statement reads a result with its bodies: so it is of one moment, and a prune in between takes
nothing away from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.packing.codec import Codec
from llcuda_net.storage.packing.packed_result import sealed, unpack
from llcuda_net.storage.postgres.connection import Connection
from llcuda_net.storage.records import Result
from llcuda_net.storage.results.interface import DAMAGED, Summary

#: Bytes of a body's name: so many of its hash.
NAME = 16
#: The first byte of a column that is the name of a body, and no content.
REFERENCE = b"\x02"

_FROM = " FROM results r LEFT JOIN models m ON m.id = r.model "
_WHOLE = (
    "SELECT r.seq, r.size, r.id, r.created, r.finished, r.state, r.owner, r.key, r.request_hash,"
    " r.cacheable, r.meta, r.input, r.log, r.logprobs, m.fingerprint, r.hash, ARRAY("
    # One look into the index per body. As a join, it would be planned for a thousand of them.
    "SELECT (SELECT b.name || b.data FROM bodies b"
    " WHERE b.name = substring(r.bodies FROM 16 * i + 1 FOR 16))"
    " FROM generate_series(0, length(r.bodies) / 16 - 1) i)" + _FROM
)
_LISTED = (
    "SELECT r.seq, r.id, r.created, r.finished, r.state, m.name, r.owner, r.tokens,"
    " r.prompt_tokens, r.size, r.preview, r.beginning, r.seal" + _FROM
)


@dataclass(frozen=True)
class Found:
    """A result that was read.

    Attributes:
        size: as lists show it.
        result: None: it is damaged.
        error: how.
    """

    seq: int
    id: str
    size: int
    result: Result | None
    error: ResultDamaged | None

    def intact(self) -> Result:
        """The result.

        Raises:
            ResultDamaged: it is not what was stored.
        """
        if self.result is None:
            assert self.error is not None
            raise self.error
        return self.result


def whole(db: Connection, codec: Codec, clause: str, values: Sequence[Any]) -> list[Found]:
    """The results `r` of a clause, from WHERE on."""
    rows = db.execute(_WHOLE + clause, values, binary=True).fetchall()
    return [_found(row, codec) for row in rows]


def _found(row: Sequence[Any], codec: Codec) -> Found:
    seq, size, *columns, data = row
    bodies = {int.from_bytes(one[:NAME], "big"): one[NAME:] for one in data if one is not None}

    def fetch(name: int) -> bytes:
        try:
            return codec.unpack(bodies[name])
        except KeyError:
            raise StorageError("a body is not there", StorageError.DAMAGED) from None

    (id_, created, finished, state, owner, key, request_hash, cacheable, meta) = columns[:9]
    request, log, logprobs, fingerprint, hash_ = columns[9:]
    try:
        if fingerprint is None:
            raise ResultDamaged(id_, "its model is not there")
        key = None if key is None else key.decode()
        values = (
            *(id_, created, finished, state, owner, key, request_hash, cacheable, meta),
            *(_column(request), _column(log), _column(logprobs), fingerprint, hash_),
        )
        return Found(seq, id_, size, unpack(values, id_, codec, fetch), None)
    except UnicodeDecodeError as error:
        return Found(seq, id_, size, None, ResultDamaged(id_, str(error)))
    except ResultDamaged as error:
        return Found(seq, id_, size, None, error)


def _column(data: bytes | None) -> Any:
    """A column as the codec has it: a content, or the number of a body."""
    if data is not None and data[:1] == REFERENCE:
        return int.from_bytes(data[1:], "big")
    return data


def listed(
    db: Connection, clause: str, values: Sequence[Any]
) -> Iterator[tuple[int, Summary, str]]:
    """Results for a list: their numbers, and the beginnings of their texts.

    A damaged one has the state DAMAGED, and nothing but what may be its id and time.
    """
    for seq, *row in db.execute(_LISTED + clause, values, binary=True).fetchall():
        yield (seq, *_shown(row))


def _shown(row: list[Any]) -> tuple[Summary, str]:
    try:
        for number in (4, 9, 10):  # model, preview, beginning
            row[number] = None if row[number] is None else row[number].decode()
    except UnicodeDecodeError:
        row[10] = None
    intact = sealed(row)
    if intact is not None:
        return intact
    return Summary(row[0], max(0, row[1]), 0, DAMAGED, "", "", 0, 0, 0, ""), ""
