"""Results that are erased a while after their end: each is a file, in a folder of their own.

They are never in results.db. So nothing that lists, counts, indexes, analyses or exports results
meets them, and to erase one is to delete a file: SQLite would leave what it held in free pages, in
its write-ahead log, and in pages that it has rearranged.

A file's name says when it is due, so that a start and the eraser read names only:

    01764437400000000000.019ad0c2-….3f2a90….result

the time in nanoseconds since 1970, the id, and the hash of owner and key, if there is a key. The
file is a hash, and the result, compressed. It is written under another name first, so one that is
not whole is known by its name. An id, the time and a hash of a key are all that a name tells.

The time is the wall clock's, since it must be right over restarts and while a computer sleeps. A
clock that is set back delays nothing by more than the time that results are kept; one that is set
forward erases earlier.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import trio

from llcuda_net.errors import ResultDamaged, StorageError
from llcuda_net.storage.journal.disk import Files, has_no_room
from llcuda_net.storage.packing.codec import Codec, digest
from llcuda_net.storage.records import DECODE_ERRORS, HASH_SIZE, Result, encode

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
#: The ends of the names of whole files, and of those that are being written.
_WHOLE, _NEW = ".result", ".new"
_DIGITS = 20
#: Seconds after which a file that could not be deleted is tried again.
_AGAIN = 5.0
#: Threads that read at a time.
_READERS = 2
_decoder = msgspec.msgpack.Decoder(Result)


@dataclass(slots=True)
class _Kept:
    """A result in the folder: when it is due; its owner and key, where they are known by now.

    One that is `gone` was erased, but for its file, which could not be deleted yet.
    """

    due: int
    name: str
    key_hash: str = ""
    owner: str = ""
    key: str | None = None
    gone: bool = False


@dataclass(frozen=True)
class Erased:
    """A result that is gone: its id; its owner and idempotency key, as far as they were known."""

    id: str
    owner: str = ""
    key: str | None = None


@dataclass(eq=False, slots=True)
class _Waiter:
    result: Result
    done: bool = False
    error: StorageError | None = None


class TransientResults:
    """The results in one folder, which nobody else may write. Used on the trio thread.

    Args:
        folder: exists when `open` is called, and holds nothing else.
        files: the disk.
        seconds: for which a result is kept after its end.
        clock: the wall clock, in nanoseconds.
        check: called in a thread after results were written: raises StorageError if they would not
            be found again.
    """

    def __init__(
        self,
        folder: Path,
        files: Files,
        seconds: float,
        *,
        clock: Callable[[], int] = time.time_ns,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._files = files
        self._span = int(seconds * 1e9)
        self._clock = clock
        self._check = check
        self._kept: dict[str, _Kept] = {}
        self._order: list[tuple[int, str]] = []  # a heap; with some that are gone
        self._keys: dict[str, list[str]] = {}  # ids by the hash of a key
        self._earlier = trio.Event()
        self._waiting: list[_Waiter] = []
        self._writing = trio.Lock()
        self._reading = trio.CapacityLimiter(_READERS)
        self._erased: list[Erased] = []
        self._more_erased = trio.Event()

    def __repr__(self) -> str:
        return f"<TransientResults {self._folder}, {len(self._kept)} kept>"

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, id_: object) -> bool:
        """Whether a result is kept, and not due."""
        kept = self._kept.get(id_) if isinstance(id_, str) else None
        return kept is not None and not kept.gone and kept.due > self._clock()

    @property
    def ids(self) -> set[str]:
        """Of all that are kept, due or not."""
        return set(self._kept)

    # -- time ---------------------------------------------------------------------------------

    def due_at(self, finished: int) -> int:
        """When a result is due that ended then, in nanoseconds as the clock has them."""
        return min(finished, self._clock()) + self._span

    def is_due(self, finished: int) -> bool:
        """Whether a result that ended then need not be kept any more."""
        return self.due_at(finished) <= self._clock()

    def now(self) -> int:
        """What the clock says."""
        return self._clock()

    def next_due(self) -> float | None:
        """Seconds until the next one is due; None: there is none."""
        latest = self._clock() + self._span
        while self._order:
            due, id_ = self._order[0]
            kept = self._kept.get(id_)
            if kept is None or kept.due != due:
                heapq.heappop(self._order)
            elif due > latest:  # the clock was set back; so all the others are, too
                for one in self._kept.values():
                    one.due = latest
                self._order = [(latest, id_) for id_ in sorted(self._kept)]
            else:
                return (due - self._clock()) / 1e9
        return None

    def due(self, most: int) -> list[str]:
        """The ids of results that are due, the oldest first."""
        found: list[str] = []
        while len(found) < most and (left := self.next_due()) is not None and left <= 0:
            found.append(heapq.heappop(self._order)[1])
        return found

    async def wait_for_earlier(self) -> None:
        """Return when one was added that is due before all others."""
        await self._earlier.wait()
        self._earlier = trio.Event()

    # -- writing ------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find what is there, and delete what was not written to its end.

        Raises:
            StorageError: the folder cannot be read.
        """

        def names() -> list[str]:
            found = self._files.listdir(self._folder)
            for name in found:
                if name.endswith(_NEW):
                    self._files.unlink(self._folder / name)
            return found

        try:
            found = await trio.to_thread.run_sync(names)
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be read: {error}") from error
        for name in sorted(found):
            match name.removesuffix(_WHOLE).split("."):
                case [due, id_, key_hash] if name.endswith(_WHOLE) and due.isdigit():
                    self._add(id_, _Kept(int(due), name, key_hash))

    def _add(self, id_: str, kept: _Kept) -> None:
        self._kept[id_] = kept
        heapq.heappush(self._order, (kept.due, id_))
        if kept.key_hash:
            self._keys.setdefault(kept.key_hash, []).append(id_)
        if self._order[0][1] == id_:
            self._earlier.set()

    async def commit(self, result: Result) -> None:
        """Keep a result; it is on the disk when this returns. It cannot be cancelled.

        All that come while others are written share the next sync of the folder.

        Raises:
            StorageError: it is not kept.
        """
        waiter = _Waiter(result)
        self._waiting.append(waiter)
        with trio.CancelScope(shield=True):
            async with self._writing:
                if not waiter.done:
                    await self._write_waiting()
        if waiter.error is not None:
            # A copy: tasks must not write into each other's traceback.
            raise StorageError(waiter.error.message, waiter.error.code) from waiter.error

    async def _write_waiting(self) -> None:
        batch, self._waiting = self._waiting, []
        new: dict[str, tuple[Result, _Kept]] = {}
        for result in [waiter.result for waiter in batch]:
            if result.id not in self._kept:
                due = self.due_at(result.finished)
                key_hash = _hash_of_key(result.key, result.owner)
                name = f"{due:0{_DIGITS}d}.{result.id}.{key_hash}{_WHOLE}"
                kept = _Kept(due, name, key_hash, result.owner, result.key)
                new[result.id] = result, kept
        write = partial(self._write, [(result, kept.name) for result, kept in new.values()])
        error: StorageError | None = None
        try:
            if new:
                await trio.to_thread.run_sync(write)
        except StorageError as refusal:
            error = refusal
        else:
            for id_, (_, kept) in new.items():
                self._add(id_, kept)
        for waiter in batch:
            waiter.done, waiter.error = True, error

    def _write(self, results: Sequence[tuple[Result, str]]) -> None:
        """Write files; in a thread."""
        codec = Codec()
        written: list[Path] = []
        try:
            for result, name in results:
                data = codec.pack(encode(result))
                path = self._folder / (name + _NEW)
                written.append(path)
                self._create(path, digest(data) + data)
            for path in written:
                self._files.rename(path, path.with_suffix(""))
            self._files.fsync_dir(self._folder)
            self._check()
        except OSError as error:
            self._discard([*written, *(path.with_suffix("") for path in written)])
            raise _as_storage_error(error) from error

    def _create(self, path: Path, data: bytes) -> None:
        descriptor = self._files.create(path)
        try:
            done = 0
            while done < len(data):
                done += self._files.pwrite(descriptor, data[done:] if done else data, done)
            self._files.fdatasync(descriptor)
        finally:
            self._files.close(descriptor)

    def _discard(self, paths: Sequence[Path]) -> None:
        for path in paths:
            try:
                self._files.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                log.error("file_not_deleted", path=str(path), reason=str(error))

    # -- reading ------------------------------------------------------------------------------

    async def get(self, id_: str, owner: str | None, made: Callable[[Result], _T]) -> _T | None:
        """A result of an owner (None: of any), as `made` makes it; None: there is none.

        Args:
            made: called with the result, in the thread that read it.

        Raises:
            ResultDamaged: the file is not what was written.
            StorageError: it cannot be read.
        """
        if id_ not in self:
            return None
        kept = self._kept[id_]

        def read() -> tuple[Result, _T | None] | None:
            found = self._read(id_, kept.name)
            if found is None:
                return None
            return found, made(found) if owner in (None, found.owner) else None

        found = await trio.to_thread.run_sync(read, limiter=self._reading)
        if found is None or id_ not in self:  # it was erased meanwhile
            return None
        kept.owner, kept.key = found[0].owner, found[0].key
        return found[1]

    def _read(self, id_: str, name: str) -> Result | None:
        try:
            data = self._files.read(self._folder / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"the result {id_} cannot be read: {error}") from error
        if digest(data[HASH_SIZE:]) != data[:HASH_SIZE]:
            raise ResultDamaged(id_, "its hash differs")
        try:
            return _decoder.decode(Codec().unpack(data[HASH_SIZE:]))
        except (StorageError, *DECODE_ERRORS) as error:
            raise ResultDamaged(id_, str(error)) from error

    async def find_by_key(self, key: str, owner: str) -> Result | None:
        """The newest result with an idempotency key of this owner.

        Raises:
            StorageError: as `get`.
        """
        for id_ in reversed(self._keys.get(_hash_of_key(key, owner), [])):
            found = await self.get(id_, owner, lambda result: result)
            if found is not None and found.key == key:
                return found
        return None

    # -- erasing ------------------------------------------------------------------------------

    async def erase(self, ids: Sequence[str]) -> list[Erased]:
        """Delete results; they are gone from the folder when this returns, but for those whose
        files cannot be deleted now: these are due again soon, and nobody gets them meanwhile.
        """
        gone: list[tuple[str, _Kept]] = []
        erased: list[Erased] = []
        for id_ in ids:
            kept = self._kept.pop(id_, None)
            if kept is None:
                continue
            gone.append((id_, kept))
            if kept.gone:  # it is only its file that is left
                continue
            kept.gone = True
            erased.append(Erased(id_, kept.owner, kept.key))
            if kept.key_hash:
                same = self._keys[kept.key_hash]
                same.remove(id_)
                if not same:
                    del self._keys[kept.key_hash]
        if not gone:
            return []
        with trio.CancelScope(shield=True):
            left = await trio.to_thread.run_sync(self._unlink, [kept.name for _, kept in gone])
        for id_, kept in gone:
            if kept.name in left:
                kept.due = self._clock() + int(_AGAIN * 1e9)
                self._kept[id_] = kept
                heapq.heappush(self._order, (kept.due, id_))
        self._erased += erased
        self._more_erased.set()
        return erased

    def _unlink(self, names: Sequence[str]) -> set[str]:
        """Delete files; the names of those that are still there."""
        left = set()
        for name in names:
            try:
                self._files.unlink(self._folder / name)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.error("result_not_erased", name=name, reason=str(error))
                left.add(name)
        try:
            self._files.fsync_dir(self._folder)
        except OSError as error:  # they are gone, and what a power cut brings back is due
            log.error("folder_not_synced", path=str(self._folder), reason=str(error))
        return left

    async def erased(self) -> list[Erased]:
        """What was erased since the last call; waits until something was."""
        await self._more_erased.wait()
        self._more_erased = trio.Event()
        found, self._erased = self._erased, []
        return found


def _hash_of_key(key: str | None, owner: str) -> str:
    """What a name says of a key; empty where there is none."""
    return "" if key is None else digest(encode([owner, key]))[:8].hex()


def _as_storage_error(error: OSError) -> StorageError:
    if has_no_room(error):
        return StorageError(
            "there is no room for a result: free some disk space, or choose another --data-dir",
            StorageError.FULL,
        )
    return StorageError(
        f"a result cannot be written ({error.strerror or error}): check the disk, then restart "
        "llcuda-server",
        StorageError.FAILED,
    )
