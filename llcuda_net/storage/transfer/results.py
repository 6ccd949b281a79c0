"""Copies the results of one store into another, and reads each there to see that it is the same.

It needs no memory of how far it came: a result that the other store has is left as it is, by its
id. So what was interrupted is done again, and does only what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from llcuda_net.errors import StorageError
from llcuda_net.storage.records import Result, encode
from llcuda_net.storage.results.interface import Problem, Query, Store

#: Most results that are stored at once, and after how many bytes there are no more.
_BATCH, _BYTES = 128, 8 << 20


@dataclass
class Transferred:
    """What was done.

    Attributes:
        copied: results that the target did not have, or not whole.
        there: results that it had, and that are the same.
        problems: results that are damaged in the source, which are left out; and those of which the
            target has another one by that id, which is left as it is.
    """

    copied: int = 0
    there: int = 0
    problems: list[Problem] = field(default_factory=list)


def transfer(
    source: Store, target: Store, done: Callable[[int], None] = lambda _: None
) -> Transferred:
    """Copy all results, oldest first. Blocks.

    Args:
        target: may write.
        done: told of each batch that is stored and compared, by its size.

    Raises:
        StorageError: a store cannot be read, or not be written; what is copied stays.
    """
    out = Transferred()
    results = source.export(Query(limit=None), out.problems)
    for batch in _batches(results):
        there = target.states([result.id for result, _ in batch])
        new = [result for result, _ in batch if result.id not in there]
        if new:
            _put(target, new)
        for result, data in batch:
            _compare(target, result, data, out, known=result.id in there)
        done(len(batch))
    return out


def index(target: Store, done: Callable[[], None] = lambda: None) -> None:
    """Have search find what was copied.

    Raises:
        StorageError: the store cannot be read.
    """
    while target.update_index():
        done()


def _batches(results: Iterable[Result]) -> Iterator[list[tuple[Result, bytes]]]:
    """Each result with its bytes."""
    batch: list[tuple[Result, bytes]] = []
    size = 0
    for result in results:
        data = encode(result)
        batch.append((result, data))
        size += len(data)
        if len(batch) == _BATCH or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _put(target: Store, results: list[Result]) -> None:
    try:
        target.put(results)
    except StorageError as error:
        if error.code != StorageError.INVALID or len(results) == 1:
            raise
        for result in results:  # together they are too large
            target.put([result])
    target.checkpoint()


def _compare(target: Store, result: Result, data: bytes, out: Transferred, *, known: bool) -> None:
    """See that the target has the result as it is in the source."""
    try:
        found = target.get(result.id)
    except StorageError as error:
        if error.code != StorageError.DAMAGED or not known:
            raise
        _put(target, [result])  # in place of the damaged one
        found, known = target.get(result.id), False
    if found is None:
        out.problems.append(Problem(result.id, "was deleted there while it was copied"))
    elif encode(found) != data:
        out.problems.append(Problem(result.id, "is another one there, which was left as it is"))
    elif known:
        out.there += 1
    else:
        out.copied += 1
