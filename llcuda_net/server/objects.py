"""What clients keep (files, batches, conversations), for requests: or why nothing is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import apsw

from llcuda_net.errors import StorageError, Unsupported
from llcuda_net.generation.persistence import refused
from llcuda_net.storage.objects.database import Objects

_T = TypeVar("_T")


class KeptObjects:
    """Reads and changes objects.db; its errors are those of requests.

    Args:
        objects: open by the time of the first request; None: nothing is kept.
    """

    def __init__(self, objects: Objects | None) -> None:
        self._objects = objects

    def __repr__(self) -> str:
        return f"<KeptObjects {self._objects!r}>"

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._objects is not None

    async def read(self, question: Callable[[apsw.Connection], _T]) -> _T:
        """What a function of the connection returns; see Objects.read.

        Raises:
            RequestError: nothing is kept, or it cannot be read.
        """
        objects = self._open()
        with _refusing():
            return await objects.read(question)

    async def write(self, change: Callable[[apsw.Connection], _T]) -> _T:
        """Run a function of the connection in a transaction; see Objects.write.

        Raises:
            RequestError: nothing is kept, or it cannot be changed.
        """
        objects = self._open()
        with _refusing():
            return await objects.write(change)

    def _open(self) -> Objects:
        if self._objects is None:
            raise Unsupported(
                "this server keeps nothing (--store none): files, batches and conversations need "
                "one with a --data-dir"
            )
        return self._objects


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise refused(error) from None
