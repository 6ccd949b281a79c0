"""Reads a journal after its writer ended: the open generations with their logs.

Bad bytes before a mark (see marks) are damage, which is reported, and what follows them is used.
Behind the last mark they are a torn tail, in which a power cut may leave holes: nothing after the
first one is used. A journal without marks is an earlier version's: only its last segment may have a
torn tail, and each ends at its first bad byte.

Segments are read one after the other, each record once, and its tokens are packed at once. Only
where bad bytes come is all that follows searched for marks first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from llcuda_net.errors import NewerFormat, StorageError
from llcuda_net.storage.journal import format as framing
from llcuda_net.storage.journal.assembly import Collector, OpenGeneration
from llcuda_net.storage.journal.disk import Files
from llcuda_net.storage.journal.marks import Marks, note
from llcuda_net.storage.journal.reserve import Reserve
from llcuda_net.storage.records import LAST_KIND, Synced, decode, encode, later_kind
from llcuda_net.util.version import package_version

_SUFFIX = ".journal"
#: What is added to the name of a segment that is damaged: it is kept, and not read any more.
DAMAGED = ".damaged"
#: Which results, of these with the `reached` of each, the store has lost.
FindLost = Callable[[dict[str, int]], set[str]]
#: Told how much of the journal has been read, from 0 to 1.
Progress = Callable[[float], None]
#: The second byte of a mark: its kind.
_SYNCED = encode(Synced())[1:2]


@dataclass
class Recovered:
    """The contents of a journal folder.

    Attributes:
        generations: the open ones, oldest first.
        segments: the files that were read, by number.
        next_segment: a number that no segment has had.
        next_slot: a slot that no generation has had.
        problems: one line per damage; a torn tail is no damage.
        damaged: numbers of the segments that are damaged.
        stored: results that the store had, the last ones; with Forgotten.reached of each.
        lost: those of them that the store has no more. If the journal still has their records,
            they are among `generations`.
    """

    generations: list[OpenGeneration] = field(default_factory=list)
    segments: dict[int, Path] = field(default_factory=dict)
    next_segment: int = 1
    next_slot: int = 1
    problems: list[str] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    stored: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


def segment_path(folder: Path, number: int) -> Path:
    """The file of a segment."""
    return folder / f"{number:010d}{_SUFFIX}"


def read(
    folder: Path,
    files: Files,
    find_lost: FindLost | None = None,
    progress: Progress = lambda _: None,
    store: Collection[str] = (),
) -> Recovered:
    """Read every segment of a folder.

    Args:
        find_lost: asks the store; None: what it once had, it has.
        store: its names; it is not asked for what another one has. Empty: not known.

    Raises:
        NewerFormat: a segment is of a later format, or has records of a later kind.
        StorageError: a file cannot be read.
    """
    found = Recovered()
    numbers = [0]
    try:
        for name in files.listdir(folder):
            stem = name.removesuffix(DAMAGED).removesuffix(_SUFFIX)
            if name != stem and stem.isdigit():
                numbers.append(int(stem))
                if name.endswith(_SUFFIX):
                    found.segments[int(stem)] = folder / name
        found.segments = dict(sorted(found.segments.items()))
        reserve = Reserve(folder, files).read()
        reader = _Reader(found, files, Marks(folder, files).read(), reserve, progress, store)
        collected = reader.read()
        found.stored = collected.stored
        if find_lost is not None and (lost := find_lost(found.stored)):
            found.lost = lost
            found.problems.clear()  # it is told again
            collected = reader.read(lost)
    except OSError as error:
        raise StorageError(f"the journal in {folder} cannot be read: {error}") from error
    found.next_segment = max(*numbers, *reader.ends, 0) + 1
    found.next_slot = max(found.next_slot, collected.highest + 1)
    found.generations = collected.generations()
    if collected.orphans and found.damaged:
        found.problems.append(
            f"of {collected.orphans} generations there are records but not the request: they are "
            "lost"
        )
    return found


@dataclass
class _Segment:
    """A segment that was read.

    Attributes:
        end: up to where; None: it ended for a reason that is known.
    """

    path: Path
    size: int
    problems: list[str] = field(default_factory=list)
    end: int | None = None


class _Reader:
    """Reads all segments, as often as it is asked.

    Attributes:
        ends: of each segment, how many bytes are known to have been on the disk.
    """

    def __init__(
        self,
        found: Recovered,
        files: Files,
        ends: dict[int, int],
        reserve: list[bytes],
        progress: Progress,
        store: Collection[str],
    ) -> None:
        self.ends = ends
        self._store = store
        self._found = found
        self._files = files
        self._last = max(found.segments, default=0)
        self._missing = [number for number in ends if number not in found.segments]
        self._reserve = reserve
        self._progress = progress
        self._searched = False  # for marks, all that follows

    def read(self, lost: Collection[str] = ()) -> Collector:
        """Collect the records of all segments, and say what is damaged.

        Args:
            lost: see Collector.

        Raises:
            OSError: a file cannot be read.
            StorageError: a segment is of an unknown version.
        """
        collector = Collector(lost, self.ends, self._store)
        segments = {
            number: self._segment(number, path, collector)
            for number, path in self._found.segments.items()
        }
        for number in self._missing:
            self._found.problems.append(
                f"{segment_path(Path(), number)} is gone: it was there when the last server ended"
            )
        for number, segment in segments.items():
            problems = segment.problems
            synced, end, size = self._synced(number, segment.size), segment.end, segment.size
            if end is not None and end < synced:
                problems.append(
                    f"it ends after {end:,} bytes, and {synced:,} had been on the disk"
                    if end == size
                    else f"nothing can be read after byte {end:,} of {size:,}"
                )
            if problems:
                self._found.damaged.add(number)
                self._found.problems += [f"{segment.path.name}: {one}" for one in problems]
        for body in self._reserve:
            with contextlib.suppress(StorageError):
                collector.add([body])
        return collector

    def _segment(self, number: int, path: Path, collector: Collector) -> _Segment:
        data = self._files.read(path)
        out = _Segment(path, len(data))
        of_header: list[str] = []
        seed = self._seed(data, of_header)
        if of_header:
            self._search(number)
            if self._synced(number, len(data)):  # if not, the power failed while it was started
                out.problems += of_header
        end = min(len(data), framing.HEADER_SIZE)
        if seed is not None:
            before = sum(one < number for one in self._found.segments)
            for start, end, bodies in framing.runs(data, seed):
                self._progress((before + end / len(data)) / len(self._found.segments))
                if bodies is not None:
                    _add(collector, bodies, start, out.problems)
                    continue
                self._search(number)
                synced = self._synced(number, len(data))
                if start >= synced:
                    return out  # a torn tail
                out.problems.append(f"bytes {start:,} to {end:,} of {len(data):,} are damaged")
                if end > synced or not self.ends:
                    return out
        out.end = end
        return out

    def _seed(self, data: bytes, problems: list[str]) -> int | None:
        try:
            header = framing.Header.decode(data)
        except StorageError as error:
            if error.code != StorageError.DAMAGED:
                raise
            problems.append(str(error))
            return framing.seed_of(data)
        self._found.next_slot = max(self._found.next_slot, header.slot)
        return header.seed

    def _synced(self, number: int, size: int) -> int:
        # Without any mark: by whether a later segment was begun.
        if not self.ends and number != self._last:
            return size
        return self.ends.get(number, 0)

    def _search(self, first: int) -> None:
        """Note the marks in this segment and all that follow it; those before are read."""
        if self._searched:
            return
        self._searched = True
        for number, path in self._found.segments.items():
            data = b"" if number < first else self._files.read(path)
            seed = self._seed(data, [])
            if seed is None:
                continue
            for _, _, bodies in framing.runs(data, seed):
                for body in bodies or ():
                    if body[1:2] == _SYNCED:
                        with contextlib.suppress(StorageError):
                            mark = decode(body)
                            if isinstance(mark, Synced):
                                note(mark, self.ends)


def _add(collector: Collector, bodies: list[bytes], start: int, problems: list[str]) -> None:
    try:
        collector.add(bodies)
    except StorageError:
        for body in bodies:
            start += framing.FRAME_SIZE + len(body)
            try:
                collector.add([body])
            except StorageError as error:
                if (kind := later_kind(body)) is not None:
                    raise NewerFormat(
                        "the journal", f"{kind} of records", LAST_KIND, ours=package_version()
                    ) from error
                problems.append(f"before byte {start}: {error}")
