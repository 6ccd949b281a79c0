"""What clients keep (files, batches, conversations), for requests: or why nothing is kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import apsw
import structlog
import trio

from llcuda_net.errors import StorageError, Unsupported
from llcuda_net.generation.persistence import refused
from llcuda_net.storage.objects import files
from llcuda_net.storage.objects.database import Objects

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Seconds from one look at what has expired to the next, and between two steps of removing it.
_EVERY, _PAUSE = 60.0, 0.01


class KeptObjects:
    """Reads and changes objects.db; its errors are those of requests.

    Args:
        objects: open by the time of the first request; None: nothing is kept.
    """

    def __init__(self, objects: Objects | None) -> None:
        self._objects = objects
        self._woken = trio.Event()

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

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remove what was deleted or has expired, until cancelled.

        Started when what the last server left half done is out of the way.
        """
        if self._objects is None:
            task_status.started()
            return
        await self._step(files.abandon)
        task_status.started()
        while True:
            self._woken = trio.Event()
            more: bool | None = True
            while more:
                more = await self._step(lambda db: files.sweep(db, time.time_ns()))
                await trio.sleep(_PAUSE)
            with trio.move_on_after(_EVERY):
                await self._woken.wait()

    def wake(self) -> None:
        """Something was deleted: remove it soon."""
        self._woken.set()

    async def _step(self, change: Callable[[apsw.Connection], _T]) -> _T | None:
        assert self._objects is not None
        try:
            return await self._objects.write(change)
        except StorageError as error:
            log.warning("objects_not_removed", code=error.code, reason=error.message)
            return None

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
