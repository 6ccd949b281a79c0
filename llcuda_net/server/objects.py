"""What clients keep (files, batches, conversations), for requests: or why nothing is kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog
import trio

from llcuda_net.errors import StorageError, Unsupported
from llcuda_net.generation.persistence import refused
from llcuda_net.storage.objects import batches, feed, files
from llcuda_net.storage.objects.interface import Database, ObjectStore

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: Bytes of a file that are written at once.
AT_ONCE = 4 * files.CHUNK
#: Seconds from one look at what has expired to the next, and between two steps of removing it.
_EVERY, _PAUSE = 60.0, 0.01


class KeptObjects:
    """Reads and changes what clients keep; its errors are those of requests.

    Args:
        objects: open by the time of the first request; None: nothing is kept.
    """

    def __init__(self, objects: ObjectStore | None) -> None:
        self._objects = objects
        self._woken = trio.Event()
        self._member = trio.Event()
        #: Called when the life has changed.
        self.on_life: Callable[[], None] = lambda: None
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<KeptObjects {self._objects!r}>"

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._objects is not None

    @property
    def shared(self) -> bool:
        """Whether other servers change it, too."""
        return self._objects is not None and self._objects.shared

    @property
    def life(self) -> int | None:
        """The life of this server as its cluster numbers it; None: it is no member now."""
        return None if self._objects is None else self._objects.life

    def set_life(self, life: int | None) -> None:
        """This server has begun a life in its cluster; or (None) it is no member any more."""
        if self._objects is not None and self._objects.shared:
            self._objects.life = life
            if life is not None:
                self._member.set()
                self._member = trio.Event()
            self.on_life()

    async def member(self) -> None:
        """Return when this server is a member of its cluster, or has none."""
        while self.keeps and self.life is None:
            await self._member.wait()

    async def read(self, question: Callable[[Database], _T]) -> _T:
        """What a function of the connection returns; see ObjectStore.read.

        Raises:
            RequestError: nothing is kept, or it cannot be read.
        """
        objects = self._open()
        with _refusing():
            return await objects.read(question)

    async def write(self, change: Callable[[Database], _T]) -> _T:
        """Run a function of the connection in a transaction; see ObjectStore.write.

        Raises:
            RequestError: nothing is kept, or it cannot be changed.
        """
        objects = self._open()
        with _refusing():
            return await objects.write(change)

    @contextlib.asynccontextmanager
    async def alone(self, id_: str) -> AsyncIterator[None]:
        """Between a look at an object and the change that follows from it, nobody else does so.

        Of another server that is true only while it answers; see ObjectStore.held.
        """
        lock = self._locks.get(id_)
        if lock is None:
            lock = self._locks[id_] = trio.Lock()
        async with lock:
            if self._objects is None:
                yield
            else:
                async with self._objects.held(id_):
                    yield

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
            if self.shared:
                await self._step(files.abandon)
                await self._step(feed.sweep)
            while more:
                more = await self._step(
                    lambda db: batches.sweep(db) | files.sweep(db, time.time_ns())
                )
                await trio.sleep(_PAUSE)
            with trio.move_on_after(_EVERY):
                await self._woken.wait()

    def wake(self) -> None:
        """Something was deleted: remove it soon."""
        self._woken.set()

    async def _step(self, change: Callable[[Database], _T]) -> _T | None:
        assert self._objects is not None
        try:
            return await self._objects.write(change)
        except StorageError as error:
            log.warning("objects_not_removed", code=error.code, reason=error.message)
            return None

    def _open(self) -> ObjectStore:
        if self._objects is None:
            raise Unsupported(
                "this server keeps nothing (--store none): files, batches and conversations need "
                "one with a --data-dir"
            )
        return self._objects


class _Writes(Protocol):
    async def write(self, change: Callable[[Database], _T]) -> _T: ...


class FileWriter:
    """Writes a file of which the contents come one after the other.

    Args:
        seq: the number of the file, which has begun.
        check: called before each write, in its transaction; may raise.

    Attributes:
        size: bytes so far.
    """

    def __init__(
        self, objects: _Writes, seq: int, check: Callable[[Database], None] | None = None
    ) -> None:
        self.seq = seq
        self.size = 0
        self._objects = objects
        self._check = check
        self._waiting = bytearray()
        self._written = 0  # chunks

    def __repr__(self) -> str:
        return f"<FileWriter {self.size} bytes>"

    async def add(self, data: bytes) -> None:
        """What comes next; it is written with what follows, or by `flush`.

        Raises:
            RequestError: it cannot be written.
        """
        self.size += len(data)
        self._waiting += data
        while len(self._waiting) >= AT_ONCE:
            await self._write(AT_ONCE)

    async def flush(self) -> None:
        """The file has its end.

        Raises:
            RequestError: it cannot be written.
        """
        if self._waiting:
            await self._write(len(self._waiting))

    async def _write(self, size: int) -> None:
        data = bytes(self._waiting[:size])
        chunks = [data[at : at + files.CHUNK] for at in range(0, size, files.CHUNK)]

        def append(db: Database) -> None:
            if self._check is not None:
                self._check(db)
            files.append(db, self.seq, self._written, chunks)

        await self._objects.write(append)
        del self._waiting[:size]
        self._written += len(chunks)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise refused(error) from None
